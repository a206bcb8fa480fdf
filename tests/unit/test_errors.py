# SPDX-License-Identifier: Apache-2.0
import errno

import pytest

from rkt.errors import (
    MAX_QUOTED_LENGTH,
    CannotVerify,
    NotVerified,
    RktError,
    SignatureMismatch,
    quoted,
    reason_of,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("freebsd", '"freebsd"'),
        ("", '""'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("é", '"é"'),
        ("\x1b[31m\n", '"\\x1b[31m\\n"'),
        ("\u202e", '"\\u202e"'),
        ("\udcff", '"\\udcff"'),
    ],
)
def test_quoted_text_is_inert(text: str, expected: str) -> None:
    """Quoted text carries no character that a terminal acts on."""
    assert quoted(text) == expected


def test_quoted_text_is_bounded() -> None:
    """A value of any length gives a short message."""
    assert len(quoted("x" * 5_000_000)) == MAX_QUOTED_LENGTH + 3


@pytest.mark.parametrize("kind", [SignatureMismatch, CannotVerify])
def test_could_not_check_is_not_verified(kind: type[RktError]) -> None:
    """Whoever catches "not verified" catches "could not check" too."""
    error = kind("no key", hint="rkt trust")
    assert isinstance(error, NotVerified)
    assert (str(error), error.message, error.hint, error.exit_status) == (
        "no key",
        "no key",
        "rkt trust",
        254,
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RktError("no such pod", hint="rkt list"), "no such pod"),
        (OSError(errno.EMFILE, "Too many open files", b"/dev/null"), "/dev/null: Too many open files"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (ValueError("a/../b"), "a/../b"),
        (KeyError(), "KeyError"),
    ],
)
def test_reason(error: Exception, expected: str) -> None:
    """Within a sentence an error is words for people, without the kernel's numbers."""
    assert reason_of(error) == expected
