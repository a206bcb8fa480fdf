# SPDX-License-Identifier: Apache-2.0
"""Judges what was just fetched by the rules of this moment; what follows at each start is in ``trust.policy``.

The rules are found by a name that is known before anything of the image is read, and the digests that somebody must have
signed are root's own (invariant SG3). Who reads what claims to be a signature is somebody else's business: ``trust.verifier``
for Docker and OCI images, ``trust.openpgp`` for ACIs.
"""

from __future__ import annotations

import time

from rkt.errors import CannotVerify, NotVerified, SignatureMismatch
from rkt.linux.disk import remedy
from rkt.trust.compiled import read_policy
from rkt.trust.extras import NO_LIBRARY, has_sigstore
from rkt.trust.keystore import Keystore, TrustedKey
from rkt.trust.policy import PINNED_KEYSTORE, RULE_INSECURE, trust_hint
from rkt.trust.rules import (
    COSIGN,
    KEYSTORE,
    OPENPGP,
    REFUSE,
    ROLLBACK_ALLOW,
    ROLLBACK_REFUSE,
    ROLLBACK_WARN,
    UNSIGNED,
    Requirement,
    Rule,
    shown_name,
)
from rkt.trust.verdict import KIND_OPENPGP, KIND_POLICY, Fact, Verdict
from rkt.values import ACIdentifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from rkt.config.settings import Settings
    from rkt.trust.evidence import Evidence, Finding, Subject

    #: Gets what may meet some requirements; its pieces are foreign.
    Collect: TypeAlias = Callable[[list[Requirement]], list[Evidence]]

#: Strictest first.
_ROLLBACKS = (ROLLBACK_REFUSE, ROLLBACK_WARN, ROLLBACK_ALLOW)
_DEFAULT_RULE = Rule(
    prefix="", match_all=True, requirements=[Requirement(kind=OPENPGP, keys=KEYSTORE)], path=""
)
_NO_KEY = "no key of the key store counts for that name"


class Asked:
    """What is asked for of an image with a name, by the rules of this moment."""

    def __init__(self, name: str, settings: Settings, *, is_oci: bool = False) -> None:
        """Read the rules.

        Args:
            name: an appc name, or ``REGISTRY/REPOSITORY``.
            settings: where they are.
            is_oci: whether it is that of a Docker or OCI image.
        Raises:
            CannotVerify: the policy refuses whatever has no rule, and no rule covers the name.
            ConfigError: the policy cannot be used.
        """
        self.name = name
        self._is_oci = is_oci
        self._settings = settings
        self._policy = read_policy(settings)
        self.rules = self._policy.rules_for(name)
        self.is_default = not self.rules
        if not self.rules:
            if self._policy.default == REFUSE:
                raise self._refused([f"no rule covers it, and {self._policy.default_path} refuses the rest"])
            self.rules = [_DEFAULT_RULE]
        #: Each requirement once; what nothing is asked for by is not among them.
        self.requirements = list(
            dict.fromkeys(
                requirement
                for rule in self.rules
                for requirement in rule.requirements
                if requirement.kind != UNSIGNED
            )
        )

    @property
    def rollback(self) -> str:
        """The strictest word of the rules."""
        return min((rule.rollback for rule in self.rules), key=_ROLLBACKS.index)

    def check_possible(self) -> None:
        """Refuse before anything is asked of a server what cannot be met whatever comes (invariant SG6).

        Raises:
            CannotVerify: a rule cannot be met.
        """
        problems = {each: problem for each in self.requirements if (problem := self._impossible(each))}
        notes = self._unmet(problems)
        if not notes:
            return
        if self.is_default:
            notes = [f'no rule covers "{shown_name(self.name)}", and no OpenPGP key counts for it']
        raise self._refused(notes)

    def check_unchanged(self) -> None:
        """Refuse when the rules, or the files they name, are not those that were asked any more.

        Raises:
            CannotVerify: they changed.
        """
        if read_policy(self._settings) != self._policy:
            raise CannotVerify(
                f'image "{shown_name(self.name)}" verification failed: the trust policy changed meanwhile',
                hint="do it again",
            )

    def verdict(
        self, name: ACIdentifier, met: dict[Requirement, Fact], why: dict[Requirement, str], *, is_wrong: bool
    ) -> Verdict:
        """The verdict, once everything was looked at.

        Args:
            name: of the image in the store.
            met: requirements that were met, and by what.
            why: why the others were not, for people.
            is_wrong: whether one of these has a signature by the right signer that does not fit.
        Raises:
            SignatureMismatch, CannotVerify: a rule is not met.
        """
        notes = self._unmet(
            {each: why.get(each, "nothing was found") for each in self.requirements if each not in met}
        )
        if notes:
            raise self._refused(notes, SignatureMismatch if is_wrong else CannotVerify)
        facts = list(met.values()) or [Fact(requirement=UNSIGNED, kind=UNSIGNED)]
        return Verdict(
            kind=KIND_POLICY,
            name=name,
            rule=", ".join(str(rule) for rule in self.rules),
            checked_at=int(time.time()),
            signed_at=max(fact.signed_at for fact in facts),
            subject=self.name,
            facts=facts,
        )

    def _impossible(self, requirement: Requirement) -> str:
        if requirement.problem:
            return requirement.problem
        if (requirement.kind, requirement.keys) == (OPENPGP, KEYSTORE):
            listing = Keystore(self._settings).listing(self.name)
            return "" if listing.keys else _NO_KEY
        if requirement.identity and not has_sigstore(self._settings.installation):
            return NO_LIBRARY
        return ""

    def _unmet(self, why: dict[Requirement, str]) -> list[str]:
        """A line for each thing that keeps a rule from being met."""
        notes = []
        for rule in self.rules:
            missing = [each for each in rule.requirements if each in why]
            if missing and (rule.match_all or len(missing) == len(rule.requirements)):
                word = "" if rule.match_all or len(missing) == 1 else "one of "
                notes += [f"{rule} asks for {word}{each}: {why[each]}" for each in missing]
        return list(dict.fromkeys(notes))

    def _refused(self, notes: Sequence[str], kind: type[NotVerified] = CannotVerify) -> NotVerified:
        hint = (
            f"a signature that is asked for, or another rule (rkt trust list shows all); or {RULE_INSECURE}"
        )
        if self.is_default and self._is_oci:
            command = trust_command(self.name)
            hint = (
                f"{command} with the public key of who signs there, or --openpgp-key=FILE; or {RULE_INSECURE}"
            )
        elif self.is_default or any(self._impossible(each) == _NO_KEY for each in self.requirements):
            hint = trust_hint(shown_name(self.name))
        failure = kind(f'image "{shown_name(self.name)}" verification failed', hint=hint)
        for note in notes:
            failure.add_note(note)
        return failure


