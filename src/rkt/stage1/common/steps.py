# SPDX-License-Identifier: Apache-2.0
"""The closed set of steps that turn a forked child into an app's environment.

A plan is a list of steps, built before the fork: every string is bytes, every descriptor open, every module imported.
``describe`` shows a step without doing it (``--debug``); ``apply`` does it and raises ``OSError``. Targets are
relative to the app's root and are resolved below its descriptor, never as host paths.
"""

from __future__ import annotations

import errno
import os

from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.cgroup import Joiner

OWN_SCORE = "/proc/self/oom_score_adj"
_MAX_LINKS = 40
#: How often somebody else may change a component while a target is looked for, and how that shows.
_MAX_ATTEMPTS = 40
_SWAPPED = frozenset((errno.EEXIST, errno.EINVAL, errno.ELOOP, errno.ENOENT, errno.ENOTDIR))
#: f_type of procfs, <linux/magic.h>.
PROC_SUPER_MAGIC = 0x9FA0
_BENEATH = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS


class Step:
    """One step; see the subclasses."""

    __slots__ = ()

    def describe(self) -> str:
        """What it does, on one line."""
        raise NotImplementedError

    def apply(self, root_fd: int) -> None:
        """Do it; ``root_fd`` is the app's root."""
        raise NotImplementedError

    def release(self) -> None:
        """Close what it holds; called in the parent, where nothing is applied."""


def failure(step: Step | None, e: BaseException) -> str:
    """Why a step, or what comes after all of them, failed: the kernel's word without its number, each path once."""
    where = "" if step is None else f"{step.describe()}: "
    if not isinstance(e, OSError) or not e.strerror:
        return f"{where}{e}"
    path = os.fsdecode(e.filename or b"")
    return f"{where}{e.strerror}" if path in where else f"{where}{e.strerror}: {path}"


class JoinCgroup(Step):
    """Move the calling process into its cgroups; before the cgroup namespace, whose root they become.

    Args:
        unified: whether it has to move in version 2 as well; false for a process born there (``libc.clone3``).
    """

    __slots__ = ("joiner", "unified")

    def __init__(self, joiner: Joiner, *, unified: bool = False) -> None:
        self.joiner = joiner
        self.unified = unified

    def describe(self) -> str:
        """See ``Step``."""
        return "join the app's cgroups"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        self.joiner.join(unified=self.unified)


class SetOomScore(Step):
    """Say how readily the out-of-memory killer takes the calling process and its children."""

    __slots__ = ("score",)

    def __init__(self, score: int) -> None:
        self.score = score

    def describe(self) -> str:
        """See ``Step``."""
        return f"oom-score-adj {self.score}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        fd = os.open(OWN_SCORE, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % self.score)
        except PermissionError as e:
            reason = "lowering it takes CAP_SYS_RESOURCE, which this process has not"
            raise OSError(e.errno, reason) from None
        finally:
            os.close(fd)


class Unshare(Step):
    """Leave namespaces for new ones."""

    __slots__ = ("flags",)

    def __init__(self, flags: int) -> None:
        self.flags = flags

    def describe(self) -> str:
        """See ``Step``."""
        return f"unshare {self.flags:#x}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        libc.unshare(self.flags)


class EnterRoot(Step):
    """Make the mount tree private to this app and its root the current directory.

    Changes of the host still propagate in (slave), so that the host can unmount its file systems; nothing propagates
    out. ``path`` is made a mount point when it is not one.
    """

    __slots__ = ("bind", "path")

    def __init__(self, path: bytes, *, bind: bool) -> None:
        self.path = path
        self.bind = bind

    def describe(self) -> str:
        """See ``Step``."""
        return f"enter {os.fsdecode(self.path)} in a mount namespace of its own"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount(None, b"/", None, libc.MS_REC | libc.MS_SLAVE)
        if self.bind:
            libc.mount(self.path, self.path, None, libc.MS_BIND | libc.MS_REC)
            libc.mount(None, self.path, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_NOSUID | libc.MS_NODEV)
        os.chdir(self.path)
        # The descriptor opened before the fork sees what lies under the mount; the plan goes on with the mount itself.
        fd = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.dup2(fd, root_fd, inheritable=False)
        os.close(fd)


