# SPDX-License-Identifier: Apache-2.0
"""``rkt trust`` with flags that say which signatures are asked for: a rule of the trust policy instead of a key."""

from __future__ import annotations

import os

from rkt.cli.command import BOOL, LIST, Flag
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation
    from rkt.trust.rule_files import Written
    from rkt.trust.rules import Requirement

RULE_FLAGS = (
    Flag(
        name="cosign-key",
        kind=LIST,
        help="ask for a cosign signature by this public key, PEM; repeatable",
        metavar="FILE",
        completes="file",
    ),
    Flag(
        name="openpgp-key",
        kind=LIST,
        help="ask for an OpenPGP signature by a key of this file; repeatable",
        metavar="FILE",
        completes="file",
    ),
    Flag(
        name="keystore",
        kind=BOOL,
        default=False,
        help="ask for an OpenPGP signature by a key of the key store, as without any rule",
    ),
    Flag(
        name="lookaside",
        default="",
        help="where OpenPGP signatures of Docker and OCI images are, if not where the registry's configuration says",
        metavar="URL",
    ),
    Flag(
        name="keyless-identity",
        default="",
        help="ask for a keyless signature by this identity, such as a workflow's URL or an e-mail address",
        metavar="TEXT",
    ),
    Flag(name="keyless-issuer", default="", help="who must have vouched for the identity", metavar="URL"),
    Flag(
        name="keyless-root",
        default="",
        help="the trusted_root.json that certificates and logs are held against",
        metavar="FILE",
        completes="file",
    ),
    Flag(
        name="slsa-builder",
        default="",
        help="ask for SLSA provenance of this builder, signed by --slsa-key or as --keyless-… says",
        metavar="URL",
    ),
    Flag(
        name="slsa-key",
        default="",
        help="public key of who signs the provenance, PEM",
        metavar="FILE",
        completes="file",
    ),
    Flag(name="unsigned", kind=BOOL, default=False, help="ask for no signature"),
    Flag(name="all", kind=BOOL, default=False, help="of several: all that is asked for must be there"),
    Flag(name="any", kind=BOOL, default=False, help="of several: one of them must be there"),
    Flag(
        name="rollback",
        default="",
        help="what going back to an older signed version of a name means: warn, refuse, allow; default: warn",
        metavar="WORD",
        choices=("warn", "refuse", "allow"),
    ),
)


def asks_for_rule(invocation: Invocation) -> bool:
    """Whether a flag of a rule was given."""
    return any(flag.name in invocation.given for flag in RULE_FLAGS)


def write_rule(invocation: Invocation) -> int:
    """Write the rule and say what it means."""
    from rkt.cli.output import message
    from rkt.trust import rule_files
    from rkt.trust.extras import NO_LIBRARY, has_sigstore

    values, settings = invocation.values, invocation.settings
    if values["root"]:
        raise UsageError(
            "--root is for keys: a rule is about names below a prefix",
            hint='default = "refuse" in a file of trust.d is about all others',
        )
    if not values["prefix"]:
        raise UsageError(
            "--prefix is needed", hint="rkt trust --prefix=registry.example/team --cosign-key=FILE"
        )
    if invocation.words:
        raise UsageError(
            "a rule takes no PUBKEY: that would add to the key store",
            hint=f"--openpgp-key={invocation.words[0]} makes it part of the rule",
        )
    prefix = rule_files.typed_prefix(values["prefix"])
    requirements = _wanted(values)
    if not requirements:
        raise UsageError(
            "nothing is asked for",
            hint="--cosign-key=FILE, --openpgp-key=FILE, --keyless-identity=…, --slsa-builder=URL, or --unsigned",
        )
    if values["all"] and values["any"]:
        raise UsageError("--all and --any exclude each other")
    if len(requirements) > 1 and not (values["all"] or values["any"]):
        raise UsageError("several things are asked for: say --all or --any")
    written = rule_files.write_rule(
        prefix, requirements, settings, match_all=not values["any"], rollback=values["rollback"] or "warn"
    )
    for line in _told(prefix, written):
        message(settings, line)
    if any(requirement.identity for requirement in requirements) and not has_sigstore(settings.installation):
        message(settings, f"warning: {NO_LIBRARY}")
    return 0


def _told(prefix: str, written: Written) -> list[str]:
    from rkt.trust.rule_files import asked
    from rkt.trust.rules import UNSIGNED

    rule = written.rule
    names = f"images named {prefix} or below it"
    if rule.requirements[0].kind == UNSIGNED:
        lines = [f"{names} may be used though nobody vouches for them"]
    else:
        lines = [f"{names} need {asked(rule)}"]
    lines += [f"key {fingerprint} is in {path}" for path, fingerprint in written.fingerprints.items()]
    lines += [f"{path} asks for something too: both have to be met" for path in written.others]
    if written.passed_over:
        lines.append(
            f"keys of the key store do not count there any more: {', '.join(written.passed_over)} "
            "(with --keystore --any they would)"
        )
    if written.default:
        lines.append(f'all other images: as before, by the key store (default = "{written.default}")')
    lines.append(f"wrote {rule.path}" if written.is_new else f"{rule.path} says so already")
    return lines


def _wanted(values: dict[str, Any]) -> list[Requirement]:
    """Flags of ``rkt trust`` to what they ask for; empty when none of them is about a rule.

    Raises:
        UsageError: one lacks what belongs to it.
    """
    from rkt.trust.rules import COSIGN, KEYLESS, KEYSTORE, OPENPGP, SLSA, UNSIGNED, Requirement

    if values["unsigned"]:
        if any(values[flag.name] for flag in RULE_FLAGS if flag.name not in {"unsigned", "rollback"}):
            raise UsageError("--unsigned asks for nothing, and cannot stand beside what asks for signatures")
        return [Requirement(kind=UNSIGNED)]
    found = [Requirement(kind=COSIGN, key=os.path.abspath(path)) for path in values["cosign-key"]]
    lookaside = values["lookaside"]
    keys = [os.path.abspath(path) for path in values["openpgp-key"]]
    if values["keystore"] or (lookaside and not keys):
        keys.append(KEYSTORE)
    found += [Requirement(kind=OPENPGP, keys=path, lookaside=lookaside) for path in keys]
    signer = {name: values[f"keyless-{name}"] for name in ("identity", "issuer", "root")}
    given = [f"--keyless-{name}" for name, value in signer.items() if value]
    missing = [f"--keyless-{name}" for name, value in signer.items() if not value]
    if given and missing:
        raise UsageError(
            f"{given[0]} needs {' and '.join(missing)}",
            hint="a keyless signature is told by identity and issuer of its certificate, and the root that vouches for it",
        )
    if given:
        signer["root"] = os.path.abspath(signer["root"])
    builder, key = values["slsa-builder"], values["slsa-key"]
    if key and not builder:
        raise UsageError(
            "--slsa-key needs --slsa-builder", hint="--slsa-builder=URL, the builder.id of the provenance"
        )
    if builder and not key and not given:
        raise UsageError(
            "--slsa-builder needs to know who signs the provenance",
            hint="--slsa-key=FILE; or --keyless-identity, --keyless-issuer and --keyless-root",
        )
    if builder and key:
        found.append(Requirement(kind=SLSA, builder=builder, key=os.path.abspath(key)))
    elif builder:
        # Then they say who signed the provenance.
        found.append(Requirement(kind=SLSA, builder=builder, **signer))
    if given and not (builder and not key):
        found.append(Requirement(kind=KEYLESS, **signer))
    return found
