# SPDX-License-Identifier: Apache-2.0
"""A sigstore of our own, made of nothing of rkt's: an authority, a certificate log, a transparency log, and signers.

Every part can be changed, so that a test says what is wrong with it. Times are fixed: nothing here asks the clock.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.lib import cosign
from tests.lib.cosign import b64

if TYPE_CHECKING:
    from typing import Any

IDENTITY = "https://git.example/team/app/.ci/release.yml@refs/heads/main"
ISSUER = "https://tokens.git.example"
#: When everybody signs, unless told otherwise.
SIGNED_AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
#: What a certificate may be for instead of signing code.
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
_ORIGIN = "log.example"
_ISSUER_V1 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(**words: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: words.get(name, False) for name in names.split()})


class Sigstore:
    """Authority and logs, and the file by which others know them."""

    def __init__(self) -> None:
        self.authority_key = _key()
        self.certificate_log_key = _key()
        self.log_key = _key()
        self.start = SIGNED_AT - timedelta(days=1000)
        name = _name("authority.example")
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.authority_key.public_key())
        self.authority = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.authority_key.public_key())
            .serial_number(1)
            .not_valid_before(self.start)
            .not_valid_after(SIGNED_AT + timedelta(days=3000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(self.authority_key, hashes.SHA256())
        )

    @property
    def log_id(self) -> bytes:
        """What entries call the transparency log."""
        return _sha256(_der(self.log_key))

    def root(self, **changes: Any) -> bytes:
        """``trusted_root.json``; members may be replaced."""
        document = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._log(self.log_key, "https://log.example")],
            "certificateAuthorities": [self.root_authority()],
            "ctlogs": [self._log(self.certificate_log_key, "https://ct.example")],
            **changes,
        }
        return json.dumps(document).encode()

    def root_authority(self, **period: str) -> dict[str, Any]:
        """The member for the authority."""
        return {
            "subject": {"organization": "example", "commonName": "authority.example"},
            "uri": "https://authority.example",
            "certChain": {"certificates": [{"rawBytes": b64(self.authority.public_bytes(Encoding.DER))}]},
            "validFor": period or {"start": self.start.strftime("%Y-%m-%dT%H:%M:%SZ")},
        }

    def root_log(self, **period: str) -> dict[str, Any]:
        """The member for the transparency log."""
        return self._log(self.log_key, "https://log.example", **period)

    def root_certificate_log(self, **period: str) -> dict[str, Any]:
        """The member for the certificate log."""
        return self._log(self.certificate_log_key, "https://ct.example", **period)

    def _log(self, key: ec.EllipticCurvePrivateKey, url: str, **period: str) -> dict[str, Any]:
        return {
            "baseUrl": url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(_der(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": period or {"start": self.start.strftime("%Y-%m-%dT%H:%M:%SZ")},
            },
            "logId": {"keyId": b64(_sha256(_der(key)))},
        }

    def certify(
        self,
        public: Any,
        *,
        identities: tuple[str, ...] = (IDENTITY,),
        issuers: tuple[str, ...] = (ISSUER,),
        begin: datetime = SIGNED_AT - timedelta(minutes=1),
        minutes: int = 10,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        log: str = "ours",
    ) -> x509.Certificate:
        """A certificate for a public key.

        Args:
            public: the key.
            identities: who has it; what has an ``@`` and no colon is a mail address.
            issuers: who confirmed that: the first in both forms, a second in the old form in its place.
            begin: when it starts to be valid.
            minutes: how long it is.
            usage: what it is for.
            log: the certificate log that has seen it: ``ours``, ``another``, ``none``.
        """
        names = [
            x509.RFC822Name(text) if "@" in text and ":" not in text else x509.UniformResourceIdentifier(text)
            for text in identities
        ]
        new_form = b"\x0c" + bytes((len(issuers[0].encode()),)) + issuers[0].encode()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.authority.subject)
            .public_key(public)
            .serial_number(int.from_bytes(_sha256(repr((identities, begin)).encode())[:8]) | 1)
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(minutes=minutes))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority_key.public_key()),
                critical=False,
            )
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V1, issuers[-1].encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V2, new_form), critical=False)
        )
        seen = builder.sign(self.authority_key, hashes.SHA256())
        if log == "none":
            return seen
        key = self.certificate_log_key if log == "ours" else _key()
        list_of_one = self._seen(key, seen, begin)
        wrapped = b"\x04" + bytes((len(list_of_one),)) + list_of_one
        return builder.add_extension(x509.UnrecognizedExtension(_SCT_LIST, wrapped), critical=False).sign(
            self.authority_key, hashes.SHA256()
        )

    def _seen(self, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate, at: datetime) -> bytes:
        """What a certificate log gives for a certificate: a list with one SCT (RFC 6962, 3.2 and 3.3)."""
        time = (int(at.timestamp()) * 1000).to_bytes(8)
        body = cert.tbs_certificate_bytes
        entry = b"\x00\x01" + _sha256(_der(self.authority_key)) + len(body).to_bytes(3) + body + b"\x00\x00"
        signature = _sign(key, b"\x00\x00" + time + entry)
        sct = (
            b"\x00" + _sha256(_der(key)) + time + b"\x00\x00\x04\x03" + len(signature).to_bytes(2) + signature
        )
        return (len(sct) + 2).to_bytes(2) + len(sct).to_bytes(2) + sct

    def enter(
        self,
        body: bytes,
        *,
        at: datetime = SIGNED_AT,
        promise: bool = True,
        key: ec.EllipticCurvePrivateKey | None = None,
        form: tuple[str, str] = ("dsse", "0.0.1"),
    ) -> dict[str, Any]:
        """The transparency log's entry with a body; it is the second of five."""
        key = key or self.log_key
        log_id = _sha256(_der(key))
        leaves = [_sha256(b"\x00" + data) for data in (b"one", body, b"three", b"four", b"five")]
        right = _sha256(b"\x01" + leaves[2] + leaves[3])
        left = _sha256(b"\x01" + leaves[0] + leaves[1])
        root = _sha256(b"\x01" + _sha256(b"\x01" + left + right) + leaves[4])
        note = f"{_ORIGIN} - 1\n5\n{b64(root)}\n"
        hint = b64(log_id[:4] + _sign(key, note.encode()))
        entry: dict[str, Any] = {
            "logIndex": "1001",
            "logId": {"keyId": b64(log_id)},
            "kindVersion": {"kind": form[0], "version": form[1]},
            "integratedTime": str(int(at.timestamp())),
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": b64(root),
                "treeSize": "5",
                "hashes": [b64(item) for item in (leaves[0], right, leaves[4])],
                "checkpoint": {"envelope": f"{note}\n\N{EM DASH} {_ORIGIN} {hint}\n"},
            },
            "canonicalizedBody": b64(body),
        }
        if promise:
            promised = {
                "body": b64(body),
                "integratedTime": int(at.timestamp()),
                "logID": log_id.hex(),
                "logIndex": 1001,
            }
            entry["inclusionPromise"] = {"signedEntryTimestamp": b64(_sign(key, _canonical(promised)))}
        return entry


