# SPDX-License-Identifier: Apache-2.0
"""The library that not every installation has: what identities are verified with."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Installation

#: Why no identity can be verified, and the command that changes it.
NO_LIBRARY = (
    "this installation of rkt cannot verify identities: the Python library sigstore is missing; "
    "install the Debian package rkt-keyless, or use make install EXTRAS=keyless"
)


def has_sigstore(installation: Installation) -> bool:
    """Whether the library is there; it is not imported."""
    return any(os.path.isdir(f"{path}/sigstore") for path in installation.library_paths)
