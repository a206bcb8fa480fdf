# SPDX-License-Identifier: Apache-2.0
"""Units of nspawn's pods as systemd itself reads them, and a pod of two apps looked at from beside them."""

from __future__ import annotations

import os
import random
import select
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from rkt.linux import capabilities, seccomp
from rkt.schema import appc, isolators
from rkt.stage1.common.arguments import RunArguments
from rkt.stage1.common.pod import LoadedPod, PodApp
from rkt.stage1.nspawn import units
from rkt.stage2.exec import ExecPlan
from rkt.values import PodUUID
from tests.lib.booted import APP_ROOT, BOOT_SECONDS, Booted, needs_nspawn
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.stage1.nspawn.dbus import Manager
    from tests.lib.images import Images

pytestmark = pytest.mark.root

ARGUMENTS = RunArguments(uuid=PodUUID.parse("6d5fa0a5-3a9c-4b3c-9d3e-0123456789ab"))
KEPT = capabilities.mask(isolators.DEFAULT_CAPABILITIES)
#: Says what it is given, as Python writes it.
SAY = b"import os, sys; print([os.fsencode(a) for a in sys.argv[1:]]); print(dict(os.environb)); sys.exit(7)"
SEED = int(os.environ.get("RKT_TEST_SEED", "20261123"))
#: What a parser of units, words, specifiers, variables or environment files might take for something else.
PIECES = [
    "%n",
    "%%",
    "%i",
    "$X",
    "${X}",
    "$$",
    "$(x)",
    "\\",
    "\\\\",
    "\\n",
    "\\x41",
    "\\u0041",
    '"',
    "'",
    "`",
    ";",
    "#",
    "=",
    ",",
    ":",
    "|",
    "&",
    "!",
    "@",
    "+",
    "-",
    "~",
    "\n",
    "\n\n",
    "\t",
    "\r",
    "\x01",
    "\x1b",
    "\x7f",
    "é",
    "\u2028",
    "😀",
    "[Service]",
    "ExecStart=/bin/sh",
    "Environment=",
    ";",
    ";;",
    "/bin/sh",
    "-c",
    "A=B",
]


def hostile(choose: random.Random) -> bytes:
    """Some text that is nasty to a parser."""
    pieces = [choose.choice([*PIECES, " ", "  ", "x"]) for _ in range(choose.randint(0, 12))]
    return "".join(pieces).encode()


def plan(argv: list[bytes], environment: dict[bytes, bytes]) -> ExecPlan:
    """An app of the host's programs."""
    return ExecPlan(
        argv=argv,
        environment={b"PATH": b"/usr/bin:/bin", **environment},
        uid=0,
        gid=0,
        groups=[0],
        working_directory=b"/tmp/of %n $X; \\",
        capabilities=KEPT,
        no_new_privileges=True,
        seccomp=b"",
    )


def pod_app(name: str) -> PodApp:
    """An app that asks for nothing."""
    image = appc.parse_image_manifest(
        b'{"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/app",'
        b' "app": {"exec": ["/bin/true"], "user": "0", "group": "0"}}'
    )
    digest = "0" * 128
    manifest = appc.parse_pod_manifest(
        f'{{"acKind": "PodManifest", "acVersion": "0.8.11", "apps": [{{"name": "{name}", "image": {{"id": "sha512-{digest}"}}}}]}}'.encode()
    )
    assert image.app is not None
    return PodApp(runtime=manifest.apps[0], app=image.app, image=image)


@pytest.fixture(scope="module")
def asked() -> ExecPlan:
    """Arguments and variables by a seed; it is in the output of a test that fails."""
    print(f"RKT_TEST_SEED={SEED}")
    choose = random.Random(SEED)
    arguments = [hostile(choose) for _ in range(80)]
    variables = {b"V%d" % index: hostile(choose) for index in range(80)}
    return plan([b"python3", b"-c", SAY, *arguments], variables)


@pytest.fixture(scope="module")
def booted(asked: ExecPlan) -> Iterator[Booted]:
    """A systemd with the units of a pod."""
    app = pod_app("web")
    unit = units.AppUnit(
        app=app,
        execute=asked,
        program=b"/usr/bin/python3",
        root=APP_ROOT.encode(),
        stdout="file:/rkt/streams/out",
        stderr="file:/rkt/streams/out",
    )
    pod = LoadedPod(manifest=appc.parse_pod_manifest(EMPTY_POD), apps=[app])
    written = {**units.pod_units(), **units.app_units(unit, pod, ARGUMENTS)}
    content: dict[str, bytes | str] = {f"rkt/units/{name}": value for name, value in written.items()}
    content["etc/passwd"], content["etc/group"] = units.accounts([asked])
    content[f"{APP_ROOT[1:]}{asked.working_directory.decode()}/file"] = b""
    made = Booted(content, pipes=["rkt/streams/out"], filter_program=seccomp.compile_pod_filter())
    yield made
    made.close()


