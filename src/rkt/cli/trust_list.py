# SPDX-License-Identifier: Apache-2.0
"""``rkt trust list``: which rules decide about what, and which keys are trusted."""

from __future__ import annotations

import os

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation
    from rkt.config.settings import Settings
    from rkt.trust.keystore import Entry
    from rkt.trust.rules import Rule

_RULE_HEADINGS = ["RULE FOR", "ASKS FOR", "GOING BACK", "STATE", "FILE"]
_HEADINGS = ["PREFIX", "FINGERPRINT", "IDENTITIES", "STATE", "FILE"]
#: Members that every row has, of one that is about no key.
_EMPTY: dict[str, Any] = {"prefix": "", "fingerprint": "", "identities": [], "masked_by": "", "local": False}
#: Of a requirement, as files have them.
_MEMBERS = frozenset(("kind", "keys", "lookaside", "key", "issuer", "identity", "root", "builder"))


def run(invocation: Invocation) -> int:
    """Print the files of the key store; one that cannot be used is an error, as it is for every verification."""
    from rkt.cli.output import print_json, print_table, write
    from rkt.trust.keystore import Keystore, name_prefixes

    store = Keystore(invocation.settings)
    name = _name(invocation.values["name"])
    rules = _rules(name, invocation.settings)
    entries = store.entries()
    if name:
        above = name_prefixes(name)
        entries = [entry for entry in entries if not entry.prefix or entry.prefix in above]
        counting = store.listing(name).keys
    rows = [_row(entry) for entry in entries]
    if name:
        for row in rows:
            file = counting.get(row["fingerprint"])
            row["counts"] = file is not None and file.path == row["file"]
    if invocation.values["format"]:
        print_json([*rules, *rows], pretty=invocation.values["format"] == "json-pretty")
        return 0
    legend = not invocation.values["no-legend"]
    if rules:
        table = [_RULE_HEADINGS] if legend else []
        table += [_rule_row(row, name) for row in rules]
        print_table(table)
        if rows and legend:
            write("\n")
    table = [_HEADINGS] if legend and (rows or not rules) else []
    for row in rows:
        state = row["state"]
        if name and state == "trusted" and not row["counts"]:
            state = "not for this name"
        prefix = row["prefix"] or "(every name)"
        table.append([prefix, row["fingerprint"], "; ".join(row["identities"]), state, row["file"]])
    print_table(table)
    return 0


def _name(text: str) -> str:
    """The name of an image as rules and keys have it, of whatever way to write it."""
    from rkt.fetch import reference as references
    from rkt.fetch.oci_reference import parse_docker

    if not text:
        return ""
    if text.startswith("docker:"):
        return parse_docker(references.parse_reference(text).location).name
    first, slash, _ = text.partition("/")
    if slash and ":" in first:
        return parse_docker(text).name
    # Without what says which version of it.
    return text.partition("@")[0].partition(":")[0].partition(",")[0]


def _rules(name: str, settings: Settings) -> list[dict[str, Any]]:
    """The rules of the trust policy, and its default; with a name those that concern it."""
    from rkt.trust.compiled import read_policy

    policy = read_policy(settings)
    deciding = policy.rules_for(name) if name else []
    rows = []
    for rule in policy.rules:
        if name and not _covers(rule.prefix, name):
            continue
        rows.append(
            {
                "kind": "rule",
                **_EMPTY,
                "prefix": rule.prefix,
                "state": _state(rule),
                "local": os.path.dirname(os.path.dirname(rule.path)) == settings.local_config_dir,
                "file": rule.path,
                "match": "all" if rule.match_all else "any",
                "requirements": [
                    {
                        member: value
                        for member, value in each.as_dict().items()
                        if value and member in _MEMBERS
                    }
                    for each in rule.requirements
                ],
                "rollback": rule.rollback,
                "asks_for": _asked(rule),
            }
        )
        if name:
            rows[-1]["counts"] = rule in deciding
    if policy.paths:
        words = {
            "keystore": "openpgp keystore",
            "refuse": "refused",
        }
        row = {
            "kind": "default",
            **_EMPTY,
            "state": "in force",
            "file": policy.default_path,
            "default": policy.default,
        }
        rows.append({**row, "asks_for": words[policy.default]})
        if name:
            rows[-1]["counts"] = not deciding
    return rows


def _state(rule: Rule) -> str:
    problems = [each.problem for each in rule.requirements if each.problem]
    if problems and (rule.match_all or len(problems) == len(rule.requirements)):
        return f"refuses everything: {problems[0]}"
    return "in force"


def _covers(prefix: str, name: str) -> bool:
    from rkt.trust.rules import rule_name

    return f"{rule_name(name)}/".startswith(f"{prefix}/")


def _asked(rule: Rule) -> str:
    from rkt.trust.rule_files import summary

    return summary(rule)


def _rule_row(row: dict[str, Any], name: str) -> list[str]:
    from rkt.trust.rules import shown_name

    state = row["state"]
    if name and state == "in force":
        state = (
            "decides" if row["counts"] else "a longer prefix decides" if row["prefix"] else "a rule decides"
        )
    prefix = shown_name(row["prefix"]) or "(all others)"
    return [prefix, row["asks_for"], row.get("rollback", "-"), state, row["file"] or "-"]


def _row(entry: Entry) -> dict[str, Any]:
    state = "mask" if entry.empty else "masked" if entry.masked_by else "trusted"
    problem = ""
    identities: list[str] = []
    if not entry.empty:
        identities, problem = _describe(entry)
        if problem and state == "trusted":
            state = f"does not count: {problem}"
    return {
        "kind": "key",
        "prefix": entry.prefix,
        "fingerprint": entry.fingerprint,
        "identities": identities,
        "state": state,
        "masked_by": entry.masked_by,
        "local": entry.local,
        "file": os.path.abspath(entry.path),
    }


def _describe(entry: Entry) -> tuple[list[str], str]:
    """Identities of a key, and why it cannot count."""
    import time

    from rkt.errors import RktError
    from rkt.trust.keys import load_keys

    try:
        key = load_keys(entry.path)[0]
    except RktError as e:
        return [], e.message
    if key.fingerprint != entry.fingerprint:
        return key.identities, f"it is another key, {key.fingerprint}"
    return key.identities, key.problem(int(time.time()))


COMMAND = Command(
    name="trust list",
    summary="list trusted keys and rules",
    description=(
        "Rules of the trust policy first, where there are any: the prefix of image names that each is about, which signatures it "
        "asks for, what going back to an older signed version means, and its file. The rules with the longest prefix that "
        "covers a name decide about it; where none does, the line of all others does.\n\n"
        "One line for each file of the key store: the prefix of image names that it is about, the fingerprint, who the "
        "key says it belongs to, and its state: trusted; masked, by an empty file that takes it back; mask, for such an "
        "empty file; or why the key does not count, such as that it expired."
    ),
    flags=(
        Flag(
            name="name",
            default="",
            metavar="NAME",
            help="only what concerns this image, a name or a docker:// reference, and what decides about it",
        ),
        Flag(name="no-legend", kind=BOOL, default=False, help="leave out the line of headings"),
        FORMAT_FLAG,
    ),
    examples=(
        ("rkt trust list", "see every key"),
        ("rkt trust list --name=example.com/app", "see which keys count for one image"),
        ("rkt trust list --name=docker://alpine", "see which rule decides about an image of Docker Hub"),
    ),
    run=run,
)
