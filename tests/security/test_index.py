# SPDX-License-Identifier: Apache-2.0
"""Where each invariant of docs/security.md, and each thing that issue 7 wants refused, is tested.

A sentence without a test, a test that is not there, and an invariant without a sentence fail here.
"""

from __future__ import annotations

import ast
import functools
import os
import re

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_COSIGN = "unit/trust/test_verify_cosign.py::test_refused"
_KEYLESS = "unit/trust/test_verify_keyless.py::test_refused"
_OPENPGP = "security/test_trust_invariants.py"
#: What must be refused to tests, each with words of its own that stand there: a row's name, or a part of the docstring.
REFUSED = {
    "signature for another digest": (
        (_COSIGN, "another digest"),
        (_KEYLESS, "signature for another digest"),
        (
            "unit/trust/test_verify_simple_signing.py::test_signature_for_another_digest_contradicts",
            "another image",
        ),
    ),
    "signature for another name": (
        (_COSIGN, "another name"),
        (
            "unit/trust/test_verify_simple_signing.py::test_name_that_is_signed_must_be_the_one_asked_for",
            "another name",
        ),
    ),
    "expired certificate": ((_KEYLESS, "expired certificate"),),
    "wrong identity": ((_KEYLESS, "wrong identity"),),
    "wrong issuer": ((_KEYLESS, "wrong issuer"),),
    "swapped log entry": ((_KEYLESS, "swapped log entry"),),
    "weak key": (
        ("unit/trust/test_verify_cosign.py::test_weak_keys", "RSA with 1024 bits"),
        ("unit/trust/test_openpgp.py::test_weak_keys_and_digests_are_refused", "rsa1024"),
    ),
    "weak digest": (
        (_COSIGN, "made with SHA-1"),
        (f"{_OPENPGP}::test_signature_that_must_not_count", "SG5 digest SHA-1"),
    ),
    "revoked key": ((f"{_OPENPGP}::test_signature_that_must_not_count", "SG4 key revoked"),),
    "expired key": ((f"{_OPENPGP}::test_signature_that_must_not_count", "SG4 key expired"),),
    "clear-signed message": ((f"{_OPENPGP}::test_one_form_is_not_taken_for_the_other", "clear-signed text"),),
    "inline message": (
        (f"{_OPENPGP}::test_one_form_is_not_taken_for_the_other", "no valid signatures found"),
    ),
    "two signatures of which one is bad": (
        (f"{_OPENPGP}::test_wrong_signature_refuses_beside_a_good_one", "does not fit"),
        (
            "unit/trust/test_verify_cosign.py::test_a_wrong_one_beside_a_good_one",
            "by the same signer, is wrong",
        ),
    ),
    "forged status lines through file names": (
        (f"{_OPENPGP}::test_status_lines_cannot_be_forged", "name=FORGED"),
    ),
    "forged status lines through notations": (
        (f"{_OPENPGP}::test_status_lines_cannot_be_forged", "notation(b"),
    ),
    "empty or unreadable key ring": ((f"{_OPENPGP}::test_ring_without_keys_refuses", 'b"garbage"'),),
    "unknown key in a policy file": (
        (
            "unit/trust/test_rules.py::test_whatever_is_not_understood_is_refused_with_its_line",
            "unknown member",
        ),
    ),
    "duplicate key in a policy file": (
        ("unit/trust/test_rules.py::test_whatever_is_not_understood_is_refused_with_its_line", "twice"),
    ),
    "policy without default": (
        ("unit/trust/test_rules.py::test_a_policy_without_default_is_none", "default"),
    ),
    "older signed version of a name": (
        ("functional/test_trust_policy.py::test_an_older_signed_version_is_refused_or_loud", "SG11"),
    ),
}


def look(test: str) -> tuple[ast.FunctionDef, str, str]:
    """A test, the docstring of its file, and the text of its file."""
    path, _, name = test.partition("::")
    with open(os.path.join(TESTS, path), encoding="utf-8") as stream:
        text = stream.read()
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node, ast.get_docstring(tree) or "", text
    raise AssertionError(f"there is no test {test}")


def words_of(text: str) -> set[str]:
    """Identifiers: ``SG1`` is no part of ``SG10``."""
    return set("".join(c if c.isalnum() else " " for c in text).split())


@functools.cache
def document() -> str:
    """What holds."""
    with open(os.path.join(os.path.dirname(TESTS), "docs", "security.md"), encoding="utf-8") as stream:
        return stream.read()


def listed() -> list[str]:
    """The invariants that there are, as the document lists them."""
    line = next(line for line in document().splitlines() if line.startswith("All of them: "))
    found = []
    for family, last in re.findall(r"\b([A-Z]+)1(?: to \1([0-9]+))?", line):
        found += [f"{family}{number}" for number in range(1, int(last or 1) + 1)]
    return found


def rows() -> dict[str, tuple[str, list[str]]]:
    """Of each invariant its sentence and its tests, ``FILE::NAME``."""
    found = {}
    for match in re.finditer(r"^\| ([A-Z]+[0-9]+) \| (.*?) \| (.*?) \|$", document(), re.MULTILINE):
        name, sentence, tests = match.groups()
        assert name not in found, f"{name} is there twice"
        links = re.findall(r"\[(\w+)\]\(\.\./tests/([^)]+)\)", tests)
        found[name] = (sentence, [f"{path}::{test}" for test, path in links])
    return found


def test_no_invariant_is_left_out() -> None:
    """Every invariant has one row, in the order of the list."""
    assert list(rows()) == listed()
    assert len(listed()) > 100


@pytest.mark.parametrize("invariant", rows())
def test_each_invariant_has_its_tests(invariant: str) -> None:
    """A sentence is one, and names tests that are there; only what there is nothing of yet has none, and says of what."""
    sentence, tests = rows()[invariant]
    if sentence.startswith("not yet: "):
        assert not tests, "there is something of it by now"
        return
    assert sentence.endswith("."), "no sentence"
    assert tests, "nothing tests it"
    for test in tests:
        node, file, _ = look(test)
        # Issue 7, 4: those of signatures name what they hold.
        assert not invariant.startswith("SG") or invariant in words_of(f"{ast.get_docstring(node)} {file}"), (
            test
        )


@pytest.mark.parametrize("what", REFUSED)
def test_each_thing_that_must_be_refused_has_its_tests(what: str) -> None:
    """Issue 7, 3: the test is there, and so is the row in it."""
    for test, words in REFUSED[what]:
        _, _, text = look(test)
        assert words in text, test
