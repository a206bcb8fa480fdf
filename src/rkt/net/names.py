# SPDX-License-Identifier: Apache-2.0
"""Pods find each other by name: each pod's hosts file lists the pods that share a network with it.

Nobody stays awake for that: who starts or ends changes the files of the others. Each pod on a network is written down, and
one lock is held around every change::

    /run/rkt/names/.lock
    /run/rkt/names/NETWORK/UUID     path of the pod directory, then a line for each address: address and names
    $POD/hosts                      what the apps see as /etc/hosts, read-only

Apps have ``$POD/hosts`` mounted, so it keeps its inode, and they may read at any moment, so it never holds half a line. It is
what the pod starts with, then blocks of 256 bytes that end by a line feed, one for each address. A new block is appended
by one write(2), which readers see whole or not at all, because the size changes last. An entry goes by one byte: its first
becomes ``#``. A block is used again when that is some time ago, behind its ``#``, and the first byte of the address is
written last. So nothing is locked that an app could lock too, and a kill leaves a file that can be read.

An entry of a pod that was killed goes when the pod is collected, or when the next pod joins one of its networks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from rkt.linux import files, locks
from rkt.stage0.contract import HOSTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DIRECTORY = "/run/rkt/names"
BLOCK_BYTES = 256
#: How long a block rests after its entry has gone: no reader is that slow between two bytes of one line.
_REST_SECONDS = 30
_HEAD = b"# Pods of the same networks"
_FREE = b"#"
_AGE_MARK = b" #"
_AGE_AT = BLOCK_BYTES - 16
_MAX_FILE_BYTES = 16 << 20
#: Nobody is called so.
_TAKEN = ("localhost", "localhost.domain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")


def pod_names(uuid: str, name: str, hostname: str) -> list[str]:
    """What a pod is called, the best known first.

    Args:
        uuid: of the pod.
        name: users' own, if it has one.
        hostname: if one was asked for.
    """
    found = [
        each for each in (name, hostname.rstrip("."), f"rkt-{uuid}") if each and each.lower() not in _TAKEN
    ]
    return list(dict.fromkeys(found))


def join(
    pod_path: str,
    uuid: str,
    *,
    addresses: dict[str, list[str]],
    names: Sequence[str],
    base: bytes | None,
) -> None:
    """Let the pods of some networks know a new one, and the new one them.

    Args:
        pod_path: absolute path of its directory, whose lock is held.
        uuid: of the pod.
        addresses: by the network's name.
        names: from ``pod_names``.
        base: what its hosts file begins with; ``None`` if it has none of its own.
    Raises:
        OSError: a file cannot be written; what was written is taken back by ``leave``.
    """
    own = {network: [_entry(address, names) for address in found] for network, found in addresses.items()}
    with _locked():
        lines = [line for network in own.values() for line in network]
        peers: dict[str, tuple[str, list[bytes]]] = {}
        for network, entries in own.items():
            directory = f"{DIRECTORY}/{network}"
            try:
                os.mkdir(directory, 0o700)
            except FileExistsError:
                pass
            for other, (path, theirs) in _members(network).items():
                if other == uuid:
                    continue
                if not _lives(path):
                    _forget(other)
                    continue
                lines += theirs
                known = peers.setdefault(other, (path, []))[1]
                known += entries
        if base is not None:
            files.replace_file(f"{pod_path}/{HOSTS}", render(base, lines), 0o644, sync=False)
        for network, entries in own.items():
            record = b"\n".join([os.fsencode(pod_path), *entries]) + b"\n"
            files.replace_file(f"{DIRECTORY}/{network}/{uuid}", record, 0o600, sync=False)
        for path, entries in peers.values():
            _change(f"{path}/{HOSTS}", uuid, entries)


def leave(uuid: str) -> None:
    """Let nobody know a pod any more; may be done again.

    Args:
        uuid: of the pod.
    """
    if any(
        os.path.exists(f"{DIRECTORY}/{network}/{uuid}") or _unfinished(network, uuid)
        for network in _networks()
    ):
        with _locked():
            _forget(uuid)


def render(base: bytes, entries: Iterable[bytes]) -> bytes:
    """A hosts file: what it begins with, up to the end of a block, and a block for each entry."""
    text = base if base.endswith(b"\n") or not base else base + b"\n"
    head = text + _HEAD
    head += b" " * (-(len(head) + 1) % BLOCK_BYTES) + b"\n"
    return head + b"".join(_block(entry) for entry in entries)


class Table:
    """The blocks of a hosts file that is in use.

    Args:
        fd: of the file, to read and write.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = bytearray(files.read_fd_bounded(fd, _MAX_FILE_BYTES, HOSTS))
        start = self._data.rfind(b"\n" + _HEAD) + 1
        self._first = self._data.find(b"\n", start) + 1
        # Only whole blocks: somebody was killed before the rest of the last was there.
        del self._data[len(self._data) - len(self._data) % BLOCK_BYTES :]

    def replace(self, uuid: str, entries: Sequence[bytes]) -> None:
        """Give a pod these entries and no others."""
        missing = list(entries)
        mark = f" rkt-{uuid} ".encode()
        found = self._data.find(mark, self._first)
        while found >= 0:
            at = found - found % BLOCK_BYTES
            entry = bytes(self._data[at : at + BLOCK_BYTES]).rstrip()
            if entry in missing:
                missing.remove(entry)
            elif not entry.startswith(_FREE):
                self._free(at)
            found = self._data.find(mark, at + BLOCK_BYTES)
        for entry in missing:
            self._add(_block(entry))

    def _free(self, at: int) -> None:
        self._write(_FREE, at)
        # A comment behind a comment: whoever has read the first byte before takes it for one.
        self._write(_AGE_MARK + b"%d" % int(time.time()), at + _AGE_AT)

    def _add(self, block: bytes) -> None:
        now = int(time.time())
        found = self._data.find(b"\n" + _FREE, self._first - 1)
        while found >= 0:
            at = found + 1
            if not at % BLOCK_BYTES and _rested(self._data[at : at + BLOCK_BYTES], now):
                self._write(block[1:], at + 1)
                self._write(block[:1], at)
                return
            found = self._data.find(b"\n" + _FREE, at)
        self._write(block, len(self._data))

    def _write(self, data: bytes, at: int) -> None:
        os.pwrite(self._fd, data, at)
        self._data[at : at + len(data)] = data


