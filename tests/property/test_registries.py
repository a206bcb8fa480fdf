# SPDX-License-Identifier: Apache-2.0
"""What registries and files of credentials say, whatever it is, is understood or refused; never anything in between."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rkt.config.authfile import AuthFile, parse_auth_file
from rkt.errors import ConfigError
from rkt.fetch.challenge import parse_challenges

WORD = st.text("abcXYZ019-_.", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["auths", "auth", "username", "password", "identitytoken", "credHelpers", "credsStore", "a/b"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(WORD, st.dictionaries(WORD.map(str.lower), VALUE, max_size=3)), max_size=3))
def test_challenges_are_read_back(wanted: list[tuple[str, dict[str, str]]]) -> None:
    """Schemes and parameters come out as they went in, whatever quoted strings hold."""

    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        f"{scheme} {', '.join(f'{name}={quoted(value)}' for name, value in parameters.items())}"
        for scheme, parameters in wanted
    )
    assert parse_challenges(text) == [(scheme.lower(), parameters) for scheme, parameters in wanted]


@given(st.text(max_size=200))
def test_challenges_end(text: str) -> None:
    """Any text at all has an end, and no value that is not in it."""
    for _, parameters in parse_challenges(text):
        for value in parameters.values():
            assert set(value) <= set(text)


@given(JSON)
def test_credential_files(members: Any) -> None:
    """Any JSON at all is a file of credentials, or an error that names the file."""
    read: object
    try:
        read = parse_auth_file(members, "/x.json", 0)
    except ConfigError as e:
        read = e.message
    assert isinstance(read, AuthFile) or "/x.json" in str(read)
