# SPDX-License-Identifier: Apache-2.0
"""How the two workers give up what they do not need, before they see the first foreign byte.

=================  ==========================================  ======================================================
                   rkt-fetch                                   rkt-unpack
=================  ==========================================  ======================================================
user               one of its own per process, no groups       root
capabilities       none                                        CHOWN DAC_OVERRIDE FOWNER FSETID SETFCAP
no_new_privs       yes                                         yes
pid, ipc, uts      of its own                                  of its own
network            the host's for URLs, else an empty one      an empty one
files              URLs: the host's, read-only, without        the directory that it fills is its whole world
                   ``/proc``; else an empty one
can write to       the descriptors it was given                that directory and the descriptors it was given
Landlock           URLs: reads what TLS and name resolution    fills that directory: whiteouts and no other devices, no
                   need; opens no listening port; else         sockets, nothing to execute; opens no port
                   no file and no port
system calls       a list, ``linux/seccomp_workers.py``        another, without sockets
limits             file size, memory, descriptors, processes   file size, memory, descriptors
=================  ==========================================  ======================================================

``rkt-verify``, which reads signatures, is confined as ``rkt-fetch`` is without URLs, with user ids of its own: it sees no file.

``rkt-pack`` and ``rkt-fill``, which copy from and to pods, are confined as ``rkt-unpack`` is, each with the one directory that
the copy is about as its root, with fewer capabilities, and in a user namespace of the pod's ids if the pod has one.

``rkt-metadata``, which answers pods for the metadata service, is confined as ``rkt-fetch`` is for local files, and may accept
connections on the sockets that it is given; its system calls are a list of their own.

A member of the group ``rkt`` fetches without root, so ``rkt-fetch`` then has the member's user id and no namespace of its
own. What confines it is Landlock and the list of system calls, which must both be there, no_new_privs, and that it opens
no Unix socket: behind those are services that do what this user says.

Everything has been imported before; nothing can be imported, or needs to be, afterwards. A step that the kernel refuses
ends the worker. Two things a kernel may lack: Landlock, from 5.13 on, which repeats what mounts and users say, and system
call filters; ``missing`` tells which. Each is process 1 of its pid namespace: when it ends, whatever it may have started
is gone too, so that nobody is left to change a file that is about to be verified.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal

from rkt.errors import HostError
from rkt.linux import capabilities, landlock, libc, mount

_UNPACK_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETFCAP")
_PACK_CAPABILITIES = ("CAP_DAC_READ_SEARCH",)
_FILL_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER")
#: First of the 65536 user ids of ``rkt-fetch``: ``rk`` in ASCII; far from users, services and subordinate ids.
FETCH_UID_BASE = 0x726B0000
#: Likewise of ``rkt-verify``: ``rv``, so that whoever brought a signature cannot reach who judges it.
VERIFY_UID_BASE = 0x72760000
_MEMORY_BYTES = 1 << 30
_OPEN_FILES = 256
_LOG_BYTES = 1 << 40
_PROCESSES = 16
_SECCOMP_RET_KILL_PROCESS = 0x80000000
#: Read by TLS and by the resolver of the C library: its plug-ins, its settings and where those may really be,
#: certificates and what links to them. Sockets of name services are found by path too.
_RESOLVER_PATHS = (
    b"/etc/ca-certificates",
    b"/etc/crypto-policies",
    b"/etc/gai.conf",
    b"/etc/host.conf",
    b"/etc/hosts",
    b"/etc/ld.so.cache",
    b"/etc/nsswitch.conf",
    b"/etc/pki",
    b"/etc/resolv.conf",
    b"/etc/services",
    b"/etc/ssl",
    b"/lib",
    b"/lib64",
    b"/run/NetworkManager",
    b"/run/nscd",
    b"/run/resolvconf",
    b"/run/systemd/resolve",
    b"/usr/lib",
    b"/usr/lib64",
    b"/usr/local/share/ca-certificates",
    b"/usr/share/ca-certificates",
    b"/usr/share/pki",
    b"/usr/share/zoneinfo",
    b"/var/lib/ca-certificates",
)
#: Read end of a pipe whose write end the waiting process holds: the parent's pid says nothing across pid namespaces.
_parent_fd = -1


def begin(name: bytes, *, network: bool) -> None:
    """Leave the caller's namespaces; process 1 of the new pid namespace goes on, the old process waits for it.

    Who is not root stays where it is.

    Args:
        name: shown by ps(1).
        network: stay in the host's network.
    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() != 0:
        _set_name(name)
        return
    mount.enter_own_namespace()
    flags = libc.CLONE_NEWIPC | libc.CLONE_NEWUTS | libc.CLONE_NEWPID
    libc.unshare(flags if network else flags | libc.CLONE_NEWNET)
    mount.make_private_recursive()
    _set_name(name)
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        # Nothing stays open here but the pipe: the end of the worker is the end of the conversation.
        libc.close_range(3, writer - 1)
        libc.close_range(writer + 1, 0xFFFFFFFF)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.close(writer)
    global _parent_fd
    _parent_fd = reader
    die_with_parent()


