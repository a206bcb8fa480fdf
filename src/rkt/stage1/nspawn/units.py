# SPDX-License-Identifier: Apache-2.0
"""Units of a pod for the systemd that runs it: one service for each app, and what every pod has (spec runtime §3.4).

An app's service is what ``ExecPlan`` says, in systemd's words, so that the app is confined as it is by ``ns``:

- Ids are numbers, but systemd wants each to have a name in the pod's own ``/etc``: ``accounts``.
- The environment is a file, and what systemd adds of its own is taken away again.
- No unit starts an app or starts one again: the supervisor does. ``Type=exec`` says "active" when the program has been
  executed, so whoever enters then finds the app's own confinement.
- Processes other than the first are killed with it, and only the first is asked to end: ``KillMode=mixed``.
- In version 2 cgroups are systemd's to make, so limits are directives. In version 1 the directives only say what limits the
  supervisor has set (``limits``), since it is not systemd's there.

A directive that the host's systemd does not know is passed over by it in silence, so whoever starts an app looks at the
process: ``confirm``.
"""

from __future__ import annotations

import os
import resource

from rkt.errors import Stage1Error, quoted
from rkt.linux import capabilities, cgroup_devices, cgroup_limits, files
from rkt.schema import appc, isolators
from rkt.schema.limits import RLIMIT_NAMES
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.stage1.common import exec_plan, paths, signals
from rkt.stage1.nspawn import filters, unit_text, witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod, PodApp
    from rkt.stage1.common.volumes import DeviceRule
    from rkt.stage2.exec import ExecPlan

#: Where the pod's systemd finds its units; names that begin by ``../`` are beside it.
UNITS = "/rkt/units"
_JOURNALD = "systemd-journald"
#: Longest name of a unit, UNIT_NAME_MAX.
_MAX_NAME = 255
#: Names of services that systemd has its own mind about; what begins by the last may be a unit of the pod's.
_TAKEN = frozenset(("dbus", "dbus-broker"))
_TAKEN_PREFIX = "systemd-"
#: What systemd gives to a service, and where a variable of the app's does not stand for it an app would see that.
_ADDED = (
    "CREDENTIALS_DIRECTORY",
    "DEBUG_INVOCATION",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LANG",
    "LANGUAGE",
    "LISTEN_PIDFDID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SYSTEMD_EXEC_PID",
)
_NOBODY = 65534
_PRE_START, _POST_STOP = appc.EVENT_PRE_START, appc.EVENT_POST_STOP
_HANDLERS = ((_PRE_START, "ExecStartPre"), (_POST_STOP, "ExecStopPost"))
#: User 0, but the same filter, root, namespaces and bounding set as the app has (systemd.service(5)); and no
#: supplementary groups, not even 0.
_AS_ROOT = "!"
_SECCOMP_MODE_FILTER = 2
#: More than a process with as many groups as it may have (NGROUPS_MAX) shows.
_MAX_STATUS_BYTES = 1 << 20
#: How many filters a process has; of kernels from 5.9 on.
_FILTERS = b"Seccomp_filters"


class AppUnit(Record):
    """One app.

    Attributes:
        app: the app.
        execute: what its process becomes.
        handlers: event handlers by name, likewise, as user 0.
        program, handler_programs: where the programs are in the app's root (``programs.find_program``).
        root: the app's root as the pod sees it.
        stdin, stdout, stderr, tty: values of ``StandardInput=`` and so on; ``tty`` of ``TTYPath=``.
        devices: those of its volumes.
        stop_seconds: how long it may take; as long for a post-stop handler.
    """

    app: PodApp
    execute: ExecPlan
    program: bytes
    root: bytes
    handlers: dict[str, ExecPlan] = {}
    handler_programs: dict[str, bytes] = {}
    stdin: str = "null"
    stdout: str = "null"
    stderr: str = "null"
    tty: str = ""
    devices: list[DeviceRule] = []
    stop_seconds: float = signals.STOP_SECONDS


def unit_name(app: str) -> str:
    """The unit of an app: ``APP.service``, but for names that systemd, or the pod itself, has units of."""
    name = f"{app}_" if app in _TAKEN or app.startswith(_TAKEN_PREFIX) else app
    if len(name) + len(".service") > _MAX_NAME:
        raise Stage1Error(f"app {quoted(app)}: the name is too long for a unit of systemd")
    return f"{name}.service"


