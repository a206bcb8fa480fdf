# SPDX-License-Identifier: Apache-2.0
"""Third-party libraries: out of reach until a command really needs one."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Installation


def enable(installation: Installation) -> None:
    """Put the libraries of this installation behind everything else on ``sys.path``; again is harmless."""
    sys.path.extend(path for path in installation.library_paths if path not in sys.path)
