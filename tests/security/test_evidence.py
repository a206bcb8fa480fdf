# SPDX-License-Identifier: Apache-2.0
"""Where signatures are looked for, within which bounds, and who reads them: rkt-fetch and rkt-verify."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from rkt.config.settings import Settings
from rkt.errors import FetchError
from rkt.fetch.evidence import collect
from rkt.fetch.evidence_worker import Found
from rkt.fetch.layout import LocalSource
from rkt.fetch.oci_reference import parse_local
from rkt.linux import landlock
from rkt.privsep import confine
from rkt.schema.oci import Platform
from rkt.trust import verifier
from rkt.trust.evidence import (
    BUNDLE,
    COSIGN_ATTESTATION,
    COSIGN_CLASSIC,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    Evidence,
    Subject,
)
from rkt.trust.rules import Requirement
from rkt.values import Digest
from tests.lib import cosign, layouts
from tests.lib.cosign import Key
from tests.lib.layouts import digest, make_image, make_index
from tests.lib.registry import Client, LyingRegistry, work_here
from tests.lib.rkt import ROOT
from tests.lib.sources import INSTALLATION
from tests.lib.workers import NAMESPACES, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rkt.schema.oci import Descriptor
    from tests.lib.server import Authority
    from tests.lib.workers import Seen

pytestmark = pytest.mark.root

IMAGE = make_image(layouts.layer({"bin/app": b"app"}))
DIGEST = Digest(IMAGE.digest)
OTHER = "sha256:" + "b" * 64
KEY = Key()
CLASSIC = cosign.payload(IMAGE.digest, "registry.example/app")
SIGNED = cosign.bundle(KEY, IMAGE.digest)
MADE = cosign.bundle(KEY, IMAGE.digest, kind=cosign.SLSA, predicate=cosign.provenance("https://ci.example"))


@pytest.fixture(scope="module")
def servers(authority: Authority) -> Iterator[list[LyingRegistry]]:
    """A registry and a mirror."""
    with LyingRegistry(authority) as one, LyingRegistry(authority) as two:
        yield [one, two]


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority, servers: list[LyingRegistry]
) -> Client:
    """A command whose worker works in this process, and nothing served yet."""
    monkeypatch.setattr("rkt.fetch.job.run_worker", work_here)
    client = Client(str(tmp_path))
    client.accept(authority, *(server.cleared().name for server in servers))
    return client


def put_classic(registry: LyingRegistry, *payloads: bytes, **annotations: str) -> None:
    """Serve what has the tag of the image."""
    made = cosign.classic_manifest(KEY, *(payloads or (CLASSIC,)), **annotations)
    registry.artifact(*made, tag=cosign.tag_of(IMAGE, ".sig"))


def put_bundles(
    registry: LyingRegistry, *bundles: bytes, kind: str = cosign.BUNDLE
) -> list[dict[str, object]]:
    """Serve artifacts that refer to the image; returns their entries."""
    entries = []
    for data in bundles:
        predicate = cosign.SLSA if data is MADE else cosign.SIGN
        made = cosign.bundle_manifest(data, IMAGE.digest, artifact_type=kind, kind=predicate)
        entries.append(registry.artifact(*made))
    return entries


def found(client: Client, registry: LyingRegistry, *kinds: str) -> list[Evidence]:
    """Evidence about the image."""
    return collect(client.source(f"{registry.name}/app:1"), [DIGEST], kinds)


def test_what_is_asked_for(client: Client, servers: list[LyingRegistry]) -> None:
    """Issue 7, 2: both forms are found, by tag and by the referrers API, with where they were; nothing unasked for is had."""
    registry = servers[0]
    put_classic(registry, **{"dev.sigstore.cosign/bundle": "{}", "dev.sigstore.cosign/certificate": "C"})
    entries = put_bundles(registry, SIGNED, MADE)
    wrong_type = put_bundles(registry, cosign.bundle(KEY, OTHER), kind=cosign.EMPTY)[0]
    listing = {**wrong_type, "artifactType": "application/vnd.example.sbom"}
    registry.refer(IMAGE.digest, *entries, {**entries[0], "artifactType": "application/vnd.example"}, listing)

    both = found(client, registry, "cosign")
    assert [(piece.kind, piece.data) for piece in both] == [
        (BUNDLE, SIGNED),
        (BUNDLE, b""),
        (COSIGN_CLASSIC, CLASSIC),
    ]
    assert both[0].source == f"referrer {entries[0]['digest']}"
    assert f'attestation of the type "{cosign.SLSA}", which is not asked for' in both[1].problem
    assert both[2].source == f"tag {cosign.tag_of(IMAGE, '.sig')}, {digest(CLASSIC)}"
    assert (both[2].certificate, both[2].log_entry, both[2].chain) == ("C", "{}", "")
    assert both == found(client, registry, "keyless")

    registry.requests.clear()
    only = found(client, registry, "slsa")
    assert [piece.data for piece in only if not piece.problem] == [MADE]
    assert not any(request.path.endswith(".sig") for request in registry.requests)
    registry.requests.clear()
    (none,) = found(client, registry, "openpgp", "unsigned")
    assert "no lookaside" in none.problem
    assert registry.requests == []


@pytest.mark.parametrize("status", [404, 400, 405, 406, 501])
def test_fall_back(client: Client, servers: list[LyingRegistry], status: int) -> None:
    """Issue 7, 2: a registry without the referrers API, however it says so, is asked for the tag of the digest."""
    registry = servers[0]
    registry.refer(IMAGE.digest, status=status)
    registry.manifest("app", cosign.tag_of(IMAGE), make_index(*put_bundles(registry, SIGNED)))
    assert [piece.data for piece in found(client, registry, "cosign")] == [SIGNED]


def test_pushed_by_others(client: Client, servers: list[LyingRegistry]) -> None:
    """Issue 7, 2: what sigstore's JavaScript packages push to a registry without the API is found, by tag and by API."""
    with open(os.path.join(ROOT, "tests/data/cosign/sigstore-js.json"), "rb") as file:
        made = json.load(file)
    registry = servers[0]
    data = json.dumps(made["sign"], separators=(",", ":")).encode()
    entry = registry.artifact(made["manifest"].encode(), {digest(item): item for item in (data, b"{}")})
    registry.manifest("app", cosign.tag_of(made["imageDigest"]), made["index"].encode())
    for _ in ("tag", "api"):
        source = client.source(f"{registry.name}/app:1")
        (piece,) = collect(source, [Digest(made["imageDigest"])], ["cosign"])
        assert (piece.data, piece.problem) == (data, "")
        registry.refer(made["imageDigest"], entry)
        registry.manifest("app", cosign.tag_of(made["imageDigest"]), make_index())


