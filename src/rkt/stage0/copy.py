# SPDX-License-Identifier: Apache-2.0
"""``rkt cp``: files and trees between the host and apps, through two confined workers and a pipe.

``rkt-pack`` has the source's root as its own, ``rkt-fill`` the target's; neither sees anything else, and this process reads
nothing of what they say to each other. A pod's side is the root of the app with all that is mounted there, as a detached
copy of the mounts of the app's own namespace; of an app that does not run, its root without volumes. The host's side is
the directory that is copied from or to.
"""

from __future__ import annotations

import fcntl
import os
import threading

from rkt.errors import HostError, PodError, RktError, UsageError, quoted
from rkt.linux import files, pidfd
from rkt.linux.mount import enter_own_namespace
from rkt.pod import lifecycle, status
from rkt.privsep.client import run_worker
from rkt.schema.record import Record
from rkt.stage0 import contract, roots
from rkt.stage0.held import hold
from rkt.store.cas import Store
from rkt.values import ACName

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.linux.userns import UserNamespace
    from rkt.pod.lifecycle import Pod

STREAM = "-"
_TOP = b"t"
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
#: As ``image.fill`` allows.
_DEADLINE_SECONDS = 7 * 86400.0
#: How long a pod may take from its start until its apps have roots.
_READY_SECONDS = 10.0


class End(Record):
    """One side of a copy as typed.

    Attributes:
        text: the word.
        pod, app: empty for the host; ``app`` also when there is but one.
        path: of the pod from its root.
    """

    text: str
    path: str
    pod: str = ""
    app: str = ""


class Side(Record):
    """One side of a copy as a worker needs it.

    Attributes:
        fds: ``world`` with ``namespace`` and ``users``, see ``privsep.confine``.
        path: inside.
    """

    fds: dict[str, int]
    path: bytes


def parse_end(text: str) -> End:
    """``POD:[APP:]PATH``, a path of the host, or ``-``; a path of the host with a colon starts with ``/`` or ``.``.

    Raises:
        UsageError: a pod without a path.
    """
    pod, colon, rest = text.partition(":")
    if text == STREAM or not colon or not pod or "/" in pod or pod.startswith("."):
        if not text:
            raise UsageError("an empty path", hint="rkt cp POD:/PATH .")
        return End(text=text, path=text)
    app = ""
    before, colon, after = rest.partition(":")
    if colon and before and "/" not in before:
        app, rest = ACName.parse(before, what="app name"), after
    if not rest:
        raise UsageError(f"no path in {quoted(text)}", hint=f"rkt cp {text}/ .")
    if "\0" in rest:
        raise UsageError("a path with a NUL")
    return End(text=text, path=rest if rest.startswith("/") else f"/{rest}", pod=pod, app=app)


def copy(settings: Settings, source: End, target: End, *, keep_owners: bool, follow: bool) -> list[str]:
    """Copy; returns sentences about what was left out.

    Args:
        settings: of the running command.
        source: where from.
        target: where to; at least one of them is of a pod.
        keep_owners: members keep their owners, as ids of the pod; else what arrives is root's.
        follow: a link that the source itself is is followed.
    Raises:
        UsageError: two sides of the host, or of streams.
        RktError: it could not be done; what was copied until then stays.
    """
    if not source.pod and not target.pod:
        raise UsageError("one of the two must be of a pod", hint="rkt cp POD:/PATH DIRECTORY")
    if target.text == STREAM and os.isatty(1):
        raise UsageError("a tar does not go to a terminal", hint=f"rkt cp {source.text} - | tar -t")
    if source.text == STREAM and os.isatty(0):
        raise UsageError("a tar does not come from a terminal", hint=f"tar -c FILE | rkt cp - {target.text}")
    if os.geteuid() != 0:
        raise HostError("cannot run as unprivileged user", hint="sudo rkt cp …")
    opened: list[Side] = []
    try:
        sides: list[Side | None] = []
        for end, writable in ((source, False), (target, True)):
            side = None if end.text == STREAM else _open(settings, end, writable=writable)
            sides.append(side)
            if side is not None:
                opened.append(side)
        return _run(settings, (source, target), (sides[0], sides[1]), keep_owners=keep_owners, follow=follow)
    finally:
        for side in opened:
            for fd in side.fds.values():
                os.close(fd)