def _rested(block: bytearray, now: int) -> bool:
    age = block[_AGE_AT + len(_AGE_MARK) :].strip()
    return age.isdigit() and int(age) + _REST_SECONDS <= now


def _entry(address: str, names: Sequence[str]) -> bytes:
    return f"{address} {' '.join(names)}".encode()


def _block(entry: bytes) -> bytes:
    # As names are bounded it fits; the end is left to what _free writes.
    return entry[:_AGE_AT].ljust(BLOCK_BYTES - 1) + b"\n"


def _locked() -> locks.Lock:
    for path, mode in ((os.path.dirname(DIRECTORY), 0o755), (DIRECTORY, 0o700)):
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            continue
    return locks.lock_file(f"{DIRECTORY}/.lock", exclusive=True, mode=0o600)


def _networks() -> list[str]:
    try:
        return [name for name in os.listdir(DIRECTORY) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def _members(network: str) -> dict[str, tuple[str, list[bytes]]]:
    """Of each pod on a network, where its directory is and what others are told of it."""
    found = {}
    for uuid in sorted(os.listdir(f"{DIRECTORY}/{network}")):
        if not uuid.startswith("."):
            data = files.read_bounded(f"{DIRECTORY}/{network}/{uuid}", _MAX_FILE_BYTES)
            path, *entries = data.rstrip(b"\n").split(b"\n")
            found[uuid] = os.fsdecode(path), entries
    return found


def _unfinished(network: str, uuid: str) -> list[str]:
    """Records of a pod that was killed while it wrote them (``files.replace_file``)."""
    directory = f"{DIRECTORY}/{network}"
    return [f"{directory}/{name}" for name in os.listdir(directory) if name.startswith(f".{uuid}.")]


def _forget(uuid: str) -> None:
    """Remove a pod's records and its entries in the files of others."""
    for network in _networks():
        for path in _unfinished(network, uuid):
            os.unlink(path)
        members = _members(network)
        if uuid not in members:
            continue
        for other, (path, _) in members.items():
            if other != uuid:
                _change(f"{path}/{HOSTS}", uuid, ())
        # Last, so that after a kill somebody knows that there is something to remove.
        os.unlink(f"{DIRECTORY}/{network}/{uuid}")


def _change(path: str, uuid: str, entries: Sequence[bytes]) -> None:
    """Change the entries of a pod in the hosts file of another one, if that has one."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        Table(fd).replace(uuid, entries)
    except OSError as e:
        # A full disk there is no reason for this pod not to start.
        if e.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}:
            raise
    finally:
        os.close(fd)


def _lives(path: str) -> bool:
    """Whether somebody holds the lock of a pod directory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