def app_units(unit: AppUnit, pod: LoadedPod, arguments: RunArguments) -> dict[str, bytes | str]:
    """Names and contents of what an app needs, relative to ``UNITS``.

    Raises:
        Stage1Error: a value cannot be said to systemd, or cannot be had in this pod.
    """
    name = unit.app.name
    return {
        unit_name(name): _service(unit, pod, arguments),
        # Named by a unit that stays, it is kept in mind when it has ended: systemd counts references of bus clients only.
        f"default.target.d/{name}.conf": f"[Unit]\nAfter={unit_name(name)}\n".encode(),
        f"../env/{name}": unit_text.environment_file(unit.execute.environment),
    }


def left_out(execute: ExecPlan) -> list[str]:
    """Variables that the app does not get, because systemd does not let any have such a name."""
    return [name.decode() for name in execute.environment if not unit_text.is_variable(name)]


def _service(unit: AppUnit, pod: LoadedPod, arguments: RunArguments) -> bytes:
    app, line = unit.app, unit_text.line
    image = unit_text.plain(str(app.image.name).encode(), "image name")
    out = [
        b"[Unit]\n",
        line("Description", f"Application={app.name} Image=".encode() + image),
        line("DefaultDependencies", "no"),
        # Whatever ends the pod gives the app its time first.
        line("Before", "shutdown.target"),
        line("Conflicts", "shutdown.target"),
        line("StartLimitIntervalSec", "0"),
        b"[Service]\n",
        line("Type", "exec"),
        line("Restart", "no"),
        line("TimeoutStartSec", "infinity"),
        line("TimeoutStopSec", f"{unit.stop_seconds:.3f}s"),
        line("KillMode", "mixed"),
        line("KillSignal", str(signals.stop_signal(app))),
        line("SyslogIdentifier", app.name),
        line("StandardInput", unit_text.plain(unit.stdin.encode(), "standard input")),
        line("StandardOutput", unit_text.plain(unit.stdout.encode(), "standard output")),
        line("StandardError", unit_text.plain(unit.stderr.encode(), "standard error")),
    ]
    if unit.tty:
        out.append(line("TTYPath", unit_text.plain(unit.tty.encode(), "terminal")))
    out += _programs(unit)
    out += _identity(unit)
    out += _confinement(unit, pod, arguments)
    out += _limits(unit.execute)
    if unit.execute.sockets:
        out += _sockets(unit.execute.sockets)
    score = _oom_score(app, arguments)
    if score is not None:
        out.append(line("OOMScoreAdjust", str(score)))
    out += _cgroup(app)
    return b"".join(out)


def _programs(unit: AppUnit) -> list[bytes]:
    line, execute = unit_text.line, unit.execute
    out = [
        line("RootDirectory", unit_text.directory(unit.root, "root of the app")),
        line("WorkingDirectory", unit_text.directory(execute.working_directory, "working directory")),
        line("EnvironmentFile", f"/{contract.ENV_DIR}/{unit.app.name}"),
        line("UnsetEnvironment", " ".join(n for n in _ADDED if n.encode() not in execute.environment)),
        line("ExecStart", _command(unit.program, execute)),
    ]
    for event, directive in _HANDLERS:
        if event in unit.handlers:
            handler = unit.handlers[event]
            ids = (execute.uid, execute.gid, execute.groups)
            prefix = "" if ids == (handler.uid, handler.gid, handler.groups) else _AS_ROOT
            out.append(line(directive, _command(unit.handler_programs[event], handler, prefix=prefix)))
    return out


def _sockets(fds: Sequence[int]) -> list[bytes]:
    """Where an app's sockets come from. systemd says whether they block; it is to be as it was."""
    from rkt.stage1.nspawn.sockets import unit_name as socket_unit

    return [
        unit_text.line("Sockets", socket_unit(fds[0])),
        unit_text.line("NonBlocking", "no" if os.get_blocking(fds[0]) else "yes"),
    ]


