# SPDX-License-Identifier: Apache-2.0
"""Decides whether an image may be used: ``judge`` and ``judge_oci`` after a fetch, ``check_verdict`` at each prepare and run.

No rule and no signature means refused (invariant SG1). ``check_verdict`` is on the path of every start: it imports
nothing beyond the standard library's core, opens no socket, runs no program, and reads only the directories of the key
store that concern the image's name, and what ``trust.compiled`` keeps of the policy. So a key that was removed or masked,
and a rule that asks for more than was found, stop the next start (invariant SG12), and an image that was fetched
unverified stays unusable for whoever does not opt out again (invariant SG16).

How a fetch is judged is in ``trust.judging``, which no start imports.
"""

from __future__ import annotations

import os
import time

from rkt.errors import NotVerified, Stage1Error
from rkt.schema import jsontext
from rkt.trust.keystore import Keystore
from rkt.trust.verdict import KIND_BUILTIN, KIND_INSECURE, KIND_OPENPGP, KIND_POLICY, Fact, Verdict
from rkt.values import ACIdentifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.trust.evidence import Subject
    from rkt.trust.judging import Collect
    from rkt.trust.keystore import Listing
    from rkt.trust.rules import Requirement

#: What ``Verdict.rule`` says of an image that was not verified.
RULE_INSECURE = "--insecure-options=image"

#: ``Requirement.pinned`` of a signature by a key of the key store.
PINNED_KEYSTORE = "openpgp:keystore"
#: Below each configuration directory.
POLICY_DIRECTORY = "trust.d"

_STAGE1_INDEX = "stage1.json"
_MAX_INDEX_BYTES = 64 * 1024
_WRITABLE_BY_GROUP, _WRITABLE_BY_OTHERS = 0o020, 0o002


def trust_hint(name: str) -> str:
    """The next command to type when no key counts for a name."""
    return f"rkt trust --prefix={name} PUBKEY, with the signer's public key file; or {RULE_INSECURE}"


def judge(name: str, blob: int | str, signature: bytes | None, settings: Settings) -> Verdict:
    """Reach a verdict on an ACI that was just fetched.

    Args:
        name: the image name from its manifest; the caller has compared it with the name that was asked for.
        blob: the image as transferred, still compressed: a path or an open descriptor.
        signature: content of the detached signature file, ``None`` if there is none.
        settings: key store and policy directories, and opt-outs; with ``--insecure-options=image`` nothing is checked.

    Raises:
        SignatureMismatch: ``image "N" verification failed``, because a signature does not fit.
        CannotVerify: likewise, because there is no signature, no key that counts, or no usable signature.
        ConfigError: the key store or the policy cannot be used.
    """
    if settings.insecure.image:
        return insecure_verdict(name)
    from rkt.trust import judging

    return judging.judge_aci(name, blob, signature, settings)


def judge_oci(subject: Subject, collect: Collect, settings: Settings) -> Verdict:
    """Reach a verdict on a Docker or OCI image whose manifest was just fetched.

    Args:
        subject: what somebody has to vouch for; root has computed its digests.
        collect: called with what the rules ask for, and only if that is anything, gets what may vouch for the image.
        settings: key store and policy directories, and opt-outs; with ``--insecure-options=image`` nothing is checked.

    Raises:
        SignatureMismatch, CannotVerify, ConfigError: as ``judge``.
    """
    if settings.insecure.image:
        return insecure_verdict(ACIdentifier.sanitize(subject.name))
    from rkt.trust import judging

    return judging.judge_oci(subject, collect, settings)


def insecure_verdict(name: str) -> Verdict:
    """The verdict on an image that was not verified."""
    return Verdict(kind=KIND_INSECURE, name=name, rule=RULE_INSECURE, checked_at=int(time.time()))


