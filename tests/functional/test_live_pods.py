# SPDX-License-Identifier: Apache-2.0
"""Pods whose apps come and go while they live (spec runtime §5.1 and §6.9, spec cli §2.25 and §10.10)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, inspect_image, stored
from tests.lib.live import Sandbox
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("apps that come and go")]


def test_an_app_comes_and_goes(rkt: Rkt, images: Images) -> None:
    """An app that is added and started says its words on the sandbox's console, and after rm nothing of it is left (runtime E1, cli X1)."""
    pod = Sandbox(rkt, images)
    assert pod.app("list").stdout == "NAME\tSTATE\n"
    pod.add("hello", "echo HelloFromAppInSandbox")
    assert pod.states() == {"hello": "created"}
    pod.app("start", "--app=hello")
    pod.wait_for(hello="exited")
    wait_for(lambda: "HelloFromAppInSandbox" in pod.process.texts()[0], "output")
    pod.app("rm", "--app=hello")
    assert pod.app("list", "--no-legend").stdout == "\n"
    path = rkt.pod_path(pod.uuid)
    for parent, directories, files in os.walk(path):
        assert not [name for name in (*directories, *files) if "hello" in name], parent
    assert "hello" not in rkt.run("cat-manifest", pod.uuid, check=0).stdout
    pod.end()


def test_the_name_is_the_images(rkt: Rkt, images: Images) -> None:
    """Without --name an app is called as the last part of its image's name (runtime E2, cli X2)."""
    pod = Sandbox(rkt, images)
    rkt.run("app", "add", INSECURE, pod.uuid, pod.image, check=0)
    assert pod.states() == {"inspect": "created"}
    pod.end()


def test_three_apps(rkt: Rkt, images: Images) -> None:
    """One succeeds, one fails, one sleeps: the pod goes on, list and status tell them apart, and all can be removed (runtime E3, cli X3)."""
    pod = Sandbox(rkt, images)
    pod.start("winner", "exit 0")
    pod.start("loser", "exit 12")
    pod.start("sleeper", "sleep 100")
    pod.wait_for(winner="exited", loser="exited", sleeper="running")
    text = pod.app("status", "--app=loser").stdout
    assert "state=exited\n" in text
    assert "exit_code=12\n" in text
    assert "exit_code=0\n" in pod.app("status", "--app=winner").stdout
    sleeper = json.loads(pod.app("status", "--app=sleeper", "--format=json").stdout)
    assert sleeper["state"] == "running"
    assert "exit_code" not in sleeper
    alone = json.loads(pod.app("list", "--format=json").stdout)
    assert [app["name"] for app in alone] == ["winner", "loser", "sleeper"]
    assert alone[2] == sleeper
    listed = json.loads(rkt.run("list", "--format=json", check=0).stdout)
    assert {app["name"]: app["state"] for app in listed[0]["apps"]} == pod.states()
    for name in ("winner", "loser", "sleeper"):
        pod.app("rm", f"--app={name}")
    assert pod.states() == {}
    pod.end()


@pytest.mark.representative
def test_two_apps_of_one_image(rkt: Rkt, images: Images) -> None:
    """One of two apps of an image is stopped, started and removed; the other and its files are untouched (runtime E4, cli X4)."""
    pod = Sandbox(rkt, images)
    pod.start("one", "echo one >> /mine; trap 'exit 7' TERM; while :; do sleep 0.1; done")
    pod.start("two", "echo two >> /mine; sleep 100")
    for _ in range(2):
        pod.app("stop", "--app=one")
        assert pod.states() == {"one": "exited", "two": "running"}
        assert "exit_code=7\n" in pod.app("status", "--app=one").stdout
        pod.app("start", "--app=one")
        assert pod.states() == {"one": "running", "two": "running"}
    mine = ("cat", "/mine")
    wait_for(lambda: rkt.run("enter", "--app=one", pod.uuid, *mine).stdout == "one\n" * 3, "three starts")
    pod.app("rm", "--app=one")
    assert rkt.run("app", "exec", "--app=two", pod.uuid, *mine, check=0).stdout == "two\n"
    pod.app("stop", "--app=two")
    assert "exit_code=0\n" in pod.app("status", "--app=two").stdout
    pod.end()


