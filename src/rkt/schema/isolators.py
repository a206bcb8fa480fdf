# SPDX-License-Identifier: Apache-2.0
"""Isolators: what confines an app (spec cli §9.7), parsed to typed values.

===================================================  =============================================================
isolator                                             type of ``Isolator.value``
===================================================  =============================================================
``os/linux/capabilities-{retain,remove}-set``        ``NameSet``
``os/linux/seccomp-{retain,remove}-set``             ``NameSet``
``os/linux/no-new-privileges``                       ``bool``
``os/linux/oom-score-adj``, ``os/linux/cpu-shares``  ``int``
``os/linux/selinux-context``                         ``SELinuxContext``
``os/linux/apparmor-profile``                        ``AppArmorProfile``
``os/linux/io-weight``                               ``int``
``os/linux/rlimits``, ``os/linux/io-limits``,        see ``schema/limits.py``; sysctls are for pods only
``os/linux/cpuset-cpus``, ``os/unix/sysctl``
``resource/…``                                       ``Resource``
anything else                                        refused on an app; decoded JSON on a pod
===================================================  =============================================================

Not appc's but ours: ``resource/pids``, ``os/linux/rlimits``, ``os/linux/io-limits``, ``os/linux/io-weight`` and
``os/linux/cpuset-cpus``.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, quoted
from rkt.schema.members import (
    members,
    read_flag,
    read_integer,
    read_list,
    read_text,
    read_texts,
    spellings,
)
from rkt.schema.quantity import quantity_text, to_thousandths, to_units
from rkt.schema.record import Record
from rkt.values import ACIdentifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

CAPABILITIES_RETAIN = "os/linux/capabilities-retain-set"
CAPABILITIES_REMOVE = "os/linux/capabilities-remove-set"
SECCOMP_RETAIN = "os/linux/seccomp-retain-set"
SECCOMP_REMOVE = "os/linux/seccomp-remove-set"
NO_NEW_PRIVILEGES = "os/linux/no-new-privileges"
OOM_SCORE_ADJ = "os/linux/oom-score-adj"
CPU_SHARES = "os/linux/cpu-shares"
SELINUX_CONTEXT = "os/linux/selinux-context"
APPARMOR_PROFILE = "os/linux/apparmor-profile"
SYSCTL = "os/unix/sysctl"
CPU = "resource/cpu"
MEMORY = "resource/memory"
BLOCK_BANDWIDTH = "resource/block-bandwidth"
BLOCK_IOPS = "resource/block-iops"
NETWORK_BANDWIDTH = "resource/network-bandwidth"
PIDS = "resource/pids"
RLIMITS = "os/linux/rlimits"
IO_LIMITS = "os/linux/io-limits"
IO_WEIGHT = "os/linux/io-weight"
CPUSET_CPUS = "os/linux/cpuset-cpus"

#: Those that may stand on a pod and bound its apps together.
POD_ISOLATORS = frozenset((CPU, MEMORY, PIDS, BLOCK_BANDWIDTH, BLOCK_IOPS, SYSCTL))
#: Those that no stage1 of ours enforces.
NOT_ENFORCED = frozenset((NETWORK_BANDWIDTH, SELINUX_CONTEXT, APPARMOR_PROFILE))
#: Processes and threads of a pod that asks for nothing (invariant RN24).
DEFAULT_MAX_PIDS = 4096
#: Of the host's memory; the pod meets its ceiling before the host does.
DEFAULT_MEMORY_PERCENT = 90
#: Smallest memory limit, one page; less is a slip as ``16m`` for ``16M``.
MIN_MEMORY_BYTES = 4096
MAX_IO_WEIGHT = 10000

#: What an app may do at most unless the operator says otherwise (design §9.5, invariant RN10).
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
#: Retaining this means no filter at all.
SECCOMP_ALL = "@appc.io/all"
#: Removing this means nothing beyond the default filter.
SECCOMP_EMPTY = "@appc.io/empty"
#: Groups of system calls that may stand in a seccomp set; any other is refused (spec runtime §10.1 row 16).
SECCOMP_WILDCARDS = frozenset(
    (
        SECCOMP_ALL,
        SECCOMP_EMPTY,
        "@rkt/default-whitelist",
        "@rkt/default-blacklist",
        "@docker/default-whitelist",
        "@docker/default-blacklist",
        "@systemd/clock",
        "@systemd/default-whitelist",
        "@systemd/mount",
        "@systemd/network-io",
        "@systemd/obsolete",
        "@systemd/privileged",
        "@systemd/process",
        "@systemd/raw-io",
    )
)
#: Shares and weight of an app that says nothing; the kernel's own defaults.
_DEFAULT_CPU_SHARES = 1024
_DEFAULT_IO_WEIGHT = 100
#: Millicores for which a request gives the usual shares.
_ONE_CPU = 1000
_UPPER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_CAPABILITY_CHARACTERS = _UPPER | _DIGITS | frozenset("_")
_SYSCALL_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
#: Isolators that may stand several times on one app. For resources the last one wins, rlimits add up; a single ``no-new-privileges``
#: that is true is enough (spec runtime §3.11).
REPEATABLE = frozenset(
    (NO_NEW_PRIVILEGES, CPU, MEMORY, PIDS, RLIMITS, BLOCK_BANDWIDTH, BLOCK_IOPS, NETWORK_BANDWIDTH)
)

_ISOLATOR = spellings("name", "value")
_NAME_SET = spellings("set", "errno")
_RESOURCE = spellings("default", "request", "limit")
_SELINUX = spellings("user", "role", "type", "level")
_APPARMOR = spellings("profile")


class NameSet(Record):
    """A set of capabilities or system calls.

    Attributes:
        names: in the order given, never empty.
        errno: error name returned by refused system calls; empty for the filter's own choice.
    """

    names: list[str]
    errno: str = ""

    def to_json(self) -> dict[str, Any]:
        """The value as manifests write it."""
        return {"set": self.names, "errno": self.errno} if self.errno else {"set": self.names}


class Resource(Record):
    """A request and a limit, as typed and as integers.

    Attributes:
        request, limit: quantities as typed; ``None`` if not given, but a request defaults to the limit.
        request_amount, limit_amount: bytes for memory, millicores for cpu, else whole units.
        default: whether this applies to every device or interface.
    """

    limit: str | None = None
    request: str | None = None
    limit_amount: int | None = None
    request_amount: int | None = None
    default: bool = False

    def to_json(self) -> dict[str, Any]:
        """The value as manifests write it."""
        value: dict[str, Any] = {}
        if self.default:
            value["default"] = True
        if self.request is not None:
            value["request"] = self.request
        if self.limit is not None:
            value["limit"] = self.limit
        return value


class SELinuxContext(Record):
    """The four parts of an SELinux label."""

    user: str
    role: str
    type: str
    level: str = ""

    def to_json(self) -> dict[str, Any]:
        """The value as manifests write it."""
        return {"user": self.user, "role": self.role, "type": self.type, "level": self.level}


class AppArmorProfile(Record):
    """The name of an AppArmor profile."""

    profile: str

    def to_json(self) -> dict[str, Any]:
        """The value as manifests write it."""
        return {"profile": self.profile}


class Isolator(Record):
    """One isolator; the module's table says which type ``value`` has."""

    name: str
    value: Any

    def to_json(self) -> dict[str, Any]:
        """The isolator as manifests write it."""
        value = self.value
        return {"name": self.name, "value": value.to_json() if isinstance(value, Record) else value}  # type: ignore[attr-defined]


