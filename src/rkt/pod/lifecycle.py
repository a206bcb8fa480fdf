# SPDX-License-Identifier: Apache-2.0
r"""Pod directories: where a pod stands, who holds it, and how it moves on (spec runtime §2.1 and §2.2).

State is a place and a lock, nothing else::

    $DATA/pods/                                                                    2750, group rkt
    ├── embryo/UUID           made here only to be locked before anybody sees it
    ├── prepare/UUID          locked: preparing             not locked: aborted prepare
    ├── prepared/UUID         ready for run-prepared
    ├── run/UUID              locked: running               not locked: exited
    ├── exited-garbage/UUID   locked: exited deleting       not locked: exited garbage
    ├── garbage/UUID          locked: deleting              not locked: garbage (never ran)
    └── names/NAME -> UUID    users' own names (pod.names)

    embryo --lock, rename--> prepare --rename, unlock--> prepared --lock, rename--> run
                                |  \_____________ run: the lock is kept ______________/ |
                                | died                                                  | the process ends
                                v                                                       v
                             garbage <------------- expired: prepared            exited-garbage
                                                                                        |
                                                           run  <--lock, rename: start--'

Locks, all by flock(2), each guarding one thing:

* the pod directory, exclusive: its owner lives (the preparing process, then the pod's supervisor, which inherits the
  descriptor across exec), or it is being deleted. Shared, without waiting: a reader looks which of the two it is;
  shared for longer: a reader (``export``, ``cp``) keeps gc away, or gc marks the pod, which must not seem to run;
* ``$DATA/locks/prepareLock``, shared: images are being referenced by a new pod, so ``image gc`` and ``image rm``, which
  take it exclusively, do not remove them meanwhile;
* ``names/``, exclusive: a name is being claimed or given up;
* ``pod.lck`` in the pod directory, exclusive: the apps of the pod are being changed, or one is exported, or the pod as a
  whole is paused, started again or deleted. Who deletes does not wait for it long.

Order where two are held: pod directory, then ``pod.lck``, then prepareLock or ``names``.

A kill at any point leaves one directory in one place without a lock, which is a state of its own above; nothing needs
repair. A reader that meets a rename finds the pod in a later place, because every rename goes to the right or below; but
``start`` takes a pod from ``exited-garbage`` back to ``run``, so who looks in order looks there once more at the end.
"""

from __future__ import annotations

import fcntl
import os

from rkt.errors import Ambiguous, NotFound, PodError, UsageError
from rkt.linux.files import read_bounded, sync_directory, write_new
from rkt.linux.locks import Lock, lock_directory, lock_file
from rkt.stage0 import contract
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

EMBRYO = "embryo"
PREPARE = "prepare"
PREPARED = "prepared"
RUN = "run"
EXITED_GARBAGE = "exited-garbage"
GARBAGE = "garbage"
#: Every place, in the order of a pod's life, which is the order in which a moving pod must be looked for.
PLACES = (EMBRYO, PREPARE, PREPARED, RUN, EXITED_GARBAGE, GARBAGE)
#: Places whose pods are listed and can be named.
NAMEABLE = (PREPARE, PREPARED, RUN, EXITED_GARBAGE)
#: After the last place: a pod that was started again meanwhile.
_ONCE_MORE = (RUN,)
NAMES = "names"

#: State strings by place: (not locked, locked). Scripts compare them.
STATES = {
    EMBRYO: ("embryo", "embryo"),
    PREPARE: ("aborted prepare", "preparing"),
    PREPARED: ("prepared", "prepared"),
    RUN: ("exited", "running"),
    EXITED_GARBAGE: ("exited garbage", "exited deleting"),
    GARBAGE: ("garbage", "deleting"),
}

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
_STATE_DIRECTORY_MODE = 0o2750
#: Largest pod file that is read, in bytes; manifests are bounded by ``schema.jsontext``.
MAX_FILE_BYTES = 4 * 1024 * 1024
_SMALL_FILE_BYTES = 64 * 1024
_CREATE_ATTEMPTS = 64
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Moved(PodError):
    """Another process was faster: the pod stands elsewhere, or is gone."""

    def __init__(self, uuid: PodUUID) -> None:
        super().__init__(f'pod "{uuid}" was moved or removed by another process')


