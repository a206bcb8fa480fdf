# SPDX-License-Identifier: Apache-2.0
"""What the report of ``make bench`` is made of."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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


def measure_alone(description: str | None, measure: Callable[[int, int, int], list[Row]]) -> int:
    """What a module does that is run by itself: rounds, MiB and files from the command line, rows to standard output."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1000)
    parser.add_argument("--files", type=int, default=15000)
    options = parser.parse_args()
    for row in measure(options.rounds, options.mib, options.files):
        print(" | ".join(row.cells()))
    return 0
