# SPDX-License-Identifier: Apache-2.0
"""The verdict on an image: who signed it and by which rule it is trusted, or which opt-out was used.

Stored with the image and copied into each pod; checked again at each start against today's keys (``trust.policy``).
"""

from __future__ import annotations

from rkt.schema.record import Record

#: A good OpenPGP signature by a trusted key.
KIND_OPENPGP = "openpgp"
#: ``--insecure-options=image``: nothing was checked.
KIND_INSECURE = "insecure"
#: A stage1 image of the installation itself, listed in its root-owned ``stage1.json``.
KIND_BUILTIN = "builtin"


class Verdict(Record):
    """One verdict.

    Attributes:
        kind: one of the ``KIND_…`` words.
        name: the image name the verdict is about, from the manifest.
        fingerprint: 40 or 64 lower-case hex digits of the primary key; empty unless ``openpgp``.
        identities: user IDs of the key, for people.
        rule: ``root`` or ``prefix example.com/app``; for ``insecure`` the option, for ``builtin`` the file.
        signed_at: time of the signature, seconds since the epoch; 0 if none.
        checked_at: time of the check, seconds since the epoch.
    """

    kind: str
    name: str
    rule: str
    checked_at: int
    fingerprint: str = ""
    identities: list[str] = []
    signed_at: int = 0
