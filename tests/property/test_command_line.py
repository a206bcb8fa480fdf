# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkt.cli.app_args import ALL_APP_FLAGS, APP_FLAGS, parse_mount
from rkt.cli.command import BOOL, LIST, Command, Flag, Invocation
from rkt.cli.network_args import parse_dns, parse_hosts, parse_nets
from rkt.cli.output import table
from rkt.cli.parse import GLOBAL_FLAGS, find, parse
from rkt.errors import RktError, printable
from rkt.schema.duration import parse_duration, render_duration

COMMANDS = ["run", "run-prepared", "list", "image list", "image rm", "help"]


def _nothing(_invocation: Invocation) -> int:
    return 0


RUN = Command(
    name="run",
    summary="x",
    run=_nothing,
    flags=(
        Flag(name="no-overlay", kind=BOOL, default=False),
        Flag(name="volume", kind=LIST, default=[]),
        Flag(name="net", default="", bare="default"),
        Flag(name="name", default=""),
    ),
    app_flags=ALL_APP_FLAGS,
)
FLAG_NAMES = [flag.name for flag in (*GLOBAL_FLAGS, *RUN.flags)] + list(APP_FLAGS)
TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
WORDS = st.lists(
    st.one_of(
        st.sampled_from(["--", "---", "", "-", "-h", "--help", "a", "b", *COMMANDS]),
        st.sampled_from(FLAG_NAMES).map(lambda name: f"--{name}"),
        st.tuples(st.sampled_from(FLAG_NAMES), TEXT).map(lambda pair: f"--{pair[0]}={pair[1]}"),
        TEXT,
    ),
    max_size=12,
)


@given(WORDS)
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    """No command line ends in anything but a reading or an error of ours."""
    try:
        found = find(
            words, COMMANDS, lambda name: (*RUN.flags, *GLOBAL_FLAGS) if name == "run" else GLOBAL_FLAGS
        )
        parse(found.words, RUN)
    except RktError:
        return


@given(
    st.lists(TEXT.filter(lambda word: word != "---"), max_size=8),
    TEXT.filter(lambda w: w[:1] not in {"", "-"}),
)
def test_arguments_reach_the_app_verbatim(arguments: list[str], image: str) -> None:
    """Whatever stands between -- and --- is the app's, unchanged and in order."""
    parsed = parse([image, "--", *arguments, "---", "second"], RUN)
    assert [(app.reference, app.args) for app in parsed.apps] == [(image, arguments), ("second", None)]


@given(st.integers(min_value=0, max_value=10**9))
def test_durations_survive_rendering(seconds: int) -> None:
    """A whole number of seconds reads back as itself."""
    assert parse_duration(render_duration(float(seconds))) == seconds


@pytest.mark.parametrize(
    "parser",
    [
        parse_duration,
        parse_mount,
        lambda text: parse_nets([text]),
        lambda text: parse_hosts([text]),
        lambda text: parse_dns([text], [], [], ""),
    ],
)
@given(text=st.text(alphabet=st.sampled_from("ab1:;=,.%+[]-/ \t٣é\0"), max_size=16))
def test_values_are_read_or_refused(parser: object, text: str) -> None:
    """No value of a flag ends in anything but a reading or an error of ours."""
    assert callable(parser)
    try:
        parser(text)
    except RktError:
        return


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    """What is shown has no character that a terminal acts on, but line feeds and tabs."""
    assert all(c.isprintable() or c in "\n\t" for c in printable(text))


@given(st.lists(st.lists(st.text(max_size=20), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_table_splits_into_its_cells(rows: list[list[str]]) -> None:
    """One line per row; splitting a line on runs of tabs gives the cells that are not empty."""
    lines = table(rows).split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert len([cell for cell in line.split("\t") if cell]) == len([cell for cell in row if cell])
