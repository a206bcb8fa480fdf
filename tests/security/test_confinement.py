# SPDX-License-Identifier: Apache-2.0
"""What an app of a default pod can do, and that a command entering it can do no more (invariants RN2, RN9 to RN12, EN1).

The calls and files that are out of its reach are in ``test_probe``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from rkt.linux import capabilities, libc
from rkt.schema.isolators import DEFAULT_CAPABILITIES
from rkt.stage2.exec import ExecPlan, become
from tests.lib import host
from tests.lib.flavors import pods
from tests.lib.idmap import needs_idmapped_mounts
from tests.lib.isolated import run_isolated
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("confinement")]

# <linux/prctl.h>
_PR_GET_DUMPABLE = 3

#: What the probe prints: identity and confinement, namespaces, environment, descriptors, sensitive files.
PROBE = """\
grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status
for kind in cgroup ipc mnt net pid uts; do echo "ns-$kind $(readlink /proc/self/ns/$kind)"; done
echo "hostname $(hostname)"
env | sed 's/^/env /'
for fd in /proc/self/fd/*; do echo "fd ${fd##*/}"; done
echo "interfaces $(ls /sys/class/net | tr '\\n' ' ')"
echo "root $(grep ' / / ' /proc/self/mountinfo | cut -d' ' -f6)"
echo "devices $(busybox find /dev -type c -not -path '/dev/pts/*' | busybox sort | tr '\\n' ' ')"
echo "pids $(ls /proc | grep -c '^[0-9]*$')"
"""


class Seen:
    """The probe's answers."""

    def __init__(self, text: str) -> None:
        self.status = {}
        self.namespaces = {}
        self.environment = {}
        self.descriptors = set()
        self.rest = {}
        for line in text.splitlines():
            word, _, value = line.partition(" ")
            if line.partition(":")[1] and line.partition(":")[0].isalpha():
                key, _, number = line.partition(":")
                self.status[key] = number.split()
            elif word.startswith("ns-"):
                self.namespaces[word[3:]] = value
            elif word == "env":
                name, _, text_value = value.partition("=")
                self.environment[name] = text_value
            elif word == "fd":
                self.descriptors.add(value)
            else:
                self.rest[word] = value

    def mask(self, name: str) -> int:
        """A capability set."""
        return int(self.status[name][0], 16)


@pytest.fixture
def seen(request: pytest.FixtureRequest, rkt: Rkt, images: Images) -> Seen:
    """The probe as the app itself, or entering a running one, in a pod with or without a user namespace of its own."""
    words = ["--insecure-options=image", "run"]
    if request.param.startswith("private"):
        words.append("--private-users")
    if request.param.endswith("app"):
        path = images.busybox("example.com/probe", ("/bin/sh", "-c", PROBE))
        return Seen(rkt.run(*words, path, check=0, env={"HOST_SECRET": "leaked"}).stdout)
    path = images.busybox("example.com/sleeper", ("/bin/sleep", "600"))
    rkt.popen(*words, path)
    uuid = rkt.wait_for_pod()
    result = rkt.run("enter", uuid, "/bin/sh", "-c", PROBE, check=0, env={"HOST_SECRET": "leaked"})
    return Seen(result.stdout)


both = pytest.mark.parametrize(
    "seen",
    [
        "app",
        "enter",
        pytest.param("private app", marks=needs_idmapped_mounts),
        pytest.param("private enter", marks=needs_idmapped_mounts),
    ],
    indirect=True,
)


@both
def test_capabilities_are_the_eleven_and_none_is_passed_on(seen: Seen, flavor: str) -> None:
    """At most 11 capabilities in the bounding set, the permitted and effective no more, none inheritable or ambient."""
    bounding = seen.mask("CapBnd")
    # systemd-nspawn takes one away with a user namespace; there every port is free.
    lacking = {"CAP_NET_BIND_SERVICE"} if flavor == "nspawn" else set()
    assert {*capabilities.names(bounding), *lacking} == set(DEFAULT_CAPABILITIES)
    assert bounding.bit_count() <= 11
    assert seen.mask("CapPrm") == bounding
    assert seen.mask("CapEff") == bounding
    assert seen.mask("CapInh") == 0
    assert seen.mask("CapAmb") == 0