#: Takes the terminal that is its standard input as its session's, starts a command that ignores SIGHUP, and waits.
_CREATOR = """
import fcntl, os, signal, subprocess, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
subprocess.Popen(sys.argv[1:])
signal.pause()
"""


def test_added_again_while_the_creator_is_gone(rkt: Rkt, images: Images) -> None:
    """A sandbox under nohup whose parent is dead and whose terminal is closed takes apps that are added, started, stopped, removed, and added again under the same name (issue 5, must show 2)."""
    points = [{"name": "data", "path": "/data"}]
    image = stored(
        rkt, inspect_image(images, "points", name="example.com/points", app={"mountPoints": points})
    )
    master, slave = os.openpty()
    command = [sys.executable, "-c", _CREATOR, *rkt.command("app", "sandbox", INSECURE)]
    creator = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=rkt.environment())
    os.close(slave)
    uuid = rkt.wait_for_pod()
    (supervisor,) = _children(creator.pid)
    assert os.readlink(f"/proc/{supervisor}/fd/1").startswith("/dev/pts/")
    creator.kill()
    creator.wait(20)
    os.close(master)
    for turn in range(2):
        words = ("--name=app", "--exec=/bin/sh", "--", "-c", f"cat /left; echo {turn} > /left; sleep 100")
        rkt.run("app", "add", INSECURE, uuid, image, *words, check=0)
        # A mount point without volume makes the supervisor say a word, which nobody reads.
        rkt.run("app", "start", uuid, "--app=app", check=0)
        wait_for(lambda: "sleep" in rkt.run("enter", uuid, "ps").stdout, "a start")
        assert rkt.run("enter", uuid, "cat", "/left", check=0).stdout == f"{turn}\n"
        assert "No such file" in rkt.log(uuid, "app")
        rkt.run("app", "stop", uuid, "--app=app", check=0)
        assert rkt.run("app", "list", "--no-legend", uuid, check=0).stdout == "app\texited\n"
        rkt.run("app", "start", uuid, "--app=app", check=0)
        rkt.run("app", "rm", uuid, "--app=app", check=0)
        assert rkt.run("app", "list", "--no-legend", uuid, check=0).stdout == "\n"
    with open(f"/proc/{supervisor}/stat", encoding="ascii") as stream:
        assert stream.read().rpartition(")")[2].split()[1] != str(creator.pid)
    rkt.run("stop", uuid, check=0)
    assert "state=exited\n" in rkt.run("status", "--wait", uuid, check=0).stdout


def test_a_closed_terminal_ends_a_sandbox(rkt: Rkt, images: Images) -> None:
    """Without nohup a sandbox ends with the session that started it, as any other command does."""
    stored(rkt, inspect_image(images))
    master, slave = os.openpty()
    command = [sys.executable, "-c", _CREATOR.replace("SIG_IGN", "SIG_DFL"), *rkt.command("app", "sandbox")]
    creator = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=rkt.environment())
    os.close(slave)
    uuid = rkt.wait_for_pod()
    creator.kill()
    creator.wait(20)
    os.close(master)
    assert "state=exited\n" in rkt.run("status", "--wait", uuid, check=0).stdout


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]


