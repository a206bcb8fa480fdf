# SPDX-License-Identifier: Apache-2.0
"""Simple signing: what a signed payload says, and whether that is about the image that was asked for.

Runs in ``rkt-verify``, after ``trust.simple_signing`` had the signature checked: nothing of a payload is parsed before
``gpgv`` called these very bytes good (invariant SG10).

Which name has to be signed: an image that was asked for by tag is vouched for by a signature for that registry, repository
and tag, not for another tag of the same image. One that was asked for by digest is vouched for by a signature for the
repository, with whatever tag, because the digest is compared anyway. That is ``matchRepoDigestOrExact`` of
containers-policy.json(5), which is the default there. An image that comes from no registry has no name to be compared.

Source: containers-signature(5).
"""

from __future__ import annotations

from rkt.errors import CannotVerify
from rkt.trust.evidence import Finding
from rkt.trust.payload import OPENPGP_TYPE, check_name, parse_payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.trust.evidence import Evidence, Subject


def verify(
    requirement: dict[str, Any], files: dict[str, bytes], evidence: Evidence, subject: Subject, now: int
) -> Finding:
    """Read the payload of a signature that is good, and compare it with the image.

    Args:
        requirement: not used: which key signed has been found out.
        files: likewise.
        evidence: ``data`` is the payload.
        subject: the image.
        now: not used: whether the signature has expired has been found out.
    Returns:
        without a signer, which the payload does not know.
    """
    finding = Finding(requirement=0, source=evidence.source)
    try:
        payload = parse_payload(evidence.data, OPENPGP_TYPE)
    except CannotVerify as e:
        return finding.replace(reason=e.message)
    digest = payload.digest
    if digest not in subject.digests:
        return finding.replace(
            reason=f"it is for another image: it signs {digest}, not {' or '.join(subject.digests)}",
            contradicts=True,
        )
    finding = finding.replace(digest=digest)
    try:
        check_name(payload.reference, subject.reference, needs_tag=True)
    except CannotVerify as e:
        return finding.replace(reason=e.message)
    return finding
