# SPDX-License-Identifier: Apache-2.0
"""Where each invariant of signatures, and each thing that issue 7 wants refused, is tested (issue 7, "Must show" 3 and 4).

A row that loses its test, or a test that no longer names it, fails here.
"""

from __future__ import annotations

import ast
import os

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: Invariant to tests that name it in their docstring, or in that of their file.
INVARIANTS = {
    "SG1": (
        "functional/test_docker_images.py::test_verdict",
        "security/test_signatures.py::test_unsigned_image_is_refused_whatever_else_is_switched_off",
        "unit/trust/test_judging.py::test_an_image_that_nobody_is_trusted_for_is_refused_with_the_command",
        "unit/trust/test_policy.py::test_no_signature_is_refused",
    ),
    "SG2": (
        "security/test_signatures.py::test_key_of_a_name_that_looks_alike_does_not_count",
        "unit/trust/test_keystore.py::test_key_for_a_registry_counts_for_its_images",
        "unit/trust/test_rules.py::test_the_longest_prefix_decides_alone",
    ),
    "SG3": (
        "security/test_fetch.py::test_a_name_that_is_not_in_the_manifest",
        "security/test_signatures.py::test_image_cannot_name_its_way_to_other_keys",
        "unit/trust/test_judging.py::test_a_finding_about_another_digest_vouches_for_nothing",
        "unit/trust/test_verify_cosign.py::test_names",
        "unit/trust/test_verify_simple_signing.py::test_signature_for_another_digest_contradicts",
        "unit/trust/test_verify_simple_signing.py::test_name_that_is_signed_must_be_the_one_asked_for",
    ),
    "SG4": (
        "security/test_signatures.py::test_expired_and_revoked_keys_in_the_store_do_not_count",
        "security/test_trust_invariants.py::test_wrong_signature_refuses_beside_a_good_one",
        "unit/trust/test_openpgp.py::test_key_whose_file_hides_its_expiry_is_refused_by_the_program",
    ),
    "SG5": (
        "unit/trust/test_keys.py::test_weak_keys_have_a_problem",
        "unit/trust/test_openpgp.py::test_weak_keys_and_digests_are_refused",
        "unit/trust/test_verify_cosign.py::test_weak_keys",
    ),
    "SG6": (
        "security/test_signatures.py::test_damaged_key_store_refuses_everything",
        "security/test_trust_invariants.py::test_ring_without_keys_refuses",
        "unit/trust/test_verify_cosign.py::test_key_files",
    ),
    "SG7": (
        "functional/test_trust.py::test_every_key_of_a_file_is_shown_and_trusted",
        "security/test_trust_invariants.py::test_all_keys_of_a_file_count",
        "unit/trust/test_verify_cosign.py::test_weak_keys",
    ),
    "SG8": (
        "security/test_signatures.py::test_signed_message_is_no_detached_signature",
        "security/test_trust_invariants.py::test_one_form_is_not_taken_for_the_other",
        "unit/trust/test_message.py::test_anything_else_is_refused",
    ),
    "SG9": (
        "security/test_signatures.py::test_identity_of_a_key_cannot_forge_a_verdict",
        "security/test_trust_invariants.py::test_status_lines_cannot_be_forged",
        "unit/trust/test_openpgp.py::test_status_is_read_exactly",
    ),
    "SG10": (
        "security/test_evidence.py::test_status_of_the_verifier",
        "security/test_evidence.py::test_the_command_imports_no_cryptography",
        "security/test_trust_invariants.py::test_payload_is_not_read_before_its_signature_is_good",
    ),
    "SG11": (
        "functional/test_trust_policy.py::test_an_older_signed_version_is_refused_or_loud",
        "unit/trust/test_newest.py::test_an_older_signed_image_is_refused_where_the_rule_says_so",
    ),
    "SG12": (
        "functional/test_keyless.py::test_from_registry_to_pod",
        "functional/test_trust_policy.py::test_refused_trusted_signed_run_and_refused_again",
        "unit/trust/test_judging.py::test_a_rule_that_asks_for_more_stops_the_next_start",
        "unit/trust/test_policy.py::test_removed_key_stops_the_next_start",
    ),
    "SG13": (
        "functional/test_dependencies.py::test_a_changed_layer_is_not_rendered",
        "functional/test_image_files.py::test_one_changed_byte_is_named",
    ),
    "SG14": (
        "unit/trust/test_judging.py::test_a_policy_that_is_not_understood_stops_every_start",
        "unit/trust/test_rules.py::test_whatever_is_not_understood_is_refused_with_its_line",
        "unit/trust/test_rules.py::test_a_policy_without_default_is_none",
        "unit/trust/test_verify_simple_signing.py::test_payload_that_is_not_understood_in_full_is_refused",
    ),
    "SG15": (
        "security/test_keyless.py::test_in_the_worker",
        "unit/trust/test_verify_cosign.py::test_provenance_refused",
        "unit/trust/test_verify_keyless.py::test_refused",
    ),
    "SG16": (
        "functional/test_lifecycle.py::test_insecure_options_stay_visible",
        "unit/trust/test_judging.py::test_an_unsigned_image_passes_only_where_a_rule_says_so_and_loudly",
        "unit/trust/test_policy.py::test_other_options_do_not_switch_verification_off",
        "unit/trust/test_policy.py::test_unverified_image_needs_the_option_each_time",
    ),
}

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


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_each_invariant_of_signatures_has_its_tests(invariant: str) -> None:
    """Issue 7, 4: the tests that hold an invariant are there, and name it."""
    for test in INVARIANTS[invariant]:
        node, file, _ = look(test)
        named = words_of(f"{ast.get_docstring(node)} {file}")
        assert invariant in named, test


def test_no_invariant_of_signatures_is_left_out() -> None:
    """All sixteen rows are there."""
    assert list(INVARIANTS) == [f"SG{number}" for number in range(1, 17)]


@pytest.mark.parametrize("what", REFUSED)
def test_each_thing_that_must_be_refused_has_its_tests(what: str) -> None:
    """Issue 7, 3: the test is there, and so is the row in it."""
    for test, words in REFUSED[what]:
        _, _, text = look(test)
        assert words in text, test