class Pod:
    """One pod directory, opened.

    The descriptor stays valid through renames, so files are read through it and never through a path that may move.

    Attributes:
        uuid: the pod's UUID.
        pods_dir: ``$DATA/pods``.
        place: the directory it was found in, one of ``PLACES``.
        fd: descriptor of the directory; when ``owned``, it carries the exclusive lock.
        locked: whether somebody (or this process) held the exclusive lock when it was opened.
        owned: whether this object holds the exclusive lock.
    """

    __slots__ = ("fd", "locked", "owned", "place", "pods_dir", "uuid")

    def __init__(
        self, pods_dir: str, uuid: PodUUID, place: str, fd: int, *, locked: bool, owned: bool
    ) -> None:
        self.pods_dir = pods_dir
        self.uuid = uuid
        self.place = place
        self.fd = fd
        self.locked = locked
        self.owned = owned

    @property
    def path(self) -> str:
        """Absolute path of the directory as last known."""
        return f"{self.pods_dir}/{self.place}/{self.uuid}"

    @property
    def state(self) -> str:
        """State string, such as ``exited garbage``."""
        return STATES[self.place][self.locked]

    @property
    def is_running(self) -> bool:
        """Whether the pod's supervisor lives."""
        return self.place == RUN and self.locked

    @property
    def is_exited(self) -> bool:
        """Whether the pod ran and is over, marked by gc or not."""
        return self.place == EXITED_GARBAGE or (self.place == RUN and not self.locked)

    @property
    def ever_ran(self) -> bool:
        """Whether the pod was started."""
        return self.place in {RUN, EXITED_GARBAGE}

    def close(self) -> None:
        """Close the directory, and with it release the lock; harmless when done before."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.owned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Pod({self.uuid!s}, {self.state})"

    def read(self, name: str, limit_bytes: int = MAX_FILE_BYTES) -> bytes | None:
        """Content of a file below the pod directory, ``None`` when there is none.

        Raises:
            OSError: it is no regular file, too large, or cannot be read.
        """
        try:
            return read_bounded(name, limit_bytes, dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            e.filename = f"{self.path}/{name}"
            raise

    def read_text(self, name: str) -> str | None:
        """A small text file without surrounding white space, ``None`` when there is none."""
        data = self.read(name, _SMALL_FILE_BYTES)
        return None if data is None else data.decode("utf-8", "replace").strip()

    def has(self, name: str) -> bool:
        """Whether a name exists below the pod directory."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def lacks(self, what: str) -> PodError:
        """The error for what is not there: the pod was never prepared to the end, or is removed meanwhile."""
        if not self.refresh() or self.place == GARBAGE:
            return PodError(f'pod "{self.uuid}" was removed by another process')
        return PodError(f'pod "{self.uuid}" {what}', hint=f"rkt status {self.uuid.short}")

    def write(self, name: str, data: bytes) -> None:
        """Create a file of the pod, which must not exist yet."""
        try:
            write_new(name, data, FILE_MODE, dir_fd=self.fd)
        except OSError as e:
            e.filename = f"{self.path}/{name}"
            raise

    def make_directory(self, name: str, mode: int = DIRECTORY_MODE) -> None:
        """Create a directory of the pod, which must not exist yet."""
        try:
            os.mkdir(name, mode, dir_fd=self.fd)
        except OSError as e:
            e.filename = f"{self.path}/{name}"
            raise

    def refresh(self) -> bool:
        """Look again where the pod is and whether it is locked; false once it is gone."""
        found = open_pod(self.pods_dir, self.uuid)
        if found is None:
            return False
        with found:
            self.place = found.place
            self.locked = found.locked
        return True

    def move(self, place: str, *, sync: bool) -> None:
        """Go to another place; one rename is the whole transition.

        Raises:
            Moved: somebody else moved or removed the pod meanwhile.
        """
        target = f"{self.pods_dir}/{place}"
        try:
            os.rename(self.path, f"{target}/{self.uuid}")
        except FileNotFoundError as e:
            if not os.path.isdir(target):
                raise PodError(
                    f"cannot move pod {self.uuid}: {target} is missing", hint=f"mkdir -m 2750 {target}"
                ) from e
            raise Moved(self.uuid) from e
        self.place = place
        if sync:
            sync_directory(target)

    def lock_changes(self, *, blocking: bool = True) -> Lock:
        """Take the lock under which the pod changes; where the pod is and whether it lives is to be looked at then.

        Raises:
            BlockingIOError: ``blocking`` is false and somebody else has it.
            FileNotFoundError: the pod was not prepared to the end, or is removed.
        """
        fd = os.open(contract.POD_LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BaseException:
            os.close(fd)
            raise
        return Lock(fd)

    def unlock(self) -> None:
        """Release the exclusive lock and keep the directory open."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        self.owned = False
        self.locked = False

    def lock(self, *, blocking: bool) -> None:
        """Take the exclusive lock.

        Raises:
            BlockingIOError: ``blocking`` is false and the pod is in use.
            Moved: it was moved or removed before the lock was ours.
        """
        fcntl.flock(self.fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        self.owned = True
        self.locked = True
        # Locked, but is it still what stands at that path? A directory on its way out keeps its lock (HH7).
        if not _is_at(self.fd, self.path):
            self.unlock()
            raise Moved(self.uuid)

    def share(self) -> bool:
        """Keep out who would start or delete the pod; for others it stays in the state that it has.

        Returns:
            whether nobody has the exclusive lock.
        Raises:
            Moved: it was moved or removed before the lock was ours.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not _is_at(self.fd, self.path):
            self.unlock()
            raise Moved(self.uuid)
        return True


def _is_at(fd: int, path: str) -> bool:
    held = os.fstat(fd)
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)


