# SPDX-License-Identifier: Apache-2.0
"""``rkt run`` with the real stage1: from a signed file to an exit status, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import ROOT

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"


def stored(rkt: Rkt) -> list[str]:
    """Names of the images in the store, stage1 aside."""
    names = rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines
    return [name for name in names if not name.startswith("coreos.com/rkt/stage1-")]


def trust(rkt: Rkt, images: Images, prefix: str) -> None:
    """Trust the images' key for a prefix."""
    rkt.run("trust", f"--prefix={prefix}", "--skip-fingerprint-review", images.key_file, check=0)


def refused(rkt: Rkt, path: str, *texts: str) -> None:
    """Running is refused with status 254, the texts and a hint, and nothing is kept."""
    result = rkt.run("run", path, check=254)
    for text in texts:
        assert text in result.stderr, str(result)
    assert "hint: " in result.stderr, str(result)
    assert stored(rkt) == []
    assert rkt.pods() == {}


def test_only_what_a_trusted_key_signed_for_that_name_runs(rkt: Rkt, images: Images) -> None:
    """Unsigned, unknown key, key for a sibling prefix: refused; key for the name: runs; key removed: refused again."""
    path = images.busybox("example.com/app", ("/bin/echo", "ran"), file="signed-app")
    refused(rkt, path, "error opening signature file")
    images.sign(path)
    refused(rkt, path, "signature made by unknown entity", "rkt trust --prefix=example.com/app")
    trust(rkt, images, "example.com/ap")
    refused(rkt, path, "signature made by unknown entity")
    trust(rkt, images, "example.com/app")
    assert rkt.run("run", path, check=0).lines == ["ran"]
    assert stored(rkt) == ["example.com/app"]
    keys = os.path.join(rkt.local, "trustedkeys", "prefix.d", "example.com", "app")
    for name in os.listdir(keys):
        os.unlink(os.path.join(keys, name))
    for reference in (path, "example.com/app"):
        result = rkt.run("run", reference, check=254)
        assert "rkt trust --prefix=example.com/app" in result.stderr, str(result)
    os.unlink(f"{path}.asc")


