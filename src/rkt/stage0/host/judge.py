# SPDX-License-Identifier: Apache-2.0
"""What the facts mean: for each thing whether it is there, whom it stops, what would change it; for each flavour the sum.

Nothing is looked at here, so that hosts which nobody has can be judged, too.
"""

from __future__ import annotations

import errno
import os

from rkt.linux import inotify
from rkt.schema.record import Record
from rkt.stage0.host.facts import FLAVORS, UNSEEN, Trial
from rkt.stage0.host.needs import (
    EVERY,
    IN_A_CONTAINER,
    ISOLATING,
    KERNEL,
    LIMITED,
    MISSING,
    NETWORK,
    NONE,
    NSPAWN,
    OK,
    PROGRAMS,
    UNKNOWN,
    Thing,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rkt.stage0.host.facts import Facts

READY = "ready"
_UNSEEN_TEXT = "only root can tell"
NOT_BUILT = "not-built"

_GIB = 1 << 30
_LEAST_INODES = 20_000
#: Kernels know less before these; of Landlock.
_REFER_ABI, _NETWORK_ABI = 2, 4
#: Without them nothing of a pod can be made.
_NEEDED_CAPABILITIES = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
)


class Finding(Record):
    """One thing that was looked at.

    Attributes:
        area: what it belongs to, a word of ``AREAS``.
        name: of the thing; for scripts, so it stays.
        state: one of the words above.
        text: what is there, or what it means that it is not.
        hint: what would change it: a command, or a setting.
        stops: flavours that cannot run so.
        lacks: what these flavours are without, in a few words; empty for nothing worth mentioning.
        affects: the flavours that ``lacks`` is about.
    """

    area: str
    name: str
    state: str
    text: str
    hint: str = ""
    stops: tuple[str, ...] = ()
    lacks: str = ""
    affects: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "area": self.area,
            "name": self.name,
            "state": self.state,
            "text": self.text,
            "hint": self.hint,
            "stops": list(self.stops) if self.state == MISSING else [],
            "lacks": self.lacks if self.state == LIMITED else "",
        }


class Verdict(Record):
    """Whether a flavour can run.

    Attributes:
        state: ``ready``, ``limited``, ``missing``, ``unknown`` or ``not-built``.
        is_default: whether pods get it when they do not say.
        reasons: why not, or what it goes without; the shortest words for it.
        hints: what would change that.
    """

    flavor: str
    state: str
    is_default: bool = False
    reasons: list[str] = []
    hints: list[str] = []

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "flavor": self.flavor,
            "state": self.state,
            "default": self.is_default,
            "reasons": list(self.reasons),
            "hints": list(self.hints),
        }

    @property
    def can_run(self) -> bool:
        """Whether a pod would start."""
        return self.state in {READY, LIMITED}


AREAS = {
    "caller": "Who asks",
    "kernel": "Kernel",
    "cgroups": "Control groups",
    "storage": "Data directory",
    "network": "Networks",
    "host": "Services of the host",
    "programs": "Programs and our own parts",
}


def judge(facts: Facts) -> list[Finding]:
    """Everything that was looked at, by area."""
    return [
        *_caller(facts),
        Finding(area="kernel", name="version", state=OK, text=f"Linux {facts.release}, {facts.machine}"),
        *(_of_thing(each, facts) for each in KERNEL),
        *_filters(facts),
        *_cgroups(facts),
        *_storage(facts),
        *(_of_thing(each, facts) for each in NETWORK),
        _plugins(facts),
        *_host(facts),
        *(_of_thing(each, facts) for each in PROGRAMS),
        *(_of_thing(each, facts) for each in NSPAWN),
    ]


def verdicts(facts: Facts, findings: list[Finding]) -> list[Verdict]:
    """What the findings come to, for each flavour."""
    return [_verdict(flavor, facts, findings) for flavor in FLAVORS]