def judge_oci(subject: Subject, collect: Collect, settings: Settings) -> Verdict:
    """See ``policy.judge_oci``."""
    asked = Asked(subject.name, settings, is_oci=True)
    asked.check_possible()
    met: dict[Requirement, Fact] = {}
    why: dict[Requirement, str] = {}
    is_wrong = False
    # What cannot be met is not tried: the rule does without it, or it was refused.
    possible = [each for each in asked.requirements if not each.problem]
    if possible:
        from rkt.trust.verifier import verify

        findings = verify(collect(possible), possible, subject, settings)
        for number, requirement in enumerate(possible):
            fact, reason, wrong = _weigh(
                requirement, [each for each in findings if each.requirement == number], subject
            )
            is_wrong |= wrong
            if fact is None:
                why[requirement] = reason
            else:
                met[requirement] = fact
        asked.check_unchanged()
    why |= {each: each.problem for each in asked.requirements if each.problem}
    return asked.verdict(ACIdentifier.sanitize(subject.name), met, why, is_wrong=is_wrong)


def _weigh(
    requirement: Requirement, findings: Sequence[Finding], subject: Subject
) -> tuple[Fact | None, str, bool]:
    """What meets a requirement; else why nothing does, and whether that is a signature by the right signer."""
    reasons = []
    for finding in findings:
        reason = finding.reason
        if not reason and finding.digest not in subject.digests:
            reason = "it is of another image"
        if reason:
            reasons.append(f"{finding.source}: {reason}")
    if wrong := [each for each in findings if each.contradicts]:
        # Whatever else there is: somebody who is trusted signed something else.
        return None, f"{wrong[0].source}: {wrong[0].reason}", True
    good = [each for each in findings if not each.reason and each.digest in subject.digests and each.signer]
    if not good:
        return None, "; ".join(reasons) or "nothing of that kind is there", False
    best = max(good, key=lambda each: each.signed_at)
    return (
        Fact(
            requirement=requirement.pinned,
            kind=requirement.kind,
            signer=best.signer,
            source=best.source,
            signed_at=best.signed_at,
        ),
        "",
        False,
    )


def judge_aci(name: str, blob: int | str, signature: bytes | None, settings: Settings) -> Verdict:
    """See ``policy.judge``."""
    asked = Asked(name, settings)
    if asked.is_default:
        return _judge_by_keystore(name, blob, signature, settings)
    if not asked.requirements:
        return asked.verdict(ACIdentifier.parse(name), {}, {}, is_wrong=False)
    asked.check_possible()
    met: dict[Requirement, Fact] = {}
    why: dict[Requirement, str] = {}
    is_wrong = False
    for requirement in asked.requirements:
        problem = _not_for_acis(requirement)
        if not problem and signature is None:
            problem = "there is no signature beside the image"
        if problem or signature is None:
            why[requirement] = problem
            continue
        from rkt.trust.openpgp import verify_detached

        try:
            verified = verify_detached(
                blob,
                signature,
                _keys(name, requirement, settings),
                package_path=settings.installation.package_path,
            )
        except NotVerified as e:
            why[requirement] = e.message
            is_wrong |= isinstance(e, SignatureMismatch)
        else:
            met[requirement] = Fact(
                requirement=requirement.pinned,
                kind=OPENPGP,
                signer=verified.fingerprint,
                source="detached signature",
                signed_at=verified.signed_at,
            )
    asked.check_unchanged()
    return asked.verdict(ACIdentifier.parse(name), met, why, is_wrong=is_wrong)