def test_annotations(rkt: Rkt, images: Images) -> None:
    """Annotations of the sandbox and of an app stand in the pod manifest, the app's exactly as given (runtime E6, cli X6)."""
    pod = Sandbox(rkt, images, "--annotation=example.com/a=b", "--user-annotation=u=v", "--user-label=l=m")
    pod.add("app", "true", "--annotation=example.com/c=d", "--user-annotation=w=x")
    manifest = json.loads(rkt.run("cat-manifest", pod.uuid, check=0).stdout)
    assert {"name": "example.com/a", "value": "b"} in manifest["annotations"]
    assert {"name": "coreos.com/rkt/stage1/mutable", "value": "true"} in manifest["annotations"]
    assert manifest["userAnnotations"] == {"u": "v"}
    assert manifest["userLabels"] == {"l": "m"}
    (app,) = manifest["apps"]
    assert app["annotations"] == [{"name": "example.com/c", "value": "d"}]
    assert app["app"]["userAnnotations"] == {"w": "x"}
    pod.end()


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("/dir2", "/dir2"),
        ("/link-rel", "/dir2"),
        ("/link-abs", "/dir2"),
        ("/to-root/notexists/there", "/notexists/there"),
        ("/dangling/there", "/nowhere/there"),
        ("/../../notexists", "/notexists"),
        ("../../notexists", "/notexists"),
    ],
)
def test_volumes(rkt: Rkt, images: Images, target: str, place: str) -> None:
    """A volume of an added app is found where its target resolves inside the app's root (runtime E5, cli X5)."""
    source = os.path.join(rkt.base, "source")
    os.mkdir(source)
    with open(f"{source}/file", "w", encoding="ascii") as stream:
        stream.write("from the host")
    links = {"link-rel": "dir2", "link-abs": "/dir2", "to-root": "/", "dangling": "../../nowhere"}
    pod = Sandbox(rkt, images)
    pod.image = stored(rkt, inspect_image(images, "links", name="example.com/links", links=links))
    volume = f"--mnt-volume=name=v,kind=host,source={source},target={target}"
    pod.start("app", f"cat {place}/file; echo; sleep 100", volume)
    wait_for(lambda: "from the host" in pod.process.texts()[0], "the file")
    pod.end()


def test_refusals(rkt: Rkt, images: Images) -> None:
    """What cannot be is refused with rkt's words, and the pod goes on as it was."""
    pod = Sandbox(rkt, images)
    pod.start("app", "sleep 100")
    again = pod.add("app", "true", check=254)
    assert "error: multiple apps with name app" in again.stderr
    for verb in ("start", "stop", "rm", "status"):
        result = pod.app(verb, "--app=none", check=254)
        assert 'error: nonexistent app "none"' in result.stderr
        assert "must provide the app to" in pod.app(verb, check=254).stderr
        assert "must provide the pod UUID" in rkt.run("app", verb, "--app=app", check=254).stderr
    pod.add("idle", "true")
    assert 'app "idle" is not running' in pod.app("stop", "--app=idle", check=254).stderr
    nobody = pod.add("nobody", "true", "--user=nobody-has-this-name", check=None)
    failed = pod.app("start", "--app=nobody", check=254)
    assert "nobody-has-this-name" in failed.stderr, nobody
    assert pod.states() == {"app": "running", "idle": "created", "nobody": "created"}
    missing = rkt.run("app", "add", INSECURE, pod.uuid, "example.com/missing", check=254)
    assert "example.com/missing" in missing.stderr
    pod.end()
    assert f'pod "{pod.uuid}" isn\'t currently running' in pod.app("start", "--app=app", check=254).stderr
    assert "is already stopped" in pod.app("stop", "--app=app").stdout
    pod.app("rm", "--app=app")
    assert set(pod.states()) == {"idle", "nobody"}


