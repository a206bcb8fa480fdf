# SPDX-License-Identifier: Apache-2.0
"""``rkt version``: five lines; other engines parse the first two (spec cli §2.28)."""

from __future__ import annotations

from rkt import __version__
from rkt.cli.command import Command
from rkt.values import AC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Print the versions."""
    import os
    import sys

    from rkt.cli.output import write

    python = ".".join(str(n) for n in sys.version_info[:3])
    host = os.uname()
    write(
        f"rkt Version: {__version__}\n"
        f"appc Version: {AC_VERSION}\n"
        f"Python Version: {python}\n"
        f"OS/Arch: {host.sysname.lower()}/{host.machine}\n"
        "Features: -TPM -SDJOURNAL\n"
    )
    return 0


COMMAND = Command(name="version", summary="print the version of rkt and of what it stands on", run=run)