def capability_set(names: Sequence[str], what: str) -> NameSet:
    """Check the names of capabilities; whether the kernel knows them is found out where they are applied."""
    for name in names:
        if not name.startswith("CAP_") or not _CAPABILITY_CHARACTERS.issuperset(name):
            raise InvalidManifest(f"invalid capability {quoted(name)} in {what}: a name is CAP_ and capitals")
    if not names:
        raise InvalidManifest(f"{what} must not be empty")
    return NameSet(names=list(names))


def seccomp_set(names: Sequence[str], errno: str, what: str) -> NameSet:
    """Check the names and groups of system calls; names that no architecture knows are found out by the compiler."""
    for name in names:
        if name.startswith("@"):
            if name not in SECCOMP_WILDCARDS:
                raise InvalidManifest(f"unknown seccomp wildcard {quoted(name)} in {what}")
        elif not name or not _SYSCALL_CHARACTERS.issuperset(name):
            raise InvalidManifest(f"invalid system call {quoted(name)} in {what}")
    if not names:
        raise InvalidManifest(f"{what} must not be empty")
    if errno and (errno[0] != "E" or not (_UPPER | _DIGITS).issuperset(errno)):
        raise InvalidManifest(f"invalid errno {quoted(errno)} in {what}: a name as EPERM is expected")
    return NameSet(names=list(names), errno=errno)


