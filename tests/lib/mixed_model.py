# SPDX-License-Identifier: Apache-2.0
"""What a pod, or an app of one, may be while several commands move it: the model behind ``tests/lib/mixed.py``.

It keeps for each the set of states in which it may be. A command that begins widens the sets by what it may do; what its
answer proves narrows them again. A command may see every state that was possible between its beginning and its end, and
must answer as rkt answers in one of them. What was proved holds at some moment of the command, so what ran at the same
time may have changed it since.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.lib.rkt import Running

    Moves = frozenset[tuple[str, str]]

#: States of a pod: being made; prepared; started and not ready; ready; over; removed.
MAKING, PREPARED, STARTING, RUNNING, EXITED, GONE = (
    "making",
    "prepared",
    "starting",
    "running",
    "exited",
    "gone",
)
#: States of an app of a sandbox.
ABSENT, IDLE, ACTIVE = "absent", "idle", "active"

GROWS: Moves = frozenset({(MAKING, STARTING), (STARTING, RUNNING)})
ENDS: Moves = frozenset({(STARTING, EXITED), (RUNNING, EXITED)})
REMOVES: Moves = frozenset({(EXITED, GONE)})
STARTS: Moves = frozenset({(EXITED, STARTING)})
RUNS: Moves = frozenset({(PREPARED, STARTING)})
REMOVES_ANY: Moves = REMOVES | {(PREPARED, GONE)}
APP_ENDS: Moves = frozenset({(ACTIVE, IDLE)})
APP_NAMES = ("a", "b", "c")


def closure(states: Iterable[str], moves: Iterable[tuple[str, str]]) -> set[str]:
    """Every state that can be reached."""
    found = set(states)
    moves = list(moves)
    while more := {to for start, to in moves if start in found} - found:
        found |= more
    return found


class Subject:
    """A pod, or an app of one: the states in which it may be.

    Attributes:
        always: moves that need no command.
    """

    def __init__(self, what: str, possible: set[str], always: Moves) -> None:
        self.what = what
        self.always = always
        #: Commands that may have it frozen.
        self.freezers = 0
        self.possible = possible
        self.views: list[View] = []
        self.history: deque[str] = deque(maxlen=14)
        self._settle()

    def _settle(self) -> None:
        moves = set(self.always).union(*(view.moves for view in self.views))
        self.possible = closure(self.possible, moves)
        for view in self.views:
            view.seen |= self.possible
            view.frozen |= self.freezers > 0
            view.around |= moves

    def watch(self, command: str, moves: Moves) -> View:
        """A command begins that may move the subject."""
        view = View(self, command, moves)
        self.views.append(view)
        if len(self.views) > 1:
            for each in self.views:
                each.crowded = True
        self._settle()
        return view

    def loosen(self, moves: Moves) -> None:
        """From now on it may move by itself."""
        self.always |= moves
        self._settle()

    def prove(self, states: set[str], around: Iterable[tuple[str, str]] = ()) -> None:
        """It was in one of these states, and since then only these moves may have been made."""
        left = self.possible & closure(states, (*around, *self.always))
        if not left:
            raise Surprise(f"{self.what} cannot be {' or '.join(sorted(states))}: it is {self.possible}")
        self.possible = left
        self._settle()


class View:
    """What one command may see of a subject."""

    def __init__(self, subject: Subject, command: str, moves: Moves) -> None:
        self.subject = subject
        self.command = command
        self.moves = moves
        self.seen: set[str] = set()
        self.around: set[tuple[str, str]] = set()
        self.frozen = False
        #: Whether another command was about the subject at any time of this one.
        self.crowded = False

    def end(self, note: str, proved: set[str] | None) -> None:
        """The command is over; ``proved`` is what its answer says of the subject."""
        subject = self.subject
        subject.views.remove(self)
        subject.history.append(f"{time.monotonic():.3f} {self.command}: {note}")
        if proved is not None:
            subject.prove(proved, self.around)


class Surprise(Exception):
    """Something happened that the model does not allow."""


class Life:
    """One process that is, or becomes, a pod."""

    def __init__(self, process: Running, statuses: set[int]) -> None:
        self.process = process
        self.statuses = statuses
        self.was_stopped = self.was_forced = False


class ModelPod:
    """A pod as the model knows it."""

    def __init__(self, uuid: str, life: Life | None, *, kind: str, ends: bool) -> None:
        self.uuid = uuid
        self.kind = kind
        self.ends = ends
        self.life = life
        self.subject = Subject(
            f"pod {uuid[:8]} ({kind})",
            {PREPARED if life is None else MAKING},
            GROWS | (ENDS if ends else frozenset()),
        )
        self.apps: dict[str, Subject] = {}
        if kind == "sandbox":
            self.apps = {
                name: Subject(f"app {name} of {uuid[:8]}", {ABSENT}, frozenset()) for name in APP_NAMES
            }