def confine_fetch(*, network: bool, file_size_bytes: int, uid: int) -> None:
    """Become ``rkt-fetch``: see the table above.

    Args:
        network: the host's files stay readable, for resolver configuration and certificates.
        file_size_bytes: no file may grow beyond it.
        uid: user and group id of this process alone; who is not root stays who it is.
    Raises:
        HostError: not root, and the kernel has not all that would confine this process.
        OSError: the kernel refuses.
    """
    if os.geteuid() != 0:
        _confine_user(network=network, file_size_bytes=file_size_bytes)
        return
    last = capabilities.last_capability()
    program = _compile("download" if network else "copy")
    if network:
        mount.attach(mount.create(b"tmpfs", attributes=mount.READ_ONLY), b"/proc")
        mount.restrict(b"/", mount.READ_ONLY | mount.UNTRUSTED)
    else:
        mount.attach(mount.create(b"tmpfs", ((b"size", b"4k"),), attributes=mount.READ_ONLY), b"/proc")
        _become_root(b"/proc")
    os.chdir("/")
    os.umask(0o077)
    _new_keyring()
    _lower_limits(file_size_bytes, processes=_PROCESSES)
    _give_up_rights(uid, last)
    if network:
        landlock.restrict([(path, landlock.READ) for path in _RESOLVER_PATHS], network=landlock.BIND_TCP)
    else:
        landlock.restrict([])
    _load(program)


def confine_metadata(*, uid: int) -> None:
    """Become ``rkt-metadata``, which answers pods on sockets that it is given: no file, no network of its own, no rights.

    Args:
        uid: user and group id of this process alone.
    Raises:
        OSError: the kernel refuses.
    """
    last = capabilities.last_capability()
    program = _compile("metadata")
    mount.attach(mount.create(b"tmpfs", ((b"size", b"4k"),), attributes=mount.READ_ONLY), b"/proc")
    _become_root(b"/proc")
    os.umask(0o077)
    _new_keyring()
    # Its standard error output may be a file.
    _lower_limits(_LOG_BYTES, processes=_PROCESSES)
    _give_up_rights(uid, last)
    landlock.restrict([])
    _load(program)


def _confine_user(*, network: bool, file_size_bytes: int) -> None:
    """Become ``rkt-fetch`` of a user who is not root."""
    require_walls()
    program = _compile("download-user" if network else "copy")
    os.chdir("/")
    os.umask(0o077)
    _new_keyring()
    # Not the number of processes: all that this user runs would count.
    _lower_limits(file_size_bytes)
    capabilities.clear_ambient()
    capabilities.limit(0)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if network:
        landlock.restrict([(path, landlock.READ) for path in _RESOLVER_PATHS], network=landlock.BIND_TCP)
    else:
        landlock.restrict([])
    _load(program)


