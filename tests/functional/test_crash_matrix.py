# SPDX-License-Identifier: Apache-2.0
"""The crash matrix: every command, killed before each call that changes something, or with each such call failing.

After each fault every command works on what is there, an image is absent or whole and verified, and one gc leaves nothing.
``make test`` does a random part (the seed is printed), ``make soak`` all of it.
"""

from __future__ import annotations

import os
import random
import re
from typing import TYPE_CHECKING

import pytest

from tests.lib.faults import CALLS, ERRORS, KILL, Tracer, errors, kills, some
from tests.lib.whole import NAME, PREFIX, Subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lib.faults import Fault
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

#: Faults of each row; -1 for all that there are.
FAULTS = int(os.environ.get("RKT_TEST_FAULTS", "1"))
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


@pytest.fixture(scope="module")
def subject(module_rkt: Rkt, images: Images) -> Subject:
    """The engine that all rows share."""
    print(f"seed {SEED}")
    return Subject(module_rkt, images)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.timeout(7200 if FAULTS < 0 else 300)
def test_faults(subject: Subject, row: str) -> None:
    """A command that is killed before a call, or whose call fails, leaves a state that is whole, and says why if it failed."""
    tracer = Tracer(subject.rkt)
    dice = random.Random(f"{SEED} {row}")
    start = ROWS[row]
    # Also where an earlier row failed half-way.
    subject.trust()
    subject.fetch()
    alone = tracer.calls(*start(subject))
    subject.check(f"{row}, undisturbed")
    names = sorted({*CALLS, *(name for group in ERRORS.values() for name in group)})
    everywhere = tracer.calls(*start(subject), everywhere=True, names=names)
    subject.check(f"{row}, undisturbed")
    faults: list[Fault] = [
        *some(kills(alone), FAULTS, dice),
        *some(
            kills({name: everywhere[name] for name in everywhere if name in CALLS}, everywhere=True),
            FAULTS,
            dice,
        ),
        *some(errors(everywhere), FAULTS, dice),
    ]
    for fault in faults:
        moment = f"seed {SEED}, {row}, {fault}"
        words = start(subject)
        result = tracer.run(fault, *words)
        if IMPORTING not in result.stderr:
            assert not OUR_TRACEBACK.search(result.stderr), (moment, result)
        # What cannot be written cannot be said.
        if result.status == 254 and fault.call != "write":
            assert result.stderr.strip(), (moment, result)
        subject.check(moment)
        assert subject.rkt.leaks() == [], moment
    subject.proves_usable()
    killed = sum(fault.what == KILL for fault in faults)
    print(f"{row}: {killed} kills, {len(faults) - killed} errors")