def _command(program: bytes, execute: ExecPlan, *, prefix: str = "") -> bytes:
    """A command line: variables are not looked for (``:``), the first argument is the program's name as written (``@``)."""
    if any(byte in b"\"'\\" for byte in program):
        # systemd refuses them in this place, however they are written.
        raise Stage1Error(
            f"program {quoted(os.fsdecode(program))}: systemd executes none with a quote or backslash in its path"
        )
    unit_text.plain(program, "program")
    words = [prefix.encode() + b":@" + program, *execute.argv]
    return b" ".join(unit_text.word(each, "argument") for each in words)


def _identity(unit: AppUnit) -> list[bytes]:
    line, execute = unit_text.line, unit.execute
    out = [
        line("User", str(execute.uid)),
        line("Group", str(execute.gid)),
        line("SupplementaryGroups", " ".join(str(gid) for gid in execute.groups)),
    ]
    if execute.capabilities == capabilities.full_mask():
        out.append(line("CapabilityBoundingSet", "~"))
    else:
        out.append(line("CapabilityBoundingSet", " ".join(capabilities.names(execute.capabilities))))
    return [
        *out,
        line("AmbientCapabilities", ""),
        line("NoNewPrivileges", "yes" if execute.no_new_privileges else "no"),
        line("UMask", "0022"),
        line("KeyringMode", "private"),
        line("IgnoreSIGPIPE", "no"),
    ]


def _confinement(unit: AppUnit, pod: LoadedPod, arguments: RunArguments) -> list[bytes]:
    """What it sees of the kernel, and may ask of it."""
    line = unit_text.line
    # A /proc of the app's own, because only in the pod is there the right one; the rest is mounted already, and is left.
    out = [line("MountAPIVFS", "yes")]
    if not arguments.disable_paths:
        # Each costs a mount: what this kernel has not needs none.
        hidden = [path for path in paths.MASKED if path.startswith(b"proc/") and os.path.exists(b"/" + path)]
        out += [line("InaccessiblePaths", b"-+/" + path) for path in hidden]
        out += [line("ReadOnlyPaths", b"-+/" + path) for path in paths.READ_ONLY]
        out.append(line("DevicePolicy", "strict"))
        for kind, major, minor, access in (*cgroup_devices.DEFAULT_DEVICES, *unit.devices):
            out.append(line("DeviceAllow", f"{_device(kind, major, minor)} {access}"))
    if not arguments.disable_seccomp:
        wanted = unit.app.app.isolators
        pod_filtered = exec_plan.has_pod_filter(pod, arguments)
        out += [line(name, value) for name, value in filters.directives(wanted, pod_filtered=pod_filtered)]
    return out


#: Groups of devices by major number, as /proc/devices calls them: a rule for all of one cannot be said by numbers.
_GROUPS = {("c", 136): "char-pts"}


def _device(kind: str, major: int, minor: int | None) -> str:
    """A device by numbers: systemd reads them from such a path whether or not it is there."""
    if minor is None:
        if (kind, major) not in _GROUPS:
            raise Stage1Error(f"devices {kind} {major}:* have no name that systemd knows")
        return _GROUPS[kind, major]
    return f"/dev/{'char' if kind == 'c' else 'block'}/{major}:{minor}"


def _limits(execute: ExecPlan) -> list[bytes]:
    """Every limit of processes: the app's, else this process's own, as a child of it would have them."""
    given = {number: (soft, hard) for number, soft, hard in execute.rlimits}
    out = []
    for name in RLIMIT_NAMES:
        number = getattr(resource, f"RLIMIT_{name.upper()}")
        soft, hard = given.get(number) or resource.getrlimit(number)
        out.append(unit_text.line(f"Limit{name.upper()}", f"{_limit(soft)}:{_limit(hard)}"))
    return out


def _limit(value: int) -> str:
    return "infinity" if value == resource.RLIM_INFINITY else str(value)


def _oom_score(app: PodApp, arguments: RunArguments) -> int | None:
    """What the app's isolator asks for; systemd would pass over in silence one that it may not set."""
    from rkt.linux import libc
    from rkt.stage1.common import limits

    score = limits.wanted_oom_score(app)
    if score is None:
        return None
    own = int(files.read_bounded("/proc/self/oom_score_adj", 64))
    may_lower = libc.capget()[0] & capabilities.mask(("CAP_SYS_RESOURCE",)) and not arguments.private_users
    if score < own and not may_lower:
        raise Stage1Error(
            f"app {quoted(app.name)}: oom-score-adj {score}: lowering it from {own} takes CAP_SYS_RESOURCE, which "
            + ("a pod with --private-users has not" if arguments.private_users else "this process has not")
        )
    return int(score)