def test_old_announcement(client: Client, servers: list[LyingRegistry]) -> None:
    """A bundle that is announced as something empty, as cosign 2 did, is one all the same."""
    registry = servers[0]
    (entry,) = put_bundles(registry, SIGNED)
    registry.refer(IMAGE.digest, {**entry, "artifactType": cosign.EMPTY})
    assert [piece.data for piece in found(client, registry, "cosign")] == [SIGNED]


def test_attestations_of_old(client: Client, servers: list[LyingRegistry], tmp_path: Path) -> None:
    """Provenance as cosign tagged it before version 3 is found where it is asked for, in registries and layouts."""
    made = cosign.statement(IMAGE.digest, kind=cosign.SLSA, predicate=cosign.provenance("https://ci.example"))
    data = layouts.json_bytes(cosign.envelope(KEY, made))
    manifest, blobs = cosign.attestation_manifest(data)
    tag = cosign.tag_of(IMAGE, ".att")
    servers[0].artifact(manifest, blobs, tag=tag)
    (piece,) = found(client, servers[0], "slsa")
    assert (piece.kind, piece.data, piece.source) == (COSIGN_ATTESTATION, data, f"tag {tag}, {digest(data)}")
    assert found(client, servers[0], "cosign") == []
    parts, more = cosign.attestation_manifest(data, "https://cyclonedx.org/bom")
    servers[0].artifact(parts, more, tag=tag)
    (piece,) = found(client, servers[0], "slsa")
    assert "which is not asked for" in piece.problem

    name = "org.opencontainers.image.ref.name"
    entries = [IMAGE.descriptor(), cosign.descriptor(manifest, annotations={name: tag})]
    named = {name.removeprefix("sha256:"): content for name, content in blobs.items()}
    files = layouts.layout_files(
        make_index(*entries), {**IMAGE.blobs, **named, digest(manifest).removeprefix("sha256:"): manifest}
    )
    path = layouts.write_tar(f"{tmp_path}/layout.tar", files)
    with LocalSource(parse_local("oci-archive", path), Platform.of_host(), client.settings) as source:
        assert [piece.data for piece in collect(source, [DIGEST], ["slsa"])] == [data]