class MakeDirectory(Step):
    """Make sure that ``path`` is a real directory: whatever else the image put there is replaced (invariant RN6).

    With ``keep`` anything the image has under that name stays, a symbolic link as well.
    """

    __slots__ = ("keep", "mode", "path")

    def __init__(self, path: bytes, mode: int = 0o755, *, keep: bool = False) -> None:
        self.path = path
        self.mode = mode
        self.keep = keep

    def describe(self) -> str:
        """See ``Step``."""
        return f"directory /{os.fsdecode(self.path)} {self.mode:04o}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        parent, _, name = self.path.rpartition(b"/")
        parent_fd = libc.openat2(root_fd, parent or b".", os.O_PATH | os.O_DIRECTORY, _BENEATH)
        try:
            try:
                mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
                if self.keep or mode & 0o170000 == 0o040000:
                    return
                os.unlink(name, dir_fd=parent_fd)
            except FileNotFoundError:
                pass
            os.mkdir(name, dir_fd=parent_fd)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
            try:
                os.fchmod(fd, self.mode)
            finally:
                os.close(fd)
        finally:
            os.close(parent_fd)


class MountFilesystem(Step):
    """Mount a kernel file system on a directory that an earlier step made sure of."""

    __slots__ = ("data", "flags", "fstype", "path")

    def __init__(self, fstype: bytes, path: bytes, flags: int, data: bytes = b"") -> None:
        self.fstype = fstype
        self.path = path
        self.flags = flags
        self.data = data

    def describe(self) -> str:
        """See ``Step``."""
        return f"mount {os.fsdecode(self.fstype)} on /{os.fsdecode(self.path)} {self.flags:#x} {os.fsdecode(self.data)}".rstrip()

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        libc.mount(self.fstype, self.path, self.fstype, self.flags, self.data or None)


class MakeDevice(Step):
    """A device node in the app's own ``/dev``, readable and writable by all."""

    __slots__ = ("major", "minor", "path")

    def __init__(self, path: bytes, major: int, minor: int) -> None:
        self.path = path
        self.major = major
        self.minor = minor

    def describe(self) -> str:
        """See ``Step``."""
        return f"device /{os.fsdecode(self.path)} {self.major}:{self.minor}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        os.mknod(self.path, 0o020666, os.makedev(self.major, self.minor), dir_fd=root_fd)


class MakeSymlink(Step):
    """A symbolic link in a directory that an earlier step made; ``keep`` leaves whatever the image has there."""

    __slots__ = ("keep", "path", "target")

    def __init__(self, target: bytes, path: bytes, *, keep: bool = False) -> None:
        self.target = target
        self.path = path
        self.keep = keep

    def describe(self) -> str:
        """See ``Step``."""
        return f"link /{os.fsdecode(self.path)} -> {os.fsdecode(self.target)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        try:
            os.symlink(self.target, self.path, dir_fd=root_fd)
        except FileExistsError:
            if not self.keep:
                raise


class Bind(Step):
    """Show something of the engine's own at an existing path of the app; an absent target is no error.

    ``source`` is an absolute host path below the pod directory that no app can reach. Used inside the app's own
    ``/proc``, ``/sys`` and ``/dev``, where the image has no say.
    """

    __slots__ = ("path", "source")

    def __init__(self, source: bytes, path: bytes) -> None:
        self.source = source
        self.path = path

    def describe(self) -> str:
        """See ``Step``."""
        return f"bind {os.fsdecode(self.source)} on /{os.fsdecode(self.path)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        libc.mount(self.source, self.path, None, libc.MS_BIND)


class Mask(Step):
    """Hide ``path`` behind an empty, unreadable file or directory of the engine's own; an absent path is fine."""

    __slots__ = ("directory_source", "file_source", "path")

    def __init__(self, path: bytes, file_source: bytes, directory_source: bytes) -> None:
        self.path = path
        self.file_source = file_source
        self.directory_source = directory_source

    def describe(self) -> str:
        """See ``Step``."""
        return f"hide /{os.fsdecode(self.path)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        try:
            libc.mount(self.file_source, self.path, None, libc.MS_BIND)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            if e.errno != errno.ENOTDIR:
                raise
            libc.mount(self.directory_source, self.path, None, libc.MS_BIND)


