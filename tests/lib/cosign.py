# SPDX-License-Identifier: Apache-2.0
"""What cosign writes, made here by nothing of rkt's: keys, payloads, statements, bundles, and the artifacts around them.

Every part can be changed, so that a test says what is wrong with it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.lib.layouts import Image, digest, json_bytes

if TYPE_CHECKING:
    from typing import Any

    Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
STATEMENT = "application/vnd.in-toto+json"
SIGN = "https://sigstore.dev/cosign/sign/v1"
SLSA = "https://slsa.dev/provenance/v1"
SLSA_02 = "https://slsa.dev/provenance/v0.2"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Key:
    """A pair of keys."""

    def __init__(self, private: Private | None = None) -> None:
        """An ECDSA key on P-256, as cosign makes them, unless another is given."""
        self.private = private or ec.generate_private_key(ec.SECP256R1())
        public = self.private.public_key()
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.hint = base64.b64encode(hashlib.sha256(self.der).digest()).decode()
        self.fingerprint = f"sha256:{hashlib.sha256(self.der).hexdigest()}"

    @property
    def private_pem(self) -> bytes:
        """The private key, not encrypted."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
        """A signature, over SHA-256 unless another hash is given."""
        algorithm = algorithm or hashes.SHA256()
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(data)
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), algorithm)
        return self.private.sign(data, ec.ECDSA(algorithm))


def b64(data: bytes) -> str:
    """Base64 as JSON has it."""
    return base64.b64encode(data).decode()


def payload(image_digest: str, reference: str, kind: str = "cosign container image signature") -> bytes:
    """What cosign signed before version 3."""
    return json_bytes(
        {
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": image_digest},
                "type": kind,
            },
            "optional": None,
        }
    )


def statement(*digests: str, kind: str = SIGN, predicate: Any = None, **members: Any) -> bytes:
    """An in-toto statement about images."""
    return json_bytes(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": text.removeprefix("sha256:")}} for text in digests],
            "predicateType": kind,
            "predicate": {} if predicate is None else predicate,
            **members,
        }
    )


def provenance(builder: str, kind: str = SLSA) -> dict[str, Any]:
    """A predicate that names a builder."""
    if kind == SLSA:
        return {"buildDefinition": {}, "runDetails": {"builder": {"id": builder}}}
    return {"builder": {"id": builder}, "buildType": "https://example.com/build"}


def pae(data: bytes, kind: str = STATEMENT) -> bytes:
    """What the signature of a DSSE envelope is over."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(data), data)


def envelope(key: Key, data: bytes, kind: str = STATEMENT, **members: Any) -> dict[str, Any]:
    """A signed DSSE envelope."""
    return {
        "payload": b64(data),
        "payloadType": kind,
        "signatures": [{"sig": b64(key.sign(pae(data, kind)))}],
        **members,
    }


def bundle_of(key: Key, content: dict[str, Any], **members: Any) -> bytes:
    """A bundle around an envelope or a message signature."""
    document = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.hint}},
        **content,
        **members,
    }
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def bundle(key: Key, *digests: str, kind: str = SIGN, predicate: Any = None) -> bytes:
    """What cosign 3 writes: a signed statement about images in a bundle."""
    return bundle_of(
        key, {"dsseEnvelope": envelope(key, statement(*digests, kind=kind, predicate=predicate))}
    )


def attestation_manifest(data: bytes, kind: str = SLSA) -> tuple[bytes, dict[str, bytes]]:
    """What has the tag ``sha256-HEX.att``: one envelope; and its blobs by digest."""
    made, blobs = classic_manifest(Key(), data)
    document = json.loads(made)
    document["layers"][0] |= {
        "mediaType": "application/vnd.dsse.envelope.v1+json",
        "annotations": {"dev.cosignproject.cosign/signature": "", "predicateType": kind},
    }
    return json_bytes(document), blobs


def classic_manifest(key: Key, *payloads: bytes, **annotations: str) -> tuple[bytes, dict[str, bytes]]:
    """What has the tag ``sha256-HEX.sig``, and its blobs by digest."""
    layers = [
        {
            "mediaType": PAYLOAD,
            "digest": digest(data),
            "size": len(data),
            "annotations": {"dev.cosignproject.cosign/signature": b64(key.sign(data)), **annotations},
        }
        for data in payloads
    ]
    config = json_bytes({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}})
    manifest = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(config),
                "size": len(config),
            },
            "layers": layers,
        }
    )
    return manifest, {digest(data): data for data in (config, *payloads)}


def bundle_manifest(
    data: bytes, image_digest: str, *, artifact_type: str = BUNDLE, kind: str = SIGN, size: int = 1
) -> tuple[bytes, dict[str, bytes]]:
    """The artifact around a bundle that refers to an image, and its blobs by digest."""
    empty = b"{}"
    manifest = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": {"mediaType": EMPTY, "digest": digest(empty), "size": len(empty)},
            "layers": [{"mediaType": BUNDLE, "digest": digest(data), "size": len(data)}],
            "subject": {"mediaType": MANIFEST, "digest": image_digest, "size": size},
            "annotations": {
                "dev.sigstore.bundle.content": "dsse-envelope",
                "dev.sigstore.bundle.predicateType": kind,
            },
        }
    )
    return manifest, {digest(item): item for item in (empty, data)}


def descriptor(manifest: bytes, **members: Any) -> dict[str, Any]:
    """An entry of an index for a manifest."""
    return {"mediaType": MANIFEST, "digest": digest(manifest), "size": len(manifest), **members}


def tag_of(image: Image | str, ending: str = "") -> str:
    """``sha256-HEX``, under which things about an image are found."""
    text = image if isinstance(image, str) else image.digest
    return text.replace(":", "-") + ending
