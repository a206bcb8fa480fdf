# SPDX-License-Identifier: Apache-2.0
"""The engine's own files of a pod, which apps see by binds: names of hosts, name servers, the empty things that hide others."""

from __future__ import annotations

import os

from rkt.linux import files, libc
from rkt.stage0 import contract
from rkt.stage1.common import hosts
from rkt.stage1.common.app_root import OWN_FILES, SHM
from rkt.stage1.common.arguments import ids_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.networks import Networks
    from rkt.stage1.common.pod import LoadedPod

#: Root directory of pid 1, below the engine's own files. In a user namespace it enters as owner, without capabilities.
EMPTY_ROOT = "empty-root"
_SHM_OPTIONS = b"mode=1777,size=64m"
_OWN_FLAGS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
_MAX_HOSTS_BYTES = 1 << 20
_OWN_OPTIONS = b"mode=700,size=1m,nr_inodes=64"


def make_own_files(arguments: RunArguments) -> None:
    """What the engine shows inside apps, on a tmpfs of its own that is read-only before the first app starts."""
    for directory in (OWN_FILES, SHM):
        os.makedirs(directory, mode=0o755, exist_ok=True)
    own = OWN_FILES.encode()
    libc.mount(b"tmpfs", own, b"tmpfs", _OWN_FLAGS, _OWN_OPTIONS)
    libc.mount(b"tmpfs", SHM.encode(), b"tmpfs", _OWN_FLAGS, _SHM_OPTIONS)
    os.mkdir(f"{OWN_FILES}/hidden-directory", 0)
    os.mkdir(f"{OWN_FILES}/{EMPTY_ROOT}", 0o700)
    files.write_new(f"{OWN_FILES}/hidden-file", b"", 0)
    hostname = hostname_of(arguments)
    files.write_new(f"{OWN_FILES}/hostname", hostname.encode() + b"\n", 0o644)
    files.write_new(f"{OWN_FILES}/hosts", hosts.hosts_file(arguments.hosts_mode, hostname), 0o644)
    if arguments.resolv_mode in {"stage0", "host"}:
        files.write_new(f"{OWN_FILES}/resolv.conf", hosts.resolv_file(arguments.resolv_mode), 0o644)
    ids = ids_of(arguments)
    if ids is not None:
        from rkt.stage1.common.private_users import give

        visible = [name for name in os.listdir(OWN_FILES) if name in {"hostname", "hosts", "resolv.conf"}]
        give([SHM, *(f"{OWN_FILES}/{name}" for name in visible)], ids)
    libc.mount(None, own, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | _OWN_FLAGS)


def take_leave(arguments: RunArguments, server: _socket.socket) -> None:
    """The pod is over: nobody asks in its name any more, and last of all its socket goes, which says that nobody killed it."""
    if os.path.exists(contract.MDS_REGISTERED):
        from rkt.stage1.common import metadata

        metadata.forget(arguments.uuid)
    server.close()
    os.unlink(contract.CONTROL_SOCKET)


def hostname_of(arguments: RunArguments) -> str:
    """The pod's host name."""
    return arguments.hostname or f"rkt-{arguments.uuid}"


def find_networks(arguments: RunArguments, lock_fd: int) -> Networks | None:
    """The networks that plugins are to set up, if there are any; what is wrong with them shows here.

    Raises:
        NetworkError: one is not to be had.
    """
    if arguments.networks in (["none"], ["host"]):
        return None
    from rkt.stage1.common.networks import Networks

    return Networks(arguments, lock_fd)


def attach_networks(networks: Networks, pod: LoadedPod, arguments: RunArguments, net_fd: int) -> RunArguments:
    """Set the pod's networks up, and let its files say what came of that; to be called in the pod's network namespace.

    Returns:
        the arguments as they are then, with files of names that come of the networks.
    Raises:
        NetworkError, PodError, HostError, UsageError, OSError: it could not be done.
    """
    networks.attach(pod, net_fd)
    arguments = _publish_names(networks, arguments)
    if egress := pod.manifest.annotations.get(contract.ANNOTATION_EGRESS):
        networks.restrict(egress, arguments.resolv_mode, net_fd)
    if networks.dns() is None:
        return arguments
    own = OWN_FILES.encode()
    flags = libc.MS_REMOUNT | libc.MS_BIND | _OWN_FLAGS
    # Of the mount only: pid 1's root is another mount of the same files, and stays read-only.
    libc.mount(None, own, None, flags)
    networks.write_resolv_conf(f"{OWN_FILES}/resolv.conf")
    libc.mount(None, own, None, flags | libc.MS_RDONLY)
    return arguments.replace(resolv_mode="network")


def _publish_names(networks: Networks, arguments: RunArguments) -> RunArguments:
    """Let pods of the same networks know each other by name; the hosts file that changes with them takes the place of ours."""
    if arguments.hosts_mode == "host":
        networks.publish(None)
        return arguments
    own = f"{OWN_FILES}/hosts".encode()
    networks.publish(files.read_bounded(own.decode(), _MAX_HOSTS_BYTES))
    libc.mount(contract.HOSTS.encode(), own, None, libc.MS_BIND)
    # What is bound of it into apps is as read-only as this is.
    libc.mount(None, own, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | _OWN_FLAGS)
    return arguments.replace(hosts_mode="network")
