# SPDX-License-Identifier: Apache-2.0
"""``rkt image sign`` of Docker and OCI images: what it makes, where it puts it, and who can read it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from rkt.config.settings import Settings
from rkt.fetch.evidence import collect
from rkt.fetch.layout import LocalSource
from rkt.fetch.oci_reference import parse_local
from rkt.schema.oci import Platform
from rkt.trust import verifier
from rkt.trust.evidence import Subject
from rkt.trust.rules import Requirement
from rkt.values import Digest
from tests.lib import cosign, layouts
from tests.lib.layouts import make_image, make_index
from tests.lib.registry import PLAIN, Client, Registry
from tests.lib.sources import INSTALLATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.trust.evidence import Evidence, Finding
    from tests.lib.rkt import Rkt
    from tests.lib.server import Authority

pytestmark = pytest.mark.root

IMAGE = make_image(layouts.layer({"bin/app": b"signed"}))
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory for keys."""
    return str(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def registry(authority: Authority) -> Iterator[Registry]:
    """A registry without the referrers API, with an image and an index of it."""
    with Registry(PLAIN, authority) as registry:
        registry.push("team/app", IMAGE, "1")
        registry.push_manifest("team/app", "several", make_index(IMAGE.descriptor()))
        yield registry


def verify(evidence: list[Evidence], pub: str, *digests: str) -> list[Finding]:
    """What the verifier says of it."""
    subject = Subject(name="a/b", reference="", digests=list(digests))
    requirement = Requirement(kind="cosign", key=pub)
    return verifier.verify(evidence, [requirement], subject, Settings(installation=INSTALLATION))


def in_layout(rkt: Rkt, path: str, *names: str) -> list[Evidence]:
    """Evidence of a layout about the image."""
    client = Client(rkt.base)
    with LocalSource(parse_local("oci", path), Platform.of_host(), client.settings) as source:
        return collect(source, [Digest(name) for name in names or (IMAGE.digest,)], ["cosign"])


def test_keys_that_are_made(rkt: Rkt, keys: str) -> None:
    """--generate-key makes a pair that nothing overwrites, the private half for its owner alone, encrypted by a password."""
    made = rkt.run("image", "sign", f"--generate-key={keys}/plain", check=0)
    assert made.lines == [f"{keys}/plain.pub"]
    assert "not encrypted, keep it secret" in made.stderr
    assert stat.S_IMODE(os.stat(f"{keys}/plain.key").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(f"{keys}/plain.pub").st_mode) == 0o644
    with open(f"{keys}/plain.pub", "rb") as file:
        public = load_pem_public_key(file.read())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    again = rkt.run("image", "sign", f"--generate-key={keys}/plain", check=254)
    assert "plain.key exists already" in again.stderr
    made = rkt.run(
        "image", "sign", f"--generate-key={keys}/locked", env={"COSIGN_PASSWORD": PASSWORD}, check=0
    )
    assert "encrypted by the password" in made.stderr
    with open(f"{keys}/locked.key", encoding="ascii") as text:
        assert text.readline() == "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n"


def test_layout(rkt: Rkt, keys: str) -> None:
    """A signature in a layout is an artifact that refers to the image; the image is still the only one in there, and valid."""
    rkt.run("image", "sign", f"--generate-key={keys}/layout", check=0)
    path = layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    done = rkt.run("image", "sign", f"--cosign-key={keys}/layout.key", f"oci:{path}", check=0)
    assert f'signed "oci:{path}", which is {IMAGE.digest}' in done.stderr
    with open(done.lines[0], "rb") as file:
        manifest = json.load(file)
    with open(f"{path}/index.json", "rb") as file:
        image, entry = json.load(file)["manifests"]
    assert image == IMAGE.descriptor()
    assert done.lines[0].endswith(entry["digest"].removeprefix("sha256:"))
    assert manifest["artifactType"] == entry["artifactType"] == cosign.BUNDLE
    assert manifest["subject"] == {k: image[k] for k in ("mediaType", "digest", "size")}
    assert manifest["config"]["mediaType"] == cosign.EMPTY
    assert entry["annotations"] == manifest["annotations"]
    assert manifest["annotations"]["dev.sigstore.bundle.predicateType"] == cosign.SIGN
    assert manifest["annotations"]["dev.sigstore.bundle.content"] == "dsse-envelope"

    evidence = in_layout(rkt, path)
    assert [finding.reason for finding in verify(evidence, f"{keys}/layout.pub", IMAGE.digest)] == [""]
    check_bundle(evidence[0].data, f"{keys}/layout.pub")
    # For who pulls it, it is still the only image, and now somebody vouches for it.
    assert "verification failed" in rkt.run("fetch", f"oci:{path}", check=254).stderr
    rkt.run("trust", "--prefix=localhost/layout", f"--cosign-key={keys}/layout.pub", check=0)
    assert "signature verified" in rkt.run("fetch", f"oci:{path}", check=0).stderr

    refused = rkt.run(
        "image", "sign", f"--cosign-key={keys}/layout.key", f"oci-archive:{path}.tar", check=254
    )
    assert "signatures are written into layouts and registries" in refused.stderr
    refused = rkt.run("image", "sign", f"--cosign-key={keys}/layout.key", f"oci:{path}:nothing", check=254)
    assert "has no image nothing" in refused.stderr
    refused = rkt.run("image", "sign", "--key=me", f"oci:{path}", check=254)
    assert "--key signs image files" in refused.stderr


def check_bundle(data: bytes, pub: str) -> None:
    """The bundle is what sigstore's specifications say, looked at by nothing of rkt's."""
    document = json.loads(data)
    with open(pub, "rb") as file:
        public = load_pem_public_key(file.read())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    envelope = document["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    (signature,) = envelope["signatures"]
    public.verify(base64.b64decode(signature["sig"]), cosign.pae(payload), ec.ECDSA(hashes.SHA256()))
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    hint = base64.b64encode(hashlib.sha256(der).digest()).decode()
    assert document["verificationMaterial"] == {"publicKey": {"hint": hint}}
    assert (document["mediaType"], envelope["payloadType"]) == (cosign.BUNDLE, cosign.STATEMENT)
    assert json.loads(payload) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": IMAGE.digest.removeprefix("sha256:")}}],
        "predicateType": cosign.SIGN,
        "predicate": {},
    }


def test_registry(rkt: Rkt, keys: str, registry: Registry) -> None:
    """In a registry without the referrers API signatures of a tag and of its index are listed by tag, beside older ones."""
    client = Client(rkt.base)
    allow(client, registry)
    for name, password in (("one", ""), ("two", PASSWORD)):
        rkt.run("image", "sign", f"--generate-key={keys}/{name}", env={"COSIGN_PASSWORD": password}, check=0)
    with open(f"{keys}/password", "w", encoding="ascii") as file:
        file.write(f"{PASSWORD}\nmore\n")
    reference = f"docker://{registry.name}/team/app"
    first = rkt.run("image", "sign", f"--cosign-key={keys}/one.key", f"{reference}:1", check=0)
    assert first.lines[0].startswith(f"{registry.name}/team/app@sha256:")
    assert f"which is {IMAGE.digest}" in first.stderr
    rkt.run(
        "image", "sign", f"--cosign-key={keys}/two.key", f"--password-file={keys}/password",
        f"{reference}@{IMAGE.digest}", check=0,
    )  # fmt: skip
    several = rkt.run("image", "sign", f"--cosign-key={keys}/one.key", f"{reference}:several", check=0)
    index = layouts.digest(make_index(IMAGE.descriptor()))
    assert f"which is {index}" in several.stderr

    source = client.source(f"{reference}:1")
    evidence = collect(source, [Digest(IMAGE.digest)], ["cosign"])
    for key in ("one", "two"):
        findings = verify(evidence, f"{keys}/{key}.pub", IMAGE.digest)
        assert sorted(finding.reason == "" for finding in findings) == [False, True]
    both = collect(source, [Digest(IMAGE.digest), Digest(index)], ["cosign"])
    assert len(both) == 3
    good = [f.digest for f in verify(both, f"{keys}/one.pub", IMAGE.digest, index) if not f.reason]
    assert sorted(good) == sorted([IMAGE.digest, index])
    check_bundle(evidence[0].data, f"{keys}/one.pub")

    absent = rkt.run("image", "sign", f"--cosign-key={keys}/one.key", f"{reference}:none", check=254)
    assert "has no team/app:none" in absent.stderr


def allow(client: Client, registry: Registry) -> None:
    """Speak plain http to the registry."""
    client.configure("fetch.d/plain", {"rktKind": "registry", "registries": [registry.name], "http": True})


REFUSED = {
    "without a password": ((), {}, "is encrypted"),
    "with a wrong password": ((), {"COSIGN_PASSWORD": "wrong"}, "cannot be read with this password"),
    "of another kind": (("--signature=x",), {"COSIGN_PASSWORD": PASSWORD}, "--signature is for image files"),
    "two ways": (("--key=me",), {}, "--key and --cosign-key exclude each other"),
    "no file": (("--cosign-key=/nonexistent",), {}, "cannot read the key /nonexistent: No such file"),
    "no password file": (("--password-file=/nonexistent",), {}, "cannot read the password file /nonexistent"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_refused(rkt: Rkt, keys: str, how: str) -> None:
    """What is wrong with a key or a command line is said before anything is written."""
    if not os.path.exists(f"{keys}/refused.key"):
        rkt.run("image", "sign", f"--generate-key={keys}/refused", env={"COSIGN_PASSWORD": PASSWORD}, check=0)
    flags, environment, text = REFUSED[how]
    path = layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    done = rkt.run(
        "image", "sign", f"--cosign-key={keys}/refused.key", *flags, f"oci:{path}", env=environment, check=254
    )
    assert text in done.stderr
    assert in_layout(rkt, path) == []