def test_index_and_manifest(client: Client, servers: list[LyingRegistry]) -> None:
    """Signatures of the index count as much as those of the manifest: both are looked for."""
    registry = servers[0]
    data = cosign.bundle(KEY, OTHER)
    entry = registry.artifact(*cosign.bundle_manifest(data, OTHER))
    registry.refer(OTHER, entry)
    pieces = collect(client.source(f"{registry.name}/app:1"), [DIGEST, Digest(OTHER)], ["cosign"])
    assert [piece.data for piece in pieces] == [data]


def test_none(client: Client, servers: list[LyingRegistry]) -> None:
    """No signature is no error; a registry that does not answer is one."""
    assert found(client, servers[0], "cosign") == []
    servers[0].refer(IMAGE.digest, status=403)
    with pytest.raises(FetchError, match="gives no access"):
        found(client, servers[0], "cosign")


def test_mirror(client: Client, servers: list[LyingRegistry]) -> None:
    """A mirror that has no signatures is passed over for the registry."""
    registry, mirror = servers
    client.configure(
        "fetch.d/mirrors",
        {"rktKind": "registry", "registries": [registry.name], "mirrors": [f"https://{mirror.name}"]},
    )
    put_classic(registry)
    assert [piece.data for piece in found(client, registry, "cosign")] == [CLASSIC]
    assert mirror.requests
    put_classic(mirror, cosign.payload(OTHER, "x"))
    registry.requests.clear()
    assert [piece.kind for piece in found(client, registry, "cosign")] == [COSIGN_CLASSIC]
    assert registry.requests == []


def _large(registry: LyingRegistry) -> None:
    put_classic(registry, b"x" * (MAX_PIECE_BYTES + 1))


def _absent_blob(registry: LyingRegistry) -> None:
    put_classic(registry)
    del registry.pages[f"/v2/app/blobs/{digest(CLASSIC)}"]


def _other_blob(registry: LyingRegistry) -> None:
    put_classic(registry)
    registry.blob("app", CLASSIC[::-1], digest(CLASSIC))


def _long_annotation(registry: LyingRegistry) -> None:
    put_classic(registry, **{"dev.sigstore.cosign/chain": "x" * (65 << 10)})


def _index(registry: LyingRegistry) -> None:
    registry.manifest("app", cosign.tag_of(IMAGE, ".sig"), make_index())
    page = registry.pages[f"/v2/app/manifests/{cosign.tag_of(IMAGE, '.sig')}"]
    page.headers["Content-Type"] = cosign.MANIFEST


def _about_another(registry: LyingRegistry) -> None:
    entry = registry.artifact(*cosign.bundle_manifest(SIGNED, OTHER))
    registry.refer(IMAGE.digest, entry)


def _other_artifact(registry: LyingRegistry) -> None:
    (entry,) = put_bundles(registry, SIGNED)
    registry.manifest("app", str(entry["digest"]), cosign.bundle_manifest(SIGNED, OTHER)[0])
    registry.refer(IMAGE.digest, entry)


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        (_large, f"has {MAX_PIECE_BYTES + 1} bytes, at most {MAX_PIECE_BYTES} are read"),
        (_absent_blob, "has no signature"),
        (_other_blob, "is not the one with the digest"),
        (_long_annotation, "an annotation is larger"),
        (_index, "was announced, but it calls itself"),
        (_about_another, "does not refer to this image"),
        (_other_artifact, "the registry sent another one"),
    ],
)
def test_problems(
    client: Client, servers: list[LyingRegistry], serve: Callable[[LyingRegistry], None], problem: str
) -> None:
    """A piece that cannot be had, or is not what it should be, is told with the reason and has no bytes (RG1, RG8)."""
    serve(servers[0])
    (piece,) = found(client, servers[0], "cosign")
    assert problem in piece.problem
    assert piece.data == b""


