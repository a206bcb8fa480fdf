# SPDX-License-Identifier: Apache-2.0
"""What is known of a pod, gathered from its directory (spec runtime §2.4).

Two depths: ``glance`` reads the summary and two times, for tables; ``examine`` reads manifests too, for JSON. Nothing
here enters the pod or runs anything of it.
"""

from __future__ import annotations

import os

from rkt.errors import PodError
from rkt.pod import lifecycle, summary
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.values import ACName, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.pod.lifecycle import Pod
    from rkt.pod.summary import Summary

#: File that names the protections switched off when the pod was prepared, or later when it was started.
INSECURE_OPTIONS = "insecure-options"
#: Beside the words of ``--insecure-options``: nobody signed an image of the pod, and a rule of the trust policy lets it pass.
UNSIGNED = "unsigned"
#: Exit status of an app whose status file cannot be read.
UNREADABLE_STATUS = 1
#: Exit status of a pod that was killed before any app left one.
UNKNOWN_STATUS = 254
_NS = 1_000_000_000
_POLL_SECONDS = 0.1
_POLL_PREPARED_SECONDS = 1.0


class Network(Record):
    """One network of a pod, as ``net-info.json`` has it."""

    name: str
    ip: str
    raw: dict[str, Any]


class AppDetails(Record):
    """One app for JSON output.

    Attributes:
        state: ``unknown``, ``created``, ``running`` or ``exited``.
        restarts: how often it was started again; ``last_exit_code``: how it had ended before.
        exit_code: ``None`` while there is none.
        created_ns, started_ns, finished_ns: since the epoch, 0 for unknown.
        readiness: ``ready`` or ``unready``; empty without a readiness probe, and when the app does not run.
        liveness: ``healthy``, ``unhealthy`` or ``starting``; empty likewise.
        health_message: why not; text of the app's.
    """

    name: str
    state: str
    image_id: str
    created_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int | None = None
    oom_kills: int = 0
    restart_policy: str = ""
    restarts: int = 0
    last_exit_code: int = 0
    readiness: str = ""
    liveness: str = ""
    health_message: str = ""
    mounts: list[dict[str, Any]] = []
    user_annotations: dict[str, str] = {}
    user_labels: dict[str, str] = {}


class PodDetails(Record):
    """One pod for JSON output."""

    uuid: str
    name: str
    state: str
    insecure: list[str]
    not_enforced: list[str]
    networks: list[Network]
    egress: dict[str, Any]
    apps: list[AppDetails]
    created_ns: int
    started_ns: int = 0
    is_paused: bool = False
    was_killed: bool = False
    user_annotations: dict[str, str] = {}
    user_labels: dict[str, str] = {}


def mtime_ns(pod: Pod, name: str) -> int:
    """Modification time of a pod file, nanoseconds since the epoch; 0 when there is none."""
    try:
        return os.stat(name, dir_fd=pod.fd, follow_symlinks=False).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def created_ns(pod: Pod) -> int:
    """When the pod was made; the directory's own time while the marker is missing."""
    return mtime_ns(pod, contract.POD_CREATED) or os.fstat(pod.fd).st_mtime_ns


def started_ns(pod: Pod) -> int:
    """When stage1 reported the pod's first process; 0 before that."""
    return mtime_ns(pod, contract.PID) or mtime_ns(pod, contract.PPID)


def marked_ns(pod: Pod) -> int:
    """When gc marked the pod; 0 if it did not."""
    if pod.place not in {lifecycle.EXITED_GARBAGE, lifecycle.GARBAGE}:
        return 0
    return os.fstat(pod.fd).st_ctime_ns


def read_summary(pod: Pod) -> Summary:
    """The summary, or what the files it was derived from say."""
    parsed = summary.read(pod.fd)
    if parsed is not None:
        return parsed
    manifest = _manifest(pod)
    apps = [] if manifest is None else [summarize_app(pod, app) for app in manifest.get("apps") or []]
    return summary.Summary(
        created_ns=created_ns(pod),
        name=pod.read_text("name") or "",
        insecure=pod.read_text(INSECURE_OPTIONS) or "",
        apps=apps,
    )