def ensure_directories(data_dir: str) -> None:
    """Make the state directories that are missing; the group is the data directory's, by its set-group-id bit."""
    pods_dir = f"{data_dir}/pods"
    os.makedirs(data_dir, DIRECTORY_MODE, exist_ok=True)
    # ``embryo`` is made last: where it exists the others do, so only its absence needs to be noticed.
    places = (NAMES, *reversed(PLACES))
    for path in (f"{data_dir}/locks", pods_dir, *(f"{pods_dir}/{place}" for place in places)):
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            continue
        os.chmod(path, _STATE_DIRECTORY_MODE)  # the caller's umask has no say (HH8)


def lock_prepare(data_dir: str) -> Lock:
    """The shared prepareLock: images found while it is held stay until the pod refers to them."""
    try:
        return lock_file(f"{data_dir}/locks/prepareLock", exclusive=False)
    except FileNotFoundError:
        ensure_directories(data_dir)
        return lock_file(f"{data_dir}/locks/prepareLock", exclusive=False)


def create(data_dir: str) -> Pod:
    """Make a new pod in ``prepare``, locked by this process."""
    pods_dir = f"{data_dir}/pods"
    for attempt in range(_CREATE_ATTEMPTS):
        uuid = PodUUID.random()
        path = f"{pods_dir}/{EMBRYO}/{uuid}"
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileNotFoundError:
            if attempt:
                raise
            ensure_directories(data_dir)
            continue
        try:
            lock = lock_directory(path, exclusive=True)
        except FileNotFoundError:
            continue  # gc swept the embryo before it was locked
        pod = Pod(pods_dir, uuid, EMBRYO, lock.steal(), locked=True, owned=True)
        os.fchmod(pod.fd, _STATE_DIRECTORY_MODE)
        try:
            pod.move(PREPARE, sync=False)
        except PodError:
            pod.close()
            continue  # likewise, between open and lock
        return pod
    raise PodError("cannot create a pod: its directory keeps disappearing", hint="is another gc running?")


