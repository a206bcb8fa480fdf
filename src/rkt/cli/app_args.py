# SPDX-License-Identifier: Apache-2.0
"""Image arguments and the flags that follow them (spec cli §1.6, §1.7): words to ``AppRequest``.

A flag applies to the image before it. Values are checked as far as they can be without the image: a bad one is
noticed before anything is fetched or created.
"""

from __future__ import annotations

from rkt.cli.command import Flag
from rkt.errors import UsageError, quoted
from rkt.pod.request import AppRequest, MountRequest
from rkt.schema.appc import ANNOTATION_STREAMS
from rkt.values import ACIdentifier, ACName, parse_boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What ``--device-…`` flags are about, as ``schema/limits.py`` reads them.
DEVICE_RATES = ("read-bps", "write-bps", "read-iops", "write-iops")
#: Of ``--readiness`` and ``--liveness``: rest of the name, what the value is called, help.
_PROBE_NUMBERS = (
    ("-interval", "DURATION", "time from one KIND probe to the next; default: 10s"),
    ("-timeout", "DURATION", "how long one KIND probe may take; default: 5s"),
    ("-retries", "N", "failures of the KIND probe in a row that count; default: 3"),
)
_PROBE_FLAGS = {
    "readiness": (
        (
            "",
            "exec:COMMAND|tcp:PORT|http:PORT/PATH|notify",
            "when the app counts as ready: how it is asked, or that it says so on its NOTIFY_SOCKET",
        ),
        *_PROBE_NUMBERS,
    ),
    "liveness": (
        (
            "",
            "exec:COMMAND|tcp:PORT|http:PORT/PATH",
            "how the app is asked whether it lives; one that does not is killed",
        ),
        *_PROBE_NUMBERS,
        (
            "-start-period",
            "DURATION",
            "age of the app until which failures of the liveness probe do not count",
        ),
    ),
}
#: Every per-app flag; a command lists the names it takes in ``Command.app_flags``.
APP_FLAGS = {
    flag.name: flag
    for flag in (
        Flag(
            name="annotation",
            help="add an annotation to the app in the pod manifest; repeatable",
            metavar="NAME=VALUE",
        ),
        Flag(
            name="caps-remove",
            help="capabilities to take away from the default set; replaces what the image says",
            metavar="CAP[,CAP…]",
        ),
        Flag(
            name="caps-retain",
            help="the only capabilities to keep; replaces what the image says",
            metavar="CAP[,CAP…]",
        ),
        Flag(name="cap-remove", deprecated="caps-remove"),
        Flag(name="cap-retain", deprecated="caps-retain"),
        Flag(name="cpu", help="cpu limit in cores, 500m is half a core", metavar="QUANTITY"),
        Flag(name="cpu-shares", help="relative weight of the app, 2 to 262144", metavar="N"),
        Flag(name="cpuset-cpus", help="CPUs the app may use", metavar="LIST"),
        Flag(
            name="device",
            help="let this app use a device of the host; before the first image: all apps; repeatable",
            metavar="/dev/NAME[:/TARGET][:rwm]",
        ),
        *(
            Flag(
                name=f"device-{kind}",
                help=f"limit of {kind.partition('-')[0]}s on a block device of the host, in "
                f"{'bytes' if kind.endswith('bps') else 'operations'} per second; repeatable",
                metavar="PATH:RATE",
            )
            for kind in DEVICE_RATES
        ),
        Flag(
            name="environment",
            help="set a variable, over the image's and --set-env's of that name; repeatable",
            metavar="NAME=VALUE",
        ),
        Flag(name="exec", help="program to run instead of the image's", metavar="PROGRAM"),
        Flag(name="group", help="gid, group name, or path in the image whose group is used", metavar="GROUP"),
        Flag(name="io-weight", help="relative weight of the app on disks, 1 to 10000", metavar="N"),
        Flag(
            name="log-driver",
            help="where output goes besides the log file: auto (the journal, where there is one), file (nowhere else), journald",
            metavar="DRIVER",
            choices=("auto", "file", "journald"),
        ),
        Flag(name="log-files", help="number of log files, the current one included; default: 2", metavar="N"),
        Flag(name="log-rate", help="lines a second that the log takes; default: all", metavar="N"),
        Flag(
            name="log-size", help="size from which a log file is rotated; default: 16Mi", metavar="QUANTITY"
        ),
        Flag(name="memory", help="memory limit, such as 64M or 1Gi", metavar="QUANTITY"),
        Flag(
            name="mnt-volume",
            help="volume of this app and where it is mounted; repeatable",
            metavar="name=NAME,kind=KIND,target=PATH,…",
        ),
        Flag(
            name="mount",
            help="mount a volume into this app; before the first image: into all apps; repeatable",
            metavar="volume=NAME,target=PATH",
        ),
        Flag(
            name="name",
            help="name of the app in the pod; default: last part of the image name",
            metavar="NAME",
        ),
        Flag(
            name="no-new-privileges",
            help="whether programs of the app may gain privileges by set-uid and file capabilities: false lets them",
            metavar="true|false",
        ),
        Flag(name="oom-score-adj", help="badness for the out-of-memory killer, -1000 to 1000", metavar="N"),
        Flag(name="pids-limit", help="limit of processes and threads of the app", metavar="N"),
        *(
            Flag(
                name=f"{kind}{name}",
                help=text.replace("KIND", kind),
                metavar=metavar,
            )
            for kind in ("readiness", "liveness")
            for name, metavar, text in _PROBE_FLAGS[kind]
        ),
        Flag(
            name="readonly-rootfs",
            help="make the app's root file system read-only",
            metavar="true|false",
        ),
        Flag(
            name="restart",
            help="when to start the app again: no, on-failure[:N] (at most N times), always",
            metavar="POLICY",
        ),
        Flag(
            name="seccomp",
            help="system calls to retain or to remove, with the error for the others",
            metavar="mode=retain|remove[,errno=E],CALL…",
        ),
        Flag(
            name="signature",
            help="signature file of the image, instead of the one beside it",
            metavar="FILE",
            completes="file",
        ),
        Flag(
            name="stderr",
            help="where the app's errors go: log (and console), null, or as stream or tty to rkt attach (and log)",
            metavar="MODE",
            choices=("log", "null", "stream", "tty"),
        ),
        Flag(
            name="stdin",
            help="what the app reads: null (nothing), or as stream or tty what rkt attach sends",
            metavar="MODE",
            choices=("null", "stream", "tty"),
        ),
        Flag(
            name="stdout",
            help="where the app's output goes: log (and console), null, or as stream or tty to rkt attach (and log)",
            metavar="MODE",
            choices=("log", "null", "stream", "tty"),
        ),
        Flag(
            name="supplementary-gids",
            help="further gids; replaces the image's; repeatable",
            metavar="GID[,GID…]",
        ),
        Flag(
            name="ulimit",
            help="limit of each process, such as nofile=1024:2048; repeatable",
            metavar="NAME=SOFT[:HARD]",
        ),
        Flag(name="user", help="uid, user name, or path in the image whose owner is used", metavar="USER"),
        Flag(
            name="user-annotation",
            help="replace the image's user annotations; repeatable",
            metavar="NAME=VALUE",
        ),
        Flag(name="user-label", help="replace the image's user labels; repeatable", metavar="NAME=VALUE"),
        Flag(name="working-dir", help="working directory in the app", metavar="PATH"),
    )
}
#: For commands that make pods.
ALL_APP_FLAGS = tuple(name for name in APP_FLAGS if name != "mnt-volume")
#: For ``app add``: images are in the store already.
ADDED_APP_FLAGS = tuple(name for name in APP_FLAGS if name != "signature")
#: For ``fetch``, which takes no arguments for apps.
FETCH_APP_FLAGS = ("signature",)

