# SPDX-License-Identifier: Apache-2.0
"""Registries that lie, harvest credentials, lead elsewhere or never end (invariants RG1 to RG9, UN14 to UN16)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.errors import FetchError, InvalidManifest, NotFound
from tests.lib.layouts import Image, descriptor, digest, json_bytes, layer, make_image, make_index
from tests.lib.registry import BASIC, PASSWORD, Client, LyingRegistry, challenge, work_here
from tests.lib.server import Certificate, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lib.server import Authority

pytestmark = pytest.mark.root

OCI = "application/vnd.oci.image"
ISSUED = json_bytes({"token": "good"})
BEARER = "Bearer good"
SCOPE = "service=here&scope=repository:app:pull"


@pytest.fixture(scope="module")
def image() -> Image:
    """Two layers, the second of more than one piece."""
    return make_image(layer({"bin/app": b"one"}), layer({"data": os.urandom(200_000)}))


@pytest.fixture
def client(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> Client:
    """A command whose worker is not a process: what is tested is what it accepts, not how it is confined."""
    monkeypatch.setattr("rkt.fetch.job.run_worker", work_here)
    return Client(str(tmp_path))


@pytest.fixture(scope="module")
def servers(authority: Authority) -> Iterator[tuple[LyingRegistry, LyingRegistry]]:
    """Two for all tests: a certificate takes longer than most of them."""
    with LyingRegistry(authority) as one, LyingRegistry(authority) as other:
        yield one, other


@pytest.fixture
def registry(client: Client, authority: Authority, servers: tuple[LyingRegistry, ...]) -> LyingRegistry:
    """A registry whose root is configured."""
    client.accept(authority, *(server.name for server in servers))
    return servers[0].cleared()


@pytest.fixture
def other(registry: LyingRegistry, servers: tuple[LyingRegistry, ...]) -> LyingRegistry:
    """Another host, whose root is configured too."""
    del registry
    return servers[1].cleared()


def bottom(image: Image) -> bytes:
    """The compressed bytes of the first layer."""
    return layers(image)[0]


def layers(image: Image) -> list[bytes]:
    """The compressed layers, bottom first."""
    return [image.blobs[item["digest"][len("sha256:") :]] for item in image.document["layers"]]


def changed(image: Image, **members: Any) -> bytes:
    """The manifest with other members."""
    return json_bytes({**image.document, **members})


def with_layer(image: Image, **members: Any) -> bytes:
    """The manifest with other members of its first layer."""
    first, *others = image.document["layers"]
    return changed(image, layers=[{**first, **members}, *others])


# Digests and sizes


def _other_manifest(registry: LyingRegistry, image: Image) -> str:
    registry.image(image)
    other = make_image(layer({"bin/app": b"evil"}))
    page = registry.manifest("app", image.digest, other.manifest)
    page.headers["Docker-Content-Digest"] = image.digest
    return f"{registry.name}/app@{image.digest}"


def _said_digest(registry: LyingRegistry, image: Image) -> str:
    reference = registry.image(image)
    registry.pages["/v2/app/manifests/latest"].headers["Docker-Content-Digest"] = digest(b"another")
    return reference


def _config_digest(registry: LyingRegistry, image: Image) -> str:
    reference = registry.image(image)
    registry.blob("app", image.config.replace(b"linux", b"xinul"), digest(image.config))
    return reference


def _config_size(registry: LyingRegistry, image: Image) -> str:
    registry.image(image)
    config = {**image.document["config"], "size": len(image.config) + 1}
    registry.manifest("app", "latest", changed(image, config=config))
    return f"{registry.name}/app"


def _layer_digest(registry: LyingRegistry, image: Image) -> str:
    reference = registry.image(image)
    data = bottom(image)
    registry.blob("app", data[:-1] + bytes([data[-1] ^ 1]), digest(data))
    return reference


def _layer_longer(registry: LyingRegistry, image: Image) -> str:
    reference = registry.image(image)
    registry.blob("app", bottom(image) + b"x", digest(bottom(image)))
    return reference


def _layer_shorter(registry: LyingRegistry, image: Image) -> str:
    reference = registry.image(image)
    registry.blob("app", bottom(image)[:-1], digest(bottom(image)))
    return reference


def _layer_endless(registry: LyingRegistry, image: Image) -> str:
    reference = registry.image(image)
    registry.blob("app", bottom(image), digest(bottom(image)), no_length=True).repeat = 1000
    return reference


def _entry_size(registry: LyingRegistry, image: Image) -> str:
    registry.image(image)
    entry = {**image.descriptor(), "size": len(image.manifest) + 1}
    registry.manifest("app", "latest", make_index(entry))
    return f"{registry.name}/app"


def _huge_manifest(registry: LyingRegistry, image: Image) -> str:
    registry.image(image)
    registry.manifest("app", "latest", changed(image, annotations={"x": "y" * (5 << 20)}))
    return f"{registry.name}/app"


def _huge_config(registry: LyingRegistry, image: Image) -> str:
    registry.image(image)
    config = {**image.document["config"], "size": 5 << 20}
    registry.manifest("app", "latest", changed(image, config=config))
    return f"{registry.name}/app"


def _diff_ids(registry: LyingRegistry, image: Image) -> str:
    document = json.loads(image.config)
    document["rootfs"]["diff_ids"].pop()
    config = json_bytes(document)
    manifest = changed(image, config=descriptor(f"{OCI}.config.v1+json", config))
    registry.image(image)
    registry.blob("app", config)
    registry.manifest("app", "latest", manifest)
    return f"{registry.name}/app"


# What a document is


def _served(data: Callable[[Image], bytes], **headers: str) -> Callable[[LyingRegistry, Image], str]:
    def serve(registry: LyingRegistry, image: Image) -> str:
        registry.image(image)
        registry.manifest("app", "latest", data(image), headers=headers)
        return f"{registry.name}/app"

    return serve


def _twice(image: Image) -> bytes:
    return image.manifest[:-1] + b',"layers":[]}'


def _entry_type(registry: LyingRegistry, image: Image) -> str:
    registry.image(image)
    entry = {**image.descriptor(), "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    registry.manifest("app", "latest", make_index(entry))
    return f"{registry.name}/app"


def _nested(registry: LyingRegistry, image: Image) -> str:
    registry.image(image)
    inner = make_index(image.descriptor())
    registry.manifest("app", digest(inner), inner)
    registry.manifest("app", "latest", make_index(descriptor(f"{OCI}.index.v1+json", inner)))
    return f"{registry.name}/app"


LIES: dict[str, tuple[Callable[[LyingRegistry, Image], str], str]] = {
    "UN15-manifest-digest": (_other_manifest, "sent another one, with the digest"),
    "UN15-header-digest": (_said_digest, "but the registry says"),
    "UN15-config-digest": (_config_digest, "is not the one with the digest"),
    "UN15-config-size": (_config_size, "but the manifest says"),
    "UN15-layer-digest": (_layer_digest, "sent another one, with the digest"),
    "UN15-layer-longer": (_layer_longer, "are expected"),
    "UN15-layer-shorter": (_layer_shorter, "are expected"),
    "UN15-entry-size": (_entry_size, "but the index says"),
    "UN15-diff-ids": (_diff_ids, "diff IDs"),
    "UN15-uppercase": (
        _served(lambda i: with_layer(i, digest=i.document["layers"][0]["digest"].upper())),
        "lower-case",
    ),
    "UN15-path": (_served(lambda i: with_layer(i, digest="sha256:../../x")), "hex digits are expected"),
    "RG8-endless-layer": (_layer_endless, "is too large"),
    "UN14-manifest": (_huge_manifest, "is too large"),
    "UN14-config": (_huge_config, "at most 4194304 are accepted"),
    "UN16-content-type": (
        _served(lambda i: i.manifest, **{"Content-Type": f"{OCI}.index.v1+json"}),
        "but it calls itself",
    ),
    "UN16-no-image-type": (
        _served(lambda i: i.manifest, **{"Content-Type": "application/json"}),
        "is of no image manifest",
    ),
    "UN16-both": (_served(lambda i: changed(i, manifests=[])), "both an index and a manifest"),
    "UN16-twice": (_served(_twice), "appears twice"),
    "UN16-case": (_served(lambda i: changed(i, Layers=[])), "which some take for"),
    "UN16-entry-type": (_entry_type, "but the index says"),
    "UN16-nested": (_nested, "another index, which is not followed"),
    "UN16-schema-1": (
        _served(
            lambda _: json_bytes(
                {"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+json"}
            )
        ),
        "schema 1",
    ),
    "RG4-urls": (
        _served(lambda i: with_layer(i, urls=["http://169.254.169.254/x"])),
        "foreign URLs are not followed",
    ),
    "RG4-foreign": (
        _served(
            lambda i: with_layer(i, mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
        ),
        "not distributed with the image",
    ),
    "artifact": (
        _served(lambda i: changed(i, config={**i.document["config"], "mediaType": "application/x-helm"})),
        "of no image, but of an artifact",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies(client: Client, registry: LyingRegistry, image: Image, lie: str) -> None:
    """Whatever is not what it is said to be is refused, and the message says what it is instead."""
    serve, message = LIES[lie]
    reference = serve(registry, image)
    with pytest.raises((FetchError, InvalidManifest), match=message):
        client.pull(reference)
    assert not any("169.254" in path for path in registry.paths())


def test_wrong_bytes_are_not_kept(client: Client, registry: LyingRegistry, image: Image) -> None:
    """RG9: what an earlier attempt left of a blob may be wrong: then the blob comes anew, and is right."""
    reference = registry.image(image)
    data = layers(image)[1]
    wrong = b"\0" * 1000
    assert client.pull(reference, there={1: wrong}) == layers(image)
    assert [
        event["kept"] for event in client.events if event["kind"] == "started" and event["index"] == 1
    ] == [
        1000,
        0,
    ]
    # Right bytes are gone on with, a whole is not even asked for.
    client.events.clear()
    registry.requests.clear()
    assert client.pull(reference, there={0: layers(image)[0], 1: data[:1000]}) == layers(image)
    assert registry.sent_to("Range") == ["bytes=1000-"]
    assert f"/v2/app/blobs/{digest(layers(image)[0])}" not in registry.paths()


@pytest.mark.parametrize(
    "page",
    [{"content_range": "bytes 0-9/10"}, {"content_range": "bytes 5-9/*"}, {"range_status": 416}],
    ids=["RG9-other-size", "RG9-other-start", "RG9-refused"],
)
def test_wrong_ranges(client: Client, registry: LyingRegistry, image: Image, page: dict[str, Any]) -> None:
    """RG9: an answer that is not the rest of the blob is not appended; the blob is asked for from its beginning."""
    reference = registry.image(image)
    data = layers(image)[1]
    registry.blob("app", data, **page)
    assert client.pull(reference, there={1: data[:1000]}) == layers(image)


def test_broken_transfers_go_on(client: Client, registry: LyingRegistry, image: Image) -> None:
    """A layer that breaks off is taken up where it broke."""
    reference = registry.image(image)
    page = registry.blob("app", layers(image)[1], truncate=120_000)
    assert client.pull(reference) == layers(image)
    ranges = registry.sent_to("Range")
    assert len(ranges) >= 1
    assert page.size == len(layers(image)[1])


@pytest.mark.parametrize("status", [429, 503])
def test_overload(client: Client, registry: LyingRegistry, image: Image, status: int) -> None:
    """RG8: who asks to come back is asked again after that time, but not if it is long."""
    reference = registry.image(image)
    page = registry.pages["/v2/app/manifests/latest"]
    page.first, page.first_headers = [status], {"Retry-After": "0"}
    assert client.resolve(reference) is not None
    page.first, page.first_headers = [status], {"Retry-After": "100000"}
    with pytest.raises(FetchError, match=f"{status}, to be asked again in 100000 s"):
        client.resolve(reference)


# Who gets credentials


def protect(registry: LyingRegistry, image: Image, realm: str = "", **page: Any) -> str:
    """Serve an image to who has a token of the registry itself."""
    registry.put(f"/token?{SCOPE}", Page(ISSUED))
    registry.put(f"/token?{SCOPE}&account=alice", Page(ISSUED, authorization=BASIC))
    return registry.image(
        image, authorization=BEARER, challenge=challenge(realm or f"{registry.base}/token"), **page
    )


def test_token_of_the_registry(client: Client, registry: LyingRegistry, image: Image) -> None:
    """RG1: credentials go to the issuer of tokens only, and the token to the registry only, for one repository."""
    reference = protect(registry, image)
    client.login(registry.name)
    assert client.pull(reference) == layers(image)
    for request in registry.requests:
        sent = request.headers.get("Authorization")
        assert sent in ({BASIC} if request.path.startswith("/token") else {None, BEARER}), request.path
    assert {path for path in registry.paths() if "token" in path} == {f"/token?{SCOPE}&account=alice"}


@pytest.mark.parametrize("with_credentials", [True, False])
def test_realm_on_another_host(
    client: Client,
    registry: LyingRegistry,
    other: LyingRegistry,
    image: Image,
    *,
    with_credentials: bool,
) -> None:
    """RG1: a realm on another host, or by http, is not asked without a rule, with credentials or without."""
    if with_credentials:
        client.login(registry.name)
    for realm in (
        f"{other.base}/token",
        f"http://{registry.name}/token",
        f"https://{registry.name}:8443/token",
        f"https://{registry.name}.evil.example/token",
    ):
        reference = protect(registry, image, realm)
        with pytest.raises(FetchError, match="another host that no configuration allows"):
            client.resolve(reference)
    assert other.requests == []
    assert registry.sent_to("Authorization") == []


@pytest.mark.parametrize("realm", ["", "/token", "ftp://x/token", "https://user:pw@x/token", "https://x y/"])
def test_realms_that_are_none(client: Client, registry: LyingRegistry, image: Image, realm: str) -> None:
    """RG1: a realm that is no URL of http or https, or carries credentials, is refused."""
    client.login(registry.name)
    registry.image(image, authorization=BEARER, challenge=challenge(realm))
    with pytest.raises(FetchError, match="URL"):
        client.resolve(f"{registry.name}/app")
    assert registry.sent_to("Authorization") == []


def test_issuer_that_redirects(
    client: Client, registry: LyingRegistry, other: LyingRegistry, image: Image
) -> None:
    """RG1, RG2: an issuer of tokens that leads to another host is not followed there."""
    client.login(registry.name)
    reference = protect(registry, image)
    registry.put(f"/token?{SCOPE}&account=alice", Page(redirect=other.put("/x", ISSUED)))
    with pytest.raises(FetchError, match="on another host, which is refused"):
        client.resolve(reference)
    assert other.requests == []


def test_rule_for_issuers(
    client: Client, registry: LyingRegistry, other: LyingRegistry, image: Image
) -> None:
    """RG1: a host that a rule names gets the credentials for tokens of that registry, and of no other."""
    client.login(registry.name)
    rule = {"rktKind": "registry", "tokenHosts": [other.name]}
    client.configure("fetch.d/rule", {**rule, "registries": ["another.example"]})
    other.put(f"/token?{SCOPE}&account=alice", Page(ISSUED, authorization=BASIC))
    reference = protect(registry, image, f"{other.base}/token")
    with pytest.raises(FetchError, match="another host that no configuration allows"):
        client.resolve(reference)
    client.configure("fetch.d/rule", {**rule, "registries": [registry.name]})
    assert client.resolve(reference) is not None
    assert set(other.sent_to("Authorization")) == {BASIC}


def test_blobs_elsewhere(client: Client, registry: LyingRegistry, other: LyingRegistry, image: Image) -> None:
    """RG2: a blob on another host is fetched without token, and what that host asks for is not given."""
    client.login(registry.name)
    reference = protect(registry, image)
    for data in layers(image):
        path = f"/v2/app/blobs/{digest(data)}"
        place = other.put(f"/{digest(data)}", Page(data, ranges=True))
        registry.pages[path] = Page(
            redirect=place, authorization=BEARER, challenge=challenge(f"{registry.base}/token")
        )
    assert client.pull(reference) == layers(image)
    assert other.sent_to("Authorization") == []
    assert all("Cookie" not in request.headers for request in other.requests)
    # A host that asks for credentials after a redirect, or leads back, gets none.
    wants = Page(authorization=BASIC, challenge=challenge(f"{other.base}/token"))
    other.pages[f"/{digest(bottom(image))}"] = wants
    with pytest.raises(FetchError, match="which are not sent to where a registry redirects"):
        client.pull(reference)
    other.pages[f"/{digest(bottom(image))}"] = Page(redirect=f"{registry.base}/harvest")
    registry.put("/harvest", bottom(image))
    registry.requests.clear()
    client.pull(reference)
    harvested = [request for request in registry.requests if request.path == "/harvest"]
    assert [request.headers.get("Authorization") for request in harvested] == [None]
    assert other.sent_to("Authorization") == []


def test_https_to_http(client: Client, registry: LyingRegistry, image: Image) -> None:
    """RG3: neither a manifest nor a blob is followed from https to http."""
    reference = registry.image(image)
    with LyingRegistry() as plain:
        for path in ("/v2/app/manifests/latest", f"/v2/app/blobs/{digest(bottom(image))}"):
            page = registry.pages[path]
            registry.pages[path] = Page(redirect=plain.put(path, page))
            with pytest.raises(FetchError, match="redirects from https to"):
                client.pull(reference)
            registry.pages[path] = page
        assert plain.requests == []


def test_no_credentials_by_http(client: Client, image: Image) -> None:
    """RG1: a registry by plain http gets none, whatever it asks for, nor does the issuer of its tokens."""
    with LyingRegistry() as plain:
        client.configure(
            "fetch.d/registry", {"rktKind": "registry", "registries": [plain.name], "http": True}
        )
        client.login(plain.name)
        reference = plain.image(image, authorization=BASIC, challenge='Basic realm="x"')
        with pytest.raises(FetchError, match="wants credentials"):
            client.resolve(reference)
        assert plain.sent_to("Authorization") == []
        # A token without credentials is no secret.
        reference = protect(plain, image)
        assert client.resolve(reference) is not None
        assert set(plain.sent_to("Authorization")) == {BEARER}


def test_token_is_renewed_once(client: Client, registry: LyingRegistry, image: Image) -> None:
    """A token that runs out in the middle of a download is got again once; one that never works ends it."""
    reference = protect(registry, image)
    issuer, blob = registry.pages[f"/token?{SCOPE}"], f"/v2/app/blobs/{digest(bottom(image))}"
    for path, page in registry.pages.items():
        if path.startswith("/v2/") and path != blob:
            page.authorization = ""
    issuer.first_bodies = [json_bytes({"access_token": "old", "expires_in": 1})]
    assert client.pull(reference) == layers(image)
    assert registry.sent_to("Authorization").count("Bearer old") == 1
    registry.pages[blob].authorization = "Bearer never"
    registry.requests.clear()
    with pytest.raises(FetchError, match=r"refuses|gives no access"):
        client.pull(reference)
    assert registry.paths().count(f"/token?{SCOPE}") == 2


def test_basic_credentials(client: Client, registry: LyingRegistry, image: Image) -> None:
    """A registry that wants basic credentials gets them when it has asked, and is told when there are none."""
    reference = registry.image(image, authorization=BASIC, challenge='Basic realm="here"')
    with pytest.raises(FetchError, match="there are none"):
        client.resolve(reference)
    client.login(registry.name)
    assert client.pull(reference) == layers(image)
    assert "Authorization" not in registry.requests[0].headers


def test_identity_tokens(client: Client, registry: LyingRegistry, other: LyingRegistry, image: Image) -> None:
    """RG1: an identity token is exchanged for tokens by the body of a request to the issuer, and goes nowhere else."""
    path = f"{client.base}/auth.json"
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        json.dump({"auths": {registry.name: {"auth": "bWU6cHc=", "identitytoken": "long-lived"}}}, file)
    client.settings = client.settings.replace(authfile=path)
    registry.put("/token", ISSUED)
    reference = registry.image(image, authorization=BEARER, challenge=challenge(f"{registry.base}/token"))
    assert client.pull(reference) == layers(image)
    asked = [request for request in registry.requests if request.path == "/token"]
    assert {request.method for request in asked} == {"POST"}
    for request in asked:
        assert "Authorization" not in request.headers
        assert set(request.body.split(b"&")) == {
            b"service=here",
            b"scope=repository%3Aapp%3Apull",
            b"grant_type=refresh_token",
            b"client_id=rkt",
            b"refresh_token=long-lived",
        }
    others = [request for request in registry.requests if request.path != "/token"]
    assert not any("long-lived" in str(request) for request in others)
    registry.image(image, authorization=BEARER, challenge=challenge(f"{other.base}/token"))
    with pytest.raises(FetchError, match="another host that no configuration allows"):
        client.resolve(reference)
    # Nor does it follow a redirect.
    registry.image(image, authorization=BEARER, challenge=challenge(f"{registry.base}/token"))
    registry.put("/token", Page(redirect=f"{other.base}/token"))
    with pytest.raises(FetchError, match="302"):
        client.resolve(reference)
    assert other.requests == []


def test_keys_in_urls_are_not_shown(
    client: Client, registry: LyingRegistry, other: LyingRegistry, image: Image
) -> None:
    """RG6: the query of what a registry redirects to, which is a key to its storage, is in no message and no event."""
    reference = registry.image(image)
    name = digest(bottom(image))
    registry.put(f"/v2/app/blobs/{name}", Page(redirect=f"{other.base}/{name}?Signature=secret-x"))
    other.put(f"/{name}?Signature=secret-x", bottom(image))
    assert client.pull(reference) == layers(image)
    other.put(f"/{name}?Signature=secret-x", Page(status=403))
    with pytest.raises(FetchError, match="403") as raised:
        client.pull(reference)
    other.put(f"/{name}?Signature=secret-x", Page(redirect="http://x.example/?Signature=secret-x"))
    with pytest.raises(FetchError, match="redirects from https") as insecure:
        client.pull(reference)
    said = f"{raised.value.message}{insecure.value.message}{client.events}{client.messages}"
    assert "secret-x" not in said


def test_no_secret_in_messages(client: Client, registry: LyingRegistry, image: Image) -> None:
    """RG6: neither errors nor messages nor events of a refused login have a password or a token in them."""
    client.login(registry.name, password="hunter2-hunter2")
    registry.put(f"/token?{SCOPE}&account=alice", Page(ISSUED, authorization=BASIC))
    reference = registry.image(image, authorization=BEARER, challenge=challenge(f"{registry.base}/token"))
    with pytest.raises(FetchError) as raised:
        client.resolve(reference)
    said = f"{raised.value.message} {raised.value.hint} {client.messages} {client.source(reference).__dict__}"
    assert "hunter2" not in said
    assert "alice" in raised.value.message


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b'{"token":1}', b'{"token":""}', b'{"token":"a b"}', b'{"token":"a\\r\\nX: y"}', b"{" * 100],
)
def test_tokens_that_are_none(client: Client, registry: LyingRegistry, image: Image, answer: bytes) -> None:
    """What is no token is not put into a header."""
    reference = protect(registry, image)
    registry.put(f"/token?{SCOPE}", answer)
    with pytest.raises(FetchError, match="answered with no token"):
        client.resolve(reference)
    assert registry.sent_to("Authorization") == []


# Mirrors


def test_mirrors(client: Client, registry: LyingRegistry, other: LyingRegistry, image: Image) -> None:
    """Mirrors are asked in their order; one that is down, has nothing or lies is passed over; each digest is the same."""
    reference = registry.image(image)
    client.login(registry.name)
    rule = {
        "rktKind": "registry",
        "registries": [registry.name],
        "mirrors": ["https://127.0.0.1:9", f"{other.base}/hub"],
    }
    client.configure("fetch.d/mirror", rule)
    # It has nothing.
    assert client.pull(reference) == layers(image)
    assert any("is passed over" in text for text in client.messages)
    # It has all.
    registry.requests.clear()
    other.image(image, "hub/app")
    resolved = client.resolve(reference)
    assert resolved is not None
    assert resolved.endpoint == f"{other.name}/hub/app"
    assert client.pull(reference) == layers(image)
    assert registry.requests == []
    assert other.sent_to("Authorization") == []
    # It lies.
    other.blob("hub/app", bottom(image)[:-1] + b"x", digest(bottom(image)))
    assert client.pull(reference) == layers(image)
    assert f"/v2/app/blobs/{digest(bottom(image))}" in registry.paths()


# TLS


def test_client_certificates(
    client: Client, authority: Authority, image: Image, tmp_path: os.PathLike[str]
) -> None:
    """A registry that asks for a certificate gets the one that is configured for it; where it redirects gets none."""
    own = Certificate()
    try:
        with LyingRegistry(authority, client_roots=own.certificate) as registry:
            reference = registry.image(image)
            client.accept(authority, registry.name)
            with pytest.raises(FetchError):
                client.resolve(reference)
            for file in (own.key, own.certificate):
                os.chmod(file, 0o600)
            tls = {
                "rktKind": "tls",
                "hosts": [registry.name],
                "roots": authority.root,
                "certificate": own.certificate,
                "key": own.key,
            }
            client.configure("fetch.d/roots", tls)
            assert client.pull(reference) == layers(image)
            with LyingRegistry(authority, client_roots=own.certificate) as other:
                path = f"/v2/app/blobs/{digest(bottom(image))}"
                registry.pages[path] = Page(redirect=other.put(path, bottom(image)))
                with pytest.raises(FetchError, match=r"TLS|certificate"):
                    client.pull(reference)
                assert other.requests == []
    finally:
        own.close()


# What is there and what is not


def test_no_headers_of_a_version(client: Client, registry: LyingRegistry, image: Image) -> None:
    """Spec cli §12.2: a registry that does not say which version of the API it speaks is taken for one of today."""
    reference = registry.image(image)
    assert client.resolve(reference) is not None
    assert all(path.startswith("/v2/") for path in registry.paths())


def test_referrers(client: Client, registry: LyingRegistry, image: Image) -> None:
    """Pages of referrers are followed, on that registry only."""
    registry.image(image)
    entries = [
        {**descriptor(f"{OCI}.manifest.v1+json", name.encode()), "artifactType": f"example/{name}"}
        for name in ("one", "two")
    ]
    path = f"/v2/app/referrers/{image.digest}"
    kind = {"Content-Type": f"{OCI}.index.v1+json"}
    link = f'<{path}?n=1&last=x>; rel="next"'
    registry.put(path, Page(make_index(entries[0]), headers={**kind, "Link": link}))
    registry.put(f"{path}?n=1&last=x", Page(make_index(entries[1]), headers=kind))
    repository = client.repository(f"{registry.name}/app")
    resolved = client.resolve(f"{registry.name}/app")
    assert resolved is not None
    found = repository.referrers(resolved.digest)
    assert [d.artifact_type for d in found] == ["example/one", "example/two"]
    registry.pages[path].headers["Link"] = '<https://evil.example/x>; rel="next"'
    with pytest.raises(FetchError, match="says that more referrers are at"):
        repository.referrers(resolved.digest)
    with pytest.raises(NotFound):
        client.resolve(f"{registry.name}/other")
    assert PASSWORD not in "".join(client.messages)