def open_pod(pods_dir: str, uuid: PodUUID, places: tuple[str, ...] = PLACES) -> Pod | None:
    """Open a pod wherever it stands, and look whether it is locked; ``None`` when it is in none of ``places``."""
    for place in (*places, *_ONCE_MORE):
        pod = open_pod_at(pods_dir, uuid, place)
        if pod is not None:
            return pod
    return None


def is_anywhere(pods_dir: str, uuid: str, places: tuple[str, ...] = PLACES) -> bool:
    """Whether there is such a pod in one of ``places``, which may move meanwhile."""
    return any(os.path.isdir(f"{pods_dir}/{place}/{uuid}") for place in (*places, *_ONCE_MORE))


def open_pod_at(pods_dir: str, uuid: PodUUID, place: str) -> Pod | None:
    """Open a pod in one place; ``None`` when it is not there."""
    path = f"{pods_dir}/{place}/{uuid}"
    try:
        fd = os.open(path, _DIRECTORY_FLAGS)
    except FileNotFoundError:
        return None
    locked = False
    if place not in {EMBRYO, PREPARED}:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            locked = True
        else:
            fcntl.flock(fd, fcntl.LOCK_UN)
        # What was found may be true of a later place only: the pod can move between open and flock.
        if not _is_at(fd, path):
            os.close(fd)
            return None
    return Pod(pods_dir, uuid, place, fd, locked=locked, owned=False)


def uuids_in(pods_dir: str, place: str) -> list[str]:
    """Names of pod directories in one place, unordered; anything that is no UUID is left alone."""
    try:
        names = os.listdir(f"{pods_dir}/{place}")
    except FileNotFoundError:
        return []
    # As ``PodUUID.is_uuid``, at a third of its cost: there may be thousands.
    return [
        name
        for name in names
        if len(name) == 36
        and name[8] == name[13] == name[18] == name[23] == "-"
        and name.count("-") == 4
        and not name.strip("0123456789abcdef-")
    ]


def all_uuids(pods_dir: str, places: tuple[str, ...] = NAMEABLE) -> list[str]:
    """Sorted UUIDs of all pods; one that moves while this reads is there once."""
    found: set[str] = set()
    for place in (*places, *_ONCE_MORE):
        found.update(uuids_in(pods_dir, place))
    return sorted(found)


def resolve(pods_dir: str, text: str) -> PodUUID:
    """The pod that a name, a UUID or an unambiguous prefix of one stands for (spec cli §1.8).

    A users' name is matched whole and first; prefixes ignore case.

    Raises:
        UsageError: ``text`` is empty.
        NotFound: nothing fits.
        Ambiguous: several UUIDs fit.
    """
    if not text:
        raise UsageError("UUID cannot be empty")
    from rkt.pod import names

    named = names.lookup(pods_dir, text)
    if named is not None and is_anywhere(pods_dir, named, NAMEABLE):
        return named
    lowered = text.lower()
    matches = [uuid for uuid in all_uuids(pods_dir) if uuid.startswith(lowered)]
    if not matches:
        raise NotFound(f'no matches found for "{text}"', hint="rkt list --full")
    if len(matches) > 1:
        raise Ambiguous(f"ambiguous uuid, {len(matches)} matches", hint="rkt list --full")
    return PodUUID(matches[0])


def find(pods_dir: str, text: str) -> Pod:
    """Resolve and open.

    Raises:
        NotFound: nothing fits, or it was removed meanwhile.
    """
    uuid = resolve(pods_dir, text)
    pod = open_pod(pods_dir, uuid)
    if pod is None:
        raise NotFound(f'no matches found for "{text}"')
    return pod