class ReadOnly(Step):
    """Make ``path`` read-only, below as well; an absent path is fine."""

    __slots__ = ("path",)

    def __init__(self, path: bytes) -> None:
        self.path = path

    def describe(self) -> str:
        """See ``Step``."""
        return f"read-only /{os.fsdecode(self.path)}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        try:
            libc.mount(self.path, self.path, None, libc.MS_BIND | libc.MS_REC)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            raise
        flags = (
            libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
        )
        libc.mount(None, self.path, None, flags)


class AttachTree(Step):
    """Attach a detached mount (a volume) at a path of the image, resolved inside the root, made when missing.

    Symbolic links and ``..`` lead nowhere but inside the root, also dangling ones, whose target is made (spec runtime
    §3.10). The mount goes to the descriptor that was resolved, so a process that swaps a component meanwhile gains
    nothing (CVE-2021-30465). Nothing may cover ``/`` or ``/proc`` (CVE-2019-16884).
    """

    __slots__ = ("is_directory", "name", "path", "tree_fd")

    def __init__(self, tree_fd: int, path: bytes, *, is_directory: bool, name: str) -> None:
        self.tree_fd = tree_fd
        self.path = path
        self.is_directory = is_directory
        self.name = name

    def describe(self) -> str:
        """See ``Step``."""
        return f"volume {self.name} on /{os.fsdecode(self.path.lstrip(b'/'))}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        target_fd = open_target(root_fd, self.path, want_directory=self.is_directory)
        try:
            libc.move_mount(
                self.tree_fd, b"", target_fd, b"", libc.MOVE_MOUNT_F_EMPTY_PATH | libc.MOVE_MOUNT_T_EMPTY_PATH
            )
        finally:
            os.close(target_fd)

    def release(self) -> None:
        """See ``Step``."""
        os.close(self.tree_fd)


class BindFile(Step):
    """Bind a file of the engine's own over a file of the image; a symbolic link there is replaced by a file."""

    __slots__ = ("only_if_absent", "path", "source")

    def __init__(self, source: bytes, path: bytes, *, only_if_absent: bool = False) -> None:
        self.source = source
        self.path = path
        self.only_if_absent = only_if_absent

    def describe(self) -> str:
        """See ``Step``."""
        return f"bind {os.fsdecode(self.source)} on /{os.fsdecode(self.path)}{' if absent' if self.only_if_absent else ''}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        parent, _, name = self.path.rpartition(b"/")
        # Where the image made a link of the directory, it counts inside the root only.
        try:
            parent_fd = open_target(root_fd, parent, want_directory=True)
        except OSError as e:
            if e.errno in {errno.ELOOP, errno.ENOTDIR, errno.EPERM}:
                # No directory, a link to itself, to the root or into /proc: such an image goes without.
                return
            raise
        try:
            try:
                found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
                mode = found.st_mode & 0o170000
                # One without content may be what an earlier process of the app, or an earlier run, was given a place by.
                if self.only_if_absent and (mode != 0o100000 or found.st_size):
                    return
                if mode != 0o100000:
                    os.unlink(name, dir_fd=parent_fd)
                    raise FileNotFoundError
            except FileNotFoundError:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent_fd))
            target_fd = libc.openat2(parent_fd, name, os.O_PATH | os.O_NOFOLLOW, _BENEATH)
        finally:
            os.close(parent_fd)
        try:
            libc.mount(self.source, b"/proc/self/fd/%d" % target_fd, None, libc.MS_BIND)
        finally:
            os.close(target_fd)


class PivotRoot(Step):
    """Make the current directory the root and drop the host's tree."""

    __slots__ = ("readonly",)

    def __init__(self, *, readonly: bool) -> None:
        self.readonly = readonly

    def describe(self) -> str:
        """See ``Step``."""
        return f"pivot{', root read-only' if self.readonly else ''}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        libc.pivot_root(b".", b".")
        libc.umount2(b".", libc.MNT_DETACH)
        if self.readonly:
            libc.mount_setattr(libc.AT_FDCWD, b"/", 0, set_=libc.MOUNT_ATTR_RDONLY)
        os.chdir(b"/")


