# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.cli.command import BOOL, DURATION, LIST, Command, Flag, Invocation
from rkt.cli.help import command_help, option_head, program_help


def _nothing(_invocation: Invocation) -> int:
    return 0


PROBE = Command(
    name="probe",
    summary="look closely",
    run=_nothing,
    usage="[--volume=…] IMAGE [-- ARG… [---]]…",
    description="First paragraph, " + "long " * 40 + ".\n\nSecond.\n\n    kept   as it is",
    flags=(
        Flag(name="zulu", kind=BOOL, default=False, help="last"),
        Flag(name="alpha", default="x", help="first", choices=("x", "y")),
        Flag(name="secret", hidden=True),
        Flag(name="gone", deprecated="alpha"),
    ),
    app_flags=("user", "exec", "cap-retain"),
    examples=(("rkt probe x", "Look at x."),),
)


def test_sections_stand_in_order() -> None:
    """Name, usage, description, options, app options, examples, global options."""
    text = command_help(PROBE, 80)
    heads = [line.rstrip(":") for line in text.splitlines() if line and not line.startswith(" ")]
    assert heads == [
        "NAME",
        "USAGE",
        "DESCRIPTION",
        "OPTIONS",
        "APP OPTIONS (after an image)",
        "EXAMPLES",
        "GLOBAL OPTIONS",
    ]


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    """Text is wrapped; only words that cannot be broken may stick out."""
    for line in command_help(PROBE, columns).splitlines():
        assert len(line) <= columns or len(line.split()) == 1


def test_hidden_and_deprecated_flags_are_left_out() -> None:
    """What should not be used is not offered."""
    text = command_help(PROBE, 80)
    assert "--secret" not in text
    assert "--gone" not in text
    assert "--cap-retain" not in text


def test_options_are_sorted_and_show_their_words() -> None:
    """Alphabetical order, allowed words in parentheses."""
    text = command_help(PROBE, 80)
    assert text.index("--alpha") < text.index("--zulu")
    assert "first (x, y)" in text


@pytest.mark.parametrize(
    ("flag", "head"),
    [
        (Flag(name="a", kind=BOOL, default=False), "--a=false"),
        (Flag(name="a", kind=BOOL, default=True), "--a=true"),
        (Flag(name="a", default="x"), '--a="x"'),
        (Flag(name="a", default=""), '--a=""'),
        (Flag(name="a", default="", metavar="FILE"), "--a=FILE"),
        (Flag(name="a", kind=LIST, default=[]), "--a=[]"),
        (Flag(name="a", default="", bare="default"), "--a[=default]"),
        (Flag(name="a", kind=DURATION, default=1800.0), "--a=30m"),
    ],
)
def test_an_option_shows_its_default(flag: Flag, head: str) -> None:
    """Defaults are shown as they would be typed, strings quoted."""
    assert option_head(flag) == head


def test_the_list_of_commands_leaves_hidden_ones_out() -> None:
    """Groups are flattened, hidden commands absent."""
    text = program_help(
        [PROBE, PROBE.replace(name="image probe"), PROBE.replace(name="ghost", hidden=True)], 80
    )
    assert "  image probe   look closely\n" in text
    assert "ghost" not in text