EMPTY_POD = b'{"acKind": "PodManifest", "acVersion": "0.8.11", "apps": []}'


def events(manager: Manager, unit: str) -> list[dict[str, object]]:
    """What is told of a unit until it has ended."""
    deadline = time.monotonic() + BOOT_SECONDS * SLOWNESS
    found: list[dict[str, object]] = []
    while not any(each.get("ActiveState") == "failed" for each in found):
        assert time.monotonic() < deadline, found
        select.select([manager], [], [], 1)
        found += [changed for name, changed in manager.receive() if name == unit]
    return found


@needs_nspawn
def test_nothing_is_more_than_a_value(booted: Booted, asked: ExecPlan) -> None:
    """Arguments, variables and a directory reach the program as they are, through systemd's own parser (RN21); D-Bus tells how it ends."""
    output = os.open(booted.path("rkt/streams/out"), os.O_RDONLY | os.O_NONBLOCK)
    manager = booted.connect()
    try:
        manager.subscribe()
        manager.start("web.service")
        told = events(manager, "web.service")
        said = b""
        while data := os.read(output, 1 << 20):
            said += data
        properties = manager.properties("web.service")
    finally:
        os.close(output)
        manager.close()
    lines = said.decode().splitlines()
    assert len(lines) == 2, said
    # What Python writes of bytes it reads again.
    arguments, variables = (eval(line, {"__builtins__": {}}) for line in lines)
    assert arguments == asked.argv[3:]
    # Python itself sets the last one where there is none.
    assert {name: value for name, value in variables.items() if name != b"LC_CTYPE"} == {
        **asked.environment,
        **{name: variables[name] for name in (b"HOME", b"USER", b"LOGNAME", b"SHELL")},
    }
    assert any(each.get("ActiveState") == "active" for each in told)
    last = {name: value for each in told for name, value in each.items()}
    assert {name: last[name] for name in ("ActiveState", "Result", "ExecMainCode", "ExecMainStatus")} == {
        "ActiveState": "failed",
        "Result": "exit-code",
        "ExecMainCode": 1,
        "ExecMainStatus": 7,
    }
    assert properties["ExecMainStatus"] == 7


@needs_nspawn
def test_systemd_exits_with_the_status_of_the_pod(booted: Booted) -> None:
    """The last call lets the pod end at once, with the status that it is given; runs last, it ends what the others use."""
    manager = booted.connect()
    try:
        manager.exit(9)
    finally:
        manager.close()
    assert booted.wait() == 9


@pytest.fixture(scope="module")
def nspawn(rkt_binary: str) -> Iterator[Rkt]:
    """An engine whose pods are run by systemd."""
    engine = Rkt(tempfile.mkdtemp(prefix="rkt-test-"), rkt_binary, flavor="nspawn")
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def two_apps(nspawn: Rkt, images: Images) -> str:
    """A pod of two apps with limits, users and filters of their own."""
    image = images.busybox("example.com/app", ("/bin/sleep", "600"))
    nspawn.popen(
        "--insecure-options=image", "run", "--name=two",
        image, "--name=web", "--memory=64M", "--cpu=500m", "--pids-limit=50", "--ulimit=nofile=200:300",
        "--caps-retain=CAP_CHOWN,CAP_NET_BIND_SERVICE", "---",
        image, "--name=db", "--user=1000", "--group=1001", "--seccomp=mode=remove,errno=EACCES,chmod,fchmodat",
        "--exec=/bin/sh", "--", "-c", "touch /tmp/x; chmod 600 /tmp/x; exec sleep 600",
    )  # fmt: skip
    wait_for(
        lambda: all(not nspawn.run("enter", f"--app={app}", "two", "/bin/true").status for app in ("web", "db")),
        "the pod",
    )  # fmt: skip
    return "two"


def in_pod(rkt: Rkt, *words: str) -> str:
    """What a command says that runs beside the apps."""
    return rkt.run("enter", "--pod", "two", *words, check=0).stdout


