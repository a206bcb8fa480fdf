# SPDX-License-Identifier: Apache-2.0
"""Files of OpenPGP public keys: which keys are in them, what they say about themselves, why one cannot count.

What a key file claims (identities, expiry, revocation, how it is bound) is read from its packets so that an unsuitable
key is refused before anybody is asked to trust it. The claims are checked by cryptography each time a signature is
verified: ``gpgv`` ignores what the key did not sign itself.

Source: RFC 9580, sections 5.2, 5.5, 10.1.
"""

from __future__ import annotations

import hashlib

from rkt.errors import ConfigError
from rkt.schema.record import Record
from rkt.trust import packets
from rkt.trust.packets import Malformed, Packet, Signature

#: Largest file of keys that is read, in bytes.
MAX_KEY_FILE_BYTES = 1 << 20
#: RSA keys below this size are refused, in bits (invariant SG5).
MIN_RSA_BITS = 2048
#: How far a time stamp may lie in the future before it is refused, in seconds; clocks differ.
CLOCK_SKEW_SECONDS = 3600

_RSA = (1, 2, 3)
_ELGAMAL = 16
_ECDSA = 19
_EDDSA = 22
_NAMED = {25: "x25519", 26: "x448", 27: "ed25519", 28: "ed448"}
_CURVES = {
    "2a8648ce3d030107": "nistp256",
    "2b81040022": "nistp384",
    "2b81040023": "nistp521",
    "2b8104000a": "secp256k1",
    "2b2403030208010107": "brainpoolP256r1",
    "2b240303020801010b": "brainpoolP384r1",
    "2b240303020801010d": "brainpoolP512r1",
    "2b06010401da470f01": "ed25519",
    "2b6571": "ed448",
    "2b060104019755010501": "cv25519",
    "2b656f": "x448",
}
_FLAG_SIGN = 0x02


class KeyMaterial(Record):
    """A primary key or a sub-key.

    Attributes:
        fingerprint: 40 (version 4) or 64 (versions 5 and 6) lower-case hex digits.
        algorithm: such as ``rsa2048``, ``ed25519``, ``dsa1024``.
        weakness: why signatures by this very key never count; empty if they may.
        created: seconds since the epoch.
        expires: seconds since the epoch, 0 for never.
        bound_by_weak_hash: whether every signature that binds it uses a hash weaker than SHA-256, or none does.
        for_signing: whether its flags allow signing data.
    """

    fingerprint: str
    version: int
    algorithm: str
    weakness: str
    created: int
    expires: int = 0
    revoked: bool = False
    bound_by_weak_hash: bool = False
    for_signing: bool = True


