# SPDX-License-Identifier: Apache-2.0
"""What a fuzz target is, and how one input is judged.

A target is a function that reads bytes and asserts what must hold of what it read. It raises the errors that its reader
documents for input that is refused; any other exception, a failed assertion, and more time than ``PATIENCE_SECONDS`` are
findings. The functions do not know who chooses the bytes: the corpus, a few random changes of it, or atheris
(docs/devel/fuzzing.md).
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rkt.errors import RktError
from tests.lib.pace import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).parent.parent / "data" / "fuzz"
#: Longest time of the processor for one input.
PATIENCE_SECONDS = 1.0 * SLOWNESS
#: How much more memory than ever before one input may take.
MAX_GROWTH_BYTES = 64 << 20
#: Longest message about bytes from elsewhere, in characters.
MAX_MESSAGE_LENGTH = 4000


def _largest_bytes() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader of hostile bytes.

    Attributes:
        name: also that of its directory in ``tests/data/fuzz``.
        read: reads an input and asserts what must hold.
        refuses: what the reader documents to raise; none for one that reads everything.
        pieces: bytes that mean something to it.
        max_bytes: longest input that is worth trying.
        shows_all: messages may repeat the input whole, for it comes from the command line.
    """

    name: str
    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = ()
    pieces: tuple[bytes, ...] = ()
    max_bytes: int = 4096
    shows_all: bool = False

    @property
    def directory(self) -> Path:
        """Where its corpus is."""
        return CORPUS / self.name

    def corpus(self) -> dict[str, bytes]:
        """File name to content."""
        return {path.name: path.read_bytes() for path in sorted(self.directory.iterdir())}

    def accepts(self, data: bytes, *, patience_seconds: float = PATIENCE_SECONDS) -> bool:
        """Judge one input; whether it was accepted.

        Raises:
            AssertionError: what must hold does not, or it took too long.
            Exception: the reader raised what it does not document.
        """
        started, largest = time.thread_time(), _largest_bytes()
        refusal: Exception | None = None
        try:
            self.read(data)
        except self.refuses as e:
            refusal = e
        assert time.thread_time() - started <= patience_seconds, "it took too long"
        assert _largest_bytes() - largest <= MAX_GROWTH_BYTES, "it took too much memory"
        if isinstance(refusal, RktError) and not self.shows_all:
            assert len(refusal.message) <= MAX_MESSAGE_LENGTH, "the message is too long"
        return refusal is None


@dataclass(frozen=True)
class Text:
    """Text that a reader of ``str`` gets: what is no UTF-8 arrives as the command line would hand it over."""

    read: Callable[[str], object]
    errors: str = field(default="surrogateescape")

    def __call__(self, data: bytes) -> object:
        return self.read(data.decode("utf-8", self.errors))