def judge_builtin(name: str, image_id: str, settings: Settings) -> Verdict:
    """The verdict on a stage1 image that belongs to the installation.

    Args:
        name: the image name from its manifest.
        image_id: full image ID of the image at hand.
        settings: the installation.

    Raises:
        NotVerified: it is not the image that ``stage1.json`` lists.
    """
    path = _require_listed(name, image_id, settings)
    return Verdict(kind=KIND_BUILTIN, name=name, rule=path, checked_at=int(time.time()), image_id=image_id)


def check_verdict(verdict: Verdict, settings: Settings, *, opted_out: bool) -> None:
    """Hold a stored verdict against today's policy.

    Args:
        verdict: as stored with the image or in the pod.
        settings: key store directories and the installation.
        opted_out: whether ``--insecure-options=image`` is in force, now or recorded for this pod when it was prepared.

    Raises:
        NotVerified: the image may not be used; the message names the rule, the hint what to type.
        ConfigError: the key store cannot be read, or holds something unexpected.
    """
    if opted_out:
        return
    if verdict.kind == KIND_BUILTIN:
        _require_listed(verdict.name, verdict.image_id, settings)
    elif verdict.kind in {KIND_OPENPGP, KIND_POLICY}:
        _require_policy(verdict, settings)
    elif verdict.kind == KIND_INSECURE:
        raise NotVerified(
            f'image "{verdict.name}" was never verified: it was fetched with {verdict.rule}',
            hint=f"fetch it again with its signature, or use {RULE_INSECURE} for this command too",
        )
    else:
        raise NotVerified(f'image "{verdict.name}" has a verdict of unknown kind {verdict.kind!r}')


def is_about(verdict: Verdict, url: str) -> bool:
    """Whether a verdict was reached by the rules for a name.

    One image may be had under several names, and the store keeps one verdict: the others have to be judged by their own.

    Args:
        verdict: as stored with the image.
        url: ``docker://REGISTRY/REPOSITORY:TAG``, or any other that an image came of.
    """
    scheme, separator, name = url.partition("://")
    if not verdict.subject or not separator or scheme != "docker":
        return True
    return name.startswith(verdict.subject) and name[len(verdict.subject) :][:1] in {":", "@"}


