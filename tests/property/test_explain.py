# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkt.cli.explain_text import render
from rkt.config.settings import InsecureOptions, Installation, Settings
from rkt.linux import capabilities
from rkt.pod.manifest import build_pod_manifest
from rkt.pod.request import AppRequest, MountRequest, PodRequest
from rkt.pod.risk import is_sensitive
from rkt.schema.appc import App, ImageManifest
from rkt.stage0.explain.document import explain
from rkt.stage0.explain.sources import FLAG
from rkt.stage0.explain.subject import Subject
from rkt.trust.verdict import KIND_INSECURE, KIND_OPENPGP, Verdict
from rkt.values import ACIdentifier

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

SETTINGS = Settings(
    installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
    insecure=InsecureOptions(),
)
#: Those that rkt could pass on here.
CAPABILITIES = capabilities.names(capabilities.full_mask() & ~capabilities.missing(capabilities.full_mask()))
SOURCES = ("/", "/etc", "/etc/ssl", "/home", "/home/ada", "/nowhere/at/all", "/var/run/docker.sock", "/var")
#: What a pod can be given on top, one word each.
GIFTS = sorted(
    [
        *CAPABILITIES,
        *(f"read {source}" for source in SOURCES),
        *(f"write {source}" for source in SOURCES),
        *("capabilities", "paths", "seccomp", "image"),
        *("calls", "root", "privileges", "oom", "net", "ipc", "sysctl", "environment", "device", "handler"),
    ]
)
ROOT = tempfile.gettempdir()


class Stored:
    """An image of the store, as far as the manifest needs it."""

    image_id = "sha512-" + "0123456789abcdef" * 8


def explained(gifts: AbstractSet[str], *, private: bool = False, argument: str = "x") -> dict[str, Any]:
    """What a pod with these gifts could reach, by the manifest that its flags make."""
    kept = [name for name in CAPABILITIES if name in gifts]
    handlers = {"pre-start": ["/bin/true"]} if "handler" in gifts else {}
    image = ImageManifest(
        name=ACIdentifier("example.com/given"),
        labels={"os": "linux", "arch": "amd64"},
        app=App(exec=["/app", argument], user="1000", group="1000", event_handlers=handlers),
    )
    mounts, volumes = [], []
    for number, gift in enumerate(sorted(gift for gift in gifts if " " in gift)):
        verb, source = gift.split(" ")
        volumes.append(
            f"v{number},kind=host,source={source},readOnly={'true' if verb == 'read' else 'false'}"
        )
        mounts.append(MountRequest(volume=f"v{number}", target=f"/v{number}"))
    if "device" in gifts:
        volumes.append("d,kind=device,source=/dev/fuse,access=rw")
        mounts.append(MountRequest(volume="d", target="/dev/fuse"))
    flags = AppRequest(
        reference="given",
        caps_retain=kept or None,
        user="0" if "root" in gifts else None,
        no_new_privileges=False if "privileges" in gifts else None,
        seccomp="mode=retain,@rkt/default-whitelist,mount" if "calls" in gifts else None,
        oom_score_adj=-5 if "oom" in gifts else None,
        mounts=mounts,
    )
    request = PodRequest(
        apps=[flags], volumes=volumes, sysctls=["net.core.somaxconn=1"] if "sysctl" in gifts else []
    )
    kind = KIND_INSECURE if "image" in gifts else KIND_OPENPGP
    verdict = Verdict(kind=kind, name=image.name, rule="root", checked_at=1)
    subject = Subject(
        manifest=build_pod_manifest(request, [(flags, Stored(), image)], uid=0, gid=0),
        images=[image],
        layers=[[ROOT]],
        verdicts=[("given", image.name, verdict, False)],
        insecure=[word for word in ("capabilities", "image", "paths", "seccomp") if word in gifts],
        networks=["host" if "net" in gifts else "none"],
        ipc="parent" if "ipc" in gifts else "",
        private_users=private,
        operator=FLAG,
        inherits_environment="environment" in gifts,
    )
    return explain(subject, SETTINGS)


@given(st.frozensets(st.sampled_from(GIFTS), max_size=6), st.sampled_from(GIFTS), st.booleans())
def test_what_is_given_on_top_never_lowers_the_score(gifts: frozenset[str], more: str, private: bool) -> None:
    """Whatever a pod is given already, one more gift makes the sum no smaller, with a user namespace or without."""
    before = explained(gifts, private=private)["risk"]["score"]
    assert explained(gifts | {more}, private=private)["risk"]["score"] >= before


@given(st.frozensets(st.sampled_from(GIFTS), max_size=6))
def test_the_score_is_the_sum_of_what_is_listed(gifts: frozenset[str]) -> None:
    """The score is the points of the findings, each has a remedy, and a user namespace never raises it."""
    found = explained(gifts)
    assert found["risk"]["score"] == sum(finding["points"] for finding in found["findings"])
    assert all(finding["remedy"] and finding["text"] for finding in found["findings"])
    assert explained(gifts, private=True)["risk"]["score"] <= found["risk"]["score"]


@given(
    st.frozensets(st.sampled_from(GIFTS), max_size=6),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    st.integers(40, 200),
)
def test_the_text_fits_and_is_harmless(gifts: frozenset[str], argument: str, width: int) -> None:
    """No character of an image's that a terminal acts on; a line is longer than the terminal only for one long word."""
    text = render(explained(gifts, argument=argument), width)
    lines = text.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(len(line) <= width or len(line.split()[-1]) > width - 20 for line in lines)


@pytest.mark.parametrize(
    ("path", "sensitive"),
    [
        ("/", True),
        ("/etc", True),
        ("/etc/ssl/private", True),
        ("/etcetera", False),
        ("/var", True),
        ("/var/lib", True),
        ("/var/lib/docker/volumes", True),
        ("/var/lib/site", False),
        ("/home", True),
        ("/home/ada/site", False),
        ("/srv/data", False),
        ("/srv/somewhere/docker.sock", True),
        ("/data/rkt/pods", True),
        ("/data", True),
    ],
)
def test_sensitive_paths(path: str, sensitive: bool) -> None:
    """By path component: what is listed, what is below it, and what is above it; rkt's own data too."""
    assert is_sensitive(path, "/data/rkt") is sensitive
