# SPDX-License-Identifier: Apache-2.0
"""What a stage1 says that it does not enforce: refused when the operator asks for it, said when only an image does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rkt.errors import Stage1Error, UsageError
from rkt.schema.appc import ImageManifest, PodManifest, parse_image_manifest, parse_pod_manifest
from rkt.stage0 import enforcement
from rkt.stage0.run import RunOptions
from rkt.stage0.stage1 import Program
from tools.build_stage1 import FLAVORS, read_manifest

MEMORY = {"name": "resource/memory", "value": {"limit": "64M"}}


def program(words: str) -> Program:
    """A stage1 that does not enforce these."""
    annotation = {"name": "coreos.com/rkt/stage1/not-enforced", "value": words}
    return Program(json.dumps({"name": "example.com/stage1", "annotations": [annotation]}).encode())


def image(*isolators: dict[str, Any], **app: Any) -> ImageManifest:
    """An image whose app has these isolators."""
    members = {"exec": ["/a"], "user": "0", "group": "0", "isolators": list(isolators), **app}
    manifest = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/a", "app": members}
    return parse_image_manifest(json.dumps(manifest).encode())


def pod(
    *isolators: dict[str, Any], count: int = 1, own: list[dict[str, Any]] | None = None, **app: Any
) -> PodManifest:
    """A pod of apps that have these isolators."""
    apps = [
        {
            "name": f"app{number}",
            "image": {"id": "sha512-" + "a" * 128},
            "app": {"exec": ["/a"], "user": "0", "group": "0", "isolators": list(isolators), **app},
        }
        for number in range(count)
    ]
    manifest = {"acKind": "PodManifest", "acVersion": "0.8.11", "apps": apps, "isolators": own or []}
    return parse_pod_manifest(json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("isolator", "word", "flag"),
    [
        (MEMORY, "memory", "--memory"),
        ({"name": "resource/cpu", "value": {"limit": "1"}}, "cpu", "--cpu"),
        ({"name": "os/linux/cpu-shares", "value": 100}, "cpu", "--cpu-shares"),
        ({"name": "resource/pids", "value": {"limit": "10"}}, "pids", "--pids-limit"),
        ({"name": "os/linux/io-weight", "value": 10}, "io", "--io-weight"),
        ({"name": "os/linux/seccomp-remove-set", "value": {"set": ["mount"]}}, "seccomp", "--seccomp"),
        (
            {"name": "os/linux/capabilities-remove-set", "value": {"set": ["CAP_KILL"]}},
            "capabilities",
            "--caps-remove",
        ),
        ({"name": "os/linux/no-new-privileges", "value": True}, "no-new-privileges", "--no-new-privileges"),
        ({"name": "os/linux/oom-score-adj", "value": 5}, "oom-score", "--oom-score-adj"),
    ],
)
def test_isolators(isolator: dict[str, Any], word: str, flag: str) -> None:
    """An isolator of the operator's is refused with its flag, the same of the image is a sentence, and neither with another word."""
    asked = pod(isolator)
    with pytest.raises(Stage1Error) as refused:
        enforcement.check_pod(program(word), asked, [image()], private_users=False)
    assert isolator["name"] in refused.value.message
    assert flag in refused.value.hint
    (lost,) = enforcement.check_pod(program(word), asked, [image(isolator)], private_users=False)
    assert "the image of app 'app0' asks for" in lost
    assert enforcement.check_pod(program("statuses"), asked, [image()], private_users=False) == []


def test_what_a_pod_asks_for() -> None:
    """Isolators of the pod, several apps, a user namespace, event handlers, logged streams."""
    plain = pod()
    with pytest.raises(Stage1Error, match="resource/memory"):
        enforcement.check_pod(program("memory"), pod(own=[MEMORY]), [image()], private_users=False)
    with pytest.raises(Stage1Error, match="would have 2: app0, app1"):
        enforcement.check_pod(program("several-apps"), pod(count=2), [image(), image()], private_users=False)
    with pytest.raises(Stage1Error, match="users of its own"):
        enforcement.check_pod(program("users"), plain, [image()], private_users=True)
    handlers: dict[str, Any] = {"eventHandlers": [{"name": "pre-start", "exec": ["/b"]}]}
    (lost,) = enforcement.check_pod(
        program("event-handlers"), pod(**handlers), [image(**handlers)], private_users=False
    )
    assert "event handlers" in lost
    logged = plain.apps[0].replace(annotations={"coreos.com/rkt/stage2/stdout": "log"})
    with pytest.raises(Stage1Error, match="stdout logged"):
        enforcement.check_apps(program("logs"), [logged], [image()])


def test_options_of_a_run() -> None:
    """What was asked for is refused; networks that nobody asked for are the host's."""
    fly = program("network,hostname,ipc")
    usual = RunOptions(networks=["default"], usual_networks=True)
    assert enforcement.settle(fly, usual).networks == ["host"]
    assert enforcement.settle(program("memory"), usual) == usual
    assert enforcement.settle(fly, RunOptions(networks=["host"], ipc="parent")).networks == ["host"]
    for options in (
        RunOptions(networks=["default"]),
        RunOptions(networks=["none"]),
        usual.replace(hostname="a"),
        usual.replace(ipc="private"),
    ):
        with pytest.raises(UsageError, match="of its own"):
            enforcement.settle(fly, options)


@pytest.mark.parametrize("flavor", sorted(FLAVORS))
def test_flavours_use_words_that_are_documented(flavor: str) -> None:
    """Every word of a flavour's image is one of the contract's."""
    with open("docs/stage1-contract.md", encoding="utf-8") as file:
        text = file.read()
    manifest = json.dumps(read_manifest(flavor)[0]).encode()
    for word in Program(manifest).not_enforced:
        assert f"`{word}`" in text, word