def _run(
    settings: Settings,
    ends: tuple[End, End],
    sides: tuple[Side | None, Side | None],
    *,
    keep_owners: bool,
    follow: bool,
) -> list[str]:
    """Let the workers do it, side by side."""
    (source, target), (from_side, to_side) = ends, sides
    contents = source.path.endswith(("/.", "/..")) or source.path.strip("/") in {"", ".", ".."}
    name = b"." if contents else os.fsencode(os.path.basename(source.path.rstrip("/")))
    jobs: list[tuple[str, End, dict[str, Any], dict[str, int]]] = []
    pipe = os.pipe() if from_side is not None and to_side is not None else (os.dup(0), os.dup(1))
    try:
        if from_side is not None:
            request = {"path": os.fsdecode(from_side.path), "follow": follow}
            request["name"] = os.fsdecode(_TOP if to_side is not None else name)
            jobs.append(("pack", source, request, {**from_side.fds, "stream": pipe[1]}))
        if to_side is not None:
            request = {"path": os.fsdecode(to_side.path), "keep_owners": keep_owners, "contents": contents}
            request["name"] = "" if from_side is None else os.fsdecode(name)
            # An archive of the operator's means the directories that the pod has, by whatever link.
            request["follow"] = from_side is None
            jobs.append(("fill", target, request, {**to_side.fds, "stream": pipe[0]}))
        tasks = [_Task(settings, kind, end, request, fds) for kind, end, request, fds in jobs]
        for task in tasks:
            task.start()
        for task in tasks:
            task.started.wait()
    finally:
        # The workers have theirs; the end of one must be the end of the stream for the other.
        for fd in pipe:
            os.close(fd)
    for task in tasks:
        task.join()
    # A source that fails makes the target fail, and the other way round; whose fault it was comes first.
    for task in tasks:
        if task.failure is not None:
            raise task.failure
    if tasks[0].answer.get("broken"):
        raise BrokenPipeError
    return [text for task in tasks for text in task.notices()]


class _Task(threading.Thread):
    """One worker being waited for; the thread stays, because the kernel ends a worker with the thread that started it."""

    def __init__(
        self, settings: Settings, kind: str, end: End, request: dict[str, Any], fds: dict[str, int]
    ) -> None:
        super().__init__(name=f"rkt-{kind}", daemon=True)
        self._settings = settings
        self._kind = kind
        self._end = end
        self._request = request
        self._fds = fds
        self.started = threading.Event()
        self.answer: dict[str, Any] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        """See ``threading.Thread``."""
        try:
            self.answer = run_worker(
                self._kind,
                self._request,
                self._fds,
                self._settings.installation,
                deadline_seconds=_DEADLINE_SECONDS,
                on_start=self.started.set,
            )
        except RktError as e:
            verb = "from" if self._kind == "pack" else "to"
            self.failure = type(e)(f"cannot copy {verb} {quoted(self._end.text)}: {e.message}", hint=e.hint)
        except BaseException as e:  # noqa: BLE001 - raised again by whoever waits
            self.failure = e
        finally:
            self.started.set()

    def notices(self) -> list[str]:
        """What was left out; the worker's words, made printable."""
        count = self.answer.get("left_out")
        if not isinstance(count, int) or count <= 0:
            return []
        names = [name for name in self.answer.get("names", []) if isinstance(name, str)]
        shown = ", ".join(quoted(name.removeprefix("t/")[:256]) for name in names[:8])
        more = ", …" if count > len(names) else ""
        return [f"{count} left out, neither files, directories nor links: {shown}{more}"]


def _open(settings: Settings, end: End, *, writable: bool) -> Side:
    if not end.pod:
        return _open_host(end, writable=writable)
    with lifecycle.find(settings.pods_dir, end.pod) as pod:
        from rkt.stage0.enter import choose_app

        app = choose_app(pod, end.app, f"cp {pod.uuid.short}:APP:{end.path}")
        return Side(fds=_open_app(settings, pod, app, writable=writable), path=os.fsencode(end.path))


def _open_host(end: End, *, writable: bool) -> Side:
    """The directory that is written to, or the one that holds what is read; links are the operator's own."""
    path = end.path
    try:
        if writable:
            if os.path.isdir(path):
                return Side(fds=_here(os.open(path, _DIRECTORY)), path=b".")
            where = os.path.realpath(path)
            slash = b"/" if path.endswith("/") else b""
            parent = os.open(os.path.dirname(where), _DIRECTORY)
            return Side(fds=_here(parent), path=os.fsencode(os.path.basename(where)) + slash)
        is_tree = path.endswith(("/", "/.", "/..")) or path in {".", ".."}
        if is_tree or (os.path.isdir(path) and not os.path.islink(path)):
            return Side(fds=_here(os.open(path, _DIRECTORY)), path=b"/")
        os.lstat(path)
        parent = os.open(os.path.dirname(path) or ".", _DIRECTORY)
        return Side(fds=_here(parent), path=os.fsencode(os.path.basename(path)))
    except OSError as e:
        verb = "to" if writable else "from"
        raise UsageError(f"cannot copy {verb} {quoted(end.text)}: {e.strerror}") from e


