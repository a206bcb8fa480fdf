# SPDX-License-Identifier: Apache-2.0
"""What has happened to pods, told from their directories: nobody keeps a record of events, and no daemon is needed.

=============  ===========================================================  ====================================
event          holds when                                                   its time
=============  ===========================================================  ====================================
``created``    the pod's directory is there                                 ``pod-created``
``prepared``   it stands in ``prepared``                                    when it was moved there
``started``    ``pid`` is there                                             ``pid``
``ready``      an app with a readiness probe has become ready               ``APP-health``
``unready``    it is not any more                                           the same
``unhealthy``  its liveness probe has failed for good, and it was killed    the same
``oom``        ``appsinfo/APP/oom-kills`` is there                          that file
``restarting`` ``appsinfo/APP/restarts`` is there                           that file
``app-exited`` the app left a status                                        the status
``exited``     it ran, and nobody holds the lock                            the last status, else the directory
``marked``     it stands in ``exited-garbage`` or ``garbage``               when it was moved there
``removed``    it was there before, and is not any more                     when that was noticed
=============  ===========================================================  ====================================

Times are those of files, so a pod that was prepared and run later has no ``prepared`` any more.
"""

from __future__ import annotations

import os
import select
import time

from rkt.errors import RktError
from rkt.linux import libc
from rkt.pod import lifecycle, status
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.pod.lifecycle import Pod
    from rkt.pod.summary import AppSummary

CREATED = "created"
PREPARED = "prepared"
STARTED = "started"
READY = "ready"
UNREADY = "unready"
UNHEALTHY = "unhealthy"
OOM = "oom"
RESTARTING = "restarting"
APP_EXITED = "app-exited"
EXITED = "exited"
MARKED = "marked"
REMOVED = "removed"
#: In the order in which they happen.
KINDS = (
    CREATED,
    PREPARED,
    STARTED,
    READY,
    UNREADY,
    UNHEALTHY,
    OOM,
    RESTARTING,
    APP_EXITED,
    EXITED,
    MARKED,
    REMOVED,
)
#: What happens to a pod once; the others may come again.
_ONCE = frozenset((CREATED, PREPARED, EXITED, MARKED, REMOVED))
_PLACES = tuple(place for place in lifecycle.PLACES if place != lifecycle.EMBRYO)
#: A supervisor that is killed changes no file; its lock is looked at this often.
_LOOK_SECONDS = 1.0
#: After something has changed more will: the lock goes a moment after the last file.
_SOON_SECONDS = 0.1
_READ_BYTES = 64 << 10
_MASK = (
    libc.IN_CLOSE_WRITE
    | libc.IN_MOVED_FROM
    | libc.IN_MOVED_TO
    | libc.IN_CREATE
    | libc.IN_DELETE
    | libc.IN_ONLYDIR
)


class Event(Record):
    """One thing that happened.

    Attributes:
        time_ns: since the epoch.
        kind: one of ``KINDS``.
        uuid, name: of the pod.
        app: of all that is about one.
        status: exit status of the app or the pod; ``None`` where there is none.
        restarts: of ``restarting``, how often the app was started again with this time.
    """

    time_ns: int
    kind: str
    uuid: str
    name: str = ""
    app: str = ""
    status: int | None = None
    restarts: int | None = None


