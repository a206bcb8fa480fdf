# SPDX-License-Identifier: Apache-2.0
"""``rkt check-host`` on this host: it really tries, it leaves nothing, and anybody may ask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import host

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root
_NOBODY = 65534


def check(rkt: Rkt, *flags: str, before: tuple[str, ...] = (), status: int = 0) -> dict[str, Any]:
    """What it says as JSON, started by a command that changes the caller's rights or view."""
    command = [*before, *rkt.command("check-host", "--format=json", *flags)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=rkt.environment(), timeout=120
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def states(document: dict[str, Any]) -> dict[str, str]:
    """State of each finding."""
    return {each["name"]: each["state"] for each in document["findings"]}


@pytest.fixture(scope="module")
def answer(module_rkt: Rkt) -> dict[str, Any]:
    """Asked once, of a data directory that is not there."""
    return check(module_rkt, f"--dir={module_rkt.base}/absent/data")


def test_this_host_runs_pods(answer: dict[str, Any]) -> None:
    """Where this suite runs pods of the default flavour can run, and each thing is told in the documented form."""
    assert answer["format"] == "rkt.check-host"
    assert answer["version"] == 1
    assert answer["ok"] is True
    assert answer["flavor"] == "ns"
    assert [each["flavor"] for each in answer["flavors"]] == ["ns", "nspawn", "fly", "kvm"]
    assert [each["default"] for each in answer["flavors"]] == [True, False, False, False]
    for each in answer["findings"]:
        assert set(each) == {"area", "name", "state", "text", "hint", "stops", "lacks"}
        assert each["state"] in {"ok", "limited", "missing", "none", "unknown"}
        assert each["text"]
    named = states(answer)
    for name in (
        "mounts",
        "paths",
        "processes",
        "system calls",
        "directory",
        "stage1 images",
        "first process",
    ):
        assert named[name] == "ok", name


def test_it_agrees_with_the_host(answer: dict[str, Any]) -> None:
    """What was tried is what other programs find."""
    named = states(answer)
    with open("/proc/filesystems", encoding="ascii") as stream:
        assert (named["overlay"] == "ok") == ("\toverlay\n" in stream.read())
    assert (named["gpgv"] == "ok") == bool(shutil.which("gpgv"))
    assert (named["process 1"] == "ok") == os.path.isdir("/run/systemd/system")
    layout = next(each["text"] for each in answer["findings"] if each["name"] == "layout")
    assert (layout == "version 2") == host.is_cgroup2_only()


def test_nothing_is_left(module_rkt: Rkt, answer: dict[str, Any]) -> None:
    """Neither the data directory nor what is above it, no cgroup, no mount and no process of it is there afterwards."""
    assert answer["findings"]
    assert not os.path.exists(f"{module_rkt.base}/absent")
    assert [name for name in os.listdir(module_rkt.base) if "check-host" in name] == []
    assert [path for path in host.cgroups() if "rkt-check-host" in path] == []
    assert module_rkt.leaks() == []


def test_what_a_killed_one_left_goes(module_rkt: Rkt) -> None:
    """The directory of an attempt whose process is gone is taken away by the next; with --flavor the status is its own."""
    left = f"{module_rkt.data}/.rkt-check-host-4194305"
    os.makedirs(f"{left}/upper/new")
    assert check(module_rkt, "--flavor=kvm", status=1)["ok"] is False
    assert not os.path.exists(left)


def test_anybody_may_ask(module_rkt: Rkt) -> None:
    """A user is told what can be seen, that root can tell more, and that pods are root's to start."""
    before = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--")
    document = check(module_rkt, before=before, status=1)
    named = states(document)
    assert named["user"] == "unknown"
    assert named["overlay"] == "unknown"
    assert "missing" not in named.values()
    assert document["flavors"][0]["hints"] == ["sudo rkt check-host"]


def test_rights_and_programs_that_are_missing(module_rkt: Rkt) -> None:
    """Root without a capability that pods need, on a host without nft, is told of both, and cannot run pods."""
    nft = shutil.which("nft")
    if not nft:
        pytest.skip("the host has no nft")
    hidden = (
        f'mount --bind /dev/null {nft} && exec setpriv --bounding-set=-mknod,-syslog --inh-caps=-all -- "$@"'
    )
    document = check(module_rkt, before=("unshare", "--mount", "/bin/sh", "-c", hidden, "sh"), status=1)
    named = {each["name"]: each for each in document["findings"]}
    assert named["nftables"]["state"] == "limited"
    assert named["nftables"]["hint"].startswith("apt install nftables")
    assert "CAP_MKNOD" in named["capabilities"]["text"]
    assert named["device nodes"]["stops"] == ["ns", "nspawn"]
    assert document["flavors"][0]["state"] == "missing"
    assert "device nodes" in document["flavors"][0]["reasons"]