_DECIMAL = frozenset("0123456789")
#: uid and gid -1 means "leave as it is" to the kernel (invariant RN13).
MAX_ID = 2**32 - 2


class AppReader:
    """Images, their flags and their arguments, gathered in the order written."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.table = {name: APP_FLAGS[name] for name in names}
        self.mounts: list[MountRequest] = []
        self._apps: list[dict[str, Any]] = []

    @property
    def has_image(self) -> bool:
        """Whether an image has been seen."""
        return bool(self._apps)

    def add_image(self, reference: str) -> None:
        """A new image."""
        self._apps.append({"reference": reference})

    def begin_arguments(self) -> None:
        """``--``: arguments of the last image follow."""
        if "exec" not in self.table:
            raise UsageError("app arguments unsupported")
        if not self._apps:
            raise UsageError("an image is required before any app arguments")
        if "args" in self._apps[-1]:
            raise UsageError("only one set of app arguments allowed per image")
        self._apps[-1]["args"] = []

    def add_argument(self, word: str) -> None:
        """One argument of the last image, verbatim."""
        self._apps[-1]["args"].append(word)

    def put(self, flag: Flag, text: str) -> None:
        """A per-app flag."""
        name = flag.deprecated or flag.name
        if not self._apps:
            if name in _MOUNTS:
                self.mounts.append(_MOUNTS[name](text))
                return
            raise UsageError(f"--{flag.name} must follow an image")
        app = self._apps[-1]
        if name in {"exec", "signature"} and name in app:
            raise UsageError(f"--{name} specified multiple times for the same image")
        field = name.replace("-", "_")
        _SETTERS[name](app, field, text)
        if "caps_retain" in app and "caps_remove" in app:
            raise UsageError("cannot use both --caps-retain and --caps-remove on the same image")

    def check_mounts(self, volumes: list[str] | None) -> None:
        """Every mount names a declared volume; ``None`` when the command has no volumes of its own."""
        if volumes is None:
            return
        declared = {volume.partition(",")[0] for volume in volumes}
        for mount in (*self.mounts, *(mount for app in self._apps for mount in app.get("mounts", ()))):
            if mount.own is None and mount.volume not in declared:
                raise UsageError(
                    f'dangling mount point "{mount.target}": volume "{mount.volume}" not found',
                    hint=f"--volume={mount.volume},kind=host,source=/path",
                )

    def requests(self) -> list[AppRequest]:
        """All images."""
        return [AppRequest(**app) for app in self._apps]


def read_flags(values: dict[str, str]) -> AppRequest:
    """Per-app flags of a command that takes no images: name -> text."""
    app: dict[str, Any] = {"reference": ""}
    for name, text in values.items():
        _SETTERS[name](app, name.replace("-", "_"), text)
    return AppRequest(**app)


def parse_mount(text: str) -> MountRequest:
    """``volume=NAME,target=PATH``; split on commas only, nothing is decoded (spec cli §1.7)."""
    seen: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in {"volume", "target"}:
            raise UsageError(f'unknown mount parameter "{key}"', hint="--mount=volume=NAME,target=PATH")
        if key in seen:
            raise UsageError(f'mount parameter "{key}" given twice in "{text}"')
        if not equals or not value:
            raise UsageError(f'mount parameter "{key}" has no value in "{text}"')
        seen[key] = value
    for key in ("volume", "target"):
        if key not in seen:
            raise UsageError(
                f'mount parameter "{key}" missing in "{text}"', hint="--mount=volume=NAME,target=PATH"
            )
    return MountRequest(volume=ACName.parse(seen["volume"], what="volume name"), target=seen["target"])


def put_pair(pairs: dict[str, str], text: str, *, flag: str) -> str:
    """Add ``NAME=VALUE`` to those that a flag has given before; the value may be empty and may contain ``=``; returns the name."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--{flag}: {quoted(text)} must be specified as key=value")
    if key in pairs:
        raise UsageError(f"--{flag}: key {quoted(key)} already set")
    pairs[key] = value
    return key


