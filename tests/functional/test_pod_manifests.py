# SPDX-License-Identifier: Apache-2.0
"""Pods made by a manifest of the operator's own (spec runtime §1.2, §1.3, §6.3, spec cli §2.1, §9.5, §10.8)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import flavors
from tests.lib.flavors import pods
from tests.lib.inspect import (
    INSECURE,
    by_app,
    inspect_image,
    manifest_app,
    run_manifest,
    stored,
    write_pod_manifest,
)

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

WAYS = ("run", "prepare")
ODD = "line\n'single' \"double\" $HOME `id` %n\\t"
#: Row -> (script, members of the app section, what the app says).
ROWS: dict[str, tuple[str, dict[str, Any], str]] = {
    "P1": ('printf "%s" "$0"; echo', {}, f"{ODD}\n"),
    "P2": ("echo cwd: $(pwd)", {"workingDirectory": "/dir1"}, "cwd: /dir1\n"),
    "P3-writable": ("cat /dir1/file; touch /dir1/x && echo; ls /dir1", {}, "dir1\nfile\nx\n"),
    "P3-read-only": ("cat /dir1/file; echo; touch /dir1/x 2>/dev/null || ls /dir1", {}, "dir1\nfile\n"),
    "P18-numbers": ("id -u; id -g", {"user": "1000", "group": "100"}, "1000\n100\n"),
    "P18-names": ("id -u; id -g", {"user": "user1", "group": "group1"}, "1000\n100\n"),
    "P18-root": ("id -u; id -g", {"user": "root", "group": "root"}, "0\n0\n"),
    "P18-paths": ("id -u; id -g", {"user": "/etc/passwd", "group": "/etc/group"}, "0\n0\n"),
    "environment": (
        "echo $A $VAR_FROM_MANIFEST.",
        {"environment": [{"name": "A", "value": "a b"}]},
        "a b .\n",
    ),
    "any-case": ("id -G", {"SupplementaryGids": [7]}, "0 7\n"),
}


@pytest.fixture(scope="module", params=WAYS)
def said(request: pytest.FixtureRequest, module_rkt: Rkt, images: Images) -> dict[str, str]:
    """What the app of each row says, all in one pod where it may have several, by ``run`` and by ``prepare`` and ``run-prepared``."""
    image_id = images.ids[inspect_image(images)]
    stored(module_rkt, inspect_image(images))
    apps = []
    for row, (script, section, _) in ROWS.items():
        app = manifest_app(image_id, row.lower(), script, **section)
        if row == "P1":
            app["app"]["exec"].append(ODD)
        if row == "P3-read-only":
            app["readOnlyRootFS"] = True
        apps.append(app)
    # Without a section of its own an app is the image's.
    apps.append(manifest_app(image_id, "image", None))
    path = f"{module_rkt.base}/pod-manifest"
    if flavors.has_promised(module_rkt.flavor, "several apps"):
        result = run_manifest(module_rkt, request.param, write_pod_manifest(path, apps))
        assert result.stderr.count("stage1") == 0
        return by_app(result.stdout)
    return {
        app["name"]: run_manifest(module_rkt, request.param, write_pod_manifest(path, [app])).stdout
        for app in apps
    }


@pytest.mark.parametrize("row", ROWS)
def test_an_app_is_what_its_manifest_says(said: dict[str, str], row: str) -> None:
    """Arguments verbatim, directory, root, ids, environment: from the pod manifest, not from the image (runtime P1-P3, P18, cli R26)."""
    assert said[row.lower()] == ROWS[row][2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"user": "user2"}, '"user2" user not found'),
        ({"group": "group2"}, '"group2" group not found'),
        ({"user": "/etc/nofile"}, "no such file or directory"),
        ({"group": "/etc/nofile"}, "no such file or directory"),
        ({"workingDirectory": "/nowhere"}, "working directory /nowhere: No such file or directory"),
    ],
    ids=["P19-user", "P19-group", "P20-user", "P20-group", "directory"],
)
def test_users_and_paths_that_the_image_lacks(
    module_rkt: Rkt, images: Images, way: str, section: dict[str, Any], message: str
) -> None:
    """The pod ends with 254 and names what is missing (runtime P19, P20)."""
    stored(module_rkt, inspect_image(images))
    app = manifest_app(images.ids[inspect_image(images)], "app", "echo ran", **section)
    path = write_pod_manifest(f"{module_rkt.base}/lacking", [app])
    result = run_manifest(module_rkt, way, path, check=254)
    assert message in result.stderr
    assert "app 'app': " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", WAYS)
def test_manifests_that_cannot_be_a_pod(module_rkt: Rkt, images: Images, command: str) -> None:
    """No apps, no image, names twice, a mount without a volume, broken JSON: said before a pod exists (runtime P21, cli R25, §9.5)."""
    rkt = module_rkt
    stored(rkt, inspect_image(images))
    image_id = images.ids[inspect_image(images)]
    bare = stored(rkt, images.busybox("example.com/no-app", None))
    good = manifest_app(image_id, "app", "true")
    named = {"name": "data", "kind": "empty"}

    def without(key: str) -> dict[str, Any]:
        return {name: value for name, value in good.items() if name != key}

    cases: list[tuple[Any, str]] = [
        ({"apps": []}, "pod must contain at least one application"),
        ({}, "pod must contain at least one application"),
        ({"apps": [good, good]}, "app"),
        ({"apps": [without("name")]}, "name"),
        ({"apps": [without("image")]}, "image"),
        ({"apps": [{**good, "image": {"name": "example.com/inspect"}}]}, "id"),
        ({"apps": [{**good, "image": {"id": f"sha512-{'0' * 128}"}}]}, "sha512-0000"),
        ({"apps": [{**good, "image": {"id": "md5-00"}}]}, "md5-00"),
        ({"apps": [manifest_app(bare, "app", None)]}, "has no app section"),
        ({"apps": [manifest_app(image_id, "app", "true", user="")]}, "user is required"),
        ({"apps": [manifest_app(image_id, "app", "true", workingDirectory="x")]}, "must be an absolute path"),
        ({"apps": [manifest_app(image_id, "app", "true", exec=[])]}, "names no program to execute"),
        ({"apps": [{**good, "mounts": [{"volume": "x", "path": "/x"}]}]}, 'could not find volume "x"'),
        ({"apps": [{**good, "mounts": [{"volume": "data"}]}], "volumes": [named]}, "path must be set"),
        ({"apps": [{**good, "mounts": [{"path": "/x"}]}], "volumes": [named]}, "volume must be set"),
        ({"apps": [good], "volumes": [named, named]}, 'duplicate volume name "data"'),
        (
            {"apps": [good], "ports": [{"name": "web", "hostPort": 80}]},
            'port name "web" could not be found in any apps',
        ),
        ({"apps": [good], "acKind": "ImageManifest"}, "ACKind"),
        ({"apps": [good], "acVersion": ""}, "ACVersion"),
        ("{", ""),
        ("[]", ""),
        ('{"apps": [], "apps": []}', ""),
    ]
    before = rkt.pods()
    path = f"{rkt.base}/broken"
    for case, message in cases:
        if isinstance(case, str):
            with open(path, "w", encoding="ascii") as stream:
                stream.write(case)
        else:
            write_pod_manifest(path, **{"apps": [], **case})
        result = rkt.run(command, INSECURE, f"--pod-manifest={path}", check=254)
        assert message.lower() in result.stderr.lower(), f"{case}\n{result}"
    refused = rkt.run(command, INSECURE, "--pod-manifest=/nowhere", check=254)
    assert "cannot read pod manifest /nowhere" in refused.stderr
    assert rkt.pods() == before


@pytest.mark.parametrize("command", WAYS)
def test_what_a_pod_manifest_cannot_be_combined_with(module_rkt: Rkt, images: Images, command: str) -> None:
    """Images, what images or volumes are told by flags, and policies of fetching conflict with it (runtime R25, cli R1, R2)."""
    rkt = module_rkt
    image = stored(rkt, inspect_image(images))
    path = write_pod_manifest(
        f"{rkt.base}/fine", [manifest_app(images.ids[inspect_image(images)], "a", "true")]
    )
    before = rkt.pods()
    for words in (
        ["--inherit-env"],
        ["--inherit-env=false"],
        ["--no-store"],
        ["--store-only"],
        ["--pull-policy=never"],
        ["--pull-policy=update"],
        ["--port=http:80"],
        ["--set-env=A=1"],
        [f"--set-env-file={path}"],
        ["--volume=a,kind=empty"],
        ["--mount=volume=a,target=/a"],
        [image],
        [image, "--exec=/bin/true"],
        [image, "--user=200"],
        [image, "--group=300"],
        [image, "--", "x"],
    ):
        result = rkt.run(command, INSECURE, f"--pod-manifest={path}", *words, check=254)
        assert "conflicting flags set with --pod-manifest (see --help)" in result.stderr, words
    assert rkt.pods() == before
    # These say nothing of apps.
    kept = ["--pull-policy=new", "--name=fine", "--no-overlay"]
    rkt.run(command, INSECURE, f"--pod-manifest={path}", *kept, check=0)
    rkt.run("rm", "fine", check=0)


@pods("several apps")
def test_a_pod_manifest_is_kept_as_it_was_written(module_rkt: Rkt, images: Images) -> None:
    """Cat-manifest has its bytes' content, unknown members too; its annotations and labels are shown (spec runtime §1.2 5a)."""
    rkt = module_rkt
    stored(rkt, inspect_image(images))
    image_id = images.ids[inspect_image(images)]
    section = {"userAnnotations": {"note": "n"}, "userLabels": {"tier": "front"}}
    path = write_pod_manifest(
        f"{rkt.base}/kept",
        [
            manifest_app(image_id[:40], "app", "true", **section, futureMember=1),
            manifest_app(image_id, "image", None),
        ],
        annotations=[{"name": "example.com/a", "value": "1"}],
        userAnnotations={"pod": "p"},
        userLabels={"pod": "l"},
        somethingNew={"x": [1]},
        acVersion="1.30.0",
    )
    uuid = rkt.run("prepare", INSECURE, f"--pod-manifest={path}", check=0).stdout.strip()
    with open(path, encoding="utf-8") as stream:
        assert json.loads(rkt.run("cat-manifest", uuid, check=0).stdout) == json.load(stream)
    shown = json.loads(rkt.run("status", uuid, "--format=json", check=0).stdout)
    assert shown["user_annotations"] == {"pod": "p"}
    assert shown["user_labels"] == {"pod": "l"}
    assert shown["apps"][0]["user_annotations"] == {"note": "n"}
    assert shown["apps"][0]["user_labels"] == {"tier": "front"}
    rkt.run("run-prepared", uuid, check=0)


