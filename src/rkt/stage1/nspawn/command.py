# SPDX-License-Identifier: Apache-2.0
"""How systemd-nspawn is called (spec runtime §3.3): arguments and environment, nothing of which comes from an image unchecked.

There are no ``--bind`` and no network arguments: what the pod sees is mounted, and its namespaces for networks and IPC are
made, before nspawn starts. All options are known since systemd 249, and none is deprecated in 262.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import capabilities
from rkt.stage1.common.own_files import hostname_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.arguments import RunArguments

_PLACES = ("/usr/bin/systemd-nspawn", "/bin/systemd-nspawn", "/usr/local/bin/systemd-nspawn")
_INIT = "/usr/lib/systemd/systemd"
#: Where pid 1 of the pod finds units and, of its generators, nothing.
_UNITS = "/rkt/units"
_NOTHING = "/rkt/none"
#: Of a host that was booted by systemd (sd_booted(3)) and whose machined can be reached or started.
_BOOTED = "/run/systemd/system"
_BUS = "/run/dbus/system_bus_socket"
_MACHINED = (
    "/usr/share/dbus-1/system-services/org.freedesktop.machine1.service",
    "/run/systemd/machine/io.systemd.Machine",
)
#: Where the pod's systemd and journald log, unless the operator debugs: nowhere.
_QUIET = ("--log-target=null", "--show-status=0")


def find_nspawn() -> str:
    """The program.

    Raises:
        Stage1Error: the host has none, or no systemd to run in a pod.
    """
    found = next((path for path in _PLACES if os.access(path, os.X_OK)), "")
    if not found:
        raise Stage1Error(
            "this host has no systemd-nspawn, which the flavour nspawn needs",
            hint="install the package systemd-container, or run without --stage1-name",
        )
    if not os.access(_INIT, os.X_OK):
        raise Stage1Error(
            f"this host has no {_INIT}, which the flavour nspawn runs in its pods",
            hint="install the package systemd, or run without --stage1-name",
        )
    return found


def machine_name(uuid: str) -> str:
    """What machined knows the pod by."""
    return f"rkt-{uuid}"


def has_machined() -> bool:
    """Whether the host's systemd can be told of the pod."""
    return os.path.isdir(_BOOTED) and os.path.exists(_BUS) and any(os.path.exists(path) for path in _MACHINED)


def own_group() -> str:
    """The calling process's group in the hierarchy that systemd uses."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as stream:
        groups = {line.split(":", 2)[1]: line.rstrip("\n").split(":", 2)[2] for line in stream}
    return groups.get("") or groups.get("name=systemd", "")


def is_in_unit(group: str) -> bool:
    """Whether systemd has a unit of processes for a group: the first below its slices is a service or a scope."""
    below = [part for part in group.split("/") if part and not part.endswith(".slice")]
    return bool(below) and below[0].endswith((".service", ".scope"))


def build_arguments(program: str, directory: str, arguments: RunArguments, kept: int) -> list[str]:
    """The words of the command.

    Args:
        program: systemd-nspawn.
        directory: the pod's root.
        arguments: of ``run``.
        kept: mask of the capabilities that some app has; nspawn retains its own default as well, for systemd.
    """
    words = [
        program,
        "--boot",
        *(() if arguments.debug else ("--quiet",)),
        "--settings=no",
        "--notify-ready=yes",
        "--keep-unit",
        # In the child, which is in the pod's groups. nspawn ends where machined does not know the unit.
        f"--register={'yes' if has_machined() and is_in_unit(own_group()) else 'no'}",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=read-only",
        f"--uuid={arguments.uuid}",
        f"--machine={machine_name(arguments.uuid)}",
        f"--hostname={hostname_of(arguments)}",
        f"--directory={directory}",
    ]
    if arguments.private_users:
        words += [f"--private-users={arguments.private_users}", "--private-users-ownership=off"]
    if arguments.disable_capabilities_restriction or arguments.mutable:
        # Of apps that come later nothing is known yet.
        words.append("--capability=all")
    elif kept:
        words.append(f"--capability={','.join(capabilities.names(kept))}")
    for name, value in _pod_environment().items():
        words.append(f"--setenv={name}={value}")
    words.append("--")
    words.append("--default-standard-output=null")
    if arguments.debug:
        words.append("--log-target=console")
    else:
        words += _QUIET
    return words


def _pod_environment() -> dict[str, str]:
    """Of the pod's pid 1."""
    return {
        "SYSTEMD_UNIT_PATH": _UNITS,
        "SYSTEMD_GENERATOR_PATH": _NOTHING,
        "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": _NOTHING,
    }


def build_environment(arguments: RunArguments, notify_socket: str) -> dict[str, str]:
    """The whole environment of systemd-nspawn.

    Args:
        arguments: of ``run``.
        notify_socket: path of the socket on which it says how far it is.
    """
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "NOTIFY_SOCKET": notify_socket,
        # The namespace for IPC is the one it is started in.
        "SYSTEMD_NSPAWN_SHARE_NS_IPC": "true",
        "SYSTEMD_NSPAWN_CONTAINER_SERVICE": "rkt",
        # The pod directory is locked, and nobody else has this root.
        "SYSTEMD_NSPAWN_LOCK": "0",
        # Each app has a filter of its own, and what an operator grants to one must not fail for want of this one's consent.
        "SYSTEMD_SECCOMP": "0",
        "SYSTEMD_LOG_TARGET": "console",
        "SYSTEMD_LOG_LEVEL": "info" if arguments.debug else "err",
    }
    # nspawn refuses the two together; an app's own file systems are not nspawn's.
    if arguments.disable_paths and not arguments.private_users:
        environment["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "yes"
    return environment