@both
def test_privileges_cannot_be_gained_and_calls_are_filtered(seen: Seen) -> None:
    """no_new_privs is on and a seccomp filter is in force."""
    assert seen.status["NoNewPrivs"] == ["1"]
    assert seen.status["Seccomp"] == ["2"]


@both
def test_the_root_and_its_devices(seen: Seen) -> None:
    """The root is mounted without set-user-id and devices, and ``/dev`` has six of them (UN7, UN8)."""
    assert {"nosuid", "nodev"} <= set(seen.rest["root"].split(","))
    devices = ("full", "null", "random", "tty", "urandom", "zero")
    assert seen.rest["devices"].split() == [f"/dev/{name}" for name in devices]


@both
def test_namespaces_are_not_the_hosts(seen: Seen) -> None:
    """Own pid, network, IPC, UTS, mount and cgroup namespaces, with nothing but a loopback interface."""
    for kind, name in seen.namespaces.items():
        assert name != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert len(seen.namespaces) == 6
    assert seen.rest["interfaces"].split() == ["lo"]
    assert seen.rest["hostname"].startswith("rkt-")
    assert int(seen.rest["pids"]) < 12


@both
def test_nothing_of_the_hosts_environment_or_descriptors_is_there(seen: Seen) -> None:
    """The environment is built from empty, and only the standard streams are open (CVE-2024-21626)."""
    allowed = {
        "PATH",
        "SHELL",
        "USER",
        "LOGNAME",
        "HOME",
        "AC_APP_NAME",
        "container",
        "TERM",
        "PWD",
        "SHLVL",
        "OLDPWD",
    }
    assert set(seen.environment) <= allowed
    assert seen.environment["HOME"] == "/root"
    assert seen.environment["container"] == "rkt"
    # The shell opens the directory it lists.
    assert {"0", "1", "2"} <= seen.descriptors
    assert len(seen.descriptors) <= 4


@both
def test_no_group_of_the_hosts_is_left(seen: Seen) -> None:
    """Supplementary groups are the app's own and the image's, which asks for none (RN12, CVE-2022-36109)."""
    assert seen.status["Groups"] == ["0"]
    assert seen.status["Uid"] == ["0"] * 4
    assert seen.status["Gid"] == ["0"] * 4


def test_a_user_without_privileges_has_none_at_all(rkt: Rkt, images: Images) -> None:
    """An app that is not root has empty capability sets, and the bounding set gives it nothing (CVE-2022-24769)."""
    path = images.busybox(
        "example.com/alice", ("/bin/sh", "-c", PROBE), app={"user": "alice", "group": "alice"}
    )
    seen = Seen(rkt.run("--insecure-options=image", "run", path, check=0).stdout)
    assert seen.status["Uid"] == ["1000"] * 4
    assert seen.mask("CapPrm") == seen.mask("CapEff") == seen.mask("CapInh") == seen.mask("CapAmb") == 0
    assert seen.status["NoNewPrivs"] == ["1"]


