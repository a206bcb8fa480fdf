# SPDX-License-Identifier: Apache-2.0
"""Images of a real registry, by tag and by digest, with every way to authenticate (spec cli §4.3, §7.1, §7.2)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from rkt.errors import FetchError, NotFound
from rkt.schema.oci import Platform
from rkt.values import Digest
from tests.lib.layouts import Image, digest, json_bytes, layer, make_image, make_index, write_layout
from tests.lib.registry import HTPASSWD, KINDS, PASSWORD, PLAIN, TLS, TOKEN, USER, Client, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.server import Authority

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def image() -> Image:
    """Two layers, the second of more than one piece."""
    return make_image(layer({"bin/app": b"one"}), layer({"data": os.urandom(1 << 20)}))


@pytest.fixture(scope="module")
def registries(authority: Authority, image: Image) -> Iterator[dict[str, Registry]]:
    """One of each kind, with the image as ``team/app:1``."""
    running: dict[str, Registry] = {}
    try:
        for kind in KINDS:
            running[kind] = Registry(kind, authority)
            running[kind].push("team/app", image, "1")
        yield running
    finally:
        for registry in running.values():
            registry.close()


@pytest.fixture
def client(tmp_path: os.PathLike[str]) -> Client:
    """A command."""
    return Client(str(tmp_path))


def allow(client: Client, registry: Registry) -> None:
    """Configure what the registry's kind asks for, but for credentials."""
    if registry.kind == PLAIN:
        client.configure(
            "fetch.d/registry", {"rktKind": "registry", "registries": [registry.name], "http": True}
        )
        return
    hosts = [registry.name]
    if registry.tokens is not None:
        hosts.append(registry.tokens.host)
        rule = {"rktKind": "registry", "registries": [registry.name], "tokenHosts": [registry.tokens.host]}
        client.configure("fetch.d/registry", rule)
        registry.tokens.asked.clear()
    client.accept(registry.authority, *hosts)


@pytest.mark.parametrize("kind", KINDS)
def test_pull_by_tag_and_digest(
    client: Client, registries: dict[str, Registry], image: Image, kind: str
) -> None:
    """Issue 6, 1: manifest, configuration and layers are the very bytes that were pushed."""
    registry = registries[kind]
    allow(client, registry)
    if kind in {HTPASSWD, TOKEN}:
        client.login(registry.name)
    for reference in (f"{registry.name}/team/app:1", f"{registry.name}/team/app@{image.digest}"):
        layers = client.pull(reference)
        assert [digest(data) for data in layers] == [item["digest"] for item in image.document["layers"]]
        assert client.documents == {"index": b"", "manifest": image.manifest, "config": image.config}


@pytest.mark.parametrize("kind", [HTPASSWD, TOKEN])
def test_credentials_are_needed(client: Client, registries: dict[str, Registry], kind: str) -> None:
    """Without credentials, and with wrong ones, access is refused, and the message says whose were wrong."""
    registry = registries[kind]
    allow(client, registry)
    with pytest.raises(FetchError, match=r"gives no access|wants credentials"):
        client.resolve(f"{registry.name}/team/app:1")
    client.login(registry.name, password="wrong")
    with pytest.raises(FetchError, match='refuses the credentials of user "alice" from the configuration'):
        client.resolve(f"{registry.name}/team/app:1")


def test_tokens_are_for_one_repository_and_reused(
    client: Client, registries: dict[str, Registry], image: Image
) -> None:
    """A token is asked for to pull that repository and nothing else, once for each worker, whatever the challenge asks."""
    registry = registries[TOKEN]
    allow(client, registry)
    client.login(registry.name)
    client.pull(f"{registry.name}/team/app:1")
    assert registry.tokens is not None
    # The documents by one worker, two layers by another.
    assert len(registry.tokens.asked) == 2
    for query, authorization in registry.tokens.asked:
        assert query["scope"] == ["repository:team/app:pull"]
        assert query["service"] == ["test service"]
        assert query["account"] == [USER]
        assert authorization.startswith("Basic ")


def test_public_images_need_no_credentials(
    client: Client, registries: dict[str, Registry], image: Image
) -> None:
    """Where anybody may pull, a token is had without credentials."""
    registry = registries[TOKEN]
    assert registry.tokens is not None
    allow(client, registry)
    registry.tokens.public = True
    try:
        assert client.resolve(f"{registry.name}/team/app:1") is not None
    finally:
        registry.tokens.public = False
    assert [authorization for _, authorization in registry.tokens.asked] == [""]


def test_issuers_need_a_rule(client: Client, registries: dict[str, Registry]) -> None:
    """RG1: without a rule of the configuration no token is asked for on another host, and the hint is the rule."""
    registry = registries[TOKEN]
    assert registry.tokens is not None
    allow(client, registry)
    os.unlink(f"{client.base}/local/fetch.d/registry.json")
    client.login(registry.name)
    with pytest.raises(FetchError, match="another host that no configuration allows") as raised:
        client.resolve(f"{registry.name}/team/app:1")
    assert f'"tokenHosts": ["{registry.tokens.host}"]' in raised.value.hint
    assert registry.tokens.asked == []


def test_what_is_not_there(client: Client, registries: dict[str, Registry], image: Image) -> None:
    """A missing tag and a missing repository are not found, in the registry's words."""
    registry = registries[PLAIN]
    allow(client, registry)
    for reference in ("team/app:2", "team/none:1", f"team/app@{digest(b'none')}"):
        with pytest.raises(NotFound, match=r"has no team/.*MANIFEST_UNKNOWN"):
            client.resolve(f"{registry.name}/{reference}")


