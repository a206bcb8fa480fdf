# SPDX-License-Identifier: Apache-2.0
"""Manifests as released versions wrote them; a sample is never changed, a new format gets a new directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rkt.schema import jsontext
from rkt.schema.appc import parse_image_manifest, parse_pod_manifest
from rkt.schema.mounts import pair_mounts

SAMPLES = Path(__file__).parent.parent.parent / "data" / "formats" / "1"


@pytest.mark.parametrize(
    ("name", "parse"),
    [("image-manifest.json", parse_image_manifest), ("pod-manifest.json", parse_pod_manifest)],
)
def test_samples(name: str, parse: Callable[[bytes], Any]) -> None:
    """A stored manifest is read, and written back byte for byte."""
    data = (SAMPLES / name).read_bytes()
    assert jsontext.dump(parse(data).to_json()) + "\n" == data.decode()


def test_meaning_of_the_samples() -> None:
    """A stored pod still means the same: its app, its limits, its mounts."""
    image = parse_image_manifest((SAMPLES / "image-manifest.json").read_bytes())
    pod = parse_pod_manifest((SAMPLES / "pod-manifest.json").read_bytes())
    app = pod.apps[0].app
    assert app == image.app
    assert app is not None
    assert [isolator.value.limit_amount for isolator in app.isolators[-2:]] == [64 << 20, 1500]
    assert [
        (mount.name, mount.path, mount.source, mount.read_only)
        for mount in pair_mounts(pod.apps[0], app, pod)
    ] == [
        ("data", "/var/data", "/srv/data", True),
        ("scratch", "/tmp", None, False),
        ("own", "/own", "/srv/own", False),
        ("hello-config", "/etc/hello", None, True),
    ]
