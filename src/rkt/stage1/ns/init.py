# SPDX-License-Identifier: Apache-2.0
"""The pod's pid 1: holds the namespaces, reaps orphans, and dies with the supervisor.

A static reaper (catatonit) of the stage1 image. It is executed through a read-only mount of that file alone, so that
nothing in the pod can write to it, whoever gets hold of ``/proc/1/exe`` (CVE-2019-5736); all pods share its pages. It sees
an empty read-only root, has no capabilities, and cannot gain any. Root in an app has the same uid, so it must not be able
to look into it either: what it could write there would run without the app's filter. The file may be executed and not be
read, which makes the kernel treat the process as one whose memory is a secret; and the default filter is in force for it
as well. Killing it ends every process of the pod: the kernel sees to that.
"""

from __future__ import annotations

import _signal
import os
import stat

from rkt.errors import Stage1Error, reason_of
from rkt.linux import capabilities, libc, mount
from rkt.stage2.exec import reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.linux.cgroup import Joiner
    from rkt.linux.userns import IdRange

_READY = b"1"
#: Permission bits of the reaper: nobody reads it, so the kernel lets nobody trace who executes it (``would_dump`` in
#: fs/exec.c).
_EXECUTE_ONLY = 0o111


class Init:
    """Pid 1 as the supervisor sees it.

    Attributes:
        pid: on the host.
        pidfd: pollable, owned by the supervisor.
    """

    __slots__ = ("_alive_w", "_ready_r", "pid", "pidfd")

    def __init__(
        self,
        reaper_fd: int,
        *,
        empty_root: bytes,
        joiner: Joiner,
        seccomp: bytes,
        flags: int = 0,
        ids: IdRange | None = None,
    ) -> None:
        """Fork pid 1 in the namespaces the caller is in; it gets ready while the caller goes on.

        Args:
            reaper_fd: from ``open_reaper``.
            empty_root: directory of the engine's own that becomes its root.
            joiner: of the cgroups it lives in.
            seccomp: compiled filter, empty for none.
            flags: ``CLONE_NEW…`` bits of namespaces that it is born in.
            ids: of a new user namespace, which owns these.
        Raises:
            Stage1Error: the kernel refuses the user namespace.
        """
        self._ready_r, ready_w = os.pipe()
        alive_r, self._alive_w = os.pipe()
        if ids is not None:
            flags |= libc.CLONE_NEWUSER
        try:
            self.pid, self.pidfd = libc.clone3(flags, cgroup_fd=joiner.cgroup_fd)
        except OSError as e:
            if ids is None:
                raise
            raise Stage1Error(
                f"cannot make the pod's user namespace: {e.strerror}", hint="sysctl user.max_user_namespaces"
            ) from e
        if self.pid == 0:
            os.close(self._alive_w)
            has_users = ids is not None
            _become_init(reaper_fd, empty_root, joiner, seccomp, ready_w, alive_r, has_users=has_users)
        os.close(ready_w)
        os.close(alive_r)
        if ids is not None:
            from rkt.linux.userns import write_maps

            try:
                write_maps(self.pid, ids)
                os.write(self._alive_w, _READY)
            except BaseException:
                self.kill()
                raise

    def wait_ready(self) -> None:
        """Return when the reaper has been executed.

        Raises:
            Stage1Error: a step was refused.
        """
        answer = b""
        while chunk := os.read(self._ready_r, 4096):
            answer += chunk
        os.close(self._ready_r)
        os.close(self._alive_w)
        if answer != _READY:
            raise Stage1Error(f"cannot start the pod's pid 1: {answer.decode(errors='replace') or 'it died'}")

    def kill(self) -> None:
        """Kill it, and with it every process of the pod."""
        _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)

    def wait(self) -> None:
        """Return when it, and with it every process of the pod, is gone; children of ours must have been reaped."""
        os.waitpid(self.pid, 0)


def open_reaper(path: str) -> int:
    """A descriptor of the reaper on a read-only mount of its own, to be executed.

    Raises:
        Stage1Error: others than root could have changed the file, or could read it.
    """
    tree_fd = mount.clone(path, attributes=libc.MOUNT_ATTR_RDONLY, recursive=False)
    status = os.fstat(tree_fd)
    if status.st_uid or status.st_mode != stat.S_IFREG | _EXECUTE_ONLY:
        os.close(tree_fd)
        raise Stage1Error(
            f"{path} is not a file of root with mode 0111, but of uid {status.st_uid} with {status.st_mode:o}",
            hint="the stage1 image is damaged or was changed: rkt image verify --repair",
        )
    return tree_fd


def _become_init(
    reaper_fd: int,
    empty_root: bytes,
    joiner: Joiner,
    seccomp: bytes,
    ready_w: int,
    alive_r: int,
    *,
    has_users: bool,
) -> None:
    """Become the reaper; never returns."""
    try:
        # In a new pid namespace getppid() is 0 whatever happens, so a supervisor that died before the signal was armed
        # shows as the end of this pipe instead.
        libc.prctl(libc.PR_SET_PDEATHSIG, _signal.SIGKILL)
        if has_users:
            # Wait for the ids. Nothing of the pod runs yet, but nothing of it shall ever see this process's memory.
            libc.prctl(libc.PR_SET_DUMPABLE, 0)
            if os.read(alive_r, 1) != _READY:
                os._exit(1)
        os.set_blocking(alive_r, False)
        if not _is_alive(alive_r):
            os._exit(1)
        null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        joiner.join(unified=False)
        os.setsid()
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount(None, b"/", None, libc.MS_REC | libc.MS_SLAVE)
        libc.mount(empty_root, empty_root, None, libc.MS_BIND)
        os.chdir(empty_root)
        libc.pivot_root(b".", b".")
        libc.umount2(b".", libc.MNT_DETACH)
        os.chdir(b"/")
        if has_users:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        for stream in (0, 1, 2):
            os.dup2(null_fd, stream)
        reset_signals()
        capabilities.drop_bounding(0)
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        libc.capset(0, 0, 0)
        libc.prctl(libc.PR_SET_PDEATHSIG, _signal.SIGKILL)
        if has_users and not _is_alive(alive_r):
            os._exit(1)  # changing ids had disarmed the signal
        libc.close_range(3, 0xFFFFFFFF, libc.CLOSE_RANGE_CLOEXEC)
        if seccomp:
            libc.seccomp_load(seccomp)
        os.write(ready_w, _READY)
        os.execve(reaper_fd, [b"rkt-init", b"-P"], {})
    except BaseException as e:  # noqa: BLE001 - a forked child must not unwind into the supervisor's frames
        try:
            os.write(ready_w, reason_of(e).encode(errors="replace"))
        finally:
            os._exit(1)


def _is_alive(alive_r: int) -> bool:
    """Whether the supervisor still holds the other end."""
    try:
        return os.read(alive_r, 1) != b""
    except BlockingIOError:
        return True
