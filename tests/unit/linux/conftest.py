# SPDX-License-Identifier: Apache-2.0
"""A host of the tests' own making."""

from __future__ import annotations

import pytest

from tests.lib import unified


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> unified.UnifiedKernel:
    """A version 2 host in memory."""
    return unified.install(monkeypatch)