def _verdict(flavor: str, facts: Facts, findings: list[Finding]) -> Verdict:
    is_default = flavor == facts.default_flavor
    if flavor == "kvm":
        return Verdict(flavor=flavor, state=NOT_BUILT, is_default=is_default)
    stopping = [each for each in findings if flavor in each.stops and each.state == MISSING]
    if flavor not in facts.flavors:
        return Verdict(
            flavor=flavor,
            state=MISSING,
            is_default=is_default,
            reasons=["not part of this installation"],
            hints=["install rkt completely (in a checkout: make setup)"],
        )
    if stopping:
        return _summed(flavor, MISSING, is_default, stopping)
    unseen = [each for each in findings if each.state == UNKNOWN and flavor in each.stops]
    if unseen:
        return Verdict(
            flavor=flavor,
            state=UNKNOWN,
            is_default=is_default,
            reasons=[
                "what root could do cannot all be seen from here; nothing that can be seen stands in the way"
            ],
            hints=["sudo rkt check-host"],
        )
    without = [each for each in findings if flavor in each.affects and each.lacks and each.state == LIMITED]
    return _summed(flavor, LIMITED if without else READY, is_default, without)


def _summed(flavor: str, state: str, is_default: bool, findings: list[Finding]) -> Verdict:
    return Verdict(
        flavor=flavor,
        state=state,
        is_default=is_default,
        reasons=list(dict.fromkeys(each.lacks if state == LIMITED else each.name for each in findings)),
        hints=list(dict.fromkeys(each.hint for each in findings if each.hint)),
    )


def _trial(facts: Facts, name: str) -> Trial:
    return _seen(facts, facts.trials.get(name, UNSEEN))


def _seen(facts: Facts, trial: Trial) -> Trial:
    """What a user who is not root was denied says nothing of what root would be."""
    is_denied = facts.euid != 0 and not trial.done and trial.errno in {errno.EPERM, errno.EACCES}
    return UNSEEN if is_denied else trial


def _of_thing(thing: Thing, facts: Facts) -> Finding:
    names = thing.trials or (thing.name,)
    trials = {name: _trial(facts, name) for name in names}
    failed = {name: each for name, each in trials.items() if not each.done and each.was_tried}
    finding = Finding(
        area=thing.area,
        name=thing.name,
        state=OK,
        text=_UNSEEN_TEXT,
        stops=thing.stops,
        lacks=thing.lacks,
        affects=thing.affects,
    )
    if failed:
        reasons = "; ".join(dict.fromkeys(map(_reason, failed.values())))
        what = f"{', '.join(name.removesuffix(' namespace') for name in failed)}: " if len(names) > 1 else ""
        number = next(iter(failed.values())).errno
        return finding.replace(
            state=thing.absent or (MISSING if thing.stops else LIMITED),
            text=f"{what}{thing.bad} ({reasons})",
            hint=thing.hints.get(number, thing.hints.get(0, "")),
        )
    if not all(each.was_tried for each in trials.values()):
        return finding.replace(state=UNKNOWN)
    learnt = next((each.text for each in trials.values() if each.text), "")
    return finding.replace(text=_good(thing, learnt, facts))


def _good(thing: Thing, learnt: str, facts: Facts) -> str:
    if thing.name == "user namespaces":
        return f"--private-users works; up to {learnt} at once"
    if thing.name == "systemd-nspawn":
        return _trial(facts, "systemd-nspawn version").text or "it runs a program"
    if thing.name == "inotify":
        return f"{learnt} instances for each user, enough for {int(learnt or 0) // inotify.OF_SYSTEMD} pods of nspawn at once"
    if thing.name == "stage1 images":
        return ", ".join(facts.flavors)
    return thing.good or learnt


def _reason(trial: Trial) -> str:
    return trial.text or (os.strerror(trial.errno) if trial.errno else "no reason is known")