def require_walls() -> None:
    """Refuse to fetch as a user who is not root where nothing would confine ``rkt-fetch``.

    Raises:
        HostError: this kernel lacks Landlock or system call filters.
    """
    lacks = []
    if landlock.abi() == 0:
        lacks.append("Landlock")
    if not libc.seccomp_action_available(_SECCOMP_RET_KILL_PROCESS):
        lacks.append("system call filters")
    if lacks:
        raise HostError(
            f"only root can fetch on this host: its kernel has no {' and no '.join(lacks)} "
            "to confine rkt-fetch of other users",
            hint="sudo rkt fetch …",
        )


def take_directory(target_fd: int) -> int:
    """A detached mount of the directory that ``rkt-unpack`` will have as its root.

    Made before ``begin``: a descriptor from the old mount namespace cannot be bound in the new one.

    Args:
        target_fd: the empty directory; closed, since through it the outside could be reached.
    Returns:
        a descriptor for ``confine_unpack``.
    """
    attributes = mount.UNTRUSTED | libc.MOUNT_ATTR_NOEXEC
    tree_fd = mount.clone(target_fd, attributes=attributes, recursive=False, propagation=libc.MS_PRIVATE)
    os.close(target_fd)
    return tree_fd


def confine_unpack(tree_fd: int, *, file_size_bytes: int) -> int:
    """Become ``rkt-unpack``: see the table above.

    Args:
        tree_fd: from ``take_directory``; closed.
        file_size_bytes: no file may grow beyond it.
    Returns:
        a descriptor of the same directory, which is now ``/``.
    Raises:
        OSError: the kernel refuses.
    """
    last = capabilities.last_capability()
    program = _compile("unpack")
    # Onto /proc, because every host has it.
    mount.attach(tree_fd, b"/proc")
    _become_root(b"/proc")
    os.umask(0)
    _new_keyring()
    _lower_limits(file_size_bytes)
    keep = capabilities.mask(_UNPACK_CAPABILITIES)
    capabilities.drop_bounding(keep, last)
    capabilities.clear_ambient()
    os.setgroups([])
    capabilities.limit(keep)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if landlock.abi() >= landlock.REFER_ABI:
        # Whiteouts of overlayfs are character devices 0:0; for others a capability is missing, and the system call.
        landlock.restrict([(b"/", landlock.FILL | landlock.MAKE_CHAR)])
    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _load(program)
    return root_fd


def take_world(world_fd: int, namespace_fd: int, *, writable: bool) -> int:
    """A detached mount of the directory that ``rkt-pack`` or ``rkt-fill`` will have as its root, with all that is mounted below.

    Nothing in it can be executed, and no device opened, whatever it holds. Made before ``begin``, as by ``take_directory``.

    Args:
        world_fd: the directory; closed.
        namespace_fd: the mount namespace that it is in, closed; -1 for the caller's.
        writable: else everything is read-only.
    Returns:
        a descriptor for ``confine_copy``.
    """
    attributes = mount.UNTRUSTED | libc.MOUNT_ATTR_NOEXEC | (0 if writable else mount.READ_ONLY)
    host_fd = root_fd = -1
    try:
        if namespace_fd >= 0:
            # Nothing may be imported between these two: files would be the pod's.
            host_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            libc.setns(namespace_fd, libc.CLONE_NEWNS)
        try:
            return mount.clone(world_fd, attributes=attributes, propagation=libc.MS_PRIVATE)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            # Not mounted there any more, so it has no copy.
            raise OSError(errno.ESTALE, "the app was removed, or has ended, meanwhile") from e
        finally:
            if namespace_fd >= 0:
                libc.setns(host_fd, libc.CLONE_NEWNS)
                # Where rkt was started below a chroot, the namespace's root is another.
                os.fchdir(root_fd)
                os.chroot(".")
    finally:
        for fd in (world_fd, namespace_fd, host_fd, root_fd):
            if fd >= 0:
                os.close(fd)


