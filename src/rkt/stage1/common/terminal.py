# SPDX-License-Identifier: Apache-2.0
"""Terminals between an operator and a process of a pod: never the operator's own, always a fresh one (CVE-2017-5226).

The pod's side opens a pseudo-terminal of the app's own devpts, so that ``ttyname`` works there, and sends the master to
the operator's side, which relays bytes and window sizes. Where only some streams are terminals, pipes stand between.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import fcntl
import os
import select
import struct
import termios

from rkt.linux import libc
from rkt.stage1.common.streams import Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

#: f_type of devpts, <linux/magic.h>.
DEVPTS_SUPER_MAGIC = 0x1CD1
# <asm-generic/ioctls.h>
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCGPTN = 0x80045430
_CHUNK_BYTES = 32 << 10
#: Those above are of the pod.
_LAST_STREAM = 2
#: ``struct winsize``: rows, columns, and the same in pixels.
_WINSIZE = struct.Struct("HHHH")


def open_pty(uid: int, root: str = "/") -> tuple[int, int]:
    """Open a pseudo-terminal of the devpts that is mounted in an app's root.

    Args:
        uid: who gets it, -1 to leave that to somebody else.
        root: the app's root, by default that of the calling process.
    Returns:
        (master, slave), both close-on-exec and owned by the caller; the slave belongs to ``uid``.
    Raises:
        OSError: what is at ``/dev/pts/ptmx`` is not the kernel's multiplexer (CVE-2025-52565).
    """
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        beneath = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS
        master = libc.openat2(root_fd, b"dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, beneath)
    finally:
        os.close(root_fd)
    status = os.fstat(master)
    if status.st_rdev != os.makedev(5, 2) or libc.statfs_type(master) != DEVPTS_SUPER_MAGIC:
        raise OSError(errno.ENOTTY, "not the kernel's terminal multiplexer", "/dev/pts/ptmx")
    lock(master, is_locked=False)
    slave = open_peer(master)
    os.fchown(slave, uid, -1)
    return master, slave


def lock(master: int, *, is_locked: bool) -> None:
    """Have nobody open the other side, or have it opened again. Who tries meanwhile breaks it for those who have it, until then."""
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", is_locked))


def number_of(master: int) -> int:
    """Number of a pseudo-terminal, which is the name of its other side in its devpts."""
    number: int = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    return number


def open_peer(master: int) -> int:
    """The other side of a pseudo-terminal, wherever it is mounted, close-on-exec and owned by the caller."""
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def take_terminal(slave: int, streams: tuple[int, ...] = (0, 1, 2)) -> None:
    """Make ``slave`` the controlling terminal and standard streams of the calling session leader."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for stream in streams:
        os.dup2(slave, stream)


def send_descriptor(channel: _socket.socket, fd: int) -> None:
    """Hand a descriptor to the other side."""
    channel.sendmsg([b"1"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))])


def receive_descriptor(channel: _socket.socket) -> int | None:
    """The descriptor that the other side sent; None when it ended without."""
    _, ancillary, _, _ = channel.recvmsg(1, 64)
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fd: int = struct.unpack("i", data[:4])[0]
            os.set_inheritable(fd, False)
            return fd
    return None


def copy_window_size(source: int, target: int) -> None:
    """Give ``target`` the window size of ``source``."""
    try:
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        pass


def window_size(fd: int) -> tuple[int, int]:
    """(rows, columns) of a terminal.

    Raises:
        OSError: it is none.
    """
    rows, columns, _, _ = _WINSIZE.unpack(fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_WINSIZE.size)))
    return rows, columns


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Give a terminal its size; its foreground processes are told (SIGWINCH) even if it is what it was.

    The kernel tells them of a change only. So the first of two changes is of a member that is not used.
    """
    for unused in (1, 0):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, _WINSIZE.pack(rows, columns, unused, 0))


class RawTerminal:
    """The operator's terminal in raw mode for the time of a ``with``."""

    __slots__ = ("_fd", "_saved")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(self._fd)
        raw = termios.tcgetattr(self._fd)
        raw[0] &= ~(
            termios.BRKINT
            | termios.IGNBRK
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[1] &= ~termios.OPOST
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN] = 1
        raw[6][termios.VTIME] = 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, raw)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # At once: a terminal that takes no output would be waited for.
            termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
        except termios.error:
            pass  # the terminal is gone


def relay(pairs: list[tuple[int, int]], done_fd: int, *, window: tuple[int, int] | None = None) -> None:
    """Copy from the first to the second of each pair until the process of ``done_fd`` has ended and said all it said.

    Args:
        pairs: (source, target); sources that are pipes or pseudo-terminals of the pod end by themselves. Targets that are
            of the pod do not block any more afterwards, and pipes among them are closed when nothing more comes.
        done_fd: pidfd.
        window: (terminal, pseudo-terminal) whose size follows SIGWINCH.
    """
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    if window is not None:
        copy_window_size(*window)
        _signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGWINCH, lambda _number, _frame: None)
    pending = dict(pairs)
    # Nobody may make the others wait: a command that does not read may be waiting until what it wrote is read.
    outlets = {target: Outlet(target) for target in pending.values()}
    for target in outlets:
        if target > _LAST_STREAM:
            os.set_blocking(target, False)
    ended = False
    while True:
        poll = select.poll()
        for fd, events in _interests(pending, outlets).items():
            poll.register(fd, events)
        poll.register(wake_r, select.POLLIN)
        if not ended:
            poll.register(done_fd, select.POLLIN)
        # Once the process is gone, what is buffered is there at once; the operator's own input never ends.
        ready = poll.poll(0 if ended else None)
        if ended and not any(fd in pending and fd > _LAST_STREAM for fd, _ in ready):
            break
        for fd, event in ready:
            if fd == done_fd:
                ended = True
            elif fd == wake_r:
                os.read(wake_r, 64)
                if window is not None:
                    copy_window_size(*window)
            else:
                if fd in outlets:
                    outlets[fd].flush()
                if fd in pending and event & ~select.POLLOUT and not _copy(fd, outlets[pending[fd]]):
                    del pending[fd]
        _hang_up(pending, outlets)
        if ended:
            for outlet in outlets.values():
                if outlet.fd <= _LAST_STREAM:
                    outlet.flush(-1)
    if window is not None:
        _signal.set_wakeup_fd(-1)
    os.close(wake_r)
    os.close(wake_w)


def _interests(pending: dict[int, int], outlets: dict[int, Outlet]) -> dict[int, int]:
    """What to poll for; a pseudo-terminal may be source and target."""
    found = {source: select.POLLIN for source, target in pending.items() if not outlets[target].is_full}
    for target, outlet in outlets.items():
        if outlet.pending:
            found[target] = found.get(target, 0) | select.POLLOUT
    return found


def _copy(source: int, outlet: Outlet) -> bool:
    """One piece; False at the end."""
    try:
        data = os.read(source, _CHUNK_BYTES)
    except BlockingIOError:
        return True
    except OSError:
        # A pseudo-terminal answers EIO when nobody holds the other side.
        return False
    outlet.add(data)
    return bool(data) and not outlet.is_closed


def _hang_up(pending: dict[int, int], outlets: dict[int, Outlet]) -> None:
    """The end of the operator's input is the end of the command's, once that has all of it."""
    for target, outlet in list(outlets.items()):
        if target <= _LAST_STREAM or outlet.pending or target in pending.values():
            continue
        del outlets[target]
        if not os.isatty(target):
            os.close(target)
        elif not outlet.is_closed:
            outlet.add(b"\x04")
