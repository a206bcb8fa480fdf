# SPDX-License-Identifier: Apache-2.0
"""Runs targets under atheris, which prefers inputs that reach code nobody reached before.

Each target has a process of its own, forked when everything is imported and instrumented, so that a short run of all of
them costs that once. What breaks a promise is written down, cut to what matters, and the run goes on: one known bug hides
no other. ``make fuzz`` calls this, and so does ``tests/fuzz/test_targets.py``; see docs/devel/fuzzing.md.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tests.fuzz.target import Target

ROOT = Path(__file__).parent.parent.parent
#: What is looked into for new paths: our code, and what it leaves the reading to.
INSTRUMENTED = ["rkt", "tomllib", "html", "_markupbase"]
#: Instrumented code is slower, and so is one that shares its processor.
PATIENCE_SECONDS = 5.0
#: Where Python has no say, the engine ends the process and keeps the input.
HANG_SECONDS = 60
MINIMISE_SECONDS = 10.0
MEMORY_BYTES = 4 << 30


class _Hang(Exception):
    """One input takes too long."""


def failure(target: Target, data: bytes) -> tuple[str, str] | None:
    """What is wrong with how an input is read: where and what, and the whole traceback; None when all holds."""
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE_SECONDS * 2)
    try:
        target.accepts(data, patience_seconds=PATIENCE_SECONDS)
    except Exception as e:  # noqa: BLE001 - that is what is looked for
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        frames = traceback.extract_tb(e.__traceback__)
        ours = [frame for frame in frames if f"{os.sep}rkt{os.sep}" in frame.filename] or frames
        words = str(e) if isinstance(e, AssertionError) else type(e).__name__
        place = f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}"
        return f"{place} {words[:80]}", "".join(traceback.format_exception(e))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def minimised(data: bytes, fails: Callable[[bytes], bool], seconds: float) -> bytes:
    """A shorter input that still fails: pieces are cut out for as long as that helps."""
    deadline = time.monotonic() + seconds
    size = max(1, len(data) // 2)
    while size:
        at = 0
        while at < len(data) and time.monotonic() < deadline:
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


class Run:
    """One target, in its own process."""

    def __init__(self, target: Target, options: argparse.Namespace, say: Callable[[str], object]) -> None:
        self._target = target
        self._findings: Path = options.findings
        self._say = say
        self._cpu_seconds: float = options.cpu_seconds or float("inf")
        self._deadline: float = time.monotonic() + (options.seconds or float("inf"))
        self._known: set[str] = set()
        self._count = 0
        self._started = time.process_time()

    def one(self, data: bytes) -> None:
        """Called by atheris; ends the process when its time is over."""
        self._count += 1
        found = failure(self._target, data)
        if found is not None and found[0] not in self._known:
            self._keep(data, *found)
        if time.process_time() - self._started > self._cpu_seconds or time.monotonic() > self._deadline:
            self.end()

    def end(self) -> None:
        """Report and leave; libFuzzer has nothing to add."""
        self._say(f"{self._target.name}: {self._count} inputs, {len(self._known)} findings")
        os._exit(1 if self._known else 0)

    def _keep(self, data: bytes, where: str, text: str) -> None:
        self._known.add(where)

        def fails(shorter: bytes) -> bool:
            found = failure(self._target, shorter)
            return found is not None and found[0] == where

        data = minimised(data, fails, MINIMISE_SECONDS)
        name = hashlib.sha256(data).hexdigest()[:12]
        directory = self._findings / self._target.name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
        (directory / f"{name}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
        self._say(f"{self._target.name}: FOUND {where}: {directory / name}: {data[:60]!r}")


def _hang(number: int, frame: FrameType | None) -> None:
    raise _Hang("it hangs")


def run_target(target: Target, options: argparse.Namespace, scratch: Path) -> None:
    """Become the process that reads inputs; does not return."""
    import atheris

    out = os.dup(2)
    # libFuzzer has words about itself for each target, and says nothing else that is not in our report.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    run = Run(target, options, lambda text: os.write(out, f"{text}\n".encode()))
    words = scratch / f"{target.name}.words"
    escaped = ["".join(f"\\x{byte:02x}" for byte in piece) for piece in target.pieces if len(piece) <= 60]
    words.write_text("".join(f'"{piece}"\n' for piece in escaped), encoding="ascii")
    corpus = options.corpus / target.name if options.corpus else scratch / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGVTALRM, _hang)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    arguments = [
        sys.argv[0],
        f"-seed={options.seed}",
        f"-dict={words}",
        f"-max_len={target.max_bytes}",
        f"-timeout={HANG_SECONDS}",
        f"-artifact_prefix={options.findings}/{target.name}-",
        "-rss_limit_mb=0",
        "-verbosity=0",
        "-reload=0",
        str(corpus),
        str(target.directory),
    ]
    atheris.Setup(arguments, run.one)
    try:
        atheris.Fuzz()
    finally:
        run.end()


def run_all(names: list[str], options: argparse.Namespace) -> int:
    """Each target in a process, a few at a time; how many ended by a finding."""
    import atheris

    # It names each module that it instruments.
    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS

    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        print(f"no target is called {unknown[0]}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 1
    waiting = [TARGETS[name] for name in names or TARGETS]
    options.findings.mkdir(parents=True, exist_ok=True)
    running: dict[int, str] = {}
    failed = 0
    scratch = Path(tempfile.mkdtemp(prefix="rkt-fuzz-"))
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                target = waiting.pop(0)
                pid = os.fork()
                if pid == 0:
                    run_target(target, options, scratch)
                running[pid] = target.name
            pid, status = os.wait()
            name = running.pop(pid)
            if status:
                failed += 1
                if os.waitstatus_to_exitcode(status) != 1:
                    print(
                        f"{name}: ended with {os.waitstatus_to_exitcode(status)}, see {options.findings}/{name}-*",
                        file=sys.stderr,
                    )
    finally:
        shutil.rmtree(scratch)
    return failed


def main() -> int:
    """Read arguments, run, and say where the findings are."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.engine", description=__doc__)
    parser.add_argument("targets", nargs="*", help="all, unless some are named")
    parser.add_argument("--seconds", type=int, default=0, help="how long each target runs")
    parser.add_argument("--cpu-seconds", type=float, default=0.0, help="likewise, of the processor")
    parser.add_argument("--seed", type=int, default=0, help="chosen unless given")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--corpus", type=Path, help="keep what reached new code; begin with what is there")
    parser.add_argument("--findings", type=Path, default=ROOT / "build" / "fuzz" / "findings")
    options = parser.parse_args()
    options.seed = options.seed or random.SystemRandom().randrange(1, 1 << 31)
    print(f"seed {options.seed}", file=sys.stderr)
    failed = run_all(options.targets, options)
    if failed:
        print(f"{failed} targets with findings, in {options.findings}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
