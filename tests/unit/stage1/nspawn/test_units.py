# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import resource
from typing import Any

import pytest

from rkt.errors import Stage1Error
from rkt.linux import capabilities
from rkt.schema import appc, isolators
from rkt.stage1.common import paths
from rkt.stage1.common.arguments import RunArguments
from rkt.stage1.common.pod import LoadedPod, PodApp
from rkt.stage1.nspawn import units
from rkt.stage2.exec import ExecPlan
from rkt.values import PodUUID

ARGUMENTS = RunArguments(uuid=PodUUID.parse("6d5fa0a5-3a9c-4b3c-9d3e-0123456789ab"))
KEPT = capabilities.mask(isolators.DEFAULT_CAPABILITIES)


def pod_app(name: str = "web", wanted: list[dict[str, Any]] | None = None) -> PodApp:
    """An app with isolators that the operator has given."""
    section = {"exec": ["/bin/true"], "user": "0", "group": "0"}
    image = appc.parse_image_manifest(
        json.dumps(
            {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/app", "app": section}
        ).encode()
    )
    runtime = {
        "name": name,
        "image": {"id": f"sha512-{'0' * 128}"},
        "app": {**section, "isolators": wanted or []},
    }
    manifest = appc.parse_pod_manifest(
        json.dumps({"acKind": "PodManifest", "acVersion": "0.8.11", "apps": [runtime]}).encode()
    )
    app = manifest.apps[0].app
    assert app is not None
    return PodApp(runtime=manifest.apps[0], app=app, image=image)


def plan(**changes: Any) -> ExecPlan:
    """An app's process."""
    values: dict[str, Any] = {
        "argv": [b"sleep", b"600"],
        "environment": {b"PATH": b"/bin", b"LANG": b"C"},
        "uid": 0,
        "gid": 0,
        "groups": [0],
        "working_directory": b"/",
        "capabilities": KEPT,
        "no_new_privileges": True,
        "seccomp": b"",
    }
    return ExecPlan(**{**values, **changes})


def unit(app: PodApp | None = None, **changes: Any) -> units.AppUnit:
    """An app."""
    values: dict[str, Any] = {
        "app": app or pod_app(),
        "execute": plan(),
        "program": b"/bin/sleep",
        "root": b"/opt/stage2/web/rootfs",
    }
    return units.AppUnit(**{**values, **changes})


def directives(made: units.AppUnit, arguments: RunArguments = ARGUMENTS) -> dict[str, list[str]]:
    """Name -> values of the app's unit."""
    manifest = appc.parse_pod_manifest(b'{"acKind": "PodManifest", "acVersion": "0.8.11", "apps": []}')
    written = units.app_units(made, LoadedPod(manifest=manifest, apps=[made.app]), arguments)
    text = written[units.unit_name(made.app.name)]
    assert isinstance(text, bytes)
    found: dict[str, list[str]] = {}
    for line in text.decode().splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found.setdefault(name, []).append(value)
    return found


def test_identity_and_privileges() -> None:
    """Numeric ids, the app's own group among its groups, its bounding set, nothing inherited or ambient (RN9, RN11, RN12)."""
    found = directives(unit(execute=plan(uid=1000, gid=1001, groups=[1001, 5])))
    assert (found["User"], found["Group"], found["SupplementaryGroups"]) == (["1000"], ["1001"], ["1001 5"])
    assert found["CapabilityBoundingSet"] == [" ".join(capabilities.names(KEPT))]
    assert (found["AmbientCapabilities"], found["NoNewPrivileges"]) == ([""], ["yes"])
    everything = plan(capabilities=capabilities.full_mask(), no_new_privileges=False)
    found = directives(unit(execute=everything))
    assert (found["CapabilityBoundingSet"], found["NoNewPrivileges"]) == (["~"], ["no"])
    assert directives(unit(execute=plan(capabilities=0)))["CapabilityBoundingSet"] == [""]


def test_variables_of_systemd_are_taken_away() -> None:
    """What systemd adds is not in the app's environment, unless the app has a variable of that name (RN25)."""
    (taken,) = directives(unit())["UnsetEnvironment"]
    assert {"INVOCATION_ID", "SYSTEMD_EXEC_PID", "JOURNAL_STREAM"} <= set(taken.split())
    assert "LANG" not in taken.split()


def test_handlers_are_users_of_their_own() -> None:
    """Event handlers run as root of the image, with the root, filter and bounding set of the app, and its groups where it is root too."""
    made = unit(
        execute=plan(uid=1000, gid=100, groups=[100]),
        handlers={appc.EVENT_PRE_START: plan(argv=[b"/bin/prepare"]), appc.EVENT_POST_STOP: plan(argv=[b"tidy", b"%n"])},
        handler_programs={appc.EVENT_PRE_START: b"/bin/prepare", appc.EVENT_POST_STOP: b"/bin/tidy"},
    )  # fmt: skip
    found = directives(made)
    assert found["ExecStartPre"] == ['"!:@/bin/prepare" "/bin/prepare"']
    assert found["ExecStopPost"] == ['"!:@/bin/tidy" "tidy" "%%n"']
    assert found["ExecStart"] == ['":@/bin/sleep" "sleep" "600"']
    same = directives(made.replace(execute=plan()))
    assert same["ExecStartPre"] == ['":@/bin/prepare" "/bin/prepare"']


def test_masks_and_devices_are_there_unless_they_are_not_wanted() -> None:
    """Masks over /proc and the device policy are left out with ``--insecure-options=paths`` alone (RN7)."""
    found = directives(unit(devices=[("b", 8, 1, "r")]))
    there = [
        path.decode() for path in paths.MASKED if path.startswith(b"proc/") and os.path.exists(b"/" + path)
    ]
    assert found["InaccessiblePaths"] == [f"-+/{path}" for path in there]
    assert "-+/proc/sys" in found["ReadOnlyPaths"]
    assert found["DevicePolicy"] == ["strict"]
    assert {"/dev/char/1:3 rwm", "char-pts rw", "/dev/block/8:1 r"} <= set(found["DeviceAllow"])
    found = directives(unit(), ARGUMENTS.replace(disable_paths=True))
    assert {"InaccessiblePaths", "ReadOnlyPaths", "DevicePolicy"}.isdisjoint(found)
    assert "SystemCallFilter" in found
    assert "SystemCallFilter" not in directives(unit(), ARGUMENTS.replace(disable_seccomp=True))


def test_isolators_are_directives() -> None:
    """Memory, CPU, processes and weights that are asked for, in systemd's units."""
    wanted: list[dict[str, Any]] = [
        {"name": "resource/memory", "value": {"limit": "64Mi", "request": "32Mi"}},
        {"name": "resource/cpu", "value": {"limit": "1250m", "request": "500m"}},
        {"name": "resource/pids", "value": {"limit": "50"}},
        {"name": "os/linux/io-weight", "value": 200},
        {"name": "os/linux/cpuset-cpus", "value": "0-3,6"},
    ]
    found = directives(unit(pod_app(wanted=wanted)))
    assert (found["MemoryMax"], found["MemorySwapMax"], found["MemoryLow"]) == (
        ["67108864"],
        ["0"],
        ["33554432"],
    )
    assert (found["CPUQuota"], found["TasksMax"], found["IOWeight"]) == (["125.0%"], ["50"], ["200"])
    assert (found["AllowedCPUs"], found["OOMPolicy"]) == (["0-3,6"], ["kill"])
    assert 1 <= int(found["CPUWeight"][0]) < 100
    found = directives(unit())
    assert {"MemoryMax", "CPUQuota", "CPUWeight", "AllowedCPUs"}.isdisjoint(found)
    assert (found["TasksMax"], found["OOMPolicy"]) == (["infinity"], ["continue"])


def test_limits_of_processes_are_the_callers_unless_asked_for() -> None:
    """Each limit is named: systemd's own defaults are nobody's wish."""
    found = directives(unit(execute=plan(rlimits=[(resource.RLIMIT_NOFILE, 10, 20)])))
    assert found["LimitNOFILE"] == ["10:20"]
    soft, hard = ("infinity" if each < 0 else str(each) for each in resource.getrlimit(resource.RLIMIT_STACK))
    assert found["LimitSTACK"] == [f"{soft}:{hard}"]
    assert len([name for name in found if name.startswith("Limit")]) == 15


def test_a_score_that_cannot_be_set_is_refused() -> None:
    """A lower score for the out-of-memory killer is an error in a user namespace, where systemd would pass over it."""
    lower = [{"name": "os/linux/oom-score-adj", "value": -1000}]
    with pytest.raises(Stage1Error, match=r"lowering it from .* takes CAP_SYS_RESOURCE"):
        directives(unit(pod_app(wanted=lower)), ARGUMENTS.replace(private_users="100000:65536"))
    higher = [{"name": "os/linux/oom-score-adj", "value": 1000}]
    assert directives(unit(pod_app(wanted=higher)))["OOMScoreAdjust"] == ["1000"]


@pytest.mark.parametrize("program", [b'/bin/a"b', b"/bin/a'b", b"/bin/a\\b", b"/bin/a\nb"])
def test_programs_that_systemd_does_not_execute(program: bytes) -> None:
    """A path that systemd refuses in a unit is refused by name, and by rkt."""
    with pytest.raises(Stage1Error, match="program"):
        directives(unit(program=program))


@pytest.mark.parametrize(
    ("app", "name"),
    [
        ("web", "web.service"),
        ("default", "default.service"),
        ("systemd-journald", "systemd-journald_.service"),
        ("systemd-exit", "systemd-exit_.service"),
        ("dbus", "dbus_.service"),
        ("1", "1.service"),
    ],
)
def test_no_app_takes_a_unit_of_the_pods(app: str, name: str) -> None:
    """An app that is called as a unit of the pod's or of systemd's has another one (RN21)."""
    assert units.unit_name(app) == name
    assert name not in units.pod_units()


def test_a_name_too_long_for_a_unit() -> None:
    """It is refused, not cut."""
    with pytest.raises(Stage1Error, match="too long"):
        units.unit_name("a" * 250)


def test_ids_have_names() -> None:
    """Every id of the apps is in the pod's account files once, root and nobody always."""
    passwd, group = units.accounts([plan(uid=1000, gid=5, groups=[5, 7]), plan(uid=1000, gid=0)])
    assert [line.split(":")[2] for line in passwd.decode().splitlines()] == ["0", "1000", "65534"]
    assert [line.split(":")[2] for line in group.decode().splitlines()] == ["0", "5", "7", "65534"]
    assert b"gen1000:x:1000:" in passwd


def test_variables_that_systemd_does_not_pass_on() -> None:
    """They are named, so that somebody can be told."""
    made = plan(environment={b"PATH": b"/bin", b"a.b": b"1", b"a-b": b"2"})
    assert units.left_out(made) == ["a.b", "a-b"]


def test_what_systemd_did_not_do_is_found_out() -> None:
    """A process with more than its unit gives it is no app: this one has no filter, and maybe every capability."""
    app, more = pod_app(), os.getpid()
    with pytest.raises(Stage1Error, match=r"app \"web\" runs without .*the system call filter"):
        units.confirm(more, app, plan(capabilities=0), ARGUMENTS)
    bounding = capabilities.read_status()["CapBnd"]
    loose = plan(capabilities=bounding, no_new_privileges=False)
    units.confirm(more, app, loose, ARGUMENTS.replace(disable_seccomp=True))


def test_one_app_without_a_filter_does_not_free_the_others() -> None:
    """Where the pod's own filter is left out for one app, the units of the others say what comes nearest; a changing pod keeps it."""
    free = pod_app("free", [{"name": "os/linux/seccomp-retain-set", "value": {"set": ["@appc.io/all"]}}])
    manifest = appc.parse_pod_manifest(b'{"acKind": "PodManifest", "acVersion": "0.8.11", "apps": []}')
    pod = LoadedPod(manifest=manifest, apps=[pod_app(), free])
    for arguments, expected in ((ARGUMENTS, True), (ARGUMENTS.replace(mutable=True), False)):
        text = units.app_units(unit(), pod, arguments)["web.service"]
        assert isinstance(text, bytes)
        assert (b"SystemCallArchitectures=native\n" in text) == expected
        own = units.app_units(unit(free), pod, arguments)["free.service"]
        assert isinstance(own, bytes)
        assert b"SystemCall" not in own


def test_no_unit_starts_an_app() -> None:
    """Apps are the supervisor's to start: nothing of the pod wants or requires one; every end stops them first."""
    for name, content in units.pod_units().items():
        assert isinstance(content, bytes)
        assert b"DefaultDependencies=no\n" in content, name
    for verb in ("exit", "halt", "poweroff", "reboot"):
        service = units.pod_units()[f"systemd-{verb}.service"]
        assert isinstance(service, bytes)
        assert b"After=shutdown.target\n" in service
        assert b"SuccessAction=exit-force\n" in service
    found = directives(unit())
    assert (found["Conflicts"], found["Before"], found["Restart"]) == (
        ["shutdown.target"],
        ["shutdown.target"],
        ["no"],
    )