def _plain(app: dict[str, Any], field: str, text: str) -> None:
    app[field] = text


def _name(app: dict[str, Any], field: str, text: str) -> None:
    app[field] = ACName.parse(text, what="app name")


def _boolean(app: dict[str, Any], field: str, text: str) -> None:
    try:
        app[field] = parse_boolean(text)
    except UsageError as e:
        flag = field.replace("_", "-")
        raise UsageError(f"--{flag} must be set with a boolean", hint=f"--{flag}=true") from e


def _integer(low: int, high: int) -> Callable[[dict[str, Any], str, str], None]:
    def put(app: dict[str, Any], field: str, text: str) -> None:
        digits = text[1:] if text[:1] == "-" else text
        flag = field.replace("_", "-")
        if not digits or not _DECIMAL.issuperset(digits) or len(digits) > 10 or not low <= int(text) <= high:
            raise UsageError(
                f"invalid value {quoted(text)} for --{flag}: a number from {low} to {high} is expected"
            )
        app[field] = int(text)

    return put


def _gids(app: dict[str, Any], field: str, text: str) -> None:
    gids = app.setdefault(field, [])
    for part in text.split(","):
        digits = part.strip()
        if not digits or not _DECIMAL.issuperset(digits) or len(digits) > 10 or int(digits) > MAX_ID:
            raise UsageError(
                f"invalid value {quoted(text)} for --supplementary-gids: {quoted(part)} is not a gid"
            )
        gids.append(int(digits))


