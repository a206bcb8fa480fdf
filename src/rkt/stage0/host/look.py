# SPDX-License-Identifier: Apache-2.0
"""Looks at the host: everything that is tried, in the order in which it is told."""

from __future__ import annotations

import os
import time

from rkt.linux import capabilities, cgroupfs, libc
from rkt.stage0.host import groups, kernel, network, storage, system
from rkt.stage0.host.attempt import attempt
from rkt.stage0.host.facts import Facts, Trial
from rkt.stage0.stage1 import built_in_images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.config.settings import Settings

_ALL_IDS = ["0", "0", "4294967295"]


def look(settings: Settings) -> Facts:
    """Try everything; takes about a second, and leaves nothing."""
    cgroups = cgroupfs.detect()
    trials = {name: attempt(act) for name, act in _attempts(settings).items()}
    trials |= _of_groups(cgroups)
    nearest = storage.nearest(settings.data_dir)
    trials |= storage.trials(nearest)
    free_bytes, free_inodes = storage.room(nearest)
    flavors, default, wrong = system.flavors(settings)
    trials["stage1 images"] = Trial(done=not wrong, text=wrong)
    if "ns" in flavors and not wrong:
        trials["reaper"] = attempt(system.reaper(built_in_images(settings)[0]["ns"].path))
    return Facts(
        release=os.uname().release,
        machine=os.uname().machine,
        euid=os.geteuid(),
        missing_capabilities=capabilities.names(capabilities.full_mask() & ~libc.capget()[0]),
        is_confined=_confinement(),
        trials=trials,
        layout=groups.layout(cgroups),
        controllers=groups.controllers(cgroups),
        data_dir=settings.data_dir,
        nearest=nearest,
        file_system=storage.file_system_of(nearest)[0],
        free_bytes=free_bytes,
        free_inodes=free_inodes,
        init=system.init(),
        time_seconds=time.time(),
        installed_seconds=os.stat(__file__).st_mtime,
        plugins=network.plugins(settings.local_config_dir),
        default_flavor=default,
        flavors=flavors,
    )


def _attempts(settings: Settings) -> dict[str, Callable[[], str]]:
    return {
        **{f"{kind} namespace": kernel.namespace(kind) for kind in kernel.NAMESPACES},
        "user namespace": kernel.user_namespace,
        "mounts": kernel.mounts,
        "paths": kernel.paths,
        "processes": kernel.processes,
        **{kind: kernel.file_system(kind) for kind in kernel.FILE_SYSTEMS},
        "device nodes": kernel.device,
        "read-only interpreter": kernel.read_only_interpreter,
        "system call filters": kernel.seccomp,
        "Landlock": kernel.landlock_version,
        "device program": kernel.device_program,
        "kvm": kernel.kvm,
        "tpm": kernel.tpm,
        **{kind: network.link(kind) for kind in network.LINKS},
        "tap": network.tap,
        "nftables": network.rules,
        "iptables": network.iptables,
        "IPv6": network.ipv6,
        "D-Bus": system.bus_answers,
        "machined": system.machined,
        "journal": system.journal,
        "SELinux": system.selinux,
        "AppArmor": system.apparmor,
        "gpgv": system.version_of("gpgv"),
        "util-linux": system.confining_programs,
        "libseccomp": system.libseccomp,
        "libraries": system.libraries(settings.installation),
        "systemd-nspawn version": system.version_of("systemd-nspawn"),
        "systemd-nspawn": system.nspawn,
        "systemd": system.systemd,
        "inotify": system.watches,
    }


def _of_groups(cgroups: cgroupfs.Hierarchies) -> dict[str, Trial]:
    if cgroups.unified is None:
        missing = Trial(text="there is no hierarchy of version 2")
        return {
            "birth in a cgroup": missing,
            "cgroup.kill": missing,
            "freezer": groups.old_freezer(cgroups),
        }
    found = groups.unified(cgroups.unified)
    if not found["freezer"].done:
        found["freezer"] = groups.old_freezer(cgroups)
    return found


def _confinement() -> str:
    try:
        with open("/proc/self/uid_map", encoding="ascii") as stream:
            if stream.read().split() != _ALL_IDS:
                return "user namespace"
    except FileNotFoundError:
        pass  # a kernel without
    return "chroot" if _is_below_chroot() else ""


def _is_below_chroot() -> bool:
    """Whether the caller's root is not that of its mount namespace; the first process's, as far as one may see that."""
    try:
        one, own = os.stat("/proc/1/root/."), os.stat("/")
    except OSError:
        return False
    return (one.st_dev, one.st_ino) != (own.st_dev, own.st_ino)
