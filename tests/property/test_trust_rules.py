# SPDX-License-Identifier: Apache-2.0
"""The trust policy against what its documentation says, on rules that nobody thought of."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from rkt.errors import ConfigError
from rkt.trust.rules import Policy, Requirement, Rule, parse_policy

COMPONENTS = st.sampled_from(("a", "b", "ab", "a.b", "a_b"))
HOSTS = st.sampled_from(("h.example", "h.example:5000", "h.exampleb", "registry-1.docker.io"))
NAMES = st.builds(lambda host, rest: "/".join((host, *rest)), HOSTS, st.lists(COMPONENTS, max_size=3))
WHOLE = '[[rule]]\nprefix = "a.example"\n'
#: What a file may be made of, in any order and number.
GOOD = (
    f'{WHOLE}all = [ {{ kind = "unsigned" }} ]',
    f'{WHOLE}any = [ {{ kind = "cosign", key = "/k" }} ]\nrollback = "refuse"',
    "# [[rule]]",
)
PARTS = st.lists(st.sampled_from(GOOD), max_size=4) | st.lists(
    st.sampled_from(
        (
            *GOOD,
            "version = 1",
            'default = "refuse"',
            'default = "keystore"',
            "[[rule]]",
            'prefix = "a.example"',
            'all = [ { kind = "unsigned" } ]',
            'any = [ { kind = "cosign", key = "/k" } ]',
            'all = [ { kind = "cosign", key = "/k" }, { kind = "openpgp", keys = "keystore" } ]',
            "all = []",
            'rollback = "refuse"',
            'rollback = "no"',
            "extra = 1",
            "[rule.more]",
            "",
        )
    ),
    max_size=8,
)


def rule(prefix: str) -> Rule:
    """A rule."""
    return Rule(prefix=prefix, match_all=True, requirements=[Requirement(kind="unsigned")], path="/x")


@given(st.lists(NAMES, max_size=6), NAMES)
def test_rules_that_decide_are_the_longest_that_cover(prefixes: list[str], name: str) -> None:
    """A prefix covers a name by whole components; of those that do the longest count, all of them, and no other (SG2)."""
    found = [each.prefix for each in Policy(rules=[rule(prefix) for prefix in prefixes]).rules_for(name)]
    parts = name.split("/")
    covering = [prefix for prefix in prefixes if parts[: len(prefix.split("/"))] == prefix.split("/")]
    longest = max((len(prefix) for prefix in covering), default=0)
    assert found == [prefix for prefix in covering if len(prefix) == longest]


@given(st.booleans(), PARTS)
def test_a_file_is_understood_in_full_or_not_at_all(has_version: bool, parts: list[str]) -> None:
    """Whatever is accepted says exactly what its lines say; nothing but an error of the configuration comes of the rest (SG14)."""
    text = "\n".join(["version = 1"] * has_version + parts)
    lines = text.split("\n")
    try:
        default, rules = parse_policy(text.encode(), "/x")
    except ConfigError:
        return
    assert lines.count("version = 1") == 1
    assert not {"extra = 1", "all = []", 'rollback = "no"', "[rule.more]"} & set(lines)
    assert [f'default = "{default}"'] * bool(default) == [
        line for line in lines if line.startswith("default")
    ]
    assert len(rules) == lines.count("[[rule]]") == lines.count('prefix = "a.example"')
    asked = [line for line in lines if line.startswith(("all", "any"))]
    assert [each.match_all for each in rules] == [line.startswith("all") for line in asked]
    assert [len(each.requirements) for each in rules] == [line.count("{") for line in asked]
    assert [each.rollback for each in rules].count("refuse") == lines.count('rollback = "refuse"')


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    """Bytes that nobody meant as a policy are an error, and only that."""
    with contextlib.suppress(ConfigError):
        parse_policy(b"version = 1\n" + data, "/x")
