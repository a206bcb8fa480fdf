# SPDX-License-Identifier: Apache-2.0
"""Checks detached OpenPGP signatures with ``gpgv``.

``gpgv`` gets one signature packet, a key ring made of the keys that count and nothing else, and the signed bytes as its
standard input; it never sees a file name from outside. Its exit status is never the verdict: it is 0 for expired and
revoked keys too. What counts is its machine-readable status, read whole, in which each line must be one that a good
signature has (docs/trust.md has the measurements that led here).
"""

from __future__ import annotations

import os
import time

from rkt.errors import CannotVerify, SignatureMismatch
from rkt.schema.record import Record
from rkt.trust import packets
from rkt.trust.keys import CLOCK_SKEW_SECONDS, group_fingerprint
from rkt.trust.program import find_program, run_confined, sealed_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.trust.keystore import TrustedKey
    from rkt.trust.packets import Signature

#: Largest signature file, in bytes.
MAX_SIGNATURE_BYTES = 64 * 1024
#: Most signatures in one file: each costs a pass over the image.
MAX_SIGNATURES = 16
#: Time for one signature: a fixed part in seconds, and a slowest rate in bytes per second.
TIMEOUT_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 8 * 1024 * 1024

_HINT_DETACHED = "a detached signature is expected, such as rkt image sign or gpg --detach-sign writes"
_STATUS_PREFIX = b"[GNUPG:] "
#: Status words that a good signature may have; any other word makes it not good.
_HARMLESS = frozenset(
    {
        b"NEWSIG",
        b"KEY_CONSIDERED",
        b"SIG_ID",
        b"GOODSIG",
        b"VALIDSIG",
        b"NOTATION_NAME",
        b"NOTATION_FLAGS",
        b"NOTATION_DATA",
        b"POLICY_URL",
        b"VERIFICATION_COMPLIANCE_MODE",
    }
)
#: Status words and what they mean to people, in the order of preference.
_REASONS = (
    (b"REVKEYSIG", "the key is revoked"),
    (b"EXPKEYSIG", "the key has expired"),
    (b"EXPSIG", "the signature has expired"),
)


class Verified(Record):
    """A good signature.

    Attributes:
        fingerprint: of the primary key.
        signing_fingerprint: of the key or sub-key that made it.
        rule: the rule by which the key counts.
        signed_at: seconds since the epoch.
    """

    fingerprint: str
    signing_fingerprint: str
    identities: list[str]
    rule: str
    signed_at: int


class _NotGood(Exception):
    """A signature by a counting key that does not count."""


def parse_signature_file(data: bytes) -> list[Signature]:
    """The signatures of a detached signature file.

    Raises:
        CannotVerify: too large, empty, or anything but detached signatures.
    """
    if len(data) > MAX_SIGNATURE_BYTES:
        raise CannotVerify(
            "keystore: no valid signatures found in signature file: "
            f"it has {len(data)} bytes, at most {MAX_SIGNATURE_BYTES} are read",
            hint=_HINT_DETACHED,
        )
    try:
        signatures = packets.parse_detached_signatures(data)
    except packets.Malformed as e:
        raise CannotVerify(
            f"keystore: no valid signatures found in signature file: {e}", hint=_HINT_DETACHED
        ) from None
    if not signatures:
        raise CannotVerify(
            "keystore: no valid signatures found in signature file: unknown version", hint=_HINT_DETACHED
        )
    if len(signatures) > MAX_SIGNATURES:
        raise CannotVerify(
            f"signature file holds {len(signatures)} signatures, at most {MAX_SIGNATURES} are read",
            hint=_HINT_DETACHED,
        )
    return signatures


def choose_signatures(data: bytes, keys: list[TrustedKey]) -> list[tuple[Signature, TrustedKey]]:
    """The signatures that claim to be made by keys that count; cheap, so it can be asked before a download.

    Raises:
        CannotVerify: none of them does (``openpgp: signature made by unknown entity``), or the file is unusable.
    """
    signatures = parse_signature_file(data)
    chosen = [(s, key) for s in signatures for key in keys if key.key.may_have_made(s)]
    if not chosen:
        makers = ", ".join(sorted({s.issuer.upper() for s in signatures}))
        raise CannotVerify(f"openpgp: signature made by unknown entity (key {makers})")
    return chosen


def verify_detached(
    blob: int | str,
    signature: bytes,
    keys: list[TrustedKey],
    *,
    now: int | None = None,
    package_path: str = "",
) -> Verified:
    """Check the signatures of a blob by keys that count.

    One good signature suffices, unless another one by a key that counts is wrong: then the blob is not what that key's
    owner signed, and nothing is accepted.

    Args:
        blob: a path, or an open descriptor of a regular file; its offset is not touched.
        signature: content of the detached signature file, armoured or binary.
        keys: the keys that count.
        now: seconds since the epoch, for tests.
        package_path: as for ``run_confined``.

    Raises:
        SignatureMismatch: a signature by a key that counts does not fit the blob.
        CannotVerify: none of them is by a key that counts, or all of those are expired, revoked or weak.
    """
    now = int(time.time()) if now is None else now
    chosen = choose_signatures(signature, keys)
    gpgv = find_program("gpgv", package="gpgv")
    try:
        # A new open file description: read-only, with an offset of its own, whatever the caller's is.
        blob_fd = os.open(
            f"/proc/self/fd/{blob}" if isinstance(blob, int) else blob, os.O_RDONLY | os.O_CLOEXEC
        )
    except OSError as e:
        raise CannotVerify(f"cannot read the signed file {blob!r}: {e.strerror}") from e
    good: list[Verified] = []
    reasons: list[str] = []
    try:
        timeout_seconds = TIMEOUT_SECONDS + os.fstat(blob_fd).st_size / SLOWEST_BYTES_PER_SECOND
        for candidate, key in chosen:
            os.lseek(blob_fd, 0, os.SEEK_SET)
            try:
                good.append(_verify_one(gpgv, blob_fd, candidate, key, now, timeout_seconds, package_path))
            except _NotGood as e:
                reasons.append(
                    f"openpgp: signature by {group_fingerprint(key.key.fingerprint)} does not count: {e}"
                )
    finally:
        os.close(blob_fd)
    if not good:
        raise CannotVerify(
            "; ".join(reasons),
            hint="ask the signer for a current key, or for a new signature by one that you trust",
        )
    return good[0]