def _caller(facts: Facts) -> Iterator[Finding]:
    if facts.euid == 0:
        yield Finding(area="caller", name="user", state=OK, text="root", stops=EVERY)
    else:
        yield Finding(
            area="caller",
            name="user",
            state=UNKNOWN,
            text=f"user {facts.euid}, who cannot start pods; what only root can try is not known",
            hint="sudo rkt check-host",
            stops=EVERY,
        )
    if facts.is_confined:
        yield Finding(
            area="caller",
            name="confinement",
            state=LIMITED,
            text=f"this is in a {facts.is_confined} already: what is missing may be there outside",
        )
    if facts.euid != 0:
        return
    missing = facts.missing_capabilities
    needed = [each for each in _NEEDED_CAPABILITIES if each in missing]
    if needed:
        yield Finding(
            area="caller",
            name="capabilities",
            state=MISSING,
            text=f"root without {', '.join(needed)}",
            hint=IN_A_CONTAINER,
            stops=EVERY,
        )
    elif missing:
        notes = []
        if "CAP_SYS_RESOURCE" in missing:
            notes.append("limits of processes (ulimit) cannot be raised, only kept or lowered")
        if "CAP_NET_ADMIN" in missing:
            notes.append("networks cannot be set up")
        text = f"root without {', '.join(missing)}: {'; '.join(notes) or 'nor can apps have them'}"
        lacks = "raising of rlimits" if "CAP_SYS_RESOURCE" in missing else f"{', '.join(missing)} for apps"
        yield Finding(
            area="caller",
            name="capabilities",
            state=LIMITED,
            text=text,
            hint=f"start rkt with {', '.join(missing)}",
            lacks=lacks,
            affects=EVERY,
        )
    else:
        yield Finding(area="caller", name="capabilities", state=OK, text="all that the kernel has")


def _filters(facts: Facts) -> Iterator[Finding]:
    trial = _trial(facts, "system call filters")
    area, name = "kernel", "system calls"
    if not trial.done:
        yield Finding(
            area=area,
            name=name,
            state=MISSING,
            text=f"apps cannot be kept from system calls ({_reason(trial)})",
            hint="a kernel with CONFIG_SECCOMP_FILTER; or rkt run --insecure-options=seccomp, without that protection",
            stops=ISOLATING,
        )
    elif trial.text:
        yield Finding(
            area=area,
            name=name,
            state=LIMITED,
            text=f"the kernel does not know the actions {', '.join(trial.text.split())}",
            hint="a kernel from 4.14 on",
            lacks="filters with other answers than an error",
            affects=ISOLATING,
        )
    else:
        yield Finding(area=area, name=name, state=OK, text="loaded, and they answer", stops=ISOLATING)
    yield _landlock(_trial(facts, "Landlock"))
    kvm = _trial(facts, "kvm")
    text = "/dev/kvm answers" if kvm.done else f"/dev/kvm cannot be used ({_reason(kvm)})"
    yield Finding(
        area=area,
        name="kvm",
        state=OK if kvm.done else NONE if kvm.was_tried else UNKNOWN,
        text=f"{text if kvm.done or kvm.was_tried else _UNSEEN_TEXT}; the flavor kvm is not built yet",
    )


def _landlock(trial: Trial) -> Finding:
    version = int(trial.text) if trial.done and trial.text.isdecimal() else 0
    hint = "a kernel from 5.19 on, with landlock in its lsm= list (cat /sys/kernel/security/lsm)"
    if not version:
        text = f"what fetches and unpacks images has one wall less ({_reason(trial)}); members of the group rkt cannot fetch"
    elif version < _REFER_ABI:
        text = "version 1: what unpacks images has one wall less"
    elif version < _NETWORK_ABI:
        return Finding(area="kernel", name="Landlock", state=OK, text=f"version {version}, files")
    else:
        return Finding(area="kernel", name="Landlock", state=OK, text=f"version {version}, files and ports")
    return Finding(
        area="kernel",
        name="Landlock",
        state=LIMITED,
        text=text,
        hint=hint,
        lacks="Landlock around fetching and unpacking",
        affects=EVERY,
    )


_CGROUP_MEANINGS = {
    "memory": ("no limit of memory", "limits of memory"),
    "pids": ("no limit of processes: an app can use up the host's", "limits of processes"),
    "devices": ("devices are kept from apps by their /dev alone", "a list of devices"),
    "cpu": ("no limit of CPU time", "limits of CPU time"),
    "cpuset": ("apps cannot be bound to CPUs", "binding to CPUs"),
    "io": ("no limits of disk use", "limits of disk use"),
}


