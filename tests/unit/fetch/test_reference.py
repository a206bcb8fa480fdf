# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import RktError, UsageError
from rkt.fetch.reference import DOCKER, FILE, NAME, URL, parse_reference, signature_url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        ("/abs/x.aci", FILE, "/abs/x.aci"),
        ("file:///abs/x%20y.aci", FILE, "/abs/x y.aci"),
        ("file:/abs/x.aci", FILE, "/abs/x.aci"),
        ("FILE:///abs/x.aci", FILE, "/abs/x.aci"),
        ("./here.aci", FILE, "{cwd}/here.aci"),
        ("../up.aci", FILE, "{parent}/up.aci"),
        ("sub/x.aci", FILE, "{cwd}/sub/x.aci"),
        ("exists:odd.aci", NAME, ""),
        ("http://example.com/x.aci", URL, "http://example.com/x.aci"),
        ("https://example.com/x.aci?token=a.b#c", URL, "https://example.com/x.aci?token=a.b#c"),
        ("docker://busybox", DOCKER, "busybox"),
        ("docker:busybox:1", DOCKER, "busybox:1"),
        ("example.com/app", NAME, ""),
        ("example.com/app:1.0", NAME, ""),
        ("example.com/app:1.0,os=linux", NAME, ""),
        ("some-image:v1", NAME, ""),
        ("1and1.example/app:v1", NAME, ""),
        ("etcd", NAME, ""),
        ("/usr/libexec/rkt/stage1.aci", FILE, "/usr/libexec/rkt/stage1.aci"),
        ("example.com/stage1:1.2.3", NAME, ""),
        ("./another/obviously/relative/path.aci", FILE, "{cwd}/another/obviously/relative/path.aci"),
        ("example.com/stage1,version=1.2.3,foo=bar", NAME, ""),
        ("cimd:appc:v=0:coreos.com%2Fetcd?os=linux&version=v3", NAME, ""),
        ("cimd:aci-archive:v=0:https%3A%2F%2Fexample.com%2Fa.aci", URL, "https://example.com/a.aci"),
        ("cimd:docker:v=0:busybox:1", DOCKER, "busybox:1"),
    ],
)
def test_kinds(text: str, kind: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """References are told apart in the order of the specification."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exists:odd.aci").touch()
    parsed = parse_reference(text)
    cwd = os.getcwd()
    assert (parsed.kind, parsed.location) == (
        kind,
        location.format(cwd=cwd, parent=os.path.dirname(cwd)),
    )
    assert (parsed.name is not None) == (kind == NAME)


@pytest.mark.parametrize(
    "text",
    [
        "/abs/x.tar",
        "./x.tar",
        "there.tar",
        "file:///x.tgz",
        "https://example.com/x.tar",
        "https://example.com/?x.aci",
        "https://example.com/x#.aci",
    ],
)
def test_other_extensions_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a file or URL but does not end by .aci is an invalid image string."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.tar").touch()
    with pytest.raises(UsageError, match="invalid image string"):
        parse_reference(text)


@pytest.mark.parametrize(
    "text",
    ["", "UPPER/case", "a:1:2", "file://otherhost/x.aci", "file:x.aci", "-rf", "a b", "example.com/x,os"],
)
def test_nonsense_is_refused(text: str) -> None:
    """What is none of the kinds is an error with words."""
    with pytest.raises(RktError) as caught:
        parse_reference(text)
    assert caught.value.message


def test_signature_url() -> None:
    """The extension goes behind the path, not behind the query."""
    assert signature_url("https://a/x.aci") == "https://a/x.aci.asc"
    assert signature_url("https://a/x.aci?q=1&r=2#f") == "https://a/x.aci.asc?q=1&r=2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cimd:", "malformed distribution uri"),
        ("cimd:appc:v=0:", "malformed distribution uri"),
        ("cimd:appc:v=0:a,os=linux", "malformed distribution uri"),
        ("cimd:appc:v=1:a", "malformed distribution version"),
        ("cimd:oci:v=0:a", "unknown distribution type"),
        ("cimd:aci-archive:v=0:https%3A%2F%2Fexample.com%2Fa.tar", "invalid image string"),
    ],
)
def test_malformed_internal_forms(text: str, message: str) -> None:
    """The internal form is refused with rkt's words."""
    with pytest.raises(UsageError, match=message):
        parse_reference(text)


def test_the_internal_form_of_a_name_has_its_labels() -> None:
    """Labels are decoded, once."""
    name = parse_reference("cimd:appc:v=0:coreos.com%2Fetcd?os=linux&version=v3%2B1").name
    assert name is not None
    assert str(name) == "coreos.com/etcd:v3+1,os=linux"