class Signer:
    """Somebody with a key for minutes, and a certificate for it."""

    def __init__(self, sigstore: Sigstore, **certificate: Any) -> None:
        """``certificate``: for ``Sigstore.certify``."""
        self.sigstore = sigstore
        self.key = cosign.Key()
        self.certificate = sigstore.certify(self.key.private.public_key(), **certificate)

    def envelope_body(self, envelope: dict[str, Any], **hashed: bytes) -> bytes:
        """What the log keeps of an envelope."""
        payload = hashed.get("payload", base64.b64decode(envelope["payload"]))
        return _canonical(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": _sha256(_canonical(envelope)).hex()},
                    "payloadHash": {"algorithm": "sha256", "value": _sha256(payload).hex()},
                    "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": self._pem()}],
                },
            }
        )

    def message_body(self, signature: bytes, digest: bytes) -> bytes:
        """What the log keeps of a signature over bytes with that digest."""
        return _canonical(
            {
                "apiVersion": "0.0.1",
                "kind": "hashedrekord",
                "spec": {
                    "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
                    "signature": {"content": b64(signature), "publicKey": {"content": self._pem()}},
                },
            }
        )

    def _pem(self) -> str:
        return b64(self.certificate.public_bytes(Encoding.PEM))

    def sign(
        self, *digests: str, kind: str = cosign.SIGN, predicate: Any = None, **entry: Any
    ) -> dict[str, Any]:
        """A bundle as cosign 3 writes it: a statement about images. ``entry``: for ``Sigstore.enter``."""
        return self.wrap(cosign.statement(*digests, kind=kind, predicate=predicate), **entry)

    def wrap(self, payload: bytes, payload_type: str = cosign.STATEMENT, **entry: Any) -> dict[str, Any]:
        """A bundle around any payload."""
        envelope = cosign.envelope(self.key, payload, payload_type)
        return self.bundle(
            {"dsseEnvelope": envelope}, self.sigstore.enter(self.envelope_body(envelope), **entry)
        )

    def sign_message(self, message: bytes, **entry: Any) -> dict[str, Any]:
        """A bundle around a signature of the manifest itself."""
        signature, digest = self.key.sign(message), _sha256(message)
        content = {
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
                "signature": b64(signature),
            }
        }
        body = self.message_body(signature, digest)
        return self.bundle(content, self.sigstore.enter(body, form=("hashedrekord", "0.0.1"), **entry))

    def sign_classic(self, payload: bytes, **entry: Any) -> dict[str, str]:
        """What cosign kept beside a payload before version 3: signature, certificate, and what the log promised."""
        signature = self.key.sign(payload)
        body = self.message_body(signature, _sha256(payload))
        made = self.sigstore.enter(body, form=("hashedrekord", "0.0.1"), **entry)
        promise = {
            "SignedEntryTimestamp": made.get("inclusionPromise", {}).get("signedEntryTimestamp", ""),
            "Payload": {
                "body": made["canonicalizedBody"],
                "integratedTime": int(made["integratedTime"]),
                "logIndex": int(made["logIndex"]),
                "logID": base64.b64decode(made["logId"]["keyId"]).hex(),
            },
        }
        certificate = self.certificate.public_bytes(Encoding.PEM).decode()
        return {"signature": b64(signature), "certificate": certificate, "log_entry": json.dumps(promise)}

    def bundle(self, content: dict[str, Any], *entries: dict[str, Any]) -> dict[str, Any]:
        """A bundle, decoded; ``dump`` makes bytes of it."""
        certificate = {"rawBytes": b64(self.certificate.public_bytes(Encoding.DER))}
        return {
            "mediaType": cosign.BUNDLE,
            "verificationMaterial": {"certificate": certificate, "tlogEntries": list(entries)},
            **content,
        }


def dump(bundle: dict[str, Any]) -> bytes:
    """The bytes of a bundle."""
    return json.dumps(bundle).encode()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