def test_too_many() -> None:
    """Of very many pieces the first are had; how many more there are is told, and those do not count (RG8)."""
    payloads = [
        cosign.payload(IMAGE.digest, f"registry.example/{number}") for number in range(MAX_PIECES + 3)
    ]
    manifest, blobs = cosign.classic_manifest(KEY, *payloads)
    for extra, had in ((b"", MAX_PIECES), (b" " * (1 << 19), 15)):
        longer = {Digest(name): data + extra for name, data in blobs.items()}

        def blob(layer: Descriptor, longer: dict[Digest, bytes] = longer) -> bytes:
            return longer[layer.digest]

        pieces = Found({"digests": [IMAGE.digest], "kinds": ["cosign"]})
        pieces.tagged(".sig", "tag x", manifest, cosign.MANIFEST, blob)
        fd = os.memfd_create("evidence")
        pieces.write(fd)
        *listed, last = json.loads(os.pread(fd, 1 << 25, 0))
        os.close(fd)
        assert [base64.b64decode(piece["data"]) for piece in listed] == [
            data + extra for data in payloads[:had]
        ]
        assert last["problem"].startswith(f"{len(payloads) - had} more: at most 64 pieces and 8388608 bytes")
        assert last["data"] == ""


def _write(path: Path, kind: str, entries: list[dict[str, object]], blobs: dict[str, bytes]) -> str:
    named = {name.removeprefix("sha256:"): data for name, data in blobs.items()}
    files = layouts.layout_files(make_index(*entries), {**IMAGE.blobs, **named})
    if kind == "oci":
        layouts.write_files(str(path / "layout"), files)
    else:
        layouts.write_tar(str(path / "layout"), files, compression="gzip")
    return f"{path}/layout"


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_layouts(tmp_path: Path, kind: str) -> None:
    """Issue 7, 2: layouts keep signatures of every form, as copied, as saved by cosign, and in an index of their own."""
    classic, blobs = cosign.classic_manifest(KEY, CLASSIC)
    saved_payload = cosign.payload(IMAGE.digest, "registry.example/saved")
    saved, more = cosign.classic_manifest(KEY, saved_payload, cosign.payload(OTHER, "registry.example/other"))
    signed, even_more = cosign.bundle_manifest(SIGNED, IMAGE.digest)
    tagged_bundle = cosign.bundle(KEY, IMAGE.digest, OTHER)
    tagged, last = cosign.bundle_manifest(tagged_bundle, IMAGE.digest)
    of_other, others = cosign.bundle_manifest(cosign.bundle(KEY, OTHER), OTHER)
    index = make_index(cosign.descriptor(tagged))
    manifests = {digest(data): data for data in (classic, saved, signed, tagged, of_other, index)}
    name = "org.opencontainers.image.ref.name"
    entries = [
        layouts.named(IMAGE, "app"),
        cosign.descriptor(classic, annotations={name: cosign.tag_of(IMAGE, ".sig")}),
        cosign.descriptor(saved, annotations={"kind": "dev.cosignproject.cosign/sigs"}),
        cosign.descriptor(signed, artifactType=cosign.BUNDLE),
        cosign.descriptor(of_other),
        {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest(index),
            "size": len(index),
            "annotations": {name: cosign.tag_of(IMAGE)},
        },
    ]
    path = _write(tmp_path, kind, entries, {**blobs, **more, **even_more, **last, **others, **manifests})
    client = Client(str(tmp_path))
    reference = parse_local(kind, f"{path}:app")
    from rkt.store.staging import Staging

    with LocalSource(reference, Platform.of_host(), client.settings) as source:
        with Staging(client.settings.data_dir) as staging:
            resolved = source.resolve(staging, None)
        assert resolved is not None
        pieces = collect(source, [resolved.digest], ["cosign"])
    assert sorted(piece.data for piece in pieces if piece.kind == COSIGN_CLASSIC) == sorted(
        [CLASSIC, saved_payload]
    )
    assert sorted(piece.data for piece in pieces if piece.kind == BUNDLE) == sorted([SIGNED, tagged_bundle])
    assert not any(piece.problem for piece in pieces)


