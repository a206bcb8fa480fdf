# SPDX-License-Identifier: Apache-2.0
"""Every failure that a user or a calling program can act on.

::

    RktError
    ├── UsageError            the command line, a flag, an environment file
    ├── ConfigError           a configuration file or directory
    ├── InvalidManifest       an image or pod manifest, or a value in one
    ├── NotFound              no such image, pod, app, key
    ├── Ambiguous             more than one thing answers to that name
    ├── NotVerified           no verdict of "good" was reached
    │   ├── SignatureMismatch     checked, and wrong
    │   └── CannotVerify          no key, no tool, unreadable signature
    ├── NotLocked             the lock file has another image, or other signers
    ├── FetchError            a transfer failed
    ├── ImageError            an archive breaks a rule or a limit
    ├── StoreError            the store cannot do what was asked
    │   └── DamagedRecord         a record on disk is not what was written
    ├── PodError              a pod is not in the state that was asked for
    ├── Stage1Error           stage1 is missing, unsuitable, or failed
    ├── NetworkError          a network is not to be had, or its plugins fail
    └── HostError             the host lacks a kernel feature, a tool, a privilege

Only ``cli.main`` prints and exits. A message is lower case, has no final stop, and names the thing and its value; the
hint is the next command to type.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

#: Status of every failure of ours (spec cli §1.3).
EXIT_FAILURE = 254
#: ``rkt`` without a command.
EXIT_NO_COMMAND = 2
#: A command that looks at something found what should not be: neither success, nor a failure of ours.
EXIT_FOUND = 3
#: Ended by SIGINT, as shells report it.
EXIT_INTERRUPTED = 130
#: Longest foreign text that a message repeats, in characters.
MAX_QUOTED_LENGTH = 256


def quoted(text: str) -> str:
    r"""``text`` in double quotes, as rkt's messages show values.

    What a terminal would act on is escaped (invariant LG3), and very long text is cut: the value may come from an image.
    """
    if len(text) > MAX_QUOTED_LENGTH:
        text = text[:MAX_QUOTED_LENGTH] + "\u2026"
    if not text.isprintable() or '"' in text or "\\" in text:
        text = "".join(
            f"\\{c}" if c in '"\\' else c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
            for c in text
        )
    return f'"{text}"'


def reason_of(e: BaseException) -> str:
    """What an error says, to end a sentence about what failed: its message, or the path and the kernel's words."""
    if isinstance(e, RktError):
        return e.message
    if isinstance(e, OSError) and e.strerror:
        return e.strerror if e.filename is None else f"{os.fsdecode(e.filename)}: {e.strerror}"
    return str(e) or type(e).__name__


def printable(text: str) -> str:
    """Text that cannot move the cursor, retitle the terminal or reorder a line (invariant LG3).

    Everything that is not printable but a line feed or a tab is written as an escape: control characters, bidirectional
    overrides, bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in text)


def _escape(c: str) -> str:
    number = ord(c)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


class RktError(Exception):
    """A failure the user or the calling program can act on."""

    code: ClassVar[str] = "rkt"
    exit_status: ClassVar[int] = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RktError):
    """The command line, a flag's value, or an environment file is not understood."""

    code = "usage"


class ConfigError(RktError):
    """A configuration file or directory cannot be used."""

    code = "config"


class InvalidManifest(RktError):
    """A manifest, or a value written as manifests write it, breaks the appc or OCI specification."""

    code = "invalid-manifest"


class NotFound(RktError):
    """Nothing answers to that name."""

    code = "not-found"


class Ambiguous(RktError):
    """More than one thing answers to that name."""

    code = "ambiguous"


class NotVerified(RktError):
    """No verdict of "good" was reached."""

    code = "not-verified"


class SignatureMismatch(NotVerified):
    """A signature was checked, and it is wrong."""

    code = "signature-mismatch"


class CannotVerify(NotVerified):
    """No key, no tool, or no readable signature."""

    code = "cannot-verify"


class NotLocked(RktError):
    """A lock file has another image than would be used, or others vouch for it."""

    code = "not-locked"


class FetchError(RktError):
    """A transfer failed."""

    code = "fetch"


class ImageError(RktError):
    """An archive breaks a rule or a limit."""

    code = "image"


class StoreError(RktError):
    """The store cannot do what was asked."""

    code = "store"


class DamagedRecord(StoreError):
    """A record on disk is not what was written."""

    code = "damaged-record"


class PodError(RktError):
    """A pod is not in the state that was asked for."""

    code = "pod"


class Stage1Error(RktError):
    """stage1 is missing, unsuitable, or failed."""

    code = "stage1"


class NetworkError(RktError):
    """A network is not defined, is not to be trusted, or a plugin of it failed."""

    code = "network"


class HostError(RktError):
    """The host lacks a kernel feature, a tool or a privilege."""

    code = "host"