def _cgroups(facts: Facts) -> Iterator[Finding]:
    if not facts.layout:
        yield Finding(
            area="cgroups",
            name="layout",
            state=LIMITED,
            text="none are mounted: pods have no limits, and cannot be paused",
            hint="mount -t cgroup2 none /sys/fs/cgroup",
            lacks="limits of any kind",
            affects=ISOLATING,
        )
        return
    yield Finding(area="cgroups", name="layout", state=OK, text=facts.layout)
    controllers = {name: _seen(facts, trial) for name, trial in facts.controllers.items()}
    if "devices" not in controllers:
        controllers["devices"] = _trial(facts, "device program")
    usable = [name for name in _CGROUP_MEANINGS if controllers.get(name, UNSEEN).done]
    if usable:
        yield Finding(area="cgroups", name="limits", state=OK, text=", ".join(usable))
    for name, (meaning, lacks) in _CGROUP_MEANINGS.items():
        trial = controllers.get(name, UNSEEN)
        if not trial.was_tried:
            yield Finding(area="cgroups", name=name, state=UNKNOWN, text=_UNSEEN_TEXT)
        elif not trial.done:
            yield Finding(
                area="cgroups",
                name=name,
                state=LIMITED,
                text=f"{meaning} ({_reason(trial)})",
                hint=_cgroup_hint(name, trial, facts.layout),
                lacks=lacks,
                affects=ISOLATING,
            )
    yield _of_thing(
        Thing(
            area="cgroups",
            name="freezer",
            good="rkt pause",
            bad="rkt pause does not work",
            hints={
                errno.EACCES: "start rkt as root of the host",
                0: "a kernel from 5.2 on with cgroups of version 2",
            },
            lacks="rkt pause",
            affects=ISOLATING,
        ),
        facts,
    )
    yield _of_thing(
        Thing(
            area="cgroups",
            name="cgroup.kill",
            good="a pod is killed at once",
            bad="the processes of a pod are killed one by one",
            hints={0: "a kernel from 5.14 on with cgroups of version 2"},
            absent=NONE,
        ),
        facts,
    )


def _cgroup_hint(name: str, trial: Trial, layout: str) -> str:
    if trial.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return "start rkt where its cgroup can be written to; in a unit of systemd: Delegate=yes"
    if name == "memory":
        return "cgroup_enable=memory on the kernel's command line"
    if layout == "version 2":
        return f"Delegate=yes in the unit, or: echo +{name} >/sys/fs/cgroup/cgroup.subtree_control"
    return f"mount the controller: mount -t cgroup -o {name} {name} /sys/fs/cgroup/{name}"


def _storage(facts: Facts) -> Iterator[Finding]:
    there = facts.nearest == facts.data_dir
    writable = _trial(facts, "writable")
    place = (
        f"{facts.data_dir}, {facts.file_system}"
        if there
        else f"{facts.data_dir} is not there yet, {facts.file_system}"
    )
    if writable.was_tried and not writable.done:
        yield Finding(
            area="storage",
            name="directory",
            state=MISSING,
            text=f"{place}: it cannot be written to ({_reason(writable)})",
            hint="rkt --dir=DIRECTORY, or mount -o remount,rw "
            if writable.errno == errno.EROFS
            else "rkt --dir=DIRECTORY on another file system",
            stops=EVERY,
        )
    else:
        state = OK if writable.was_tried else UNKNOWN
        yield Finding(area="storage", name="directory", state=state, text=place, stops=EVERY)
    yield _room(facts)
    yield _of_thing(
        Thing(
            area="storage",
            name="overlay",
            good="pods share the files of their images",
            bad="every pod has a copy of its images: slower starts, and more room",
            hints={0: "modprobe overlay; the data directory on ext4, xfs or btrfs (rkt --dir)"},
            lacks="overlay (images are copied for each pod)",
            affects=EVERY,
        ),
        facts,
    )
    yield _of_thing(
        Thing(
            area="storage",
            name="idmapped mounts",
            good="--private-users without copies",
            bad="--private-users needs --no-overlay here",
            hints={0: "a kernel from 5.19 on, the data directory on ext4, xfs or btrfs (rkt --dir)"},
            lacks="--private-users without copies",
            affects=ISOLATING,
        ),
        facts,
    )
    yield _of_thing(
        Thing(
            area="storage",
            name="reflinks",
            good="copies share their blocks",
            bad="copies take room, or are hard links",
            absent=NONE,
        ),
        facts,
    )