def _cgroup(app: PodApp) -> list[bytes]:
    """What isolators limit, as ``limits`` sets it elsewhere."""
    line, wanted = unit_text.line, app.app.isolators
    out = []
    memory = isolators.last(wanted, isolators.MEMORY)
    has_ceiling = memory is not None and memory.limit_amount is not None
    if has_ceiling:
        out += [line("MemoryMax", str(memory.limit_amount)), line("MemorySwapMax", "0")]
    if memory is not None and memory.request_amount not in {None, memory.limit_amount}:
        out.append(line("MemoryLow", str(memory.request_amount)))
    # With a ceiling the kernel takes the whole app, which would be broken without one of its processes.
    out.append(line("OOMPolicy", "kill" if has_ceiling else "continue"))
    shares = isolators.last(wanted, isolators.CPU_SHARES)
    cpu = isolators.last(wanted, isolators.CPU)
    if cpu is not None:
        if cpu.limit_amount is not None:
            out.append(line("CPUQuota", f"{cpu.limit_amount // 10}.{cpu.limit_amount % 10}%"))
        if shares is None and cpu.request_amount not in {None, cpu.limit_amount}:
            shares = min(max(cpu.request_amount * 1024 // 1000, 2), 262144)
    if shares is not None:
        out.append(line("CPUWeight", str(cgroup_limits.weight_of_shares(shares))))
    cpus = isolators.last(wanted, isolators.CPUSET_CPUS)
    if cpus is not None:
        out.append(line("AllowedCPUs", unit_text.plain(cpus.encode(), "CPUs")))
    pids = isolators.last(wanted, isolators.PIDS)
    out.append(line("TasksMax", "infinity" if pids is None else str(pids.limit_amount)))
    weight = isolators.last(wanted, isolators.IO_WEIGHT)
    if weight is not None:
        out.append(line("IOWeight", str(weight)))
    return out + _disks(wanted)


_IO = {
    "read-bps": "IOReadBandwidthMax",
    "write-bps": "IOWriteBandwidthMax",
    "read-iops": "IOReadIOPSMax",
    "write-iops": "IOWriteIOPSMax",
}


def _disks(wanted: Sequence[isolators.Isolator]) -> list[bytes]:
    names = {isolators.BLOCK_BANDWIDTH, isolators.BLOCK_IOPS, isolators.IO_LIMITS}
    if not any(each.name in names for each in wanted):
        return []
    from rkt.stage1.common import disks

    return [
        unit_text.line(_IO[kind], f"{_device('b', *device)} {rate}")
        for device, rates in disks.wanted_limits(wanted).items()
        for kind, rate in rates.items()
    ]


def accounts(plans: Iterable[ExecPlan]) -> tuple[bytes, bytes]:
    """``passwd`` and ``group`` of the pod: systemd starts nothing as a user or group that has no name there."""
    uids, gids = {0, _NOBODY}, {0, _NOBODY}
    for plan in plans:
        uids.add(plan.uid)
        gids |= {plan.gid, *plan.groups}
    names = {0: "root", _NOBODY: "nobody"}
    passwd = "".join(
        f"{names.get(uid, f'gen{uid}')}:x:{uid}:{uid if uid in names else _NOBODY}::/:/usr/sbin/nologin\n"
        for uid in sorted(uids)
    )
    group = "".join(f"{names.get(gid, f'gen{gid}')}:x:{gid}:\n" for gid in sorted(gids))
    return passwd.encode(), group.encode()


def pod_units() -> dict[str, bytes | str]:
    """Units of every pod, names as for ``app_units``: none starts an app; each way to end it stops apps first, then exits."""
    units: dict[str, bytes | str] = {
        # What pid 1 starts: ready at once.
        "default.target": _target("Pod", f"Wants={_JOURNALD}.socket", f"After={_JOURNALD}.socket"),
        "shutdown.target": _target("Stop of all apps", "RefuseManualStart=yes"),
        "sockets.target": _target("Sockets"),
        f"{_JOURNALD}.socket": _JOURNALD_SOCKET,
        f"{_JOURNALD}.service": _JOURNALD_SERVICE,
    }
    # machinectl, a signal of nspawn's and systemctl each have a word of their own for the end. All of them let the pod exit
    # with its status, since it has no machine to halt.
    for verb in ("exit", "halt", "poweroff", "reboot"):
        service = f"systemd-{verb}.service"
        units[f"{verb}.target"] = _target(
            "End of the pod", f"Requires={service}", f"After={service}", "AllowIsolate=yes"
        )
        units[service] = (
            b"[Unit]\nDescription=Exit\nDefaultDependencies=no\n"
            b"Requires=shutdown.target\nAfter=shutdown.target\nSuccessAction=exit-force\n"
        )
    return units


def _target(description: str, *lines: str) -> bytes:
    text = "".join(f"{each}\n" for each in lines)
    return f"[Unit]\nDescription={description}\nDefaultDependencies=no\n{text}".encode()


#: Started by the first datagram; nothing of it costs the start of a pod anything.
_JOURNALD_SOCKET = b"""[Unit]
Description=Journal Socket
DefaultDependencies=no
IgnoreOnIsolate=yes
[Socket]
ListenDatagram=/run/systemd/journal/socket
ListenStream=/run/systemd/journal/stdout
SocketMode=0600
PassCredentials=yes
PassSecurity=yes
ReceiveBuffer=8M
Timestamping=us
"""
_JOURNALD_SERVICE = b"""[Unit]
Description=Journal Service
DefaultDependencies=no
Requires=systemd-journald.socket
After=systemd-journald.socket
IgnoreOnIsolate=yes
[Service]
Type=notify
ExecStart=/usr/lib/systemd/systemd-journald
Sockets=systemd-journald.socket
FileDescriptorStoreMax=4224
Restart=always
RestartSec=0
StandardOutput=null
StandardError=null
RuntimeDirectory=systemd/journal
RuntimeDirectoryPreserve=yes
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_SYS_PTRACE CAP_SYSLOG CAP_CHOWN CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SETUID CAP_SETGID
"""


def confirm(pid: int, app: PodApp, execute: ExecPlan, arguments: RunArguments) -> None:
    """Make sure that a started process is confined, whatever this systemd made of the directives.

    What an app may have given up since does not matter, so only what it cannot get back is looked at.

    Raises:
        Stage1Error: it is not.
        OSError: it is gone.
    """
    fields = _status(pid)
    lacking = []
    if int(fields[b"CapBnd"], 16) & ~execute.capabilities:
        lacking.append("capabilities")
    if execute.no_new_privileges and fields[b"NoNewPrivs"] != b"1":
        lacking.append("no_new_privs")
    is_filtered = not arguments.disable_seccomp and not exec_plan.is_unfiltered(app)
    # The pod's own filter it has in any case, as its parent has, the pod's systemd.
    parent = _status(int(fields[b"PPid"])).get(_FILTERS, b"0") if is_filtered else b"0"
    if is_filtered and (
        int(fields[b"Seccomp"]) != _SECCOMP_MODE_FILTER or int(fields.get(_FILTERS, b"1")) <= int(parent)
    ):
        lacking.append("the system call filter")
    if not witness.is_inside(pid):
        raise astray(app.name, execute)
    if lacking:
        raise Stage1Error(
            f"app {quoted(app.name)} runs without {' and '.join(lacking)}: this host's systemd does not do what its unit says",
            hint="rkt run --stage1-name=coreos.com/rkt/stage1-ns",
        )


def astray(app: str, execute: ExecPlan) -> Stage1Error:
    """What is said of an app whose process was outside of its root."""
    where = execute.working_directory.decode(errors="replace")
    return Stage1Error(f"app {quoted(app)}: its working directory {where} leads out of its root")


def _status(pid: int) -> dict[bytes, bytes]:
    """What ``/proc/PID/status`` says."""
    fields = {}
    for text in files.read_bounded(f"/proc/{pid}/status", _MAX_STATUS_BYTES).splitlines():
        key, _, value = text.partition(b":")
        fields[key] = value.strip()
    return fields