def status_of(rkt: Rkt, unit: str) -> dict[str, str]:
    """``/proc/PID/status`` of a unit's process, in the pod."""
    pid = in_pod(rkt, "systemctl", "show", "--property=MainPID", "--value", unit).strip()
    lines = in_pod(rkt, "cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def shown(rkt: Rkt, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit as systemctl shows them."""
    text = in_pod(rkt, "systemctl", "show", *(f"--property={name}" for name in names), unit)
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


@needs_nspawn
def test_each_app_is_a_service(nspawn: Rkt, two_apps: str) -> None:
    """``systemctl status`` through ``enter --pod`` lists one running service for each app, and nothing that has failed."""
    assert two_apps
    text = in_pod(nspawn, "systemctl", "status", "--no-pager", "web.service", "db.service")
    assert text.count("Active: active (running)") == 2
    assert "Application=web Image=example.com/app" in text
    listed = in_pod(
        nspawn, "systemctl", "list-units", "--no-pager", "--no-legend", "--plain", "--type=service"
    )
    names = {line.split()[0] for line in listed.splitlines()}
    assert names - {"systemd-journald.service"} == {"web.service", "db.service"}
    assert not in_pod(nspawn, "systemctl", "list-units", "--failed", "--no-legend").strip()


@needs_nspawn
def test_services_are_confined_as_they_say(nspawn: Rkt, two_apps: str) -> None:
    """Limits, capabilities, filter and user of each service are those that were asked for, and the kernel says the same of its process."""
    assert two_apps
    web = shown(
        nspawn, "web.service",
        "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax", "LimitNOFILE", "LimitNOFILESoft", "CapabilityBoundingSet",
        "AmbientCapabilities", "NoNewPrivileges", "SystemCallErrorNumber", "User", "Group", "RestrictNamespaces", "Restart",
    )  # fmt: skip
    assert web == {
        "MemoryMax": "64000000",
        "CPUQuotaPerSecUSec": "500ms",
        "TasksMax": "50",
        "LimitNOFILE": "300",
        "LimitNOFILESoft": "200",
        "CapabilityBoundingSet": "cap_chown cap_net_bind_service",
        "AmbientCapabilities": "",
        "NoNewPrivileges": "yes",
        "SystemCallErrorNumber": "38",
        "User": "0",
        "Group": "0",
        "RestrictNamespaces": "yes",
        "Restart": "no",
    }
    db = shown(nspawn, "db.service", "User", "Group", "SupplementaryGroups", "SystemCallFilter")
    assert (db["User"], db["Group"], db["SupplementaryGroups"]) == ("1000", "1001", "1001")
    words = db["SystemCallFilter"].split()
    assert "read" in words
    assert {"chmod", "fchmodat", "mount"}.isdisjoint(words)
    # Names with an answer of their own are not shown by every version.
    assert "chmod: /tmp/x: Permission denied" in nspawn.run("logs", "--app=db", "two", check=0).stderr
    kernel = status_of(nspawn, "web.service")
    mask = f"{capabilities.mask(('CHOWN', 'NET_BIND_SERVICE')):016x}"
    assert {name: kernel[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "CapInh": "0" * 16,
        "CapPrm": mask,
        "CapEff": mask,
        "CapBnd": mask,
        "CapAmb": "0" * 16,
    }
    assert (kernel["NoNewPrivs"], kernel["Seccomp"], kernel["Groups"]) == ("1", "2", "0")
    kernel = status_of(nspawn, "db.service")
    assert (kernel["Uid"].split(), kernel["Gid"].split(), kernel["Groups"]) == (
        ["1000"] * 4,
        ["1001"] * 4,
        "1001",
    )
    assert (kernel["CapEff"], kernel["CapPrm"], kernel["CapInh"], kernel["CapAmb"]) == ("0" * 16,) * 4
    assert int(kernel["CapBnd"], 16) == KEPT


@needs_nspawn
def test_the_pods_own_root_is_not_the_hosts(nspawn: Rkt, two_apps: str) -> None:
    """A command beside the apps sees the pod's processes, writes nothing of the host's programs, and passes its status on."""
    assert two_apps
    assert nspawn.run("enter", "--pod", "two", "sh", "-c", "exit 7").status == 7
    processes = in_pod(nspawn, "sh", "-c", "cat /proc/[0-9]*/comm").split()
    assert processes.count("sleep") == 2
    assert "systemd" in processes
    assert nspawn.run("enter", "--pod", "two", "sh", "-c", ": > /usr/bin/rkt-was-here").status != 0
    assert in_pod(nspawn, "sh", "-c", "echo $container $HOME; grep NoNewPrivs /proc/self/status").split() == [
        "rkt", "/root", "NoNewPrivs:", "1",
    ]  # fmt: skip


def test_a_flavor_without_a_root_says_so(rkt: Rkt, images: Images) -> None:
    """A pod that has nothing beside its apps is not entered there, and the message names what has."""
    image = images.busybox("example.com/app", ("/bin/sleep", "600"))
    rkt.popen("--insecure-options=image", "run", "--name=plain", image)
    wait_for(lambda: not rkt.run("enter", "plain", "/bin/true").status, "the pod")
    result = rkt.run("enter", "--pod", "plain", "/bin/true")
    assert result.status == 254
    assert "has no root of its own beside its apps: coreos.com/rkt/stage1-ns has none" in result.stderr
    assert "coreos.com/rkt/stage1-nspawn" in result.stderr


@needs_nspawn
def test_app_and_pod_exclude_each_other(nspawn: Rkt, two_apps: str) -> None:
    """``--pod`` together with ``--app`` is an error before anything is entered."""
    result = nspawn.run("enter", "--pod", "--app=web", two_apps, "true")
    assert result.status == 254
    assert "--pod and --app exclude each other" in result.stderr