def test_a_pod_manifest_from_a_pipe(module_rkt: Rkt, images: Images) -> None:
    """The manifest may come from whatever the operator names: standard input, a link."""
    rkt = module_rkt
    stored(rkt, inspect_image(images))
    app = manifest_app(images.ids[inspect_image(images)], "app", "echo ran")
    path = write_pod_manifest(f"{rkt.base}/piped", [app])
    link = f"{rkt.base}/link-to-piped"
    os.symlink(path, link)
    assert rkt.run("run", INSECURE, f"--pod-manifest={link}", check=0).lines == ["ran"]
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    assert rkt.run("run", INSECURE, "--pod-manifest=/dev/stdin", input=text, check=0).lines == ["ran"]


@pods("networks")
def test_ports_that_no_network_can_forward(module_rkt: Rkt, images: Images) -> None:
    """Without a network the ports of a manifest are refused, not forgotten; with the host's apps have them, and that is said (spec cli §2.1)."""
    rkt = module_rkt
    stored(rkt, inspect_image(images))
    port = {"name": "web", "protocol": "tcp", "port": 80, "count": 1, "socketActivated": False}
    app = manifest_app(images.ids[inspect_image(images)], "app", "echo ran", ports=[port])
    path = write_pod_manifest(f"{rkt.base}/ports", [app], ports=[{"name": "web", "hostPort": 8080}])
    uuid = rkt.run("prepare", INSECURE, f"--pod-manifest={path}", check=0).stdout.strip()
    before = rkt.pods()
    for words in (("run", INSECURE, f"--pod-manifest={path}"), ("run-prepared", uuid)):
        for net in ((), ("--net=none",)):
            result = rkt.run(words[0], *net, *words[1:], check=254)
            assert "the pod's ports do not work with 'none' networking" in result.stderr
    assert rkt.pods() == before
    result = rkt.run("run-prepared", "--net=host", uuid, check=0)
    assert result.stdout == "ran\n"
    assert "ports are not forwarded with 'host' networking" in result.stderr