def memory_resource(value: object, what: str) -> Resource:
    """A ``resource/memory`` value from decoded JSON, in bytes."""
    return _resource(value, what, to_units)


def cpu_resource(value: object, what: str) -> Resource:
    """A ``resource/cpu`` value from decoded JSON, in millicores."""
    return _resource(value, what, to_thousandths)


def _capabilities(value: object, what: str) -> NameSet:
    fields = members(value, _NAME_SET, what)
    return capability_set(read_texts(fields.get("set", []), what), what)


def _seccomp(value: object, what: str) -> NameSet:
    fields = members(value, _NAME_SET, what)
    names = read_texts(fields.get("set", []), what)
    return seccomp_set(names, read_text(fields.get("errno", ""), f"errno of {what}"), what)


def _resource(value: object, what: str, amount: Callable[[str, str], int]) -> Resource:
    fields = members(value, _RESOURCE, what)
    if read_flag(fields.get("default", False), f"default of {what}"):
        raise InvalidManifest(f"default of {what} must not be true")
    if "limit" not in fields and "request" not in fields:
        raise InvalidManifest(f"{what} has neither a limit nor a request")
    limit = quantity_text(fields["limit"], f"limit of {what}") if "limit" in fields else None
    request = quantity_text(fields["request"], f"request of {what}") if "request" in fields else limit
    return Resource(
        limit=limit,
        request=request,
        limit_amount=None if limit is None else amount(limit, f"limit of {what}"),
        request_amount=None if request is None else amount(request, f"request of {what}"),
    )


def _device_limit(value: object, what: str) -> Resource:
    fields = members(value, _RESOURCE, what)
    if not read_flag(fields.get("default", False), f"default of {what}"):
        raise InvalidManifest(f"default of {what} must be true")
    if "request" in fields:
        raise InvalidManifest(f"{what} must not have a request")
    if "limit" not in fields:
        raise InvalidManifest(f"{what} has no limit")
    limit = quantity_text(fields["limit"], f"limit of {what}")
    return Resource(limit=limit, limit_amount=to_units(limit, f"limit of {what}"), default=True)


def _pids(value: object, what: str) -> Resource:
    fields = members(value, _RESOURCE, what)
    if set(fields) != {"limit"}:
        raise InvalidManifest(f"{what} has a limit and nothing else")
    limit = quantity_text(fields["limit"], f"limit of {what}")
    return Resource(limit=limit, limit_amount=to_units(limit, f"limit of {what}"))


def _rlimits(value: object, what: str) -> dict[str, dict[str, int]]:
    from rkt.schema import limits

    return limits.read_rlimits(value, what)