def test_an_immutable_pod_does_not_change(rkt: Rkt, images: Images) -> None:
    """Apps of a pod that rkt run made are listed and shown, and cannot be added, started, stopped or removed."""
    image = stored(rkt, inspect_image(images))
    rkt.popen("run", INSECURE, image, "--exec=/bin/sleep", "--", "100")
    uuid = rkt.wait_for_pod()
    assert rkt.run("app", "list", uuid, check=0).stdout == "NAME\tSTATE\ninspect\trunning\n"
    assert "state=running\n" in rkt.run("app", "status", uuid, "--app=inspect", check=0).stdout
    added = rkt.run("app", "add", INSECURE, uuid, image, "--name=more", check=254)
    assert "immutable pod" in added.stderr
    for verb in ("start", "stop", "rm"):
        assert "immutable pod" in rkt.run("app", verb, uuid, "--app=inspect", check=254).stderr


def test_copied_roots(rkt: Rkt, images: Images) -> None:
    """A sandbox with --no-overlay takes apps as any other does."""
    pod = Sandbox(rkt, images, "--no-overlay")
    pod.start("app", "cat /dir1/file; echo; sleep 100")
    wait_for(lambda: "dir1" in pod.process.texts()[0], "the file")
    pod.app("rm", "--app=app")
    assert pod.states() == {}
    pod.end()


def test_a_killed_add_is_swept(rkt: Rkt, images: Images) -> None:
    """What a killed add or rm leaves is removed by the next change, and does not keep its name from being used."""
    pod = Sandbox(rkt, images)
    pod.add("app", "sleep 100")
    path = f"{rkt.pod_path(pod.uuid)}/pod"
    with open(path, encoding="utf-8") as stream:
        manifest = json.load(stream)
    manifest["apps"] = []
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(manifest, stream)
    pod.start("app", "sleep 100")
    assert pod.states() == {"app": "running"}
    pod.end()


def test_sigterm_ends_a_sandbox(rkt: Rkt, images: Images) -> None:
    """SIGTERM ends a sandbox and its apps, with status 0; nothing of it is left."""
    pod = Sandbox(rkt, images)
    pod.start("app", "sleep 100")
    pod.process.send_signal(signal.SIGTERM)
    assert pod.process.wait(20) == 0
    assert pod.states() == {"app": "exited"}


def test_handlers_of_an_added_app(rkt: Rkt, images: Images) -> None:
    """An added app's handlers run before and after it each time, and app stop returns when the last of them has ended."""
    handlers = [
        {"name": name, "exec": ["/bin/sh", "-c", script]}
        for name, script in (
            ("pre-start", "echo pre >> /said"),
            ("post-stop", "sleep 0.3; echo post >> /said"),
        )
    ]
    pod = Sandbox(rkt, images)
    image = inspect_image(images, "live-handlers", name="example.com/live", app={"eventHandlers": handlers})
    pod.image = stored(rkt, image)
    pod.start("app", "echo app >> /said; cat /said; echo .; sleep 100")
    for turn in range(1, 3):
        wait_for(lambda t=turn: pod.process.texts()[0].count(".\n") == t or None, "the app")  # type: ignore[misc]
        pod.app("stop", "--app=app")
        assert pod.states() == {"app": "exited"}
        pod.app("start", "--app=app")
    pod.wait_for(app="running")
    wait_for(lambda: pod.process.texts()[0].count("post\n") == 3, "what was said")
    pod.end()


def test_a_killed_sandbox(rkt: Rkt, images: Images) -> None:
    """A supervisor killed by SIGKILL takes every app along; the pod is exited, its apps can be removed, and gc leaves nothing."""
    pod = Sandbox(rkt, images)
    pod.start("app", "sleep 100")
    pod.process.kill()
    pod.process.wait(20)
    assert pod.states() == {"app": "exited"}
    pod.app("rm", "--app=app")
    assert pod.states() == {}
    assert "state=exited\n" in rkt.run("status", pod.uuid, check=0).stdout