def has_policy(settings: Settings) -> bool:
    """Whether there may be files of the policy; costs next to nothing where there are none."""
    for directory in settings.config_dirs:
        try:
            os.stat(f"{directory}/{POLICY_DIRECTORY}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # whoever reads it says why
        return True
    return False


def _require_policy(verdict: Verdict, settings: Settings) -> None:
    """Each requirement of today's rules was met by something that still counts."""
    if not has_policy(settings):
        _require_keystore(verdict, settings)
        return
    from rkt.trust.compiled import todays_policy
    from rkt.trust.rules import REFUSE

    name = verdict.subject or verdict.name
    policy = todays_policy(settings, name)
    rules = policy.rules_for(name)
    if not rules:
        if policy.default == REFUSE:
            raise NotVerified(
                f'image "{name}" is no longer trusted: no rule covers it, and {policy.default_path} refuses the rest',
                hint=_rule_hint(verdict),
            )
        _require_keystore(verdict, settings)
        return
    for rule in rules:
        missing = [
            f"{requirement}, but {why}"
            for requirement in rule.requirements
            if (why := _why_unmet(requirement, verdict, settings))
        ]
        if missing and (rule.match_all or len(missing) == len(rule.requirements)):
            raise NotVerified(
                f'image "{name}" is no longer trusted: {rule} asks for {"; for ".join(missing)}',
                hint=_rule_hint(verdict),
            )


def _why_unmet(requirement: Requirement, verdict: Verdict, settings: Settings) -> str:
    """Why nothing that was found when the image was fetched meets a requirement of today; empty if something does."""
    from rkt.trust.rules import KEYSTORE, OPENPGP, UNSIGNED

    if requirement.kind == UNSIGNED:
        return ""
    if requirement.problem:
        return requirement.problem
    pinned = requirement.pinned
    signers = [fact.signer for fact in _facts(verdict) if fact.requirement == pinned]
    if (requirement.kind, requirement.keys) == (OPENPGP, KEYSTORE):
        listing = Keystore(settings).listing(verdict.subject or verdict.name)
        if any(signer in listing.keys for signer in signers):
            return ""
        if signers:
            return f"the image was accepted by key {signers[0]}, and {_state(signers[0], listing)}"
    if signers:
        return ""
    known = ", ".join(f"{fact.kind} {fact.signer}" for fact in _facts(verdict) if fact.signer)
    return f"the image was accepted by {known}" if known else "the image was accepted without a signature"


def _facts(verdict: Verdict) -> list[Fact]:
    if verdict.kind == KIND_OPENPGP:
        return [Fact(requirement=PINNED_KEYSTORE, kind=KIND_OPENPGP, signer=verdict.fingerprint)]
    return verdict.facts


def _rule_hint(verdict: Verdict) -> str:
    registry = verdict.subject.partition("/")[0]
    again = f"docker://{verdict.subject}:TAG" if "." in registry or ":" in registry else "IMAGE"
    return (
        f"rkt fetch {again} judges it by the rules of today, which rkt trust list shows; or {RULE_INSECURE}"
    )


def _require_keystore(verdict: Verdict, settings: Settings) -> None:
    """What counts where no rule does: a key of the key store."""
    name = verdict.subject or verdict.name
    signers = [fact.signer for fact in _facts(verdict) if fact.requirement == PINNED_KEYSTORE]
    if not signers:
        raise NotVerified(
            f'image "{name}" is no longer trusted: it was accepted by {verdict.rule}, of which nothing is left, '
            "so that an OpenPGP signature is asked for",
            hint=_rule_hint(verdict),
        )
    listing = Keystore(settings).listing(name)
    if any(signer in listing.keys for signer in signers):
        return
    state = _state(signers[0], listing)
    raise NotVerified(
        f'image "{name}" is no longer trusted: it was accepted by rule "{verdict.rule}" '
        f"with key {signers[0]}, and {state}",
        hint=trust_hint(name),
    )


def _state(fingerprint: str, listing: Listing) -> str:
    mask = listing.masks.get(fingerprint)
    return f"that key is masked by {mask}" if mask else "no rule counts that key today"


def _require_listed(name: str, image_id: str, settings: Settings) -> str:
    """Path of the installation's list of stage1 images, which must hold this one."""
    directory = settings.installation.stage1_images_path
    path = f"{directory}/{_STAGE1_INDEX}"
    hint = (
        "rkt may have been upgraded: prepare the pod again with this installation's stage1, "
        "or choose one with --stage1-name and trust its signer"
    )
    try:
        for place in (directory, path):
            _require_private(place)
        from rkt.linux.files import read_bounded

        images = _index(read_bounded(path, _MAX_INDEX_BYTES), path)
    except OSError as e:
        raise NotVerified(f"cannot read the list of stage1 images {path!r}: {e.strerror}", hint=hint) from e
    for image in images:
        if image.get("name") == name and image_id and image.get("id") == image_id:
            return path
    raise NotVerified(
        f'stage1 image "{name}" ({image_id or "no image ID"}) is not one of this installation: {path} does not list it',
        hint=hint,
    )


def _index(data: bytes, path: str) -> list[dict[str, Any]]:
    document = jsontext.parse(data, what=path, limit_bytes=_MAX_INDEX_BYTES)
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, dict) or not all(isinstance(image, dict) for image in images.values()):
        raise Stage1Error(f"{path} is not a list of stage1 images")
    return list(images.values())


def _require_private(path: str) -> None:
    """Only root, or the caller where the caller is not root, may have written there."""
    status = os.stat(path)
    # Where the umask is 002, files of root's own group are writable by that group.
    shared = status.st_mode & _WRITABLE_BY_GROUP and status.st_gid not in {0, os.getegid()}
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _WRITABLE_BY_OTHERS or shared:
        raise NotVerified(
            f"the installation's stage1 images cannot be trusted: {path} can be changed by others than root",
            hint=f"chown root {path} && chmod go-w {path}",
        )