def _judge_by_keystore(name: str, blob: int | str, signature: bytes | None, settings: Settings) -> Verdict:
    from rkt.trust.openpgp import verify_detached

    now = int(time.time())
    if signature is None:
        raise CannotVerify(
            f'image "{name}" has no signature, and a signature is asked for',
            hint=f"put the signature beside the image as IMAGE.aci.asc, or use --signature=FILE, or {RULE_INSECURE}",
        )
    keys = Keystore(settings).load(name)
    try:
        verified = verify_detached(
            blob, signature, keys, now=now, package_path=settings.installation.package_path
        )
    except NotVerified as e:
        raise _failed(name, e, keys) from e
    return Verdict(
        kind=KIND_OPENPGP,
        name=name,
        rule=verified.rule,
        checked_at=now,
        fingerprint=verified.fingerprint,
        identities=verified.identities,
        signed_at=verified.signed_at,
    )


def check_signer(name: str, signature: bytes, settings: Settings) -> None:
    """Refuse early, before an ACI is downloaded, a signature that no key that counts claims to have made.

    Args:
        name: the name that was asked for.
        signature: content of the detached signature file.
        settings: key store and policy directories, and opt-outs.

    Raises:
        CannotVerify: the signature file is unusable, or its signer is unknown.
        ConfigError: the key store or the policy cannot be used.
    """
    if settings.insecure.image:
        return
    from rkt.trust.openpgp import choose_signatures

    asked = Asked(name, settings)
    keys: list[TrustedKey] = []
    if asked.is_default:
        keys = Keystore(settings).load(name)
    else:
        asked.check_possible()
        usable = [each for each in asked.requirements if not each.problem and not _not_for_acis(each)]
        if not usable:
            # Nothing is asked for, or nothing that it could have: judge says which.
            return
        for requirement in usable:
            keys += _keys(name, requirement, settings)
    try:
        choose_signatures(signature, keys)
    except CannotVerify as e:
        raise _failed(name, e, keys) from e


def asks_keystore(name: str, settings: Settings) -> bool:
    """Whether a key of the key store could be of use for an ACI.

    Raises:
        CannotVerify, ConfigError: as ``Asked``.
    """
    return any(each.pinned == PINNED_KEYSTORE for each in Asked(name, settings).requirements)


def may_be_unsigned(name: str | None, settings: Settings) -> bool:
    """Whether a rule lets an ACI pass that nobody signed; for an unknown name, whether there is any such rule.

    Raises:
        CannotVerify, ConfigError: as ``Asked``.
    """
    if name is not None:
        return not Asked(name, settings).requirements
    return any(each.kind == UNSIGNED for rule in read_policy(settings).rules for each in rule.requirements)


def _not_for_acis(requirement: Requirement) -> str:
    if requirement.kind == OPENPGP:
        return ""
    return "an ACI has no such signature, only a detached OpenPGP one"


def _keys(name: str, requirement: Requirement, settings: Settings) -> list[TrustedKey]:
    """The OpenPGP keys that a requirement names."""
    from rkt.trust.simple_signing import trusted_keys

    if requirement.keys == KEYSTORE:
        return trusted_keys(KEYSTORE, b"", name, settings)
    from rkt.trust.keyfiles import read_key_file

    return trusted_keys(requirement.keys, read_key_file(requirement.keys), name, settings)


def _failed(name: str, e: NotVerified, keys: list[TrustedKey]) -> NotVerified:
    # Where the host kept us from looking, another key would not help.
    host = remedy(e.__cause__.errno) if isinstance(e.__cause__, OSError) else ""
    failure = type(e)(f'image "{name}" verification failed', hint=host or e.hint or trust_hint(name))
    if keys:
        rules = ", ".join(f"{key.key.fingerprint} ({key.rule})" for key in keys)
        failure.add_note(f'keys that count for "{name}": {rules}')
    else:
        failure.add_note(f'no key counts for "{name}", neither by a prefix nor as a root key')
    return failure


def trust_command(name: str) -> str:
    """What trusts the namespace of a Docker or OCI image: the command to type."""
    parts = shown_name(name).split("/")
    prefix = "/".join(parts[:-1] if len(parts) > 2 else parts)
    return f"rkt trust --prefix={prefix} --{COSIGN}-key=FILE"
