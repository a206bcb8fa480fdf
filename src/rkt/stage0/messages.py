# SPDX-License-Identifier: Apache-2.0
"""Words for people, on standard error: ``<command>: text`` (spec cli §1.4). Results go to standard output, by ``cli``."""

from __future__ import annotations

import sys

from rkt.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings


def tell(settings: Settings, text: str) -> None:
    """One line, prefixed by the running command's name."""
    _write(f"{settings.command.rsplit(' ', 1)[-1]}: {text}\n")


def diagnose(settings: Settings, source: str, text: str) -> None:
    """One line with ``--debug`` only, prefixed by the part it comes from, such as ``image``."""
    if settings.debug:
        _write(f"{source}: {text}\n")


def _write(line: str) -> None:
    # Names come from images and arguments: nothing in them may reach the terminal as a control sequence (LG3).
    sys.stderr.write(printable(line))
    sys.stderr.flush()
