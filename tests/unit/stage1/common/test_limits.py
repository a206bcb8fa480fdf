# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest

from rkt.errors import Stage1Error
from rkt.linux.cgroup import Group
from rkt.schema import appc
from rkt.stage1.common import limits
from rkt.stage1.common.pod import PodApp

CPU = {"name": "resource/cpu", "value": {"limit": "800m"}}
PIDS = {"name": "resource/pids", "value": {"limit": "10"}}


class Groups(Group):
    """The groups of a pod on a host with some controllers."""

    def __init__(self, *controllers: str) -> None:
        super().__init__("rkt-1", [], [])
        self._controllers = controllers

    def has(self, controller: str) -> bool:
        """See ``Group``."""
        return controller in self._controllers


def pod_app(wishes: list[dict[str, Any]], asked: list[dict[str, Any]]) -> PodApp:
    """An app with isolators that its image wishes for, and others that the operator asks for."""

    def section(isolators: list[dict[str, Any]]) -> dict[str, Any]:
        return {"exec": ["/bin/true"], "user": "0", "group": "0", "isolators": isolators}

    head = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/app"}
    image = appc.parse_image_manifest(json.dumps({**head, "app": section(wishes)}).encode())
    runtime = {
        "name": "app",
        "image": {"id": f"sha512-{'0' * 128}"},
        "app": section([*wishes, *asked]),
    }
    manifest = appc.parse_pod_manifest(
        json.dumps({"acKind": "PodManifest", "acVersion": "0.8.11", "apps": [runtime]}).encode()
    )
    app = manifest.apps[0].app
    assert app is not None
    return PodApp(runtime=manifest.apps[0], app=app, image=image)


def check(app: PodApp, *controllers: str) -> list[str]:
    """What is reported of an app on a host with these controllers."""
    said: list[str] = []
    limits.check_app_limits(Groups(*controllers), app, said.append)
    return said


def test_limits_that_somebody_else_sets() -> None:
    """With its controller each limit is fine; without one an operator's is refused by name, and an image's is left out with a word."""
    assert check(pod_app([CPU], [PIDS]), "cpu", "pids") == []
    missing = 'app "app": resource/cpu: cgroup controller cpu is not available on this host'
    assert check(pod_app([CPU], [PIDS]), "pids") == [f"{missing}; the image's wish is left out"]
    for app in (pod_app([], [CPU]), pod_app([CPU], [CPU])):
        with pytest.raises(Stage1Error) as refused:
            check(app, "pids")
        assert refused.value.message == missing