def _io_limits(value: object, what: str) -> list[dict[str, object]]:
    from rkt.schema import limits

    return limits.read_io_limits(value, what)


def _cpus(value: object, what: str) -> str:
    from rkt.schema import limits

    return limits.read_cpus(value, what)


def _sysctls(value: object, what: str) -> dict[str, str]:
    from rkt.schema import limits

    return limits.read_sysctls(value, what)


def _selinux(value: object, what: str) -> SELinuxContext:
    fields = members(value, _SELINUX, what)
    parts = {
        name: read_text(fields.get(name, ""), f"{name} of {what}")
        for name in ("user", "role", "type", "level")
    }
    for name, part in parts.items():
        # A colon separates the parts of a label; only the level, the last one, may hold more of them.
        if (not part and name != "level") or not part.isprintable() or (":" in part and name != "level"):
            raise InvalidManifest(f"invalid {name} {quoted(part)} of {what}")
    return SELinuxContext(**parts)


def _apparmor(value: object, what: str) -> AppArmorProfile:
    profile = read_text(members(value, _APPARMOR, what).get("profile", ""), f"profile of {what}")
    if not profile or not profile.isprintable():
        raise InvalidManifest(f"invalid profile {quoted(profile)} of {what}")
    return AppArmorProfile(profile=profile)


_PARSERS: dict[str, Callable[[Any, str], Any]] = {
    CAPABILITIES_RETAIN: _capabilities,
    CAPABILITIES_REMOVE: _capabilities,
    SECCOMP_RETAIN: _seccomp,
    SECCOMP_REMOVE: _seccomp,
    NO_NEW_PRIVILEGES: read_flag,
    OOM_SCORE_ADJ: lambda value, what: read_integer(value, what, -1000, 1000),
    CPU_SHARES: lambda value, what: read_integer(value, what, 2, 262144),
    SELINUX_CONTEXT: _selinux,
    APPARMOR_PROFILE: _apparmor,
    SYSCTL: _sysctls,
    CPU: cpu_resource,
    MEMORY: memory_resource,
    BLOCK_BANDWIDTH: _device_limit,
    BLOCK_IOPS: _device_limit,
    NETWORK_BANDWIDTH: _device_limit,
    PIDS: _pids,
    RLIMITS: _rlimits,
    IO_LIMITS: _io_limits,
    IO_WEIGHT: lambda value, what: read_integer(value, what, 1, MAX_IO_WEIGHT),
    CPUSET_CPUS: _cpus,
}


def parse_value(name: str, value: object) -> Any:
    """The value of a known isolator from decoded JSON.

    Raises:
        InvalidManifest: it breaks the isolator's rules.
    """
    return _PARSERS[name](value, f"isolator {quoted(name)}")


def parse_isolators(value: object, *, pod: bool) -> list[Isolator]:
    """The isolators of an app or of a pod, from decoded JSON.

    Raises:
        InvalidManifest: an unknown isolator on an app, a value that breaks its rules, a repetition or a conflict.
    """
    isolators: list[Isolator] = []
    for element in read_list(value, "isolators"):
        fields = members(element, _ISOLATOR, "isolator")
        name = ACIdentifier.parse(fields.get("name", ""), what="isolator name")
        what = f"isolator {quoted(name)}"
        raw = fields.get("value")
        parse = _PARSERS.get(name)
        if parse is None:
            if not pod:
                raise InvalidManifest(f"invalid isolator: {quoted(name)} is not known")
            isolators.append(Isolator(name=name, value=raw))
        elif name == SYSCTL and not pod:
            raise InvalidManifest(f"invalid isolator: {quoted(name)} belongs on a pod")
        elif raw is None:
            raise InvalidManifest(f"invalid isolator: {quoted(name)} has no value")
        else:
            isolators.append(Isolator(name=name, value=parse(raw, what)))
    check_together(isolators)
    return isolators