@pytest.mark.skipif(not host.is_cgroup2_only(), reason="cgroups are not of version 2 alone")
def test_an_app_sees_its_own_cgroup_alone(rkt: Rkt, images: Images) -> None:
    """On a host with version 2, ``/sys/fs`` shows the app's cgroup as the root of all, and no limit can be changed."""
    cgroup = "/sys/fs/cgroup"
    path = images.busybox("example.com/cgroups")
    script = (
        f"ls -A /sys/fs; cat /proc/self/cgroup; wc -l <{cgroup}/cgroup.procs; ls -d {cgroup}/*/ 2>/dev/null;"
        f"(echo max >{cgroup}/pids.max) 2>/dev/null && echo RAISED; mkdir {cgroup}/new 2>/dev/null && echo MADE;"
        "echo over"
    )
    result = rkt.run("--insecure-options=image", "run", path, "--exec=/bin/sh", "--", "-c", script, check=0)
    # The shell and the program that counts.
    assert result.lines == ["cgroup", "0::/", "2", "over"]


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /tmp",
        "umount /proc/sys",
        "mount -o remount,rw /proc/sys",
        "mknod /tmp/disk b 8 0",
        "unshare -U true",
        "unshare -m true",
        "hostname changed",
        "ip link add dummy0 type dummy",
    ],
)
def test_what_a_root_in_the_pod_must_not_do(rkt: Rkt, images: Images, attempt: str) -> None:
    """Mounting, devices, namespaces, and the pod's own name are out of reach of root in an app."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    result = rkt.run(
        "--insecure-options=image", "run", path, "--", "-c", f"{attempt} 2>/dev/null && echo DONE; echo end"
    )
    assert result.lines == ["end"], str(result)


def test_the_pods_first_process_is_no_way_out(rkt: Rkt, images: Images) -> None:
    """An app sees nothing of the root of pid 1, and can write neither its program (CVE-2019-5736) nor its memory, though it has the same uid."""
    first = f"/proc/{first_process(rkt, images)}/exe"
    assert os.statvfs(first).f_flag & os.ST_RDONLY


@pods("powerless pid 1")
def test_the_pods_first_process_has_no_rights(rkt: Rkt, images: Images) -> None:
    """Pid 1 has no capability, is filtered as an app is, and nobody can read its program, by which its memory is closed."""
    pid = first_process(rkt, images)
    assert stat.S_IMODE(os.stat(f"/proc/{pid}/exe").st_mode) == 0o111, (
        "its memory is a secret as long as nobody may read it"
    )
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert {int(status[name], 16) for name in status if name.startswith("Cap")} == {0}


def first_process(rkt: Rkt, images: Images) -> int:
    """Pid 1 of a pod whose app has found no way to it."""
    script = """
ls -A /proc/1/root/ 2>/dev/null
for file in exe mem; do (echo x >> /proc/1/$file) 2>/dev/null && echo "WRITTEN $file"; done
head -c 1 /proc/1/environ 2>/dev/null
echo end
sleep 600
"""
    path = images.busybox("example.com/first", ("/bin/sh", "-c", script))
    process = rkt.popen("--insecure-options=image", "run", path)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: "end" in process.stdout_text, "the end of the script")
    assert process.stdout_text == "end\n"
    return rkt.pid(uuid)


class _ExecutedError(Exception):
    """In place of the program that would run."""


def test_nobody_looks_into_a_process_that_becomes_an_app() -> None:
    """Until its program runs, a process with an app's capabilities and descriptors of the host is closed (CVE-2016-9962)."""

    def dumpable() -> tuple[int, int]:
        plan = ExecPlan(
            argv=[b"/bin/true"],
            environment={},
            uid=0,
            gid=0,
            groups=[0],
            working_directory=b"/",
            capabilities=capabilities.mask(DEFAULT_CAPABILITIES)
            & ~capabilities.missing(capabilities.full_mask()),
            no_new_privileges=True,
            seccomp=b"",
        )
        library = ctypes.CDLL(None)
        # Some test before may have changed the ids of the process that this one is a child of, which ends that.
        library.prctl(libc.PR_SET_DUMPABLE, 1)
        before = int(library.prctl(_PR_GET_DUMPABLE))

        def execve(*_: object) -> None:
            raise _ExecutedError

        os.execve = execve  # type: ignore[assignment]
        with contextlib.suppress(_ExecutedError):
            become(plan)
        return before, int(library.prctl(_PR_GET_DUMPABLE))

    assert run_isolated(dumpable, 0) == [1, 0]


_STREAMS = """
for number in 0 1 2; do
  chmod 777 /proc/self/fd/$number; chown 1:1 /proc/self/fd/$number
  [ $number = 1 ] || (echo more >> /proc/self/fd/$number)
done 2>/dev/null
stat -L -c '%d:%i' /proc/self/fd/0 /dev/null
"""