def _here(world: int) -> dict[str, int]:
    """A directory of the mount namespace that this process is in now; it may be in another one when the workers start."""
    return {"world": world, "namespace": os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)}


def _open_app(settings: Settings, pod: Pod, app: str, *, writable: bool) -> dict[str, int]:
    """The root of an app: with the volumes if it runs, else what it and its image left."""
    if pod.place not in {lifecycle.PREPARED, lifecycle.RUN, lifecycle.EXITED_GARBAGE}:
        state = "being deleted" if pod.place == lifecycle.GARBAGE else pod.state
        raise PodError(f'pod "{pod.uuid}" is {state}', hint=f"rkt status {pod.uuid.short}")
    if pod.is_running:
        # Started a moment ago, it has no roots yet.
        status.wait_until(pod, lambda now: status.is_ready(now) or not now.is_running, _READY_SECONDS)
    if hold(pod):
        # Until this process ends: the lock belongs to the open directory, whoever closes the pod.
        os.dup(pod.fd)
    from rkt.pod import ranges

    users: UserNamespace | None = None
    if ranges.read(pod) is not None:
        from rkt.stage0.users import open_users

        users = open_users(pod)
    try:
        if pod.is_running:
            fds = _of_running(pod, app)
        else:
            fds = _here(_of_still(settings, pod, app, users, writable=writable))
    except BaseException:
        if users is not None:
            users.close()
        raise
    return fds if users is None else {**fds, "users": users.idmap_fd}


def _of_running(pod: Pod, app: str) -> dict[str, int]:
    """Root and mount namespace of an app that runs, else of the pod's supervisor, which holds the roots of all apps."""
    try:
        pid, start = (
            int(word) for word in files.read_bounded(f"appsinfo/{app}/pid", 64, dir_fd=pod.fd).split()
        )
        held = pidfd.open_pid(pid, start)
    except (FileNotFoundError, ProcessLookupError):
        return _of_supervisor(pod, app)
    try:
        return _open_view(pid, "", held)
    except (FileNotFoundError, ProcessLookupError):
        return _of_supervisor(pod, app)
    finally:
        os.close(held)


def _of_supervisor(pod: Pod, app: str) -> dict[str, int]:
    from rkt.stage0.live import supervisor_of

    pid = supervisor_of(pod)
    held = os.pidfd_open(pid)
    try:
        return _open_view(pid, f"{pod.path}/{roots.app_root(app)}", held)
    except FileNotFoundError:
        raise PodError(f'app "{app}" of pod "{pod.uuid}" has no root file system any more') from None
    finally:
        os.close(held)


def _open_view(pid: int, path: str, held: int) -> dict[str, int]:
    """A directory as a process sees it.

    Raises:
        ProcessLookupError: the process ended meanwhile, and the number may be another's.
    """
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    world = -1
    try:
        world = os.open(f"/proc/{pid}/root{path}", _DIRECTORY)
        if pidfd.wait_exit(held, 0):
            raise ProcessLookupError(3, os.strerror(3))
    except BaseException:
        os.close(namespace)
        if world >= 0:
            os.close(world)
        raise
    return {"namespace": namespace, "world": world}


def _of_still(settings: Settings, pod: Pod, app: str, users: UserNamespace | None, *, writable: bool) -> int:
    """Root of an app of a pod that does not run; its overlay is mounted where only this process and its workers see it."""
    if not pod.has(contract.OVERLAY_PREPARED):
        return os.open(roots.app_root(app), _DIRECTORY | os.O_NOFOLLOW, dir_fd=pod.fd)
    here = os.getcwd()
    try:
        enter_own_namespace()
    except OSError as e:
        raise HostError(f"cannot make a mount namespace: {e.strerror}") from e
    # By path: a descriptor from before is in the mount namespace of before, where the kernel does not look for layers.
    try:
        os.chdir(pod.path)
    except FileNotFoundError:
        pod.refresh()  # gc has marked it
        os.chdir(pod.path)
    try:
        if writable:
            # An upper directory is no two mounts' at once.
            upper = os.open(roots.upper_path(roots.tree_key(pod, app), app), os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(upper, fcntl.LOCK_EX)
        store = Store(settings.data_dir)
        roots.mount_root(pod, store, app, users, target=contract.STAGE1_ROOTFS, readonly=not writable)
        return os.open(contract.STAGE1_ROOTFS, _DIRECTORY)
    finally:
        os.chdir(here)