def _verify_one(
    gpgv: str,
    blob_fd: int,
    signature: Signature,
    key: TrustedKey,
    now: int,
    timeout_seconds: float,
    package_path: str,
) -> Verified:
    if problem := key.key.problem(now):
        raise _NotGood(f"the key {problem}")
    if signature.kind != packets.SIGNATURE_BINARY:
        raise _NotGood(f"it is not a signature of a binary document, but of class {signature.kind:02x}")
    if signature.hash_algorithm not in packets.STRONG_HASHES:
        raise _NotGood(
            f"it is weak: hash algorithm {signature.hash_algorithm}, SHA-256 or better is asked for"
        )
    ring = sealed_memory("keys", key.key.binary)
    packet = sealed_memory("signature", signature.raw)
    try:
        outcome = run_confined(
            lambda status: [
                gpgv,
                "--status-fd",
                str(status),
                "--homedir",
                "/nonexistent",
                "--weak-digest",
                "SHA1",
                "--weak-digest",
                "RIPEMD160",
                "--enable-special-filenames",
                "--keyring",
                f"/proc/self/fd/{ring}",
                "--",
                f"-&{packet}",
                "-",
            ],
            stdin=blob_fd,
            descriptors=[ring, packet],
            timeout_seconds=timeout_seconds,
            package_path=package_path,
        )
    finally:
        os.close(ring)
        os.close(packet)
    return judge_status(outcome.status_output, outcome.exit_status, key, now)


def judge_status(output: bytes, exit_status: int, key: TrustedKey, now: int) -> Verified:
    """Read the status lines of one run of ``gpgv`` over one signature.

    Raises:
        SignatureMismatch: the signature does not fit the blob.
        _NotGood: it cannot count.
    """
    lines: list[list[bytes]] = []
    for line in output.split(b"\n"):
        if not line.startswith(_STATUS_PREFIX):
            if line:
                raise _NotGood("gpgv said something that is not understood")
            continue
        lines.append(line[len(_STATUS_PREFIX) :].split(b" "))
    words = [fields[0] for fields in lines]
    if b"BADSIG" in words:
        raise SignatureMismatch(
            f"openpgp: signature by {group_fingerprint(key.key.fingerprint)} does not fit: "
            "the image was changed after it was signed, or the signature belongs to another image",
            hint="fetch the image and its signature again, from where the signer published them",
        )
    for word, reason in _REASONS:
        if word in words:
            raise _NotGood(reason)
    unexpected = [word for word in words if word not in _HARMLESS]
    if unexpected or words.count(b"GOODSIG") != 1 or words.count(b"VALIDSIG") != 1 or exit_status != 0:
        said = b" ".join(unexpected).decode("ascii", "replace") or f"exit status {exit_status}"
        raise _NotGood(f"gpgv does not call it good ({said})")
    return _judge_valid(lines[words.index(b"VALIDSIG")][1:], key, now)


def _judge_valid(fields: list[bytes], key: TrustedKey, now: int) -> Verified:
    """Check the arguments of ``VALIDSIG`` (GnuPG, doc/DETAILS)."""
    try:
        signing, _, signed_at_text, _, _, _, _, hash_text, kind_text, primary = (
            f.decode("ascii") for f in fields
        )
        signed_at, hash_algorithm, kind = int(signed_at_text), int(hash_text), int(kind_text, 16)
    except ValueError:
        raise _NotGood("gpgv said something that is not understood") from None
    if primary.lower() != key.key.fingerprint:
        raise _NotGood("it was made by another key than it says")
    material = key.key.material(signing.lower())
    if material is None:
        raise _NotGood("it was made by a sub-key that the trusted file does not hold")
    if material.weakness or material.bound_by_weak_hash:
        raise _NotGood(f"the sub-key is weak: {material.weakness or 'bound by SHA-1'}")
    if hash_algorithm not in packets.STRONG_HASHES or kind != packets.SIGNATURE_BINARY:
        raise _NotGood(f"it is weak or of another kind: hash algorithm {hash_algorithm}, class {kind:02x}")
    if signed_at > now + CLOCK_SKEW_SECONDS:
        raise _NotGood("it was made in the future, or the clock of this host is wrong")
    return Verified(
        fingerprint=key.key.fingerprint,
        signing_fingerprint=material.fingerprint,
        identities=key.key.identities,
        rule=key.rule,
        signed_at=signed_at,
    )