def _words(app: dict[str, Any], field: str, text: str) -> None:
    words = app.setdefault(field, [])
    for part in text.split(","):
        word = part.strip().upper()
        if not word:
            raise UsageError(
                f"invalid value {quoted(text)} for --{field.replace('_', '-')}: empty capability name"
            )
        words.append(word)


def _mount(app: dict[str, Any], field: str, text: str) -> None:
    app.setdefault("mounts", []).append(_MOUNTS[field.replace("_", "-")](text))


def _parse_device(text: str) -> MountRequest:
    from rkt.schema.shorthand import parse_device

    mount = parse_device(text)
    return MountRequest(volume=mount.volume, target=mount.path, own=mount.app_volume)


def _parse_mounted_volume(text: str) -> MountRequest:
    """``name=NAME,target=PATH`` and the options of ``--volume``: a volume of the app's own and its mount in one."""
    from rkt.schema.shorthand import parse_volume

    own: dict[str, str] = {}
    options = []
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in {"name", "target"}:
            options.append(part)
        elif key in own or not value:
            raise UsageError(f"invalid value in --mnt-volume flag {quoted(text)}: one {key} is expected")
        else:
            own[key] = value
    for key in ("name", "target"):
        if key not in own:
            raise UsageError(
                f"invalid value in --mnt-volume flag {quoted(text)}: {key} is missing",
                hint="--mnt-volume=name=NAME,kind=host,source=PATH,target=PATH",
            )
    volume = parse_volume(",".join((own["name"], *options)), flag="--mnt-volume")
    return MountRequest(volume=volume.name, target=own["target"], own=volume)


#: Flags that are mounts, for one app or for all.
_MOUNTS: dict[str, Callable[[str], MountRequest]] = {
    "mount": parse_mount,
    "device": _parse_device,
    "mnt-volume": _parse_mounted_volume,
}


def _pair(target: str) -> Callable[[dict[str, Any], str, str], None]:
    def put(app: dict[str, Any], field: str, text: str) -> None:
        key = put_pair(app.setdefault(target, {}), text, flag=field.replace("_", "-"))
        if target == "annotations":
            ACIdentifier.parse(key, what="annotation name")

    return put