def check_together(isolators: Sequence[Isolator]) -> None:
    """Hold a list of valid isolators against the rules on repetition and conflict.

    Raises:
        InvalidManifest: they cannot stand together.
    """
    seen: set[str] = set()
    if sum(isolator.name in {SECCOMP_RETAIN, SECCOMP_REMOVE} for isolator in isolators) > 1:
        raise InvalidManifest("too many seccomp isolators specified")
    for isolator in isolators:
        if isolator.name in seen and isolator.name not in REPEATABLE and isolator.name in _PARSERS:
            raise InvalidManifest(f"isolator {quoted(isolator.name)} appears twice")
        seen.add(isolator.name)
    if CAPABILITIES_RETAIN in seen and CAPABILITIES_REMOVE in seen:
        raise InvalidManifest(
            f"isolators {quoted(CAPABILITIES_RETAIN)} and {quoted(CAPABILITIES_REMOVE)} conflict"
        )


def check_enforceable(isolators: Sequence[Isolator], *, pod: bool) -> None:
    """An operator's isolators do what they say, or are refused: never ignored.

    Raises:
        InvalidManifest: one is not enforced, belongs elsewhere, or has a limit that nothing could live with.
    """
    for isolator in isolators:
        name = isolator.name
        if name in NOT_ENFORCED:
            raise InvalidManifest(f"isolator {quoted(name)} is not enforced", hint="leave it out")
        if pod and name not in POD_ISOLATORS:
            belongs = "belongs on an app" if name in _PARSERS else "is not known"
            raise InvalidManifest(f"isolator {quoted(name)} on the pod: it {belongs}")
    check_amounts(isolators)


def check_amounts(isolators: Sequence[Isolator]) -> None:
    """Limits that count and cannot be meant, such as memory of ``16m``, sixteen thousandths of a byte.

    Raises:
        InvalidManifest: names the isolator.
    """
    for name, least in (
        (MEMORY, MIN_MEMORY_BYTES),
        (CPU, 1),
        (PIDS, 1),
        (BLOCK_BANDWIDTH, 1),
        (BLOCK_IOPS, 1),
    ):
        value = last(isolators, name)
        if value is not None and value.limit_amount is not None and value.limit_amount < least:
            what = "memory limit" if name == MEMORY else f"limit of {name}"
            raise InvalidManifest(
                f"{what} of {value.limit_amount}{' bytes' if name == MEMORY else ''} too low",
                hint="a capital suffix, as in 16M" if name == MEMORY else f"at least {least}",
            )


def last(isolators: Sequence[Isolator], name: str) -> Any:
    """The value of the isolator that wins, the last one of that name; ``None`` without one."""
    for isolator in reversed(isolators):
        if isolator.name == name:
            return isolator.value
    return None


def retained_capabilities(
    isolators: Sequence[Isolator], default: Sequence[str] = DEFAULT_CAPABILITIES
) -> list[str]:
    """The capabilities left by an app's isolators, with ``CAP_``: a retain set as it is, else the default minus removals."""
    retain = last(isolators, CAPABILITIES_RETAIN)
    if retain is not None:
        return list(dict.fromkeys(retain.names))
    remove = last(isolators, CAPABILITIES_REMOVE)
    removed = frozenset(remove.names if remove is not None else ())
    return [name for name in default if name not in removed]


def no_new_privileges(isolators: Sequence[Isolator], *, default: bool) -> bool:
    """Whether any isolator asks for no_new_privs; ``default`` when none speaks of it."""
    values = [isolator.value for isolator in isolators if isolator.name == NO_NEW_PRIVILEGES]
    return any(values) if values else default


def fixes_privileges(
    isolators: Sequence[Isolator], *, uid: int, filtered: bool, default: bool = True
) -> bool:
    """Whether an app's process has no_new_privs; ``default`` when no isolator speaks of it.

    An unprivileged process may not install a filter otherwise (spec runtime §3.11).
    """
    return no_new_privileges(isolators, default=default) or (filtered and uid != 0)


