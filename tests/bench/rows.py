# SPDX-License-Identifier: Apache-2.0
"""What the report of ``make bench`` is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report; a budget of 0 means that the figure is only shown."""

    what: str
    value: str
    ratio: str = ""
    budget: str = ""
    kept: str = ""

    def cells(self) -> tuple[str, ...]:
        """One text per column."""
        return (self.what, self.value, self.ratio, self.budget, self.kept)