def _stream(app: dict[str, Any], field: str, text: str) -> None:
    """Recorded as rkt records it, as an annotation of the app."""
    app.setdefault("annotations", {})[ANNOTATION_STREAMS + field] = text


def _probe(app: dict[str, Any], field: str, text: str) -> None:
    from rkt.schema import probes

    _annotate(app, field, text, probes.check_value)


def _log_option(app: dict[str, Any], field: str, text: str) -> None:
    from rkt.schema import log_options

    _annotate(app, field, text, log_options.parse_value)


def _annotate(app: dict[str, Any], field: str, text: str, check: Callable[[str, str], object]) -> None:
    """A flag that is an annotation of the same name in the pod manifest."""
    from rkt.errors import InvalidManifest

    name = field.replace("_", "-")
    try:
        check(name, text)
    except InvalidManifest as e:
        raise UsageError(f"invalid value in --{name} flag: {e.message}", hint=e.hint) from e
    annotations = app.setdefault("annotations", {})
    if f"coreos.com/rkt/{name}" in annotations:
        raise UsageError(f"--{name} specified multiple times for the same image")
    annotations[f"coreos.com/rkt/{name}"] = text


def _seccomp(app: dict[str, Any], field: str, text: str) -> None:
    from rkt.schema.shorthand import parse_seccomp

    parse_seccomp(text)
    app[field] = text


def _restart(app: dict[str, Any], field: str, text: str) -> None:
    from rkt.errors import InvalidManifest
    from rkt.schema.restart import parse_policy

    try:
        parse_policy(text)
    except InvalidManifest as e:
        raise UsageError(f"invalid value in --restart flag: {e.message}", hint=e.hint) from e
    app[field] = text


def _ulimit(app: dict[str, Any], _field: str, text: str) -> None:
    from rkt.schema.limits import parse_ulimit

    parse_ulimit(text)
    app.setdefault("ulimits", []).append(text)


def _device_rate(kind: str) -> Callable[[dict[str, Any], str, str], None]:
    def put(app: dict[str, Any], _field: str, text: str) -> None:
        from rkt.schema.limits import parse_device_rate

        parse_device_rate(kind, text)
        app.setdefault("device_rates", []).append((kind, text))

    return put


def _cpus(app: dict[str, Any], field: str, text: str) -> None:
    from rkt.schema.limits import parse_cpus

    parse_cpus(text, "--cpuset-cpus")
    app[field] = text


_SETTERS: dict[str, Callable[[dict[str, Any], str, str], None]] = {
    **{f"{kind}{name}": _probe for kind, flags in _PROBE_FLAGS.items() for name, _, _ in flags},
    **dict.fromkeys(("log-driver", "log-files", "log-rate", "log-size"), _log_option),
    "annotation": _pair("annotations"),
    "caps-remove": _words,
    "caps-retain": _words,
    "cpu": _plain,
    "cpu-shares": _integer(2, 262144),
    "cpuset-cpus": _cpus,
    "device": _mount,
    **{f"device-{kind}": _device_rate(kind) for kind in DEVICE_RATES},
    "environment": _pair("environment"),
    "exec": _plain,
    "group": _plain,
    "io-weight": _integer(1, 10000),
    "memory": _plain,
    "mnt-volume": _mount,
    "mount": _mount,
    "name": _name,
    "no-new-privileges": _boolean,
    "oom-score-adj": _integer(-1000, 1000),
    "pids-limit": _integer(1, 4194304),
    "readonly-rootfs": _boolean,
    "restart": _restart,
    "seccomp": _seccomp,
    "signature": _plain,
    **dict.fromkeys(("stdin", "stdout", "stderr"), _stream),
    "supplementary-gids": _gids,
    "ulimit": _ulimit,
    "user": _plain,
    "user-annotation": _pair("user_annotations"),
    "user-label": _pair("user_labels"),
    "working-dir": _plain,
}
