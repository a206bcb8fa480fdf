# SPDX-License-Identifier: Apache-2.0
"""Signs Docker and OCI images by a key as cosign 3 does: a bundle, and the artifact around it that refers to the image.

Sources: sigstore/cosign, ``specs/BUNDLE_SPEC.md``; sigstore/protobuf-specs, ``sigstore_bundle.proto``.
"""

from __future__ import annotations

import base64
import hashlib
import time

from rkt.errors import CannotVerify
from rkt.schema import jsontext
from rkt.schema.oci import OCI_MANIFEST
from rkt.schema.record import Record
from rkt.trust import verify_cosign
from rkt.trust.bundle import MEDIA_TYPE
from rkt.trust.dsse import SIGNATURE_PREDICATE, STATEMENT_TYPE, Envelope
from rkt.trust.evidence import BUNDLE, Evidence, Subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.schema.oci import Descriptor
    from rkt.trust.private_keys import PrivateKey

_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"


class Artifact(Record):
    """What is put beside an image.

    Attributes:
        manifest: refers to the image.
        blobs: the bundle and the empty configuration.
        annotations: of the manifest, and of its entry in an index.
    """

    manifest: bytes
    blobs: list[bytes]
    annotations: dict[str, str]

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return _digest(self.manifest)

    @property
    def entry(self) -> dict[str, Any]:
        """What an index says of it."""
        return {
            **_descriptor(OCI_MANIFEST, self.manifest),
            "artifactType": MEDIA_TYPE,
            "annotations": self.annotations,
        }


def sign_image(key: PrivateKey, image: Descriptor) -> Artifact:
    """A signature of an image.

    Args:
        key: signs.
        image: the manifest or the index.
    Raises:
        CannotVerify: nobody would accept it.
    """
    data = _bundle(key, image)
    _check(key, data, image)
    bundle = _descriptor(MEDIA_TYPE, data)
    annotations = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": SIGNATURE_PREDICATE,
        "org.opencontainers.image.created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": MEDIA_TYPE,
        "config": _descriptor(_EMPTY_TYPE, _EMPTY),
        "layers": [bundle],
        "subject": {"mediaType": image.media_type, "digest": image.digest, "size": image.size_bytes},
        "annotations": annotations,
    }
    return Artifact(manifest=jsontext.dump(manifest).encode(), blobs=[data, _EMPTY], annotations=annotations)


def _bundle(key: PrivateKey, image: Descriptor) -> bytes:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": image.digest.hex}}],
        "predicateType": SIGNATURE_PREDICATE,
        "predicate": {},
    }
    payload = jsontext.dump(statement).encode()
    envelope = Envelope(payload_type=STATEMENT_TYPE, payload=payload, signature=b"")
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.hint}},
        "dsseEnvelope": {
            "payload": _encode(payload),
            "payloadType": STATEMENT_TYPE,
            "signatures": [{"sig": _encode(key.sign(envelope.signed_bytes))}],
        },
    }
    return jsontext.dump(document).encode()


def _check(key: PrivateKey, data: bytes, image: Descriptor) -> None:
    """The same that everybody else will do: better to fail here than on their hosts."""
    finding = verify_cosign.verify(
        {"key": "key"},
        {"key": key.public_pem},
        Evidence(kind=BUNDLE, source="", data=data),
        Subject(name="", reference="", digests=[image.digest]),
        int(time.time()),
    )
    if finding.reason:
        raise CannotVerify(f"the signature that was made is not good: {finding.reason}")


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