def summarize_app(pod: Pod, app: dict[str, Any]) -> summary.AppSummary:
    """One app of a pod manifest; its image's name from the pod's own copy of the image manifest."""
    name = str(app.get("name", ""))
    image = "--"
    data = pod.read(f"appsinfo/{name}/manifest") if name and "/" not in name else None
    if data is not None:
        members = jsontext.parse(data, what="image manifest")
        labels = {label["name"]: label["value"] for label in members.get("labels") or []}
        version = labels.get("version")
        image = f"{members['name']}:{version}" if version else str(members["name"])
    return summary.AppSummary(
        name=name, image=image, image_id=str((app.get("image") or {}).get("id", ""))[:71]
    )


def summarized(pod: Pod, glance: Summary, members: dict[Any, dict[str, Any]]) -> list[summary.AppSummary]:
    """The apps of a pod whose apps change, as its manifest has them: a change that was killed may have missed the summary.

    Args:
        pod: the pod.
        glance: its summary.
        members: apps of its manifest by name.
    """
    known = {app.name: app for app in glance.apps}
    return [known.get(name) or summarize_app(pod, app) for name, app in members.items()]


def app_names(pod: Pod) -> list[str]:
    """Apps of a prepared pod, from its manifest, which is what stage1 goes by.

    Raises:
        PodError: the pod was not prepared to the end.
    """
    members = _read_manifest(pod)
    if members is None:
        raise pod.lacks("has no manifest")
    return [ACName.parse(app["name"], what="app name") for app in members.get("apps") or []]


def has_ports(pod: Pod) -> bool:
    """Whether a prepared pod wants ports forwarded."""
    return bool((_read_manifest(pod) or {}).get("ports"))


def _manifest(pod: Pod) -> dict[str, Any] | None:
    """The manifest of a pod that is prepared, or was."""
    # Before that it may be half written, by a process that lives or by one that was killed.
    return None if pod.place in {lifecycle.EMBRYO, lifecycle.PREPARE} else _read_manifest(pod)


def _read_manifest(pod: Pod) -> dict[str, Any] | None:
    data = pod.read(contract.POD_MANIFEST)
    if not data:
        # Empty: the pod was started a moment before a power cut.
        return None
    members = jsontext.parse(data, what=f'manifest of pod "{pod.uuid}"')
    if not isinstance(members, dict):
        raise PodError(f'manifest of pod "{pod.uuid}" is not an object')
    return members


def networks(pod: Pod) -> list[Network]:
    """The pod's networks; none are recorded for ``host`` and ``none``."""
    data = pod.read(contract.NET_INFO)
    if not data:
        return []
    entries = jsontext.parse(data, what=f'{contract.NET_INFO} of pod "{pod.uuid}"')
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PodError(f'{contract.NET_INFO} of pod "{pod.uuid}" is not a list of networks')
    return [
        Network(name=str(entry.get("netName", "")), ip=str(entry.get("ip", "")), raw=entry)
        for entry in entries
    ]


def egress(pod: Pod) -> dict[str, Any]:
    """``rules`` that say what the pod may talk to, and ``names`` in them with their addresses; empty without such rules."""
    data = pod.read(contract.EGRESS)
    if not data:
        return {}
    members = jsontext.parse(data, what=f'{contract.EGRESS} of pod "{pod.uuid}"')
    return {"rules": members["rules"], "names": members["names"]}


def format_networks(found: list[Network]) -> str:
    """``NAME:ip4=ADDRESS``, joined by commas."""
    return ", ".join(f"{network.name}:ip4={network.ip}" if network.ip else network.name for network in found)


def stage1_writable_root(pod: Pod) -> str:
    """Relative path below which stage1's own files are, readable whether or not its overlay is mounted."""
    tree = pod.read_text(contract.STAGE1_TREE_ID) if pod.has(contract.OVERLAY_PREPARED) else None
    return contract.STAGE1_ROOTFS if tree is None else f"overlay/{tree}/upper"


