# SPDX-License-Identifier: Apache-2.0
"""Decides whether an image may be used: ``judge`` after a fetch, ``check_verdict`` at each prepare and run.

No rule and no signature means refused (invariant SG1). ``check_verdict`` is on the path of every start: it imports
nothing beyond the standard library's core, opens no socket, runs no program, and reads only the directories of the key
store that concern the image's name. So a key that was removed or masked stops the next start (invariant SG12), and an
image that was fetched unverified stays unusable for whoever does not opt out again (invariant SG16).
"""

from __future__ import annotations

import os
import time

from rkt.errors import CannotVerify, NotVerified, Stage1Error
from rkt.schema import jsontext
from rkt.trust.keystore import Keystore
from rkt.trust.verdict import KIND_BUILTIN, KIND_INSECURE, KIND_OPENPGP, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.trust.keystore import TrustedKey

#: What ``Verdict.rule`` says of an image that was not verified.
RULE_INSECURE = "--insecure-options=image"

_STAGE1_INDEX = "stage1.json"
_MAX_INDEX_BYTES = 64 * 1024
_WRITABLE_BY_GROUP, _WRITABLE_BY_OTHERS = 0o020, 0o002


def trust_hint(name: str) -> str:
    """The next command to type when no key counts for a name."""
    return f"rkt trust --prefix={name} PUBKEY, with the signer's public key file; or {RULE_INSECURE}"


def judge(name: str, blob: int | str, signature: bytes | None, settings: Settings) -> Verdict:
    """Reach a verdict on an image that was just fetched.

    Args:
        name: the image name from its manifest; the caller has compared it with the name that was asked for.
        blob: the image as transferred, still compressed: a path or an open descriptor.
        signature: content of the detached signature file, ``None`` if there is none.
        settings: key store directories and opt-outs; with ``--insecure-options=image`` nothing is checked.

    Raises:
        SignatureMismatch: ``image "N" verification failed``, because a signature does not fit.
        CannotVerify: likewise, because there is no signature, no key that counts, or no usable signature.
        ConfigError: the key store cannot be used.
    """
    now = int(time.time())
    if settings.insecure.image:
        return Verdict(kind=KIND_INSECURE, name=name, rule=RULE_INSECURE, checked_at=now)
    from rkt.trust.openpgp import verify_detached

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
    """Refuse early, before an image is downloaded, a signature that no key that counts claims to have made.

    Args:
        name: the name that was asked for.
        signature: content of the detached signature file.
        settings: key store directories and opt-outs.

    Raises:
        CannotVerify: the signature file is unusable, or its signer is unknown.
        ConfigError: the key store cannot be used.
    """
    if settings.insecure.image:
        return
    from rkt.trust.openpgp import choose_signatures

    keys = Keystore(settings).load(name)
    try:
        choose_signatures(signature, keys)
    except CannotVerify as e:
        raise _failed(name, e, keys) from e


def _failed(name: str, e: NotVerified, keys: list[TrustedKey]) -> NotVerified:
    failure = type(e)(f'image "{name}" verification failed', hint=e.hint or trust_hint(name))
    if keys:
        rules = ", ".join(f"{key.key.fingerprint} ({key.rule})" for key in keys)
        failure.add_note(f'keys that count for "{name}": {rules}')
    else:
        failure.add_note(f'no key counts for "{name}", neither by a prefix nor as a root key')
    return failure


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
    elif verdict.kind == KIND_OPENPGP:
        _require_key(verdict, settings)
    elif verdict.kind == KIND_INSECURE:
        raise NotVerified(
            f'image "{verdict.name}" was never verified: it was fetched with {verdict.rule}',
            hint=f"fetch it again with its signature, or use {RULE_INSECURE} for this command too",
        )
    else:
        raise NotVerified(f'image "{verdict.name}" has a verdict of unknown kind {verdict.kind!r}')


def _require_key(verdict: Verdict, settings: Settings) -> None:
    listing = Keystore(settings).listing(verdict.name)
    if verdict.fingerprint in listing.keys:
        return
    mask = listing.masks.get(verdict.fingerprint)
    state = f"that key is masked by {mask}" if mask else "no rule counts that key today"
    raise NotVerified(
        f'image "{verdict.name}" is no longer trusted: it was accepted by rule "{verdict.rule}" '
        f"with key {verdict.fingerprint}, and {state}",
        hint=trust_hint(verdict.name),
    )


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