def confine_copy(tree_fd: int, users_fd: int, *, writable: bool, file_size_bytes: int) -> int:
    """Become ``rkt-pack`` or ``rkt-fill``: like ``rkt-unpack``, in a world that is not empty.

    Args:
        tree_fd: from ``take_world``; closed.
        users_fd: a user namespace with the ids of the pod, to see its files as it does, closed; -1 for none.
        writable: ``rkt-fill``.
        file_size_bytes: no file may grow beyond it.
    Returns:
        a descriptor of the root directory.
    Raises:
        OSError: the kernel refuses.
    """
    last = capabilities.last_capability()
    program = _compile("fill" if writable else "pack")
    mount.attach(tree_fd, b"/proc")
    _become_root(b"/proc")
    os.umask(0)
    _new_keyring()
    _lower_limits(file_size_bytes)
    if users_fd >= 0:
        # Root of nobody but the pod's ids from here on.
        libc.setns(users_fd, libc.CLONE_NEWUSER)
        os.close(users_fd)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        # Changing the user cleared it.
        die_with_parent()
    keep = capabilities.mask(_FILL_CAPABILITIES if writable else _PACK_CAPABILITIES)
    capabilities.drop_bounding(keep, last)
    capabilities.clear_ambient()
    os.setgroups([])
    capabilities.limit(keep)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if landlock.abi() >= landlock.REFER_ABI:
        landlock.restrict([(b"/", landlock.FILL if writable else landlock.READ)])
    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _load(program)
    return root_fd


def missing() -> list[str]:
    """What this kernel cannot do of the table above, in words for ``--debug``."""
    found = []
    version = landlock.abi()
    if version == 0:
        found.append(
            "this kernel has no Landlock: workers are confined by users, mounts and capabilities alone"
        )
    elif version < landlock.REFER_ABI:
        found.append("Landlock of this kernel is too old for rkt-unpack, which goes without")
    if not libc.seccomp_action_available(_SECCOMP_RET_KILL_PROCESS):
        found.append("this kernel has no system call filters: workers go without")
    return found


def _give_up_rights(uid: int, last: int) -> None:
    """Become a user of its own without capabilities, now and later; ``last`` is the number of the kernel's last one."""
    capabilities.drop_bounding(0, last)
    capabilities.clear_ambient()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    capabilities.limit(0)
    # Changing the user cleared it.
    die_with_parent()
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)


def _compile(kind: str) -> bytes:
    """The system call filter, made while libraries can still be opened; empty when the kernel takes none."""
    if not libc.seccomp_action_available(_SECCOMP_RET_KILL_PROCESS):
        return b""
    from rkt.linux import seccomp_workers

    try:
        return seccomp_workers.compile_worker(kind)
    except OSError as e:
        raise HostError(
            f"the system call filter of a worker cannot be made: {e}", hint="apt-get install libseccomp2"
        ) from e


def _load(program: bytes) -> None:
    if program:
        libc.seccomp_load(program)


def _become_root(point: bytes) -> None:
    """Make a mount the root of this mount namespace; nothing else is left in it."""
    os.chdir(point)
    try:
        libc.pivot_root(b".", b".")
        libc.umount2(b".", libc.MNT_DETACH)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        # The root is an initramfs, which pivot_root(2) refuses: cover it instead.
        libc.mount(b".", b"/", None, libc.MS_MOVE)
        os.chroot(".")
    os.chdir("/")


def _lower_limits(file_size_bytes: int, processes: int = 0) -> None:
    _lower(resource.RLIMIT_FSIZE, file_size_bytes)
    _lower(resource.RLIMIT_AS, _MEMORY_BYTES)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)
    if processes:
        _lower(resource.RLIMIT_NPROC, processes)


def _lower(limit: int, value: int) -> None:
    """Never raise one: that needs a capability that not every root has."""
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


def _new_keyring() -> None:
    try:
        libc.join_new_session_keyring()
    except OSError as e:
        if e.errno != errno.ENOSYS:
            raise


def _set_name(name: bytes) -> None:
    with open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(name)


def die_with_parent() -> None:
    """Be killed when the process that started this one ends, even if it has ended already."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if _parent_fd < 0:
        return
    poll = select.poll()
    poll.register(_parent_fd, 0)
    if poll.poll(0):
        os._exit(1)
