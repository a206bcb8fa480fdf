# SPDX-License-Identifier: Apache-2.0
"""Where an app's standard streams and its log go, as annotations of the pod manifest say it (spec runtime §3.9).

An app without such annotations (``appc.has_streams``) reads nothing, and what it says goes to the log and the console; that is
the usual case, and this module is not imported for it.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, UsageError, quoted
from rkt.schema.appc import ANNOTATION_LOG_MODE, ANNOTATION_LOG_PATH, ANNOTATION_STREAMS
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NULL = "null"
LOG = "log"
STREAM = "stream"
TTY = "tty"
#: Standard stream, in the order of its descriptors, to what it may be.
MODES = {
    "stdin": (NULL, STREAM, TTY),
    "stdout": (LOG, NULL, STREAM, TTY),
    "stderr": (LOG, NULL, STREAM, TTY),
}
#: Of the pod: directory of the host for logs of the further form that the log mode names.
ANNOTATION_LOG_DIRECTORY = "coreos.com/rkt/experiment/kubernetes-log-dir"
LOG_MODE_PLAIN = "k8s-plain"
#: As in podman: what is typed at a terminal to leave an app without ending it.
DETACH_KEYS = "ctrl-p,ctrl-q"


class Streams(Record):
    """What each standard stream of an app is."""

    stdin: str = NULL
    stdout: str = LOG
    stderr: str = LOG

    @property
    def modes(self) -> tuple[str, str, str]:
        """In the order of the descriptors."""
        return self.stdin, self.stdout, self.stderr

    @property
    def endpoints(self) -> list[str]:
        """What there is to attach to: ``tty``, or some of ``stdin``, ``stdout`` and ``stderr``."""
        if TTY in self.modes:
            return [TTY]
        return [name for name, mode in zip(MODES, self.modes, strict=True) if mode == STREAM]


def parse_streams(annotations: Mapping[str, str]) -> Streams:
    """The modes of an app.

    Raises:
        InvalidManifest: a mode that there is not, or a terminal beside streams.
    """
    modes = {}
    for name, known in MODES.items():
        mode = annotations.get(ANNOTATION_STREAMS + name, known[0])
        if mode not in known:
            raise InvalidManifest(
                f"annotation {ANNOTATION_STREAMS}{name}: invalid mode {quoted(mode)}: "
                f"{', '.join(known[:-1])} or {known[-1]} is expected"
            )
        modes[name] = mode
    if {STREAM, TTY} <= set(modes.values()):
        raise InvalidManifest(
            "an app cannot have a terminal and streams at the same time: "
            + ", ".join(f"{name} is {mode}" for name, mode in modes.items() if mode in {STREAM, TTY})
        )
    return Streams(**modes)


def parse_log_mode(annotations: Mapping[str, str]) -> tuple[bool, str]:
    """Of a pod's annotations: whether apps may have plain logs, and the directory for them, empty for stage1's own.

    Raises:
        InvalidManifest: an unknown mode, or a directory that is not an absolute path.
    """
    mode = annotations.get(ANNOTATION_LOG_MODE)
    if mode is not None and mode != LOG_MODE_PLAIN:
        raise InvalidManifest(
            f"annotation {ANNOTATION_LOG_MODE}: unknown log mode {quoted(mode)}: {LOG_MODE_PLAIN} is expected"
        )
    directory = annotations.get(ANNOTATION_LOG_DIRECTORY, "")
    if directory and (directory[0] != "/" or "\0" in directory):
        raise InvalidManifest(
            f"annotation {ANNOTATION_LOG_DIRECTORY}: {quoted(directory)} is not an absolute path"
        )
    return mode is not None, directory


def parse_log_path(annotations: Mapping[str, str]) -> str:
    """Name of an app's plain log, empty for none.

    Raises:
        InvalidManifest: it is not the name of a file.
    """
    path = annotations.get(ANNOTATION_LOG_PATH)
    if path is None:
        return ""
    if not path or "/" in path or "\0" in path or path in {".", ".."}:
        raise InvalidManifest(
            f"annotation {ANNOTATION_LOG_PATH}: {quoted(path)}: "
            "log path is not inside /rkt/kubernetes/log, refusing path traversal"
        )
    return path


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q``: what a terminal sends for these keys; nothing for an empty text.

    Raises:
        UsageError: there is no such key.
    """
    keys = bytearray()
    for key in text.split(",") if text else ():
        control = key.removeprefix("ctrl-")
        if len(key) == 1 and key.isascii() and key.isprintable():
            keys.append(ord(key))
        elif control != key and len(control) == 1 and control in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
            keys.append(ord(control.upper()) & 0x1F)
        else:
            raise UsageError(
                f"invalid value {quoted(text)} for --detach-keys: {quoted(key)} is not a key",
                hint=f"--detach-keys={DETACH_KEYS}, or single characters; empty for none",
            )
    return bytes(keys)