@pytest.mark.parametrize("position", ["manifest", "content"])
def test_a_flipped_byte_is_refused(rkt: Rkt, images: Images, position: str) -> None:
    """One changed byte anywhere makes the signature wrong, or the image unreadable before that; nothing is kept."""
    path = images.busybox("example.com/flip", ("/bin/echo", "ran"), file=f"flip-{position}")
    images.sign(path)
    trust(rkt, images, "example.com/flip")
    with open(path, "r+b") as stream:
        stream.seek(1024 + 7 if position == "manifest" else os.path.getsize(path) // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    result = rkt.run("run", path, check=254)
    assert "hint: " in result.stderr, str(result)
    assert stored(rkt) == []


@pods("supervision")
def test_a_signal_that_ends_the_app_is_128_more(rkt: Rkt, images: Images) -> None:
    """An app killed by a signal has status 128 + its number, as a shell says it."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    rkt.run(INSECURE, "run", path, "--", "-c", "kill -KILL $$", check=137)


@pods("several apps")
def test_apps_of_a_pod_share_a_network_and_a_terminal_line_by_line(rkt: Rkt, images: Images) -> None:
    """Two apps see the same network, IPC and pid namespaces, different mounts, and each line says whose it is."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    # Each waits for the other: the number of a namespace that is gone is given again.
    probe = (
        "for k in net ipc uts pid mnt; do readlink /proc/self/ns/$k; done; touch /dev/shm/$AC_APP_NAME;"
        "until [ -e /dev/shm/one ] && [ -e /dev/shm/two ]; do sleep 0.02; done"
    )
    result = rkt.run(
        INSECURE,
        "run",
        path,
        "--name=one",
        "--",
        "-c",
        probe,
        "---",
        path,
        "--name=two",
        "--",
        "-c",
        probe,
        check=0,
    )
    seen: dict[str, list[str]] = {"one": [], "two": []}
    for line in result.lines:
        head, _, text = line.partition("]: ")
        seen[head.partition("[")[0]].append(text)
    assert len(seen["one"]) == 5
    assert seen["one"][:4] == seen["two"][:4]
    assert seen["one"][4] != seen["two"][4]


@pods("supervision")
def test_an_app_that_does_not_obey_is_killed_after_its_time(rkt: Rkt, images: Images) -> None:
    """SIGTERM ignored: SIGKILL after the stop time, status 137; a second signal does not wait."""
    path = images.script("example.com/stubborn", "trap '' TERM\necho up\nwhile :; do sleep 0.1; done")
    process = rkt.popen(INSECURE, "run", path)
    deadline = time.monotonic() + 20 * SLOWNESS
    while "up" not in process.stdout_text and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 137


def test_the_pod_dies_with_its_supervisor(rkt: Rkt, images: Images) -> None:
    """When rkt is killed, the kernel kills the pod: no process is left, the state is exited, gc takes the rest (C6)."""
    path = images.busybox("example.com/sleeper", ("/bin/sleep", "600"))
    process = rkt.popen(INSECURE, "run", path)
    uuid = rkt.wait_for_pod()
    first = rkt.pid(uuid)
    process.kill()
    process.wait(10)
    deadline = time.monotonic() + 10 * SLOWNESS
    while os.path.exists(f"/proc/{first}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{first}")
    assert "state=exited" in rkt.run("status", uuid, check=0).lines


def test_a_program_that_is_not_there_is_named(rkt: Rkt, images: Images) -> None:
    """The message says what could not be opened, the status is systemd's 203 (§6.1 R8)."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    for name in ("/foo-not-there", "/foo not there"):
        result = rkt.run(INSECURE, "run", path, f"--exec={name}", check=203)
        assert f'Error: Unable to open "{name}": No such file or directory' in result.stderr


def test_a_missing_interpreter_is_named(rkt: Rkt, images: Images) -> None:
    """A script whose interpreter is missing says so instead of blaming the script (§6.1 R9)."""
    path = images.busybox(
        "example.com/script", ("/broken",), files={"broken": (b"#!/no/such/shell\n", 0o755)}, file="broken"
    )
    result = rkt.run(INSECURE, "run", path, check=203)
    assert 'Error: Unable to open "/no/such/shell": No such file or directory' in result.stderr


@pods("cgroups")
def test_limits_are_in_force(rkt: Rkt, images: Images) -> None:
    """A memory limit ends an app that eats more, without hurting anything else."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    hungry = "x=1; while :; do x=$x$x; done"
    assert rkt.run(INSECURE, "run", path, "--memory=16M", "--", "-c", hungry).status == 137


def test_a_stage1_that_was_fetched_unverified_is_still_the_installations_own(
    rkt: Rkt, images: Images
) -> None:
    """The built-in stage1 keeps its own verdict even if somebody fetched the same file without verification."""
    stage1 = os.path.join(ROOT, "build", "stage1", "stage1-ns.aci")
    rkt.run(INSECURE, "fetch", stage1, check=0)
    path = images.busybox("example.com/own", ("/bin/echo", "ran"), file="own-stage1")
    images.sign(path)
    trust(rkt, images, "example.com/own")
    assert rkt.run("run", path, check=0).lines == ["ran"]


def test_export_gives_back_the_fetched_bytes_and_verify_names_what_changed(rkt: Rkt, images: Images) -> None:
    """The exported file is the fetched one; after one byte of the tree changes, ``image verify`` names the file."""
    path = images.busybox("example.com/whole", ("/bin/sh",), file="whole", files={"data/file": b"content\n"})
    rkt.run(INSECURE, "fetch", path, check=0)
    exported = os.path.join(rkt.base, "exported.aci")
    rkt.run("image", "export", "example.com/whole", exported, check=0)
    assert subprocess.run(["cmp", path, exported], check=False).returncode == 0
    rkt.run("image", "verify", "example.com/whole", check=0)
    (layer,) = [
        os.path.join(rkt.data, "cas", "layer", name)
        for name in os.listdir(os.path.join(rkt.data, "cas", "layer"))
        if os.path.exists(os.path.join(rkt.data, "cas", "layer", name, "rootfs/data/file"))
    ]
    with open(os.path.join(layer, "rootfs/data/file"), "r+b") as stream:
        stream.write(b"C")
    result = rkt.run("image", "verify", "example.com/whole", check=254)
    assert "data/file" in result.stdout + result.stderr


def test_nothing_of_a_pod_is_on_the_host_while_it_runs(rkt: Rkt, images: Images) -> None:
    """Mounts of a running pod are its own: the host's mount table does not grow."""
    path = images.busybox("example.com/sleeper", ("/bin/sleep", "600"))
    rkt.popen(INSECURE, "run", path)
    rkt.wait_for_pod()
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        assert rkt.base not in stream.read()


def test_networks_that_exclude_each_other_are_refused_before_a_pod_is_made(rkt: Rkt, images: Images) -> None:
    """``--net=none --net=host`` ends with 254 and leaves no pod (design §9.8)."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    result = rkt.run(INSECURE, "run", "--net=none", "--net=host", path, check=254)
    assert "none and host exclude each other" in result.stderr
    assert rkt.pods() == {}