def exit_codes(pod: Pod, names: list[str]) -> dict[str, tuple[int, int]]:
    """Exit code and time of its recording (nanoseconds) of each app that left a status file."""
    directory = f"{stage1_writable_root(pod)}/{contract.STATUS_DIR}"
    codes: dict[str, tuple[int, int]] = {}
    for name in names:
        path = f"{directory}/{name}"
        time_ns = mtime_ns(pod, path)
        if not time_ns:
            continue
        try:
            text = pod.read_text(path)
        except OSError:
            text = None
        codes[name] = (int(text) if text and is_number(text) else UNREADABLE_STATUS, time_ns)
    return codes


def pod_exit_code(pod: Pod) -> int | None:
    """Status of the first app that failed, 0 when all succeeded; ``None`` when no app left one, or not all could."""
    names = [app.name for app in read_summary(pod).apps]
    codes = exit_codes(pod, names)
    failed = [(time_ns, code) for code, time_ns in codes.values() if code]
    if failed:
        return min(failed)[1]
    return None if not codes or (len(codes) < len(names) and was_killed(pod)) else 0


def was_killed(pod: Pod) -> bool:
    """Whether stage1 came to its end without a chance to record how the apps ended, by SIGKILL or with the host.

    It removes its socket last.
    """
    return pod.is_exited and pod.has(contract.CONTROL_SOCKET)


def oom_kills(pod: Pod, app: str) -> int:
    """How many processes of an app the kernel has killed for want of memory."""
    text = pod.read_text(f"appsinfo/{app}/{contract.OOM_KILLS}")
    return int(text) if text and is_number(text) else 0


