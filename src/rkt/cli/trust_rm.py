# SPDX-License-Identifier: Apache-2.0
"""``rkt trust rm``: take trust back, in keys or by rules; a vendor's key is masked, since its file is not ours to remove."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.errors import Ambiguous, InvalidManifest, NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.trust.keystore import Entry

_MIN_DIGITS = 8
_HEX = frozenset("0123456789abcdef")


def run(invocation: Invocation) -> int:
    """Remove or mask each key named; nothing is changed when one of them is not found."""
    from rkt.cli.output import message
    from rkt.trust.keystore import Keystore

    if not invocation.words:
        if invocation.values["prefix"] and not (invocation.values["mask"] or invocation.values["root"]):
            return _remove_rules(invocation)
        raise UsageError(
            "must provide at least one fingerprint, or --prefix of a rule", hint="rkt trust list shows them"
        )
    settings = invocation.settings
    store = Keystore(settings)
    scope = _scope(invocation)
    entries = store.entries()
    chosen = [_choose(word, entries, scope) for word in invocation.words]
    if invocation.values["mask"]:
        if scope is None:
            raise UsageError("--mask needs --prefix or --root: say for which names the key is not to count")
        for fingerprint, _ in chosen:
            message(settings, f'masked key {fingerprint} by "{store.mask(fingerprint, scope)}"')
        return 0
    for fingerprint, found in chosen:
        if not found:
            raise NotFound(
                f"key {fingerprint} is not trusted for {_words(scope)}",
                hint="rkt trust list shows which is trusted for what; --mask keeps one from counting below its prefix",
            )
    for _, found in chosen:
        for entry in found:
            if entry.local:
                store.remove(entry)
                message(settings, f'removed "{entry.path}"')
        left = [entry for entry in found if not entry.local]
        for entry in left:
            path = store.mask(entry.fingerprint, entry.prefix)
            message(settings, f'masked the vendor\'s key "{entry.path}" by "{path}"')
    return 0


def _remove_rules(invocation: Invocation) -> int:
    from rkt.cli.output import message
    from rkt.trust.rule_files import asked, remove_rules, typed_prefix

    settings = invocation.settings
    prefix = typed_prefix(invocation.values["prefix"])
    removed = remove_rules(prefix, settings)
    for rule in removed.rules:
        message(settings, f"took back the rule for {prefix}, which asked for {asked(rule)}")
    for path in removed.paths:
        message(settings, f'removed "{path}"')
    if removed.kept:
        message(settings, f'kept "{removed.kept}", which has the default for all other images')
    return 0


def _scope(invocation: Invocation) -> str | None:
    """The prefix, empty for root keys, None for wherever the key is."""
    prefix, root = invocation.values["prefix"], invocation.values["root"]
    if prefix and root:
        raise UsageError("--root and --prefix usage mutually exclusive")
    if root:
        return ""
    if not prefix:
        return None
    from rkt.trust.keystore import name_components

    try:
        return "/".join(name_components(prefix))
    except InvalidManifest as e:
        raise UsageError(f"invalid --prefix: {e.message}") from None


def _choose(word: str, entries: list[Entry], scope: str | None) -> tuple[str, list[Entry]]:
    """The whole fingerprint that a word means, and the keys of that fingerprint in scope."""
    digits = word.replace(" ", "").removeprefix("0x").lower()
    if len(digits) < _MIN_DIGITS or not _HEX.issuperset(digits):
        raise UsageError(
            f'"{word}" is not a fingerprint, nor the first {_MIN_DIGITS} or more digits of one',
            hint="rkt trust list shows them",
        )
    known = sorted({entry.fingerprint for entry in entries if entry.fingerprint.startswith(digits)})
    if not known:
        raise NotFound(f"no key of the key store has the fingerprint {digits}", hint="rkt trust list")
    if len(known) > 1:
        raise Ambiguous(f"{digits} may be any of {', '.join(known)}", hint="give more digits")
    found = [
        entry
        for entry in entries
        if entry.fingerprint == known[0]
        and not entry.empty
        and (scope is None or entry.prefix == scope)
        and (entry.local or not entry.masked_by)
    ]
    return known[0], found


def _words(scope: str | None) -> str:
    return "anything" if scope is None else f'prefix "{scope}"' if scope else "every name"


COMMAND = Command(
    name="trust rm",
    summary="take back a key or a rule",
    usage="[--prefix=PREFIX | --root] [--mask] FINGERPRINT… | --prefix=PREFIX",
    description=(
        "Removes the key's file from the local key store, for one prefix, as a root key, or wherever it is. A key that "
        "the system's directory holds is masked by an empty local file instead. Images that only this key vouched for "
        "do not start any more.\n\n"
        "With --mask the empty file is written in any case: so a root key, or one of a shorter prefix, does not count "
        "for PREFIX and names below it. Trusting the key again (rkt trust) replaces the empty file; removing the file "
        "by hand ends the mask.\n\n"
        "With --prefix and no fingerprint, the rule for that prefix is removed that rkt trust wrote, with its copies of key "
        "files. What decides then is a rule for a shorter prefix, or the default."
    ),
    flags=(
        Flag(name="prefix", metavar="PREFIX", default="", help="only the trust for this prefix"),
        Flag(name="root", kind=BOOL, default=False, help="only the trust for every name"),
        Flag(name="mask", kind=BOOL, default=False, help="hide the key there, wherever it comes from"),
    ),
    examples=(
        ("rkt trust rm 8f3a2c41d0", "stop trusting a key, by the first digits of its fingerprint"),
        ("rkt trust rm --prefix=registry.example/team", "remove the rule for a vendor's namespace"),
        ("rkt trust rm --mask --prefix=example.com/db 8f3a2c41d0", "let a root key not count for some names"),
    ),
    run=run,
)
