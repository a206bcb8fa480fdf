# SPDX-License-Identifier: Apache-2.0
"""The crash matrix: every command, killed before each call that changes something, or with each such call failing.

After each fault every command works on what is there, an image is absent or whole and verified, and one gc leaves nothing.
``make test`` does a random part (the seed is printed), ``make soak`` all of it. A problem does not end a row: a fresh
engine goes on with the next fault, and the row fails at its end with all that was found.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import re
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.faults import CALLS, ERRORS, KILL, Tracer, errors, kills, some
from tests.lib.rkt import Rkt
from tests.lib.whole import NAME, PREFIX, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lib.faults import Fault
    from tests.lib.images import Images
    from tests.lib.rkt import Result

pytestmark = pytest.mark.root

#: Faults of each row and kind, and how many of those that are errors if that is another number; -1 for all that there are.
_KILLS, _, _ERRORS = os.environ.get("RKT_TEST_FAULTS", "1").partition(",")
FAULTS, ERRORS_OF_ROW = int(_KILLS), int(_ERRORS or _KILLS)
#: A row ends after so long with what it has done by then, a random part of what was asked for; 0 for never.
SECONDS = int(os.environ.get("RKT_TEST_FAULTS_SECONDS", "0"))
SEED = int(os.environ["RKT_TEST_FAULTS_SEED"])
#: The interpreter shows a traceback when it cannot open its own files, or a module.
IMPORTING = "<frozen importlib"
#: A traceback through our modules.
OUR_TRACEBACK = re.compile(r'File "[^"\n]*\brkt/[^"\n]*"')


def _fetch(subject: Subject) -> tuple[str, ...]:
    subject.forget()
    return ("fetch", subject.file)


def _gc(subject: Subject) -> tuple[str, ...]:
    subject.exited()
    return ("gc", "--grace-period=0")


def _image(*words: str) -> Callable[[Subject], tuple[str, ...]]:
    def start(subject: Subject) -> tuple[str, ...]:
        subject.fetch()
        return ("image", *words)

    return start


#: Command of the matrix -> makes what it starts from, and returns its words.
ROWS: dict[str, Callable[[Subject], tuple[str, ...]]] = {
    "fetch": _fetch,
    "trust": lambda s: ("trust", PREFIX, "--skip-fingerprint-review", s.images.key_file),
    "prepare": lambda _: ("prepare", "--name=crash", NAME),
    "run": lambda _: ("run", "--name=crash", NAME),
    "run-prepared": lambda s: ("run-prepared", s.prepared()),
    "stop": lambda s: ("stop", s.running()),
    "stop --force": lambda s: ("stop", "--force", s.running()),
    "rm": lambda s: ("rm", s.exited()),
    "gc": _gc,
    "image rm": _image("rm", NAME),
    "image gc": _image("gc", "--grace-period=0"),
}


#: Rows that are about images, which are looked at after each fault; they may be gone at the end.
OF_IMAGES = ("fetch", "image rm", "image gc")
#: After so many faults the images are looked at in the other rows: none of their commands mends one.
IMAGES_EVERY = 10
#: What differs from one run to the next in a message.
CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"sha(512-|256:)[0-9a-f]+"), "DIGEST"),
    (re.compile(r"/[^ ]*/rkt-(test|images)-[^/ ]*"), "BASE"),
    (re.compile(r"\b[0-9a-f]{8}\b|[0-9]+"), "N"),
)


class Engines:
    """The engine that all rows share, replaced by a fresh one when a fault has broken it."""

    def __init__(self, binary: str, images: Images) -> None:
        self._binary = binary
        self._images = images
        self._engines: list[Rkt] = []
        self.renew()

    def renew(self) -> None:
        """Go on with a fresh engine; what the old one left is not its fault."""
        rkt = Rkt(tempfile.mkdtemp(prefix="rkt-test-"), self._binary)
        self._engines.append(rkt)
        self.subject = Subject(rkt, self._images)

    def close(self) -> None:
        """End all; those that were broken have been told of, so only the last may complain."""
        for broken in self._engines[:-1]:
            with contextlib.suppress(AssertionError):
                broken.close()
        self._engines[-1].close()


@pytest.fixture(scope="module")
def engines(rkt_binary: str, images: Images) -> Iterator[Engines]:
    """The engine that all rows share."""
    print(f"seed {SEED}")
    made = Engines(rkt_binary, images)
    try:
        yield made
    finally:
        made.close()


def _faults(subject: Subject, row: str) -> list[Fault]:
    """What is to go wrong in a row."""
    tracer = Tracer(subject.rkt)
    dice = random.Random(f"{SEED} {row}")
    start = ROWS[row]
    alone = tracer.calls(*start(subject))
    subject.check(f"{row}, undisturbed")
    names = sorted({*CALLS, *(name for group in ERRORS.values() for name in group)})
    everywhere = tracer.calls(*start(subject), everywhere=True, names=names)
    subject.check(f"{row}, undisturbed")
    calls = {name: everywhere[name] for name in everywhere if name in CALLS}
    faults = [
        *some(kills(alone), FAULTS, dice),
        *some(kills(calls, everywhere=True), FAULTS, dice),
        *some(errors(everywhere), ERRORS_OF_ROW, dice),
    ]
    dice.shuffle(faults)
    return faults


def _meet(subject: Subject, fault: Fault, row: str, *, look: bool) -> Result:
    """One command that meets one fault; all that must hold of what it says, and afterwards."""
    moment = f"seed {SEED}, {row}, {fault}"
    words = ROWS[row](subject)
    result = Tracer(subject.rkt).run(fault, *words)
    if IMPORTING not in result.stderr:
        assert not OUR_TRACEBACK.search(result.stderr), (moment, result)
    # What cannot be written cannot be said.
    if result.status == 254 and fault.call != "write":
        assert result.stderr.strip(), (moment, result)
    try:
        subject.check_pods(moment)
        if row in OF_IMAGES:
            subject.check_images(moment)
        elif look:
            assert subject.check_images(moment) == subject.stored, moment
        if row == "trust":
            subject.rkt.run("trust", "list", check=0)
        assert subject.rkt.leaks() == [], moment
    except AssertionError as e:
        e.add_note(f"{moment}\n{result}")
        raise
    return result


def _message(result: Result) -> str:
    """What a command said, without what is different each time."""
    text = result.stderr.strip()
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    return f"{result.status}: {text}"


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.timeout(7200 if FAULTS < 0 else 300 + 60 * FAULTS)
def test_faults(engines: Engines, row: str) -> None:
    """A command that is killed before a call, or whose call fails, leaves a state that is whole, and says why if it failed."""
    # Also where an earlier row failed half-way.
    engines.subject.trust()
    engines.subject.fetch()
    deadline = time.monotonic() + (SECONDS or float("inf"))
    planned = _faults(engines.subject, row)
    faults: list[Fault] = []
    problems: list[str] = []
    messages: dict[str, list[Fault]] = collections.defaultdict(list)
    for number, fault in enumerate(planned, 1):
        if time.monotonic() > deadline:
            break
        faults.append(fault)
        look = number % IMAGES_EVERY == 0
        try:
            result = _meet(engines.subject, fault, row, look=look)
        except AssertionError as e:
            problems.append("\n".join([str(e), *getattr(e, "__notes__", ())]))
            print(f"PROBLEM {len(problems)} of {row}, {engines.subject.rkt.base}: {problems[-1]}", flush=True)
            engines.renew()
        else:
            if fault.what != KILL:
                messages[_message(result)].append(fault)
    stored = engines.subject.check_images(f"{row}, at the end")
    assert row in OF_IMAGES or stored == engines.subject.stored
    engines.subject.proves_usable()
    killed = sum(fault.what == KILL for fault in faults)
    for message, causes in sorted(messages.items()):
        print(f"{len(causes)} x {causes[0]}: {message}")
    print(
        f"{row}: {killed} kills, {len(faults) - killed} errors of {len(planned)}, {len(problems)} problems",
        flush=True,
    )
    assert not problems, "\n\n".join(problems)