def restarts(pod: Pod, app: str) -> tuple[int, int]:
    """How often an app was started again by its policy, and with which status it had ended before that."""
    words = (pod.read_text(f"appsinfo/{app}/{contract.RESTARTS}") or "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and "".join(words).isdecimal() else (0, 0)


def insecure_words(pod: Pod) -> list[str]:
    """Protections that are off for this pod."""
    text = pod.read_text(INSECURE_OPTIONS)
    return text.split(",") if text else []


def not_enforced(pod: Pod) -> list[str]:
    """What the pod's stage1 does not enforce, by its own word."""
    words, *_ = (pod.read_text(contract.NOT_ENFORCED) or "").split("\n")
    return words.split(",") if words else []


def is_ready(pod: Pod) -> bool:
    """Whether stage1's supervisor reported that it is up."""
    try:
        target = os.readlink(f"{stage1_writable_root(pod)}/{contract.SUPERVISOR_STATUS}", dir_fd=pod.fd)
    except OSError:
        return False
    # A pod that is started again has what its last run said, for the moment until that is taken away.
    return target == "ready" and has_supervisor(pod)


def has_supervisor(pod: Pod) -> bool:
    """Whether the process that stage1 named exists; else a pod that seems to run is held by a command, or starts."""
    pid = supervisor_pid(pod)
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def is_up(pod: Pod) -> bool:
    """Whether the pod runs, and every app that runs and has a readiness probe is ready."""
    if not pod.is_running or not is_ready(pod):
        return False
    apps = (_manifest(pod) or {}).get("apps") or []
    if not any(_is_probed(app) for app in apps):
        return True
    return all(app.readiness != "unready" for app in examine(pod).apps)


def _is_probed(app: dict[str, Any]) -> bool:
    return any(
        str(annotation.get("name")).startswith(contract.ANNOTATIONS_OF_PROBES)
        for annotation in app.get("annotations") or []
    )


def is_paused(pod: Pod) -> bool:
    """Whether ``rkt pause`` has frozen the pod; the state stays ``running``."""
    if not pod.is_running or not pod.has(contract.PAUSED):
        return False
    from rkt.pod import pause

    return pause.is_frozen(pod)


def supervisor_pid(pod: Pod) -> int | None:
    """Content of ``pid``, else of ``ppid``."""
    for name in (contract.PID, contract.PPID):
        text = pod.read_text(name)
        if text and is_number(text):
            return int(text)
    return None


def container_pid(pod: Pod) -> int | None:
    """The process to hand to ``enter``: ``pid``, or the only child of ``ppid``; ``None`` while there is none.

    Raises:
        PodError: ``ppid`` has several children.
    """
    text = pod.read_text(contract.PID)
    if text and is_number(text):
        return int(text)
    text = pod.read_text(contract.PPID)
    if not text or not is_number(text):
        return None
    try:
        children = _read_proc(f"/proc/{text}/task/{text}/children").split()
    except FileNotFoundError:
        return None
    if len(children) > 1:
        raise PodError(f'pod "{pod.uuid}": process {text} has {len(children)} children, one is expected')
    return int(children[0]) if children else None


def _read_proc(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def wait_until(pod: Pod, condition: Callable[[Pod], bool], timeout_seconds: float | None) -> bool:
    """Look at the pod every 100 ms (every second while it is only prepared) until ``condition`` holds.

    Args:
        pod: an open pod; its place and lock are looked at again each time.
        condition: called with the refreshed pod.
        timeout_seconds: longest wait, ``None`` for none.
    Returns:
        Whether the condition held in time; false also when the pod was removed.
    """
    import time

    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        if not pod.refresh():
            return False
        if condition(pod):
            return True
        pause = _POLL_PREPARED_SECONDS if pod.place == lifecycle.PREPARED else _POLL_SECONDS
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            pause = min(pause, left)
        time.sleep(pause)


def has_ended(pod: Pod) -> bool:
    """Whether nothing more will run in the pod."""
    return (
        pod.is_exited or pod.place == lifecycle.GARBAGE or (pod.place == lifecycle.PREPARE and not pod.locked)
    )


def examine(pod: Pod) -> PodDetails:
    """Everything that JSON output shows.

    Raises:
        RktError, OSError: a file of the pod is damaged.
    """
    glance = read_summary(pod)
    manifest = _manifest(pod) or {}
    start = started_ns(pod)
    mutable = any(
        annotation.get("name") == contract.ANNOTATION_MUTABLE and annotation.get("value") == "true"
        for annotation in manifest.get("annotations") or []
    )
    by_name = {app.get("name"): app for app in manifest.get("apps") or []}
    apps = summarized(pod, glance, by_name) if mutable else glance.apps
    codes = exit_codes(pod, [app.name for app in apps])
    volumes = {volume.get("name"): volume for volume in manifest.get("volumes") or []}
    return PodDetails(
        uuid=str(pod.uuid),
        name=glance.name,
        state=pod.state,
        insecure=insecure_words(pod),
        not_enforced=not_enforced(pod),
        networks=networks(pod),
        egress=egress(pod),
        apps=[
            _app_details(pod, app, by_name.get(app.name) or {}, volumes, codes.get(app.name), start, mutable)
            for app in apps
        ],
        created_ns=glance.created_ns,
        started_ns=start,
        is_paused=is_paused(pod),
        was_killed=was_killed(pod),
        user_annotations=manifest.get("userAnnotations") or {},
        user_labels=manifest.get("userLabels") or {},
    )


def _app_details(
    pod: Pod,
    app: summary.AppSummary,
    members: dict[str, Any],
    volumes: dict[Any, dict[str, Any]],
    exited: tuple[int, int] | None,
    pod_started_ns: int,
    mutable: bool,
) -> AppDetails:
    section = members.get("app") or {}
    if mutable:
        marks = f"{stage1_writable_root(pod)}/{contract.STATUS_DIR}/{app.name}"
        created, started = mtime_ns(pod, f"{marks}-created"), mtime_ns(pod, f"{marks}-started")
        state = "running" if started else "created" if created else "unknown"
        if state != "unknown" and pod.is_exited:
            state = "exited"
    else:
        created, started = created_ns(pod), pod_started_ns
        state = _state_from_pod(pod)
    if exited is not None:
        state = "exited"
    annotations = {each.get("name"): each.get("value") for each in members.get("annotations") or []}
    count, last_code = restarts(pod, app.name)
    finished = exited[1] if exited is not None else marked_ns(pod) if state == "exited" else 0
    readiness = liveness = message = ""
    if state == "running" and _is_probed(members):
        from rkt.pod import health

        has_readiness, has_liveness = health.has_probes(members)
        found = health.read(pod, stage1_writable_root(pod), app.name)
        readiness = "" if not has_readiness else "ready" if found.ready else "unready"
        if has_liveness:
            liveness = "starting" if found.alive is None else "healthy" if found.alive else "unhealthy"
        message = found.message
    return AppDetails(
        name=app.name,
        state=state,
        image_id=str((members.get("image") or {}).get("id", app.image_id)),
        created_ns=created,
        started_ns=started,
        finished_ns=finished,
        exit_code=None if exited is None else exited[0],
        oom_kills=oom_kills(pod, app.name),
        restart_policy=str(annotations.get(contract.ANNOTATION_RESTART, "")),
        restarts=count,
        last_exit_code=last_code,
        readiness=readiness,
        liveness=liveness,
        health_message=message,
        mounts=[
            _mount(mount, volumes.get(mount.get("volume")) or {}) for mount in members.get("mounts") or []
        ],
        user_annotations=section.get("userAnnotations") or {},
        user_labels=section.get("userLabels") or {},
    )


def _state_from_pod(pod: Pod) -> str:
    if pod.place in {lifecycle.EMBRYO, lifecycle.PREPARE, lifecycle.GARBAGE}:
        return "unknown"
    if pod.place == lifecycle.PREPARED:
        return "created"
    return "running" if pod.is_running else "exited"


def _mount(mount: dict[str, Any], volume: dict[str, Any]) -> dict[str, Any]:
    volume = mount.get("appVolume") or volume
    return {
        "name": str(mount.get("volume", "")),
        "container_path": str(mount.get("path", "")),
        "host_path": str(volume.get("source", "")),
        "read_only": bool(volume.get("readOnly", False)),
    }


def to_json(details: PodDetails) -> dict[str, Any]:
    """The pod object of ``--format=json``; absent values are left out, field names are rkt's (spec cli §2.8).

    ``paused``, ``killed``, ``pod_name``, ``insecure_options`` and ``not_enforced`` are ours. Pod times are seconds, app times nanoseconds, as programs expect.
    """
    members: dict[str, Any] = {"name": details.uuid, "state": details.state}
    if details.is_paused:
        members["paused"] = True
    if details.was_killed:
        members["killed"] = True
    if details.name:
        members["pod_name"] = details.name
    if any(app.readiness for app in details.apps):
        members["ready"] = all(app.readiness != "unready" for app in details.apps)
    if details.insecure:
        members["insecure_options"] = details.insecure
    if details.not_enforced:
        members["not_enforced"] = details.not_enforced
    if details.networks:
        members["networks"] = [network.raw for network in details.networks]
    if details.egress:
        members["egress"] = details.egress
    if details.apps:
        members["app_names"] = [app.name for app in details.apps]
        members["apps"] = [app_json(app) for app in details.apps]
    if details.created_ns:
        members["created_at"] = details.created_ns // _NS
    if details.started_ns:
        members["started_at"] = details.started_ns // _NS
    if details.user_annotations:
        members["user_annotations"] = details.user_annotations
    if details.user_labels:
        members["user_labels"] = details.user_labels
    return members


def app_json(app: AppDetails) -> dict[str, Any]:
    """The app object of ``--format=json``."""
    members: dict[str, Any] = {"name": app.name, "state": app.state}
    times = {"created_at": app.created_ns, "started_at": app.started_ns, "finished_at": app.finished_ns}
    members.update({key: value for key, value in times.items() if value})
    if app.exit_code is not None:
        members["exit_code"] = app.exit_code
    if app.oom_kills:
        members["oom_kills"] = app.oom_kills
    if app.restart_policy:
        members["restart_policy"] = app.restart_policy
    if app.restarts:
        members.update(restarts=app.restarts, last_exit_code=app.last_exit_code)
    for name in ("readiness", "liveness", "health_message"):
        if text := getattr(app, name):
            members[name] = text
    members["image_id"] = app.image_id
    collections = {
        "mounts": app.mounts,
        "user_annotations": app.user_annotations,
        "user_labels": app.user_labels,
    }
    members.update({key: value for key, value in collections.items() if value})
    return members