class Bell:
    """inotify(7): rings when an entry of a watched directory comes, goes, or was written; what it was is not looked at."""

    __slots__ = ("_fd", "_poll")

    def __init__(self) -> None:
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def watch(self, path: str) -> None:
        """Watch a directory, again or for the first time; one that is not there is none to watch.

        Raises:
            OSError: the kernel watches no more for this user, or what it says.
        """
        try:
            libc.inotify_add_watch(self._fd, os.fsencode(path), _MASK)
        except (FileNotFoundError, NotADirectoryError):
            return

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it rang in time; all that is known then is forgotten."""
        if not self._poll.poll(int(timeout_seconds * 1000)):
            return False
        try:
            while os.read(self._fd, _READ_BYTES):
                pass
        except BlockingIOError:
            return True
        return True

    def close(self) -> None:
        """Watch no more."""
        os.close(self._fd)


def history(pods_dir: str) -> list[Event]:
    """What has happened to all pods that are there, in the order of time."""
    found = [event for _, events in _look(pods_dir) for event in events]
    return sorted(found, key=_order)


def follow(pods_dir: str) -> Iterator[list[Event]]:
    """First the history, then what happens, a list whenever there is something; never ends.

    Raises:
        OSError: the kernel watches no more directories for this user.
    """
    lifecycle.ensure_directories(os.path.dirname(pods_dir))
    bell = Bell()
    try:
        for place in _PLACES:
            bell.watch(f"{pods_dir}/{place}")
        known: dict[str, str] = {}
        seen: set[tuple[str, str, str, int]] = set()
        rang = True
        while True:
            present: dict[str, str] = {}
            new: list[Event] = []
            for paths, events in _look(pods_dir):
                for event in events:
                    present[event.uuid] = event.name
                    if _key(event) not in seen:
                        seen.add(_key(event))
                        new.append(event)
                        if event.kind == STARTED:
                            # A pod that was started again is over again some time.
                            seen -= {(event.uuid, kind, "", 0) for kind in (EXITED, MARKED)}
                # Again each time: a directory may have come meanwhile.
                for path in paths:
                    bell.watch(path)
            for uuid in sorted(known.keys() - present.keys()):
                new.append(Event(time_ns=time.time_ns(), kind=REMOVED, uuid=uuid, name=known[uuid]))
                seen = {key for key in seen if key[0] != uuid}
            known = present
            if new:
                yield sorted(new, key=_order)
            rang = bell.wait(_SOON_SECONDS if rang else _LOOK_SECONDS)
    finally:
        bell.close()


def _places_of(pod: Pod) -> list[str]:
    """Directories in which a running pod says how it is."""
    base = status.stage1_writable_root(pod)
    found = [pod.path, f"{pod.path}/{base}/{contract.STATUS_DIR}"]
    try:
        found += [f"{pod.path}/appsinfo/{app}" for app in os.listdir(f"{pod.path}/appsinfo")]
    except FileNotFoundError:
        pass  # it is being removed
    return found


def _order(event: Event) -> tuple[int, int]:
    return event.time_ns, KINDS.index(event.kind)


def _key(event: Event) -> tuple[str, str, str, int]:
    """What makes an event another one: an app that runs again ends again."""
    again = event.time_ns if event.kind not in _ONCE else 0
    return event.uuid, event.kind, event.app, again


def _look(pods_dir: str) -> Iterator[tuple[list[str], list[Event]]]:
    """For each pod what to watch, if it runs, and its events."""
    for uuid in lifecycle.all_uuids(pods_dir, _PLACES):
        try:
            pod = lifecycle.open_pod(pods_dir, PodUUID(uuid), _PLACES)
            if pod is not None:
                with pod:
                    yield _places_of(pod) if pod.is_running else [], _events(pod)
        except (OSError, RktError):
            continue  # it is being removed, or damaged, which ``list`` says


def _events(pod: Pod) -> list[Event]:
    glance = status.read_summary(pod)
    uuid, name = str(pod.uuid), glance.name
    found = [Event(time_ns=glance.created_ns, kind=CREATED, uuid=uuid, name=name)]
    if pod.place == lifecycle.PREPARED:
        moved_ns = os.fstat(pod.fd).st_ctime_ns
        return [*found, Event(time_ns=moved_ns, kind=PREPARED, uuid=uuid, name=name)]
    started_ns = status.started_ns(pod)
    if started_ns:
        found.append(Event(time_ns=started_ns, kind=STARTED, uuid=uuid, name=name))
    found += _health(pod, glance.apps, uuid, name)
    codes = status.exit_codes(pod, [app.name for app in glance.apps])
    for each in glance.apps:
        count, code = status.restarts(pod, each.name)
        if count:
            time_ns = status.mtime_ns(pod, f"appsinfo/{each.name}/{contract.RESTARTS}")
            event = Event(time_ns=time_ns, kind=RESTARTING, uuid=uuid, name=name, app=each.name, status=code)
            found.append(event.replace(restarts=count))
    for app, (code, time_ns) in codes.items():
        killed_ns = status.mtime_ns(pod, f"appsinfo/{app}/{contract.OOM_KILLS}")
        if killed_ns:
            found.append(Event(time_ns=killed_ns, kind=OOM, uuid=uuid, name=name, app=app))
        found.append(Event(time_ns=time_ns, kind=APP_EXITED, uuid=uuid, name=name, app=app, status=code))
    if pod.is_exited:
        last_ns = max((time_ns for _, time_ns in codes.values()), default=os.fstat(pod.fd).st_mtime_ns)
        whole = status.pod_exit_code(pod)
        found.append(Event(time_ns=last_ns, kind=EXITED, uuid=uuid, name=name, status=whole))
    marked_ns = status.marked_ns(pod)
    if marked_ns:
        found.append(Event(time_ns=marked_ns, kind=MARKED, uuid=uuid, name=name))
    return found


def _health(pod: Pod, apps: list[AppSummary], uuid: str, name: str) -> list[Event]:
    """What probes have found last, of each kind."""
    from rkt.pod import health

    base = status.stage1_writable_root(pod)
    found = []
    for app in apps:
        known = health.read(pod, base, app.name)
        for kind, time_ns in (
            (READY, known.ready_ns),
            (UNREADY, known.unready_ns),
            (UNHEALTHY, known.unhealthy_ns),
        ):
            if time_ns:
                found.append(Event(time_ns=time_ns, kind=kind, uuid=uuid, name=name, app=app.name))
    return found


def to_json(event: Event) -> dict[str, object]:
    """One line of ``--format=json``."""
    members: dict[str, object] = {"time": event.time_ns, "event": event.kind, "uuid": event.uuid}
    if event.name:
        members["pod_name"] = event.name
    if event.app:
        members["app"] = event.app
    if event.status is not None:
        members["status"] = event.status
    if event.restarts is not None:
        members["restarts"] = event.restarts
    return members