def tighten(
    isolators: Sequence[Isolator], narrow_syscalls: Callable[[list[str]], list[str]]
) -> tuple[list[Isolator], list[str]]:
    """What remains of an image's own isolators: those that confine more than the defaults do (design §9.4, invariant RN20).

    Whoever makes an image is not the operator: a capability or system call outside the default set, a lower score for the
    out-of-memory killer, more shares, or a label stay without effect unless a flag or a pod manifest asks for them.

    Args:
        isolators: as the image gives them.
        narrow_syscalls: narrows the names of a seccomp retain set to the system calls that the default filter allows.
    Returns:
        the isolators to apply, and some words on each that was cut or left out.
    """
    kept: list[Isolator] = []
    notices: list[str] = []
    for isolator in isolators:
        name, value = isolator.name, isolator.value
        if name == CAPABILITIES_RETAIN:
            allowed = [capability for capability in value.names if capability in DEFAULT_CAPABILITIES]
            if allowed:
                kept.append(Isolator(name=name, value=value.replace(names=allowed)))
            else:
                # An empty retain set cannot be written.
                kept.append(
                    Isolator(name=CAPABILITIES_REMOVE, value=NameSet(names=list(DEFAULT_CAPABILITIES)))
                )
            refused = [capability for capability in value.names if capability not in DEFAULT_CAPABILITIES]
            if refused:
                notices.append(f"{', '.join(refused)}: give them by --caps-retain")
        elif name == SECCOMP_RETAIN:
            allowed = [] if SECCOMP_ALL in value.names else narrow_syscalls(value.names)
            if allowed:
                kept.append(Isolator(name=name, value=value.replace(names=allowed)))
            else:
                notices.append("a wider system call filter: choose one by --seccomp")
        elif name == NO_NEW_PRIVILEGES and not value:
            notices.append("gaining privileges by exec: allow it by --no-new-privileges=false")
        elif name == OOM_SCORE_ADJ and value < 0:
            notices.append("protection when memory is short: give it by --oom-score-adj")
        elif name == CPU_SHARES and value > _DEFAULT_CPU_SHARES:
            notices.append("more than the usual cpu shares: give them by --cpu-shares")
        elif name in {SELINUX_CONTEXT, APPARMOR_PROFILE}:
            notices.append(f"a security label ({name})")
        elif name == NETWORK_BANDWIDTH:
            notices.append("a limit of network bandwidth, which is not enforced")
        elif name == IO_WEIGHT and value > _DEFAULT_IO_WEIGHT:
            notices.append("more than the usual io weight: give it by --io-weight")
        elif name == PIDS and value.limit_amount > DEFAULT_MAX_PIDS:
            notices.append(f"more than {DEFAULT_MAX_PIDS} processes: allow them by --pids-limit")
        elif name in {IO_LIMITS, CPUSET_CPUS}:
            notices.append(f"devices or CPUs of this host ({name})")
        elif name in {CPU, MEMORY}:
            modest = _without_guarantee(isolator)
            if modest is not None:
                kept.append(modest)
            if modest != isolator:
                notices.append(f"a guaranteed share ({name} request)")
        else:
            kept.append(isolator)
    return kept, notices


def _without_guarantee(isolator: Isolator) -> Isolator | None:
    """A limit without a request that takes from others; ``None`` when nothing is left.

    A request below the limit is a promise: memory that is not reclaimed, a weight among those who want the CPU. A
    request of at most one CPU is no more than the usual weight.
    """
    value = isolator.value
    if value.request_amount is None or value.request_amount == value.limit_amount:
        return isolator
    if isolator.name == CPU and value.request_amount <= _ONE_CPU:
        return isolator
    if value.limit is None:
        return None
    return Isolator(
        name=isolator.name, value=value.replace(request=value.limit, request_amount=value.limit_amount)
    )
