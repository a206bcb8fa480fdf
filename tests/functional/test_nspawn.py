# SPDX-License-Identifier: Apache-2.0
"""Pods of the ``nspawn`` flavour: what only they have (spec runtime §3.1 to §3.6); what all have is tested with ``flavors``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from rkt.linux import capabilities
from rkt.stage1.nspawn import units
from tests.lib.aci import Entry
from tests.lib.activator import activator
from tests.lib.flavors import PROGRAMS
from tests.lib.host import missing
from tests.lib.images import fetch
from tests.lib.inspect import inspect_image, manifest_app, stored, write_pod_manifest
from tests.lib.rkt import wait_for
from tests.unit.stage1.nspawn.test_units import ARGUMENTS, plan, pod_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = pytest.mark.root

FLAGS = ("--insecure-options=image", "--stage1-name=coreos.com/rkt/stage1-nspawn", "--net=none")
#: What systemd-nspawn keeps of a machine on the host.
LEFT = "/run/systemd/nspawn/propagate"


@pytest.fixture(autouse=True)
def nspawn() -> None:
    """The host has what the flavour needs."""
    if reason := missing(*PROGRAMS["nspawn"], "nsenter"):
        pytest.skip(reason)


class Pod:
    """A running pod of two apps: one of a user of its own with limits, and one that says something."""

    def __init__(self, rkt: Rkt, images: Images) -> None:
        self.rkt = rkt
        image = fetch(rkt, images.busybox())
        self.process: Running = rkt.popen(
            "run", *FLAGS,
            image, "--name=a", "--user=1234", "--group=1235", "--memory=64Mi", "--caps-retain=CAP_NET_BIND_SERVICE",
            "--exec=/bin/sleep", "--", "600", "---",
            image, "--name=b", "--exec=/bin/sh", "--", "-c", "echo said; echo of b >&2; exec sleep 600",
        )  # fmt: skip
        self.uuid = wait_for(lambda: next(iter(rkt.pods("run")), None), "pod")
        path = rkt.pod_path(self.uuid)
        for app in "ab":
            wait_for(lambda a=app: os.path.exists(f"{path}/appsinfo/{a}/pid"), f"app {app}")  # type: ignore[misc]
        rkt.wait_for_pod()
        self.leader = rkt.pid(self.uuid)

    def inside(self, *words: str) -> str:
        """What a command beside the pod's systemd says."""
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")
        command = ["nsenter", f"--target={self.leader}", *namespaces, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout

    def shown(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        lines = self.inside("systemctl", "show", unit, f"--property={','.join(names)}").splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def pod(module_rkt: Rkt, images: Images) -> Iterator[Pod]:
    """Shared by the tests of this file that only look."""
    each = Pod(module_rkt, images)
    try:
        yield each
    finally:
        module_rkt.run("stop", each.uuid, check=0)
        assert each.process.wait(20) == 0
        assert not os.path.exists(f"{LEFT}/rkt-{each.uuid}")


def test_each_app_is_a_service(pod: Pod) -> None:
    """The pod's systemd has a service for each app, with the app's user, capabilities and confinement."""
    shown = pod.shown(
        "a.service",
        "ActiveState",
        "User",
        "Group",
        "CapabilityBoundingSet",
        "NoNewPrivileges",
        "RootDirectory",
    )
    assert shown == {
        "ActiveState": "active",
        "User": "1234",
        "Group": "1235",
        "CapabilityBoundingSet": "cap_net_bind_service",
        "NoNewPrivileges": "yes",
        "RootDirectory": "/opt/stage2/a/rootfs",
    }
    assert pod.shown("b.service", "ActiveState") == {"ActiveState": "active"}
    assert "Application=a Image=example.com/busybox" in pod.inside("systemctl", "status", "a.service")


def test_an_apps_process_is_what_its_unit_says(pod: Pod) -> None:
    """The kernel's word on an app's process: ids, bounding set, no_new_privs, filter, memory limit."""
    with open(f"{pod.rkt.pod_path(pod.uuid)}/appsinfo/a/pid", encoding="ascii") as stream:
        pid = int(stream.read().split()[0])
    with open(f"/proc/{pid}/status", encoding="ascii") as stream:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
    assert status["Uid"].split() == ["1234"] * 4
    assert int(status["CapBnd"], 16) == 1 << 10
    assert int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    limits = {"memory.max", "memory.limit_in_bytes"}
    found = subprocess.run(
        ["find", "/sys/fs/cgroup", "-path", f"*rkt-{pod.uuid}*/a*", "-name", "memory.*"],
        check=True, capture_output=True, text=True, timeout=20,
    ).stdout.split()  # fmt: skip
    values = set()
    for path in found:
        if os.path.basename(path) in limits:
            with open(path, encoding="ascii") as stream:
                values.add(stream.read().strip())
    assert values == {str(64 << 20)}


def test_the_pods_root_has_nothing_of_the_host_but_usr(pod: Pod) -> None:
    """The pod has the host's /usr, read-only, none of its units, and a machine-id that is its UUID."""
    assert pod.inside("cat", "/etc/machine-id") == pod.uuid.replace("-", "") + "\n"
    assert pod.inside("sh", "-c", "touch /usr/x 2>&1 || true").endswith("Read-only file system\n")
    units = pod.inside("systemctl", "list-unit-files", "--type=service", "--no-legend").split()[::3]
    assert {"a.service", "b.service", "systemd-journald.service"} <= set(units)
    assert "systemd-logind.service" not in units
    names = pod.inside("cat", "/etc/passwd")
    assert "gen1234:x:1234:" in names
    assert not os.path.exists(f"/proc/{pod.leader}/root/home")


def test_the_pods_journal_has_what_apps_say(pod: Pod) -> None:
    """``journalctl -u APP`` in the pod shows the app's lines, and that they are of its unit."""

    def lines() -> list[str]:
        return pod.inside("journalctl", "--unit=b", "--output=cat", "--no-pager").splitlines()

    wait_for(lambda: {"said", "of b"} <= set(lines()), "lines in the journal")
    shown = pod.inside("journalctl", "_SYSTEMD_UNIT=b.service", "--output=cat", "--no-pager")
    assert "said" in shown


def test_low_ports_with_user_namespaces(rkt: Rkt, images: Images) -> None:
    """An app of a pod with users of its own has port 80, although the network namespace is not its users'."""
    image = fetch(rkt, images.busybox())
    script = "nc -l -p 80 & until netstat -ltn | grep :80; do kill -0 $! || exit 1; sleep 0.02; done"
    words = ("--private-users", image, "--exec=/bin/sh", "--", "-c", script)
    assert ":80 " in rkt.run("run", *FLAGS, *words, check=0).stdout


def test_a_program_that_is_not_there_is_named(rkt: Rkt, images: Images) -> None:
    """An app that cannot be executed has status 203, and says why as with any other flavour."""
    image = fetch(rkt, images.busybox())
    result = rkt.run("run", *FLAGS, image, "--exec=/nope", check=203)
    assert 'Error: Unable to open "/nope": No such file or directory\n' in result.stderr


def test_the_last_line_of_a_handler_is_its_own(rkt: Rkt, images: Images) -> None:
    """In the log a line that a pre-start handler did not finish is not joined with the app's first one."""
    handler = {"name": "pre-start", "exec": ["/bin/sh", "-c", "printf before"]}
    image = inspect_image(images, "unfinished", app={"eventHandlers": [handler]})
    rkt.run("run", *FLAGS, image, "--", "-c", "echo during", check=0)
    (uuid,) = rkt.pods("run")
    assert rkt.run("logs", uuid, check=0).lines == ["before", "during"]


def test_nspawn_dies_with_a_supervisor_that_is_killed_while_it_boots(rkt: Rkt, images: Images) -> None:
    """With user ids of the pod's own, too, whose making takes back what was said of the end."""
    image = fetch(rkt, images.busybox())
    process = rkt.popen("run", *FLAGS, "--private-users", image, "--exec=/bin/sleep", "--", "600")

    def nspawn() -> int:
        words = ["pgrep", "--parent", str(process.pid), "--exact", "systemd-nspawn"]
        found = subprocess.run(words, check=False, capture_output=True, text=True, timeout=20).stdout.split()
        return int(found[0]) if found else 0

    pid = wait_for(nspawn, "systemd-nspawn")
    process.kill()
    process.wait(20)

    def is_over() -> bool:
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                return stream.read().rpartition(b") ")[2].startswith(b"Z")
        except FileNotFoundError:
            return True

    wait_for(is_over, "end of systemd-nspawn")
    rkt.run("gc", "--grace-period=0s", check=0)


def test_a_client_starts_no_app(rkt: Rkt, images: Images) -> None:
    """An app that is over stays so, whoever waits on the socket that it had: systemd has seen the client, and starts nothing."""
    image = stored(rkt, inspect_image(images))
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_connection(http.getsockname()):
        port = {
            "name": "http",
            "protocol": "tcp",
            "port": http.getsockname()[1],
            "socketActivated": True,
        }
        manifest = write_pod_manifest(
            f"{rkt.base}/pod",
            [
                manifest_app(image, "web", "echo begun", ports=[port]),
                manifest_app(image, "other", "exec sleep 600"),
            ],
        )
        with subprocess.Popen(
            [*activator([http], "web"), *rkt.command("run", *FLAGS, f"--pod-manifest={manifest}")],
            env=rkt.environment(),
            pass_fds=[http.fileno()],
            stdout=subprocess.DEVNULL,
        ) as process:
            uuid = rkt.wait_for_pod()
            wait_for(lambda: "begun" in rkt.log(uuid, "web"), "output")

            def states() -> list[str]:
                units = ("sockets-3.socket", "web.service")
                command = ("systemctl", "show", "--property=SubState", "--value", *units)
                return rkt.run("enter", "--pod", uuid, *command, check=0).stdout.split()

            try:
                wait_for(lambda: states() == ["running", "dead"], "systemd to see the client")
            finally:
                rkt.run("stop", uuid, check=0)
            assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("place", "target"),
    [("program", "tmp"), ("program", "opt/stage2/leads-away/rootfs/dir1"), ("post-stop", "tmp")],
    ids=["to-systemd", "to-its-own-root-there", "after-the-app"],
)
def test_a_working_directory_that_leads_out_of_the_root(
    rkt: Rkt, images: Images, place: str, target: str
) -> None:
    """What systemd would start outside of the app's root, by a link that was made a moment ago, does nothing at all, and the pod ends (security RN2)."""
    lead_away = f"rm -r /out; ln -s /../../proc/1/root/{target} /out"
    handlers = {"pre-start": "true", "post-stop": "echo after >&2"}
    if place == "program":
        handlers["pre-start"] = lead_away
    image = inspect_image(
        images,
        f"leads-away-{place}-{len(target)}",
        name="example.com/leads-away",
        app={
            "eventHandlers": [
                {"name": name, "exec": ["/bin/sh", "-c", each]} for name, each in handlers.items()
            ],
            "workingDirectory": "/out",
        },
        files={"out/x": b""},
    )
    script = "echo begun >&2; cd /" if place == "program" else lead_away
    ran = rkt.run("run", *FLAGS, image, "--exec=/bin/sh", "--", "-c", script, check=254)
    assert "working directory /out leads out of its root" in ran.stderr
    assert "begun" not in ran.stderr
    assert "after" not in ran.stderr


@pytest.mark.parametrize("words", [(), ("--private-users",)], ids=["plain", "users"])
def test_a_working_directory_of_the_apps_own(rkt: Rkt, images: Images, words: tuple[str, ...]) -> None:
    """Root starts where it is to, also below what is somebody else's alone, and its handlers too."""
    image = inspect_image(
        images,
        "somewhere",
        app={
            "eventHandlers": [{"name": name, "exec": ["/bin/pwd"]} for name in ("pre-start", "post-stop")],
            "workingDirectory": "/home/deep",
        },
        entries=[
            Entry(f"rootfs{each}", b"5", mode=0o700, uid=77, gid=77) for each in ("/home", "/home/deep")
        ],
    )
    ran = rkt.run("run", *FLAGS, *words, image, "--exec=/bin/pwd", check=0)
    assert ran.lines == ["/home/deep"] * 3


def test_a_systemd_that_is_executed_anew(rkt: Rkt, images: Images) -> None:
    """Root in an app can have the pod's systemd do that, by a signal; how its apps end is known all the same."""
    image = fetch(rkt, images.busybox())
    script = "kill -TERM 1 && kill -HUP 1 && echo sent; while [ ! -e /go ]; do sleep 0.05; done; exit 3"
    process = rkt.popen("run", *FLAGS, image, "--exec=/bin/sh", "--", "-c", script)
    wait_for(lambda: "sent" in process.stdout_text, "signals")
    uuid = rkt.wait_for_pod()
    rkt.run("enter", uuid, "/bin/touch", "/go", check=0)
    assert process.wait(20) == 3


def test_a_process_of_many_groups() -> None:
    """All that the kernel tells of a process is read, however long it is, and by that it is confirmed."""
    app = pod_app()
    execute = plan(capabilities=capabilities.full_mask(), no_new_privileges=False)
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups(range(4_000_000_000, 4_000_060_000))
        os.write(done, b"+")
        signal.pause()
    try:
        assert os.read(ready, 1) == b"+"
        units.confirm(child, app, execute, ARGUMENTS.replace(disable_seccomp=True))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(done)