def test_index(client: Client, registries: dict[str, Registry], image: Image) -> None:
    """Of an index the manifest for the platform is taken; its digest and the index's are told."""
    registry = registries[PLAIN]
    allow(client, registry)
    other = make_image(layer({"arm": b"x"}), architecture="arm")
    registry.push("team/app", other)
    index = make_index(
        other.descriptor(platform={"os": "linux", "architecture": "arm", "variant": "v7"}),
        image.descriptor(platform={"os": "linux", "architecture": json.loads(image.config)["architecture"]}),
    )
    registry.push_manifest("team/app", "all", index)
    resolved = client.resolve(f"{registry.name}/team/app:all")
    assert resolved is not None
    assert (resolved.digest, resolved.index_digest) == (image.digest, digest(index))
    assert client.documents["index"] == index
    resolved = client.resolve(f"{registry.name}/team/app:all", Platform.parse("linux/arm"))
    assert resolved is not None
    assert resolved.digest == other.digest
    with pytest.raises(NotFound, match=r"not for linux/s390x, but for linux/amd64|linux/arm64") as raised:
        client.resolve(f"{registry.name}/team/app:all", Platform.parse("linux/s390x"))
    assert raised.value.hint.startswith("--platform=linux/")
    with pytest.raises(NotFound, match="the image is for linux/arm/v7, not for"):
        client.resolve(f"{registry.name}/team/app@{other.digest}")


def test_known_is_not_fetched(client: Client, registries: dict[str, Registry], image: Image) -> None:
    """A tag that still stands for the digest that is had costs one question without an answer's body."""
    registry = registries[PLAIN]
    allow(client, registry)
    assert client.resolve(f"{registry.name}/team/app:1", known=image.digest) is None
    assert client.documents["manifest"] == b""
    assert client.resolve(f"{registry.name}/team/app:1", known=digest(b"old")) is not None
    assert client.resolve(f"{registry.name}/team/app@{image.digest}", known=image.digest) is None


def test_plain_http_has_to_be_allowed(client: Client, registries: dict[str, Registry]) -> None:
    """Without a rule a registry is asked by https; ``--insecure-options=http`` allows http where nobody speaks TLS."""
    registry = registries[PLAIN]
    with pytest.raises(FetchError, match=r"https://.*does not speak TLS") as raised:
        client.resolve(f"{registry.name}/team/app:1")
    assert "--insecure-options=http" in raised.value.hint
    assert Client(client.base, insecure="http").resolve(f"{registry.name}/team/app:1") is not None


def test_insecure_tls_is_tls(client: Client, registries: dict[str, Registry]) -> None:
    """A certificate that nobody vouches for is refused, whatever ``http`` allows; ``tls`` accepts it, by https."""
    registry = registries[TLS]
    for word in ("none", "http"):
        with pytest.raises(FetchError, match="certificate is not valid"):
            Client(client.base, insecure=word).resolve(f"{registry.name}/team/app:1")
    careless = Client(client.base, insecure="tls")
    assert careless.resolve(f"{registry.name}/team/app:1") is not None
    assert sum("TLS verification has been disabled" in text for text in careless.messages) == 1


def test_images_of_other_programs(
    client: Client, registries: dict[str, Registry], tmp_path: os.PathLike[str]
) -> None:
    """Issue 6, 1: what ``skopeo`` pushed, as OCI and as Docker's schema 2, is read as it is."""
    registry = registries[HTPASSWD]
    allow(client, registry)
    client.login(registry.name)
    made = make_image(layer({"bin/app": b"skopeo"}))
    layout = write_layout(f"{tmp_path}/layout", made)
    for form in ("oci", "v2s2"):
        subprocess.run(
            [
                *(
                    "skopeo",
                    "copy",
                    "--quiet",
                    "--insecure-policy",
                    "--dest-tls-verify=false",
                    f"--format={form}",
                ),
                *(f"--dest-creds={USER}:{PASSWORD}", f"oci:{layout}"),
                f"docker://{registry.name}/team/skopeo:{form}",
            ],
            check=True,
            env={"PATH": os.environ["PATH"], "HOME": f"{tmp_path}", "TMPDIR": f"{tmp_path}"},
        )
        (data,) = client.pull(f"{registry.name}/team/skopeo:{form}")
        assert digest(data) == digest(next(iter(b for b in made.blobs.values() if b[:2] == b"\x1f\x8b")))


def test_referrers_by_tag(client: Client, registries: dict[str, Registry], image: Image) -> None:
    """A registry without the referrers API keeps them in an index whose tag is the digest; none is no error."""
    registry = registries[PLAIN]
    allow(client, registry)
    repository = client.repository(f"{registry.name}/team/app:1")
    assert repository.referrers(Digest(image.digest)) == []
    config = b"{}"
    registry.push_blob("team/app", digest(config), config)
    artifact = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "example/signature",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": digest(config),
                "size": 2,
            },
            "layers": [],
            "subject": image.descriptor(),
        }
    )
    registry.push_manifest("team/app", digest(artifact), artifact)
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(artifact),
        "size": len(artifact),
        "artifactType": "example/signature",
        "annotations": {"who": "alice"},
    }
    registry.push_manifest("team/app", image.digest.replace(":", "-"), make_index(entry))
    (found,) = repository.referrers(Digest(image.digest))
    assert (found.digest, found.artifact_type, found.annotations) == (
        digest(artifact),
        "example/signature",
        {"who": "alice"},
    )
    assert repository.manifest(found.digest, found).data == artifact
