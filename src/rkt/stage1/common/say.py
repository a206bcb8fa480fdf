# SPDX-License-Identifier: Apache-2.0
"""A word to whoever started the pod, who need not be there any more."""

from __future__ import annotations

import os


def say(text: str) -> None:
    """Write a line to standard error, whose terminal or reader may be gone: the pod goes on all the same."""
    try:
        os.write(2, f"stage1: {text}\n".encode(errors="backslashreplace"))
    except OSError:
        return