class PublicKey(Record):
    """A transferable public key.

    Attributes:
        primary: the key that names all of it.
        identities: user IDs that are not revoked, the first one first.
        subkeys: in the file's order.
        binary: its packets, and no other key's.
    """

    primary: KeyMaterial
    identities: list[str]
    subkeys: list[KeyMaterial]
    binary: bytes

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the primary key."""
        return self.primary.fingerprint

    def problem(self, now: int) -> str:
        """Why this key cannot be trusted, empty if it can.

        Args:
            now: seconds since the epoch.
        """
        primary = self.primary
        if primary.weakness:
            return f"is weak: {primary.weakness}"
        if primary.revoked:
            return "is revoked"
        if primary.expires and primary.expires <= now:
            return f"expired on {_date(primary.expires)}"
        if primary.created > now + CLOCK_SKEW_SECONDS:
            return f"was made in the future, on {_date(primary.created)}"
        if primary.bound_by_weak_hash:
            return "is weak: its own signatures use SHA-1 or none binds an identity to it"
        return ""

    def material(self, fingerprint: str) -> KeyMaterial | None:
        """The primary key or sub-key with that fingerprint."""
        return next((m for m in (self.primary, *self.subkeys) if m.fingerprint == fingerprint), None)

    def may_have_made(self, signature: Signature) -> bool:
        """Whether the signature claims to be by this key or one of its sub-keys."""
        return any(signature.is_claimed_by(m.fingerprint) for m in (self.primary, *self.subkeys))

    def to_armour(self) -> bytes:
        """The form that is kept in the key store."""
        return packets.armour(self.binary, packets.LABEL_PUBLIC_KEY)


def group_fingerprint(fingerprint: str) -> str:
    """Upper case in groups of four, two spaces in the middle, as people compare it."""
    groups = [fingerprint[i : i + 4].upper() for i in range(0, len(fingerprint), 4)]
    middle = len(groups) // 2
    return f"{' '.join(groups[:middle])}  {' '.join(groups[middle:])}"


def parse_keys(data: bytes, *, what: str) -> list[PublicKey]:
    """Every public key of a file, armoured or binary.

    Args:
        data: the file.
        what: names the file in errors.

    Raises:
        ConfigError: not a file of public keys, or one of secret keys.
    """
    try:
        if packets.is_armoured(data):
            blocks = packets.remove_armour(data, text_outside=True)
            if any(label == packets.LABEL_PRIVATE_KEY for label, _ in blocks):
                raise _secret(what)
            if any(label != packets.LABEL_PUBLIC_KEY for label, _ in blocks):
                raise Malformed("it holds something else than public keys")
            data = b"".join(content for _, content in blocks)
        found = packets.parse_packets(data)
        if any(p.tag in {packets.TAG_SECRET_KEY, packets.TAG_SECRET_SUBKEY} for p in found):
            raise _secret(what)
        return [_Collector(group).key() for group in _split(found)]
    except Malformed as e:
        raise ConfigError(
            f"{what} is not a file of OpenPGP public keys: {e}",
            hint="gpg --export --armor KEY > pubkey.asc writes one",
        ) from None


def _secret(what: str) -> ConfigError:
    return ConfigError(
        f"{what} holds a secret key, which belongs in nobody else's hands",
        hint="gpg --export --armor KEY > pubkey.asc writes the public part",
    )


def _date(seconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _split(found: list[Packet]) -> list[list[Packet]]:
    groups: list[list[Packet]] = []
    for packet in found:
        if packet.tag in {packets.TAG_MARKER, packets.TAG_TRUST, packets.TAG_PADDING}:
            continue
        if packet.tag == packets.TAG_PUBLIC_KEY:
            groups.append([packet])
        elif not groups:
            raise Malformed(f"it starts with a packet with tag {packet.tag}")
        else:
            groups[-1].append(packet)
    if not groups:
        raise Malformed("it is empty")
    return groups


def parse_material(body: bytes) -> KeyMaterial:
    """Read the body of a public key or sub-key packet.

    Raises:
        Malformed: truncated, or older than version 4.
    """
    version = body[0] if body else 0
    if version not in {4, 5, 6}:
        raise Malformed(f"key of version {version}")
    start = 6 if version == 4 else 10
    if len(body) < start + 3:
        raise Malformed("truncated key")
    if version == 4:
        # The format's own identifier; nothing depends on its collision resistance that the user did not compare.
        head = b"\x99" + len(body).to_bytes(2, "big")
        fingerprint = hashlib.sha1(head + body, usedforsecurity=False).hexdigest()
    else:
        head = (b"\x9a" if version == 5 else b"\x9b") + len(body).to_bytes(4, "big")
        fingerprint = hashlib.sha256(head + body).hexdigest()
    algorithm, weakness = _describe(body[5], body[start:])
    return KeyMaterial(
        fingerprint=fingerprint,
        version=version,
        algorithm=algorithm,
        weakness=weakness,
        created=int.from_bytes(body[1:5], "big"),
    )


def _describe(number: int, material: bytes) -> tuple[str, str]:
    """Name of the algorithm, and why it is too weak to sign."""
    bits = int.from_bytes(material[:2], "big")
    if number in _RSA:
        weakness = (
            f"RSA with {bits} bits, at least {MIN_RSA_BITS} are asked for" if bits < MIN_RSA_BITS else ""
        )
        return f"rsa{bits}", weakness
    if number == packets.ALGORITHM_DSA:
        return f"dsa{bits}", "DSA is not accepted"
    if number == _ELGAMAL:
        return f"elg{bits}", "ElGamal does not sign"
    if number in {18, _ECDSA, _EDDSA}:
        curve = material[1 : 1 + material[0]].hex()
        name = _CURVES.get(curve)
        return name or f"curve {curve}", "" if name else "its curve is not known"
    if number in _NAMED:
        return _NAMED[number], ""
    return f"algorithm {number}", "its algorithm is not known"


class _Collector:
    """Reads the packets of one key in order and keeps what the newest self-signatures say."""

    def __init__(self, group: list[Packet]) -> None:
        self.group = group
        self.primary = parse_material(group[0].body)
        self.identities: list[str] = []
        self.subkeys: list[KeyMaterial] = []

    def key(self) -> PublicKey:
        """The key."""
        direct, sections = self._sections()
        certificates = self._identities(sections)
        revoked = any(s.kind == packets.SIGNATURE_KEY_REVOCATION for s in direct)
        direct = [s for s in direct if s.kind == packets.SIGNATURE_DIRECT_KEY and self._own(s)]
        strong = [s for s in [*direct, *certificates] if s.hash_algorithm in packets.STRONG_HASHES]
        # A direct key signature that speaks of expiry goes before those of the identities (RFC 9580, 5.2.3.10).
        newest = _newest([s for s in direct if s.key_expires_after is not None]) or _newest(certificates)
        flags = [s for s in [_newest(certificates) or _newest(direct)] if s is not None]
        return PublicKey(
            primary=self.primary.replace(
                revoked=revoked,
                expires=_expiry(self.primary, newest),
                bound_by_weak_hash=not strong,
                for_signing=all(s.key_flags is None or bool(s.key_flags & _FLAG_SIGN) for s in flags),
            ),
            identities=self.identities,
            subkeys=self.subkeys,
            binary=b"".join(packet.raw for packet in self.group),
        )

    def _own(self, signature: Signature) -> bool:
        return signature.is_claimed_by(self.primary.fingerprint)

    def _sections(self) -> tuple[list[Signature], list[tuple[Packet, list[Signature]]]]:
        """Signatures directly after the primary key, and each identity or sub-key with those after it."""
        direct: list[Signature] = []
        sections: list[tuple[Packet, list[Signature]]] = []
        current = direct
        for packet in self.group[1:]:
            if packet.tag == packets.TAG_SIGNATURE:
                try:
                    current.append(Signature.parse(packet))
                except Malformed:
                    continue
            elif packet.tag in {packets.TAG_USER_ID, packets.TAG_USER_ATTRIBUTE, packets.TAG_PUBLIC_SUBKEY}:
                current = []
                sections.append((packet, current))
            else:
                raise Malformed(f"it holds a packet with tag {packet.tag}")
        return direct, sections

    def _identities(self, sections: list[tuple[Packet, list[Signature]]]) -> list[Signature]:
        """Fill in identities and sub-keys; returns the newest self-signature of each identity."""
        certificates = []
        for packet, signatures in sections:
            own = [s for s in signatures if self._own(s)]
            if packet.tag == packets.TAG_PUBLIC_SUBKEY:
                self.subkeys.append(self._subkey(packet, own))
                continue
            certificate = _newest([s for s in own if s.kind in packets.SIGNATURE_CERTIFICATIONS])
            revocation = _newest([s for s in own if s.kind == packets.SIGNATURE_CERTIFICATION_REVOCATION])
            if certificate is None or (revocation and revocation.created >= certificate.created):
                continue
            certificates.append(certificate)
            if packet.tag == packets.TAG_USER_ID:
                self.identities.append(packet.body.decode("utf-8", "replace"))
        return certificates

    def _subkey(self, packet: Packet, own: list[Signature]) -> KeyMaterial:
        material = parse_material(packet.body)
        binding = _newest([s for s in own if s.kind == packets.SIGNATURE_SUBKEY_BINDING])
        return material.replace(
            revoked=any(s.kind == packets.SIGNATURE_SUBKEY_REVOCATION for s in own),
            expires=_expiry(material, binding),
            bound_by_weak_hash=binding is None or binding.hash_algorithm not in packets.STRONG_HASHES,
            for_signing=binding is not None
            and (binding.key_flags is None or bool(binding.key_flags & _FLAG_SIGN)),
        )


def _newest(signatures: list[Signature]) -> Signature | None:
    return max(signatures, key=lambda s: s.created, default=None)


def _expiry(material: KeyMaterial, signature: Signature | None) -> int:
    if signature is None or not signature.key_expires_after:
        return 0
    return material.created + signature.key_expires_after


def load_keys(path: str) -> list[PublicKey]:
    """Every public key of a file on disk.

    Raises:
        ConfigError: the file cannot be read, or ``parse_keys`` says so.
    """
    from rkt.linux.files import read_bounded

    try:
        data = read_bounded(path, MAX_KEY_FILE_BYTES)
    except OSError as e:
        raise ConfigError(f"cannot read the public key file {path!r}: {e.strerror}") from e
    return parse_keys(data, what=repr(path))