class EmptyInput(Step):
    """Nothing as standard input: the app's own ``/dev/null``, since the host's belongs to root in the app as well."""

    __slots__ = ()

    def describe(self) -> str:
        """See ``Step``."""
        return "empty standard input"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        try:
            here = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            fd = libc.openat2(here, b"dev/null", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK, _BENEATH)
            status = os.fstat(fd)
            is_null = status.st_mode & 0o170000 == 0o020000 and status.st_rdev == os.makedev(1, 3)
        except OSError:
            is_null = False
        if not is_null:
            # A volume may lie over /dev. A pipe that nobody can write is as empty.
            fd, write_fd = os.pipe()
            os.close(write_fd)
        os.dup2(fd, 0)


class OwnStreams(Step):
    """Give pipes to the app's user, so that it can open them again by name, as programs that log to ``/dev/stdout`` do."""

    __slots__ = ("streams", "uid")

    def __init__(self, uid: int, streams: tuple[int, ...]) -> None:
        self.uid = uid
        self.streams = streams

    def describe(self) -> str:
        """See ``Step``."""
        return f"streams belong to {self.uid}"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        for stream in self.streams:
            os.fchown(stream, self.uid, -1)


class NewSession(Step):
    """A session and a kernel session keyring of its own (invariant RN18)."""

    __slots__ = ()

    def describe(self) -> str:
        """See ``Step``."""
        return "new session and keyring"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        os.setsid()
        try:
            libc.join_new_session_keyring()
        except OSError as e:
            # A kernel without keyrings has none to share.
            if e.errno != errno.ENOSYS:
                raise


def open_target(root_fd: int, path: bytes, *, want_directory: bool) -> int:
    """Open ``path`` below ``root_fd`` with links resolved inside the root; what is missing is made.

    Other apps of the pod may change what lies in a volume at the same time: a component that is swapped or made under our
    hands is looked at again.

    Returns:
        An ``O_PATH`` descriptor that the caller owns.
    Raises:
        OSError: ``ELOOP`` for too many links, ``EPERM`` for the root itself and for what lies in a procfs, or what the
            kernel says of a component, when it still does so after some attempts.
    """
    for _ in range(_MAX_ATTEMPTS):
        try:
            return _resolve(root_fd, path, want_directory=want_directory)
        except OSError as e:
            if e.errno not in _SWAPPED:
                raise
    return _resolve(root_fd, path, want_directory=want_directory)


def _resolve(root_fd: int, path: bytes, *, want_directory: bool) -> int:
    pending = path.split(b"/")
    done: list[bytes] = []
    links = 0
    while pending:
        name = pending.pop(0)
        if name in {b"", b"."}:
            continue
        if name == b"..":
            if done:
                done.pop()
            continue
        parent_fd = libc.openat2(root_fd, b"/".join(done) or b".", os.O_PATH | os.O_DIRECTORY, _BENEATH)
        try:
            _refuse_proc(parent_fd, path)
            try:
                mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode & 0o170000
            except FileNotFoundError:
                is_directory = want_directory or any(part not in {b"", b"."} for part in pending)
                _make(parent_fd, name, is_directory=is_directory)
                done.append(name)
                continue
            if mode == 0o120000:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
                target = os.readlink(name, dir_fd=parent_fd)
                if target.startswith(b"/"):
                    done.clear()
                pending = target.split(b"/") + pending
                continue
            done.append(name)
        finally:
            os.close(parent_fd)
    if not done:
        raise OSError(errno.EPERM, "nothing may be mounted over the root", os.fsdecode(path))
    target_fd = libc.openat2(root_fd, b"/".join(done), os.O_PATH, _BENEATH)
    try:
        _refuse_proc(target_fd, path)
    except OSError:
        os.close(target_fd)
        raise
    return target_fd


def _refuse_proc(fd: int, path: bytes) -> None:
    """Nothing may be mounted at or below a procfs, where labels and masks would meet a fake file (CVE-2019-16884)."""
    if libc.statfs_type(fd) == PROC_SUPER_MAGIC:
        raise OSError(errno.EPERM, "nothing may be mounted over /proc", os.fsdecode(path))


def _make(parent_fd: int, name: bytes, *, is_directory: bool) -> None:
    """Make a directory or an empty file."""
    if is_directory:
        os.mkdir(name, 0o755, dir_fd=parent_fd)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=parent_fd))