def test_docker_archives_have_none(tmp_path: Path) -> None:
    """An archive of Docker has no place for signatures, which is no error."""
    path = layouts.write_tar(f"{tmp_path}/archive", layouts.docker_files(IMAGE))
    client = Client(str(tmp_path))
    with LocalSource(parse_local("docker-archive", path), Platform.of_host(), client.settings) as source:
        assert collect(source, [DIGEST], ["cosign"]) == []


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
def test_status_of_the_verifier(tmp_path: Path) -> None:
    """Issue 7, 4; SG10: rkt-verify has a user of its own, no capability, no network, no file, Landlock and a list of calls."""
    # P-521 takes a while, so that there is time to look.
    slow = Key(ec.generate_private_key(ec.SECP521R1()))
    path = tmp_path / "key.pub"
    path.write_bytes(slow.pem)
    path.chmod(0o644)
    pieces = [
        Evidence(kind=BUNDLE, source=str(number), data=cosign.bundle(KEY, IMAGE.digest))
        for number in range(MAX_PIECES)
    ]
    requirements = [Requirement(kind="cosign", key=str(path))] * 4
    subject = Subject(name="a/b", reference="a/b:1", digests=[IMAGE.digest])
    findings: list[object] = []
    thread = threading.Thread(
        target=lambda: findings.extend(
            verifier.verify(pieces, requirements, subject, Settings(installation=INSTALLATION))
        )
    )
    stopped: list[int] = []

    def accept(seen: Seen) -> bool:
        if seen.status["Seccomp"] != "2":
            return False
        os.kill(seen.pid, signal.SIGSTOP)
        stopped.append(seen.pid)
        return True

    thread.start()
    try:
        seen = worker("rkt-verify", os.getpid(), accept)
        with open(f"/proc/{seen.pid}/maps", encoding="utf-8") as file:
            maps = file.read()
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        thread.join(60)
    assert (seen.status["Seccomp"], seen.status["NoNewPrivs"]) == ("2", "1")
    for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert seen.capabilities(name) == 0, name
    (uid,) = seen.ids("Uid")
    assert confine.VERIFY_UID_BASE <= uid < confine.VERIFY_UID_BASE + (1 << 16)
    assert seen.ids("Gid") == {uid}
    assert seen.status["Groups"].split() == []
    assert seen.root_entries == set()
    for name in NAMESPACES:
        assert seen.namespaces[name] != os.readlink(f"/proc/self/ns/{name}"), name
    targets = {target.partition(":")[0] for target in seen.descriptors.values()}
    assert targets <= {"/dev/null", "socket", "pipe", "/memfd"}
    assert "cryptography" in maps
    assert len(findings) == len(pieces) * len(requirements)


def test_many_words(tmp_path: Path) -> None:
    """Evidence that makes every reason as long as it can does not drown the good piece beside it: the answer fits."""
    path = tmp_path / "key.pub"
    path.write_bytes(KEY.pem)
    path.chmod(0o644)
    text = "\U000e0001" * 300
    message = {"messageDigest": {"algorithm": text, "digest": "AAAA"}, "signature": "AAAA"}
    long = Evidence(kind=BUNDLE, source="long", data=cosign.bundle_of(KEY, {"messageSignature": message}))
    pieces = [long] * (MAX_PIECES - 1) + [Evidence(kind=BUNDLE, source="good", data=SIGNED)]
    requirements = [Requirement(kind="cosign", key=str(path))] * 12
    subject = Subject(name="a/b", reference="a/b:1", digests=[IMAGE.digest])
    findings = verifier.verify(pieces, requirements, subject, Settings(installation=INSTALLATION))
    assert [finding.source for finding in findings if not finding.reason] == ["good"] * len(requirements)
    # Shown as escapes, by a codec that was loaded before (privsep.worker).
    assert findings[0].reason.startswith('the signed digest is of the algorithm "\\U000e0001')


def test_the_command_imports_no_cryptography() -> None:
    """Whoever starts the verifier reads neither keys nor signatures: the library is in the worker alone (SG10)."""
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import rkt.trust.verifier, rkt.fetch.evidence; "
        "import json; print(json.dumps([n for n in sys.modules if n.startswith(('cryptography', 'sigstore'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, INSTALLATION.package_path], check=True, capture_output=True
    )
    assert json.loads(done.stdout) == []
