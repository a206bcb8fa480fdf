# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fnmatch
import os
import re
import runpy
from types import SimpleNamespace

import pytest

from rkt.linux import seccomp_profiles
from rkt.schema import isolators


def test_every_wildcard_of_the_schema() -> None:
    """Each wildcard that a manifest may hold stands for some calls."""
    for name in isolators.SECCOMP_WILDCARDS - {isolators.SECCOMP_ALL, isolators.SECCOMP_EMPTY}:
        assert seccomp_profiles.wildcard(name)


def test_unknown_wildcard() -> None:
    """An unknown wildcard is refused and not ignored."""
    with pytest.raises(ValueError, match="unknown seccomp wildcard @x/y"):
        seccomp_profiles.expand(["read", "@x/y"])


def test_narrow() -> None:
    """An image's retain set keeps only what the default filter allows."""
    assert seccomp_profiles.narrow(["read", "mount", "bpf", "@systemd/mount", "personality"]) == [
        "chroot",
        "personality",
        "read",
    ]


def test_blacklist_is_not_allowed() -> None:
    """The black lists and the default filter have no call in common."""
    assert not set(seccomp_profiles.wildcard("@rkt/default-blacklist")) & set(
        seccomp_profiles.default_names()
    )


def _document() -> str:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    with open(os.path.join(root, "docs", "devel", "confinement.md"), encoding="utf-8") as file:
        return file.read()


def test_document_names_every_group() -> None:
    """People can read about each group of calls, allowed and refused."""
    text = _document()
    for title in (*seccomp_profiles.ALLOWED, *seccomp_profiles.REFUSED):
        assert title in text, title


def test_document_tells_the_truth() -> None:
    """Each call that the document calls refused is refused, and nothing that it calls allowed is."""
    refused = set(seccomp_profiles.words(seccomp_profiles.REFUSED.values()))
    tables = _document().split("| refused group |")[1].split("\n\n")[0]
    named = [
        word
        for row in tables.splitlines()[2:]
        for quoted in re.findall(r"`([^`]+)`", row.split("|")[1] + row.split("|")[2])
        for word in quoted.split()
    ]
    assert len(named) > 20
    for word in named:
        assert word in refused or any(fnmatch.fnmatch(name, word) for name in refused), word


@pytest.mark.parametrize(("machine", "argument"), [("s390x", 1), ("x86_64", 0), ("aarch64", 0)])
def test_flags_of_clone(machine: str, argument: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant RN16: new namespaces are refused by the argument of clone(2) that is the flags on this machine."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    profiles = runpy.run_path(seccomp_profiles.__file__)
    found = {comparisons[0][0] for name, _, comparisons in profiles["EXCEPTIONS"] if name == "clone"}
    assert found == {argument}
