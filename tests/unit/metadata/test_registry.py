# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from rkt.metadata.registry import Registration, Registry, answers, is_token, token_digest

if TYPE_CHECKING:
    from pathlib import Path

UUID = "6733c088-a507-4694-aabf-bf80d7f1f9f4"
IMAGE_ID = f"sha512-{'0' * 128}"
POD = json.dumps(
    {
        "acKind": "PodManifest",
        "acVersion": "0.8.11",
        "apps": [
            {
                "name": "web",
                "image": {"id": IMAGE_ID},
                "annotations": [{"name": "both", "value": "of the operator"}],
            },
            {"name": "late", "image": {"id": IMAGE_ID}},
        ],
        "annotations": [{"name": "ip-address", "value": "10.1.2.3"}],
    }
)
IMAGE = json.dumps(
    {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "example.com/web",
        "annotations": [
            {"name": "both", "value": "of the image"},
            {"name": "coreos.com/rkt/stage1/run", "value": "/run"},
        ],
    }
)


def registration() -> Registration:
    """A pod with one app that is known and one that is not yet."""
    return Registration(uuid=UUID, token=token_digest("ab" * 32), manifest=POD, apps={"web": IMAGE})


def test_annotations_of_the_pod_manifest_count_before_the_images() -> None:
    """M1: an app finds each annotation of its image by name, or what the operator has put over it; manifests come as they are."""
    found = answers(registration())
    assert found["pod/uuid"] == ("text", UUID)
    assert found["pod/manifest"] == ("json", POD)
    assert found["pod/annotations/ip-address"] == ("text", "10.1.2.3")
    assert found["apps/web/image/manifest"] == ("json", IMAGE)
    assert found["apps/web/image/id"] == ("text", IMAGE_ID)
    assert found["apps/web/annotations/both"] == ("text", "of the operator")
    assert found["apps/web/annotations/coreos.com/rkt/stage1/run"] == ("text", "/run")
    assert json.loads(found["apps/web/annotations"][1]) == [
        {"name": "both", "value": "of the operator"},
        {"name": "coreos.com/rkt/stage1/run", "value": "/run"},
    ]
    assert not [path for path in found if "late" in path]


def test_what_was_registered_is_read_again(tmp_path: Path) -> None:
    """Key and registrations are the same for the next process; what is damaged or half written is passed over with a word."""
    first = Registry(os.fspath(tmp_path))
    first.put(registration().replace(addresses=["10.0.0.1"]))
    directory = tmp_path / "metadata" / "pods"
    (directory / f".{UUID}.1.2").write_text("{")
    other = UUID.replace("6", "7")
    (directory / other).write_text('{"version":2}')
    said: list[str] = []
    second = Registry(os.fspath(tmp_path))
    second.load(said.append)
    assert second.key() == first.key()
    assert list(second.known.values()) == [registration().replace(addresses=["10.0.0.1"])]
    assert second.addresses() == {"10.0.0.1"}
    assert len(said) == 1
    assert other in said[0]
    assert sorted(os.listdir(directory)) == sorted([UUID, other])
    second.remove(UUID)
    assert os.listdir(directory) == [other]
    assert {path.stat().st_mode & 0o777 for path in (directory, tmp_path / "metadata")} == {0o700}


def test_tokens_have_128_bits() -> None:
    """The specification asks for that at least."""
    assert is_token("0123456789abcdef" * 2)
    assert not any(
        is_token(text) for text in ("", "0" * 31, "g" * 32, "0" * 300, "\N{FULLWIDTH DIGIT ONE}" * 32)
    )