def _room(facts: Facts) -> Finding:
    inodes = f", {facts.free_inodes} inodes" if facts.free_inodes >= 0 else ""
    text = f"{facts.free_bytes / _GIB:.1f} GiB{inodes} free"
    is_little = facts.free_bytes < _GIB or 0 <= facts.free_inodes < _LEAST_INODES
    return Finding(
        area="storage",
        name="room",
        state=LIMITED if is_little else OK,
        text=text,
        hint="rkt gc, rkt image gc" if is_little else "",
        lacks="room for images" if is_little else "",
        affects=EVERY,
    )


def _plugins(facts: Facts) -> Finding:
    missing = [name for name, path in facts.plugins.items() if not path]
    have = [path for path in facts.plugins.values() if path]
    if missing:
        return Finding(
            area="network",
            name="CNI plugins",
            state=LIMITED,
            text=f"no {', '.join(missing)}, of which the default network is made",
            hint="apt install containernetworking-plugins",
            lacks="the default network (use --net=host or --net=none)",
            affects=ISOLATING,
        )
    places = sorted({os.path.dirname(path) for path in have})
    return Finding(area="network", name="CNI plugins", state=OK, text=f"{len(have)} in {', '.join(places)}")


def _host(facts: Facts) -> Iterator[Finding]:
    area = "host"
    if facts.init == "systemd":
        yield Finding(
            area=area, name="process 1", state=OK, text="systemd: pods can be units (docs/systemd.md)"
        )
    else:
        text = f"{facts.init or 'not seen'}, not systemd: nothing is needed of it"
        yield Finding(area=area, name="process 1", state=NONE, text=text)
    yield _of_thing(
        Thing(
            area=area,
            name="machined",
            good="machinectl lists pods of nspawn",
            bad="machinectl will not list pods",
            hints={0: "apt install dbus systemd-container, on a host that systemd runs"},
            lacks="machined (machinectl will not list pods)",
            affects=("nspawn",),
        ),
        facts,
    )
    yield _of_thing(
        Thing(
            area=area,
            name="journal",
            good="lines of apps are in it, too",
            bad="lines of apps are in rkt logs alone",
            hints={},
            absent=NONE,
        ),
        facts,
    )
    yield _selinux(_trial(facts, "SELinux"))
    apparmor = _trial(facts, "AppArmor")
    text = "on; pods get no profile of their own" if apparmor.done else "off"
    yield Finding(area=area, name="AppArmor", state=OK if apparmor.done else NONE, text=text)
    tpm = _trial(facts, "tpm")
    text = "version 2.0 answers" if tpm.done else f"none that can be used ({_reason(tpm)})"
    yield Finding(
        area=area,
        name="TPM",
        state=OK if tpm.done else NONE if tpm.was_tried else UNKNOWN,
        text=f"{text if tpm.done or tpm.was_tried else _UNSEEN_TEXT}; nothing of rkt uses one yet",
    )
    # An hour, as file systems' clocks and ours need not agree.
    if facts.time_seconds < facts.installed_seconds - 3600:
        yield Finding(
            area=area,
            name="clock",
            state=LIMITED,
            text="it is before the time at which rkt was installed: certificates and signatures will seem not valid yet",
            hint="timedatectl set-ntp true, or date -s",
            lacks="a clock that signatures can be judged by",
            affects=EVERY,
        )


def _selinux(trial: Trial) -> Finding:
    if not trial.done:
        return Finding(area="host", name="SELinux", state=NONE, text="off")
    if trial.text == "enforcing":
        text = "enforcing; pods get no label of their own yet, and run as whoever starts them"
        return Finding(area="host", name="SELinux", state=LIMITED, text=text)
    return Finding(area="host", name="SELinux", state=OK, text=trial.text)