def test_a_removed_key_stops_add_and_start(rkt: Rkt, images: Images) -> None:
    """An app's verdict is held against today's policy at app add and at each app start, not only when its image was fetched."""
    path = images.busybox("example.com/live-signed", ("/bin/sleep", "100"), file="live-signed")
    images.sign(path)
    rkt.run(
        "trust", "--prefix=example.com/live-signed", "--skip-fingerprint-review", images.key_file, check=0
    )
    rkt.run("fetch", path, check=0)
    os.unlink(f"{path}.asc")
    rkt.popen("app", "sandbox")
    uuid = rkt.wait_for_pod()
    rkt.run("app", "add", uuid, "example.com/live-signed", "--name=app", check=0)
    rkt.run("app", "start", uuid, "--app=app", check=0)
    rkt.run("app", "stop", uuid, "--app=app", check=0)
    keys = os.path.join(rkt.local, "trustedkeys", "prefix.d", "example.com", "live-signed")
    for name in os.listdir(keys):
        os.unlink(os.path.join(keys, name))
    for words in (("start", uuid, "--app=app"), ("add", uuid, "example.com/live-signed", "--name=more")):
        result = rkt.run("app", *words, check=254)
        assert "rkt trust --prefix=example.com/live-signed" in result.stderr, str(result)
    assert rkt.run("app", "list", "--no-legend", uuid, check=0).stdout == "app\texited\n"


def test_changes_at_the_same_time(rkt: Rkt, images: Images) -> None:
    """Apps added, started and removed by several commands at once are all there in the end, and one name goes to one of them only."""
    pod = Sandbox(rkt, images)
    names = ("a", "b", "c")
    words = ("--exec=/bin/sleep", "--", "100")
    adding = [
        rkt.popen("app", "add", INSECURE, pod.uuid, pod.image, f"--name={name}", *words)
        for name in (*names, "same", "same")
    ]
    assert sorted(process.wait(60) for process in adding) == [0, 0, 0, 0, 254]
    starting = [rkt.popen("app", "start", pod.uuid, f"--app={name}") for name in names]
    assert [process.wait(60) for process in starting] == [0, 0, 0]
    assert pod.states() == {"a": "running", "b": "running", "c": "running", "same": "created"}
    removing = [rkt.popen("app", "rm", pod.uuid, f"--app={name}") for name in (*names, "same")]
    assert [process.wait(60) for process in removing] == [0, 0, 0, 0]
    assert pod.states() == {}
    pod.end()


def test_a_paused_pod_does_not_change(rkt: Rkt, images: Images) -> None:
    """Apps of a paused pod are not started, stopped or removed, which would hang until it goes on; one can be added, and it stops."""
    pod = Sandbox(rkt, images)
    rkt.run("pause", pod.uuid)
    if "paused=true" not in rkt.run("status", pod.uuid, check=0).stdout:
        pod.end()
        pytest.skip("the host has no freezer of version 2")
    pod.add("app", "sleep 100")
    for verb in ("start", "stop", "rm"):
        result = pod.app(verb, "--app=app", check=254)
        assert f'pod "{pod.uuid}" is paused' in result.stderr
        assert f"hint: rkt unpause {pod.uuid[:8]}" in result.stderr
    rkt.run("unpause", pod.uuid, check=0)
    pod.app("start", "--app=app")
    rkt.run("pause", pod.uuid, check=0)
    pod.end()


def test_a_removed_image(rkt: Rkt, images: Images) -> None:
    """An added app outlives its image in the store: it starts, and starts again, and only another one cannot be added."""
    pod = Sandbox(rkt, images)
    path = images.busybox("example.com/short-lived", ("/bin/sleep", "100"), file="short-lived")
    image = stored(rkt, path)
    rkt.run("app", "add", INSECURE, pod.uuid, image, "--name=app", check=0)
    rkt.run("image", "rm", image, check=0)
    for _ in range(2):
        pod.app("start", "--app=app")
        assert pod.states() == {"app": "running"}
        pod.app("stop", "--app=app")
    again = rkt.run("app", "add", INSECURE, pod.uuid, image, "--name=more", check=254)
    assert image[:20] in again.stderr
    pod.app("rm", "--app=app")
    pod.end()
