# SPDX-License-Identifier: Apache-2.0
"""The verdict on an image: who signed it and by which rule it is trusted, or which opt-out was used.

Stored with the image and copied into each pod; checked again at each start against today's keys and rules
(``trust.policy``).
"""

from __future__ import annotations

from rkt.errors import DamagedRecord
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

#: A good OpenPGP signature by a trusted key.
KIND_OPENPGP = "openpgp"
#: What a rule asks for was found, piece by piece; the pieces are in ``facts``.
KIND_POLICY = "policy"
#: ``--insecure-options=image``: nothing was checked.
KIND_INSECURE = "insecure"
#: A stage1 image of the installation itself, listed in its root-owned ``stage1.json``.
KIND_BUILTIN = "builtin"

#: Members of the JSON form whose spelling differs from the field's.
_MEMBERS = {"checked_at": "checkedAt", "signed_at": "signedAt", "image_id": "imageID"}
_KINDS = (KIND_OPENPGP, KIND_POLICY, KIND_INSECURE, KIND_BUILTIN)


class Fact(Record):
    """One thing that was asked for, and found.

    Attributes:
        requirement: what exactly was asked for, as ``Requirement.pinned`` has it; today's must be the same text.
        kind: that of the requirement.
        signer: fingerprint of an OpenPGP key, ``sha256:…`` of another key, or ``IDENTITY (ISSUER)``; empty for ``unsigned``.
        source: where the evidence was, for people.
        signed_at: seconds since the epoch; 0 when nobody who is trusted says.
    """

    requirement: str
    kind: str
    signer: str = ""
    source: str = ""
    signed_at: int = 0

    def to_json(self) -> dict[str, Any]:
        """One element of ``facts``."""
        return {_MEMBERS.get(field, field): value for field, value in self.as_dict().items()}

    @classmethod
    def from_json(cls, value: Any, *, what: str) -> Self:
        """The reverse.

        Raises:
            DamagedRecord: it is none.
        """
        members = {_MEMBERS.get(field, field): field for field in cls._fields}
        if not isinstance(value, dict) or value.keys() != members.keys():
            raise DamagedRecord(f"{what}: a fact in the verdict does not have the members of one")
        for member, content in value.items():
            if type(content) is not (int if member == "signedAt" else str):
                raise DamagedRecord(f"{what}: member {member!r} of a fact in the verdict is {content!r}")
        return cls(**{members[member]: content for member, content in value.items()})


class Verdict(Record):
    """One verdict.

    Attributes:
        kind: one of the ``KIND_…`` words.
        name: the image name the verdict is about, from the manifest.
        fingerprint: 40 or 64 lower-case hex digits of the primary key; empty unless ``openpgp``.
        identities: user IDs of the key, for people.
        rule: ``root`` or ``prefix example.com/app``; for ``policy`` the rules with their files, for ``insecure`` the option,
            for ``builtin`` the file.
        signed_at: time of the signature, of several the latest, seconds since the epoch; 0 if none.
        checked_at: time of the check, seconds since the epoch.
        image_id: full image ID the file of the rule listed; empty unless ``builtin``.
        subject: the name by which rules are found, ``REGISTRY/REPOSITORY`` with the registry's port; empty unless ``policy``.
        facts: what was asked for and found; empty unless ``policy``.
    """

    kind: str
    name: str
    rule: str
    checked_at: int
    fingerprint: str = ""
    identities: list[str] = []
    signed_at: int = 0
    image_id: str = ""
    subject: str = ""
    facts: list[Fact] = []

    @property
    def is_unsigned(self) -> bool:
        """Whether nobody vouches for the image, and a rule says that nobody has to."""
        return self.kind == KIND_POLICY and not any(fact.signer for fact in self.facts)

    def to_json(self) -> dict[str, Any]:
        """Form kept in records; fields with their default value are left out."""
        members = {
            _MEMBERS.get(field, field): value
            for field, value in self.as_dict().items()
            if field not in self._defaults or value != self._defaults[field]
        }
        if self.facts:
            members["facts"] = [fact.to_json() for fact in self.facts]
        return members

    @classmethod
    def from_json(cls, value: Any, *, what: str) -> Self:
        """The reverse of ``to_json``; a verdict that is not understood in full is none.

        Args:
            value: decoded JSON.
            what: names the record in the error.

        Raises:
            DamagedRecord: a member is missing, unknown, or of the wrong type.
        """
        if not isinstance(value, dict):
            raise DamagedRecord(f"{what}: the verdict is not an object")
        kinds = {"checked_at": int, "signed_at": int, "identities": list, "facts": list}
        fields = {_MEMBERS.get(field, field): field for field in cls._fields}
        values: dict[str, Any] = {}
        for member, content in value.items():
            field = fields.get(member)
            if field is None:
                raise DamagedRecord(f"{what}: the verdict has an unknown member {member!r}")
            if type(content) is not kinds.get(field, str):
                raise DamagedRecord(f"{what}: member {member!r} of the verdict is {content!r}")
            values[field] = content
        if values.get("kind") not in _KINDS:
            raise DamagedRecord(f"{what}: unknown kind of verdict {values.get('kind')!r}")
        if not all(isinstance(identity, str) for identity in values.get("identities", ())):
            raise DamagedRecord(f"{what}: an identity in the verdict is not text")
        for member, field in fields.items():
            if field not in values and field not in cls._defaults:
                raise DamagedRecord(f"{what}: member {member!r} of the verdict is missing")
        values["facts"] = [Fact.from_json(fact, what=what) for fact in values.get("facts", ())]
        if (values["kind"] == KIND_POLICY) != bool(values["facts"] and values.get("subject")):
            raise DamagedRecord(
                f"{what}: subject and facts are those of a verdict by policy, and of no other"
            )
        return cls(**values)


def told(verdict: Verdict) -> str:
    """What a fetch says of the verdict that it reached."""
    if verdict.kind == KIND_INSECURE:
        return "warning: image signature verification has been disabled"
    if verdict.is_unsigned:
        return f'warning: nobody signed image "{verdict.subject}", {verdict.rule} lets it pass'
    lines = [f"  {identity}" for identity in verdict.identities]
    lines += [f"  {fact.kind} {fact.signer} ({fact.source})" for fact in verdict.facts if fact.signer]
    return "\n".join(["signature verified:", *(lines or [f"  key {verdict.fingerprint}"])])
