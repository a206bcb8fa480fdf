# SPDX-License-Identifier: Apache-2.0
"""``rkt logs``: print what the apps of a pod wrote; beyond rkt."""

from __future__ import annotations

from rkt.cli.command import BOOL, LIST, Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, one_pod
from rkt.errors import EXIT_INTERRUPTED, NotFound, PodError, UsageError, quoted
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.pod.lifecycle import Pod
    from rkt.pod.log import Entry

_BUFFER_BYTES = 1 << 16
_DESCRIPTORS = {"stdout": 1, "stderr": 2}


def run(invocation: Invocation) -> int:
    """Print the log of some apps, or of all: what went to standard error goes to standard error again."""
    import sys

    from rkt.cli.output import message
    from rkt.pod import log

    values = invocation.values
    tail = _tail(values["tail"])
    since, until = (_time(values[name], f"--{name}") for name in ("since", "until"))
    if since and until and since >= until:
        raise UsageError("--since must be before --until")
    follow = values["follow"]
    with one_pod(invocation) as pod:
        _check_kept(pod)
        wanted, several = _apps(pod, list(dict.fromkeys(values["app"])))
        sys.stdout.flush()
        printer = _Printer(
            json=values["format"] == "json", times=values["timestamps"], names=several or len(wanted) > 1
        )
        with log.Reader(pod, wanted or None, tail=tail, since=since, until=until, follow=follow) as reader:
            try:
                for turn in reader.turns():
                    printer.names = printer.names or len(reader.apps) > 1
                    for app, entry in turn:
                        printer.add(app, entry)
                    printer.flush()
                    for app in reader.missed():
                        message(
                            invocation.settings,
                            f'app "{app}" wrote faster than this was read: lines may be missing here',
                        )
            except KeyboardInterrupt:
                return EXIT_INTERRUPTED
    return 0


def _check_kept(pod: Pod) -> None:
    from rkt.pod import status

    if "logs" in status.not_enforced(pod):
        raise PodError(
            f'pod "{pod.uuid}" has no logs: its stage1 keeps nothing of what the app says',
            hint="it is where the output of rkt run went, such as journalctl --unit=UNIT",
        )


def _apps(pod: Pod, wanted: list[str]) -> tuple[list[str], bool]:
    """The apps asked for, none for all; and whether there is more than one to tell apart."""
    from rkt.pod import log, status

    apps = [app.name for app in status.read_summary(pod).apps]
    known = list(dict.fromkeys(apps + log.log_names(pod)))
    for name in wanted:
        if name not in known:
            raise NotFound(f'no app "{name}" in pod "{pod.uuid}"', hint=f"apps: {', '.join(known)}")
    return wanted, not wanted and len(known) > 1


class _Printer:
    """Writes entries as text or JSON, many at once but never one later than its turn."""

    def __init__(self, *, json: bool, times: bool, names: bool) -> None:
        import os

        self._json = json
        self._times = times
        self.names = names
        self._terminals = {stream: os.isatty(fd) for stream, fd in _DESCRIPTORS.items()}
        self._fd = 1
        self._pending = bytearray()
        # (app, stream) of a line that is not complete, by descriptor.
        self._open: dict[int, tuple[str, str]] = {}

    def add(self, app: str, entry: Entry) -> None:
        """Queue one entry; a change of the descriptor writes what was before."""
        fd = 1 if self._json else _DESCRIPTORS[entry.stream]
        if fd != self._fd or len(self._pending) > _BUFFER_BYTES:
            self.flush()
        self._fd = fd
        self._pending += self._json_line(app, entry) if self._json else self._text(fd, app, entry)

    def flush(self) -> None:
        """Write what is queued."""
        from rkt.linux.files import write_all

        data = bytes(self._pending)
        self._pending.clear()
        write_all(self._fd, data)

    def _text(self, fd: int, app: str, entry: Entry) -> bytes:
        from rkt.pod import log

        parts = []
        goes_on = not entry.begins and self._open.get(fd) == (app, entry.stream)
        if fd in self._open and not goes_on:
            parts.append(b"\n")
        if not goes_on:
            if self._times:
                parts.append(entry.time + b" ")
            if self.names:
                parts.append(f"[{app}] ".encode())
        if self._terminals[entry.stream]:
            # The lines of an app that has a terminal end so.
            parts.append(log.escape_controls(entry.text.removesuffix(b"\r")))
        else:
            parts.append(entry.text)
        if entry.partial:
            self._open[fd] = (app, entry.stream)
        else:
            parts.append(b"\n")
            self._open.pop(fd, None)
        return b"".join(parts)

    @staticmethod
    def _json_line(app: str, entry: Entry) -> bytes:
        from rkt.cli.output import escape_json
        from rkt.schema import jsontext

        value = {
            "time": entry.time.decode("ascii", "replace"),
            "app": app,
            "stream": entry.stream,
            "text": entry.text.decode("utf-8", "replace"),
            "partial": entry.partial,
        }
        try:
            entry.text.decode("utf-8")
        except UnicodeDecodeError:
            import binascii

            value["base64"] = binascii.b2a_base64(entry.text, newline=False).decode("ascii")
        return escape_json(jsontext.dump(value)).encode() + b"\n"