def test_no_file_of_the_hosts_is_behind_the_standard_streams(rkt: Rkt, images: Images) -> None:
    """Root in an app can change neither the host's ``/dev/null`` nor a file that the operator gives or takes (RN2)."""
    path = images.busybox("example.com/streams", ("/bin/sh", "-c", _STREAMS))
    rkt.popen("--insecure-options=image", "run", "--name=sleeper", path, "--exec=/bin/sleep", "--", "600")
    rkt.wait_for_pod()
    rkt.run("status", "--wait-ready=20s", "sleeper", check=0)
    null = os.stat("/dev/null")
    behind = rkt.run("--insecure-options=image", "run", path, check=0).lines
    assert len(behind) == 2
    assert f"{null.st_dev}:{null.st_ino}" not in behind
    # The tests' own standard streams are files.
    rkt.run("--insecure-options=image", "run", "--interactive", path, input="given\n", check=0)
    files = [os.path.join(rkt.base, name) for name in ("given", "taken")]
    for name in files:
        with open(name, "w", encoding="ascii") as file:
            file.write("given\n")
        os.chmod(name, 0o600)
    with open(files[0], "rb") as given, open(files[1], "ab") as taken:
        command = rkt.command("enter", "sleeper", "/bin/sh", "-c", _STREAMS)
        subprocess.run(command, stdin=given, stdout=taken, stderr=taken, check=True, env=rkt.environment())
    for name in files:
        status = os.stat(name)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, 0, 0)
    with open(files[0], encoding="ascii") as file:
        assert file.read() == "given\n"
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_gid) == (null.st_mode, null.st_uid, null.st_gid)


def test_files_pass_through_enter_whole(rkt: Rkt, images: Images) -> None:
    """Large input and output of ``enter`` arrive, in order when both streams go to one file, read by the command or not."""
    path = images.busybox("example.com/sleeper", ("/bin/sleep", "600"))
    rkt.popen("--insecure-options=image", "run", "--name=sleeper", path)
    rkt.wait_for_pod()
    rkt.run("status", "--wait-ready=20s", "sleeper", check=0)
    names = [os.path.join(rkt.base, name) for name in ("given", "taken")]
    data = b"".join(b"%d\n" % number for number in range(100_000))
    with open(names[0], "wb") as file:
        file.write(data)
    for script, expected in (
        ("cat", data),
        ("head -c 1 >/dev/null; seq 0 99999", data),
        (
            "for i in $(seq 50); do echo out$i; echo err$i >&2; done",
            b"".join(b"out%d\nerr%d\n" % (i, i) for i in range(1, 51)),
        ),
    ):
        with open(names[0], "rb") as given, open(names[1], "wb") as taken:
            command = rkt.command("app", "exec", "sleeper", "/bin/sh", "-c", script)
            subprocess.run(
                command,
                stdin=given,
                stdout=taken,
                stderr=taken,
                check=True,
                env=rkt.environment(),
                timeout=30,
            )
        with open(names[1], "rb") as file:
            assert file.read() == expected, script


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "tmp", "run"])
def test_a_link_of_the_image_changes_nothing_on_the_host(rkt: Rkt, images: Images, name: str) -> None:
    """An image whose directory is a link to a directory of the host leaves that directory as it was (invariant RN6)."""
    trap = os.path.join(rkt.base, "trap")
    os.mkdir(trap)
    path = images.busybox(
        f"example.com/link-{name}",
        ("/bin/busybox", "echo", "ran"),
        links={name: trap},
        file=f"{os.path.basename(rkt.base).lower()}-{name}",
    )
    assert rkt.run("--insecure-options=image", "run", path, check=0).lines == ["ran"]
    assert os.listdir(trap) == []


def test_entering_from_below_a_chroot_stays_in_the_app(rkt: Rkt, images: Images) -> None:
    """Where rkt runs below a chroot, joining the app's mount namespace leads to the host's root; enter does not stay there."""
    image = images.busybox("example.com/sleeper", ("/bin/sleep", "600"))
    view = os.path.join(rkt.base, "view")
    os.mkdir(view)
    script = f"""
set -e
mount --rbind / {view}
mount --make-rslave {view}
chroot {view} {shlex.join(rkt.command("--insecure-options=image", "run", "--uuid-file-save=" + rkt.base + "/uuid", image))} &
for i in $(seq 200); do
  pod={rkt.data}/pods/run/$(cat {rkt.base}/uuid 2>/dev/null) || true
  [ ! -s $pod/pid ] || break
  sleep 0.1
done
uuid=$(cat {rkt.base}/uuid)
chroot {view} {shlex.join(rkt.command("enter"))} $uuid /bin/sh -c 'ls -d /work /usr/share /boot 2>/dev/null; cat /etc/passwd | wc -l; exit 9' || echo status $?
chroot {view} {shlex.join(rkt.command("stop"))} $uuid
wait
"""
    result = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env=rkt.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.splitlines()[:2] == ["3", "status 9"], result
