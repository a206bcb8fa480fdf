# SPDX-License-Identifier: Apache-2.0
"""OpenPGP signatures of Docker and OCI images: which keys count, and root's side of checking them.

::

    rkt-fetch    finds signed messages, takes them apart (trust.message)       no privilege
    root         which key claims to have signed, does it count?               framing of packets only
    gpgv         is this signature of these bytes by that key good?            no privilege (trust.openpgp)
    rkt-verify   what do these bytes say? (trust.verify_simple_signing)        no privilege
"""

from __future__ import annotations

import os
from base64 import b64decode

from rkt.errors import CannotVerify, SignatureMismatch
from rkt.trust.evidence import Finding
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import Keystore, TrustedKey
from rkt.trust.openpgp import verify_detached
from rkt.trust.program import sealed_memory
from rkt.trust.rules import KEYSTORE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.trust.evidence import Evidence


def trusted_keys(keys: str, content: bytes, name: str, settings: Settings) -> list[TrustedKey]:
    """The keys that a requirement of kind ``openpgp`` counts for a name; for ACIs as for other images.

    Args:
        keys: ``keystore``, or the path of a file of keys, all of which count.
        content: of that file.
        name: of the image: an appc name, or ``REGISTRY/REPOSITORY``.
        settings: where the key store is.
    Raises:
        ConfigError: the key store cannot be used, or the file is none of public keys.
    """
    if keys == KEYSTORE:
        return Keystore(settings).load(name)
    return [TrustedKey(key=key, path=keys, rule=f"keys {keys}") for key in parse_keys(content, what=keys)]


def check_signature(evidence: Evidence, keys: list[TrustedKey], *, now: int, package_path: str) -> Finding:
    """Whether a key that counts signed the payload, which is not read.

    Args:
        evidence: of kind ``simple-signing``.
        keys: those that count.
        now: seconds since the epoch.
        package_path: as for ``run_confined``.
    Returns:
        signer and time, or a reason; what the payload is about is another question.
    Raises:
        HostError: there is no ``gpgv``, or it cannot be run.
    """
    finding = Finding(requirement=0, source=evidence.source)
    if evidence.problem:
        return finding.replace(reason=evidence.problem)
    payload = sealed_memory("payload", evidence.data)
    try:
        verified = verify_detached(
            payload, b64decode(evidence.signature), keys, now=now, package_path=package_path
        )
    except SignatureMismatch:
        return finding.replace(
            reason="it does not fit what it signs: it was changed, or put together from two signatures",
            contradicts=True,
        )
    except (CannotVerify, ValueError) as e:
        return finding.replace(reason=str(e).removeprefix("openpgp: "))
    finally:
        os.close(payload)
    return finding.replace(signer=verified.fingerprint, signed_at=verified.signed_at)