def _tail(text: str) -> int | None:
    if text in {"", "all"}:
        return None
    if not is_number(text, most_digits=9):
        raise UsageError(f"invalid value {quoted(text)} for --tail: a number of lines, or all, is expected")
    return int(text)


def _time(text: str, what: str) -> bytes:
    """A moment, or how long ago it was, in the form of the log."""
    if not text:
        return b""
    import time
    from datetime import UTC, datetime

    from rkt.pod import log
    from rkt.schema.duration import parse_duration

    expected = UsageError(
        f"invalid value {quoted(text)} for {what}: a duration such as 10m or 1h30m, or a time such as "
        "2026-01-31T12:00:00Z, is expected"
    )
    if "T" in text.upper():
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise UsageError(f"{what}={text} has no time zone", hint=f"{what}={text}Z")
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise expected from None
        fraction = text.partition(".")[2]
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
        return moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0").encode() + f".{digits[:9]:0<9}Z".encode()
    try:
        seconds = parse_duration(text)
    except UsageError:
        raise expected from None
    if seconds > 1e9:
        raise expected
    return log.timestamp(time.time_ns() - int(seconds * 1_000_000_000))


COMMAND = Command(
    name="logs",
    summary="print what the apps of a pod wrote",
    usage="[--follow] [--app=APP] [--since=TIME] [--tail=N] UUID",
    description=(
        "Prints the output of the apps, of several apps in the order of time, each line marked with its app; also of "
        "pods that have exited, until gc removes them. What an app wrote to its standard error goes to standard error. "
        "On a terminal, control characters are made visible instead of being obeyed; elsewhere every byte is passed "
        "on as it was written. A line appears once it is complete. While following, "
        "lines of several apps that are a few milliseconds apart may change places.\n\n"
        "--follow goes on with what the apps write, over rotations of the log, until the pod has ended; a pod that is "
        "only prepared is waited for. Ctrl-C ends "
        "it with status 130.\n\n"
        "TIME is a duration before now, such as 10m, or a time with its zone, such as 2026-01-31T12:00:00Z.\n\n"
        "--format=json prints one object a line: time, app, stream, text, partial (the line goes on in the next "
        "object of this stream), and base64 when the text is not UTF-8.\n\n"
        "The log of an app takes at most 32 MiB in two files, of which the older goes first, or what --log-size and "
        "--log-files of rkt run say. For a reader that follows and is behind, more is kept, 80 MiB of the usual log; one that is further behind says that lines may be missing."
    ),
    run=run,
    flags=(
        Flag(name="app", kind=LIST, help="only this app; may be repeated", metavar="APP"),
        Flag(name="follow", kind=BOOL, default=False, help="go on until the pod has ended", short="f"),
        Flag(name="format", default="", help="json: one object a line", metavar="FORMAT", choices=("json",)),
        Flag(name="since", default="", help="only lines of this time or later", metavar="TIME"),
        Flag(name="tail", default="", help="only the last lines of each app", metavar="N"),
        Flag(
            name="timestamps", kind=BOOL, default=False, help="begin each line with the time it was written"
        ),
        Flag(name="until", default="", help="only lines before this time", metavar="TIME"),
        UUID_FILE_FLAG,
    ),
    completes="pod",
    examples=(
        ("rkt logs --tail=20 web", "the last lines of the pod named web"),
        ("rkt logs -f --since=10m web", "the last ten minutes, and what comes"),
    ),
)
