# SPDX-License-Identifier: Apache-2.0
"""Images by name, from a real HTTPS server with a private root (spec cli §5.3 to §5.5, §10.1)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lib.keys import KeyRing
from tests.lib.server import Authority, Page
from tests.lib.site import Site, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.keys import Key
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
TEMPLATE = "https://{host}/images/{{name}}.{{ext}}"
HOST_LABELS = {"os": "linux", "arch": {"x86_64": "amd64"}.get(os.uname().machine, os.uname().machine)}


@pytest.fixture(scope="module")
def signer() -> Iterator[tuple[KeyRing, Key]]:
    """A ring with one key."""
    with KeyRing() as ring:
        yield ring, ring.make("alice@example.com")


def trust(rkt: Rkt, signer: tuple[KeyRing, Key], *scope: str) -> None:
    """Trust the key."""
    ring, key = signer
    path = f"{rkt.base}/alice.asc"
    with open(path, "wb") as file:
        file.write(ring.export(key))
    rkt.run("trust", *scope, "--skip-fingerprint-review", path, check=0)


def test_f5_f8_f9_f10_pull_policies_of_names(rkt: Rkt, site: Site) -> None:
    """Never refuses, new fetches from the discovered URL and then uses the store, update asks the server again."""
    name = site.name()
    url = site.image(rkt, labels=HOST_LABELS)
    never = rkt.run(INSECURE, "--debug", "fetch", "--pull-policy=never", name, check=254)
    assert f'unable to fetch image from image name "{name}"' in never.stderr
    assert site.server.requests == []
    for policy, words in (
        ("new", f'image: remote fetching from URL "{url}"'),
        ("new", f"image: using image from local store for image name {name}"),
        ("never", f"image: using image from local store for image name {name}"),
        ("update", f'image: remote fetching from URL "{url}"'),
    ):
        result = rkt.run(INSECURE, "--debug", "fetch", f"--pull-policy={policy}", name, check=0)
        assert words in result.stderr, result
    assert "searching for app image" in result.stderr
    assert [path for path in site.server.paths() if path == "/images/app.aci"] == ["/images/app.aci"] * 2


def test_f6_f7_names_run_and_are_prepared(rkt: Rkt, site: Site, images: Images) -> None:
    """Run and prepare fetch by name, and find the image in the store the second time."""
    name = site.name()
    path = images.busybox(name, ("/bin/echo", "by name"), file="by-name")
    with open(path, "rb") as stream:
        site.server.put("/images/app.aci", stream.read())
    os.unlink(path)
    first = rkt.run(INSECURE, "--debug", "run", name, check=0)
    assert first.lines == ["by name"]
    assert f'remote fetching from URL "{site.url("/images/app.aci")}"' in first.stderr
    for verb in ("run", "prepare"):
        again = rkt.run(INSECURE, "--debug", verb, "--pull-policy=new", name, check=0)
        assert f"using image from local store for image name {name}" in again.stderr
    refused = rkt.run(INSECURE, "run", "--pull-policy=never", site.name("other"), check=254)
    assert f'unable to fetch image from image name "{site.name("other")}"' in refused.stderr


@pytest.mark.parametrize("by", ["url", "name"])
@pytest.mark.parametrize("redirected", [False, True])
def test_f13_f14_caching(rkt: Rkt, site: Site, by: str, redirected: bool) -> None:
    """Nothing said: downloaded again; an ETag: asked, not sent; max-age: not even asked; removed: downloaded."""
    target = "/real.aci" if redirected else "/images/app.aci"
    url = site.url("/images/app.aci")
    if redirected:
        site.server.put("/images/app.aci", Page(redirect="/real.aci"))
    reference = url if by == "url" else site.name()

    def fetch(headers: dict[str, str]) -> str:
        site.image(rkt, path=target, page={"headers": headers})
        site.server.requests.clear()
        return rkt.run(INSECURE, "--debug", "fetch", "--no-store", reference, check=0).stderr

    first = fetch({})
    assert f"fetching image from {url}" in first
    fetch({"ETag": '"one"'})
    fetch({"ETag": '"one"'})
    asked = [request for request in site.server.requests if request.path == target]
    assert [request.headers.get("If-None-Match") for request in asked] == ['"one"']
    fetch({"ETag": '"one"', "Cache-Control": "max-age=86400"})
    said = fetch({"ETag": '"two"', "Cache-Control": "max-age=86400"})
    assert f"image for {url} isn't expired, not fetching." in said
    assert target not in site.server.paths()
    rkt.run("image", "rm", site.name(), check=0)
    fetch({"ETag": '"two"'})
    assert target in site.server.paths()


def test_what_was_never_verified_is_no_cache(rkt: Rkt, site: Site) -> None:
    """However fresh, an image fetched without verification is fetched anew by whoever asks for a signature."""
    url = site.image(rkt, page={"headers": {"Cache-Control": "max-age=86400", "ETag": '"x"'}})
    rkt.run(INSECURE, "fetch", url, check=0)
    result = rkt.run("fetch", url, check=254)
    assert "error downloading the signature file" in result.stderr


def test_f17_a_deferred_signature(rkt: Rkt, site: Site, signer: tuple[KeyRing, Key], images: Images) -> None:
    """With 202 for the signature the image comes first, then the signature; the app runs."""
    name = site.name()
    path = images.busybox(name, ("/bin/echo", "signed"), file="deferred")
    with open(path, "rb") as stream:
        data = stream.read()
    os.unlink(path)
    ring, key = signer
    site.server.put("/images/app.aci", data)
    site.server.put("/images/app.aci.asc", Page(ring.sign(key, data), first=[202]))
    trust(rkt, signer, "--root")
    os.unlink(f"{rkt.local}/fetch.d/{site.host}.json")
    result = rkt.run("--insecure-options=tls", "run", name, check=0)
    assert "server requested deferring the signature download" in result.stderr
    assert result.lines == ["signed"]
    paths = [path for path in site.server.paths() if path.startswith("/images")]
    assert paths == ["/images/app.aci.asc", "/images/app.aci", "/images/app.aci.asc"]


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (":2.0", 'requested value for label "version": "2.0" differs from fetched aci label value: "1.2.0"'),
        (
            ":latest",
            'requested value for label "version": "latest" differs from fetched aci label value: "1.2.0"',
        ),
        (",arch=other", 'requested value for label "arch": "other" differs from fetched aci label value: '),
        (",unexistinglabel=bla", 'requested label "unexistinglabel" not provided by the image manifest'),
    ],
)
@pytest.mark.parametrize("insecure", [False, True])
def test_f18_f19_f20_f21_labels(
    rkt: Rkt,
    site: Site,
    signer: tuple[KeyRing, Key],
    suffix: str,
    message: str,
    insecure: bool,
) -> None:
    """What was asked for is compared with what came, signed or not; nothing else gets into the store."""
    site.image(rkt, signer=signer, labels={**HOST_LABELS, "version": "1.2.0"})
    trust(rkt, signer, f"--prefix={site.host}")
    options = [INSECURE] if insecure else []
    result = rkt.run(*options, "fetch", site.name() + suffix, check=254)
    assert message in result.stderr
    assert rkt.run("image", "list", "--no-legend", check=0).stdout == ""
    rkt.run(*options, "fetch", site.name() + ":1.2.0", check=0)


def test_another_name_is_refused(rkt: Rkt, site: Site, signer: tuple[KeyRing, Key]) -> None:
    """An image that calls itself otherwise is refused, even when its own name's key signed it."""
    site.image(rkt, "other", path="/images/app.aci", signer=signer)
    trust(rkt, signer, "--root")
    for options in ([], [INSECURE]):
        result = rkt.run(*options, "fetch", site.name(), check=254)
        assert f'"{site.name()}" expected but "{site.name("other")}" found' in result.stderr
    assert rkt.run("image", "list", "--no-legend", check=0).stdout == ""


def test_an_unknown_signer_costs_no_download(rkt: Rkt, site: Site, signer: tuple[KeyRing, Key]) -> None:
    """The image is not asked for when nobody who is trusted claims to have signed it."""
    site.image(rkt, signer=signer)
    result = rkt.run("fetch", site.name(), check=254)
    assert "openpgp: signature made by unknown entity" in result.stderr
    assert "/images/app.aci" not in site.server.paths()
    assert "/images/app.aci.asc" in site.server.paths()


def test_pages_are_tried_upwards(rkt: Rkt, site: Site) -> None:
    """The name's own page, then those above it, until one covers the name; another prefix does not."""
    name = site.name("a/b/appendix")
    site.discoverable("/a/b", f"{site.host}/a/b/app https://{site.host}/wrong.{{ext}}")
    site.discoverable("/a", f"{site.host}/a https://{site.host}/{{os}}-{{arch}}-{{version}}/{{name}}.{{ext}}")
    path = f"/linux-{HOST_LABELS['arch']}-latest/{name}.aci"
    site.image(rkt, "a/b/appendix", path=path)
    rkt.run(INSECURE, "fetch", name, check=0)
    assert site.server.paths() == [
        "/a/b/appendix?ac-discovery=1",
        "/a/b?ac-discovery=1",
        "/a?ac-discovery=1",
        path,
    ]


def test_all_endpoints_are_tried(rkt: Rkt, site: Site) -> None:
    """When the first place has nothing, the next one is asked."""
    html = "".join(
        f'<meta name="ac-discovery" content="{site.host} https://{site.host}/{place}/app.{{ext}}">'
        for place in ("one", "two")
    )
    site.server.put("/app?ac-discovery=1", html.encode())
    site.image(rkt, path="/two/app.aci")
    result = rkt.run(INSECURE, "fetch", site.name(), check=0)
    assert "/one/app.aci: " not in result.stdout
    assert site.server.paths()[-2:] == ["/one/app.aci", "/two/app.aci"]


def test_simple_discovery_is_the_last_resort(rkt: Rkt, site: Site) -> None:
    """Without any page, NAME-VERSION-OS-ARCH.aci is asked for; without that too, the error says what was tried."""
    path = f"/plain-1.0-linux-{HOST_LABELS['arch']}.aci"
    site.image(rkt, "plain", path=path, labels={**HOST_LABELS, "version": "1.0"})
    rkt.run(INSECURE, "fetch", site.name("plain:1.0"), check=0)
    assert site.server.paths()[-1] == path
    result = rkt.run(INSECURE, "--debug", "fetch", site.name("none"), check=254)
    assert f'discovery failed for "{site.name("none")}"' in result.stderr
    page = f"https://{site.name('none')}?ac-discovery=1"
    assert f"meta tag 'ac-discovery' not found on {page}: " in result.stderr


@pytest.mark.parametrize(
    "content",
    [
        "{host} http://{host}/images/app.{{ext}}",
        "{host} ftp://{host}/images/app.{{ext}}",
        "{host} https://user:secret@{host}/images/app.{{ext}}",
        "{host} https://{host}/images/{{unknown}}.{{ext}}",
        "{host}/ap https://{host}/images/app.{{ext}}",
    ],
)
def test_templates_that_are_not_followed(rkt: Rkt, site: Site, content: str) -> None:
    """http, other schemes, credentials, unknown fields and prefixes that do not cover the name lead nowhere."""
    site.image(rkt)
    site.discoverable("/app", content.format(host=site.host))
    result = rkt.run(INSECURE, "fetch", site.name(), check=254)
    assert "discovery failed" in result.stderr
    assert "/images/app.aci" not in site.server.paths()


@pytest.mark.parametrize(
    "bad",
    [
        Page(b" " * 65536, repeat=100_000, no_length=True),
        Page(b" " * 5000, truncate=100),
        Page(hang_up=True),
        Page(status=500),
        Page(b"<![", headers={"Content-Type": "image/png"}),
        Page(redirect="http://127.0.0.1:1/"),
        Page(redirect="?again"),
    ],
    ids=["endless", "truncated", "hang-up", "status 500", "no HTML", "to http", "in circles"],
)
def test_a_bad_page_is_no_page(rkt: Rkt, site: Site, bad: Page) -> None:
    """Whatever is wrong with a name's own page, the one above it is asked."""
    site.server.put("/app?ac-discovery=1", bad)
    site.server.put("/app?again", Page(redirect="?again"))
    site.image(rkt)
    site.discoverable("", f"{site.host} {site.url('/images/app.{ext}')}")
    site.server.pages["/?ac-discovery=1"] = site.server.pages.pop("?ac-discovery=1")
    rkt.run(INSECURE, "fetch", site.name(), check=0)


def test_a_newer_version_in_the_same_place(rkt: Rkt, site: Site) -> None:
    """What is fresh by max-age but not what was asked for is fetched again; found without a version it is the latest."""
    headers = {"Cache-Control": "max-age=86400", "ETag": '"1"'}
    site.image(rkt, labels={**HOST_LABELS, "version": "1"}, page={"headers": headers})
    rkt.run(INSECURE, "fetch", site.name("app:1"), check=0)
    site.image(rkt, labels={**HOST_LABELS, "version": "2"}, page={"headers": {**headers, "ETag": '"2"'}})
    rkt.run(INSECURE, "fetch", site.name("app:2"), check=0)
    assert sorted(rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines) == [
        site.name("app:1"),
        site.name("app:2"),
    ]
    site.image(rkt, labels={**HOST_LABELS, "version": "3"})
    rkt.run("image", "rm", site.name("app:2"), check=0)
    rkt.run(INSECURE, "fetch", site.name(), check=0)
    latest = []
    for name in os.listdir(f"{rkt.data}/cas/record"):
        with open(f"{rkt.data}/cas/record/{name}", "rb") as file:
            record = file.read()
        latest.append((b'"version":"3"' in record, b'"latest":true' in record))
    assert sorted(latest) == [(False, False), (True, True)]


def test_a_page_has_a_size(rkt: Rkt, site: Site) -> None:
    """A page beyond 1 MiB is not read."""
    tag = f'<meta name="ac-discovery" content="{site.host} {site.url("/images/app.{ext}")}">'
    site.server.put("/app?ac-discovery=1", Page(tag.encode() + b" " * (1 << 20)))
    site.image(rkt)
    result = rkt.run(INSECURE, "--debug", "fetch", site.name(), check=254)
    assert "is too large" in result.stderr
    assert "/images/app.aci" not in site.server.paths()


def test_http_only_with_leave_and_without_credentials(rkt: Rkt, authority: Authority) -> None:
    """Plain http serves discovery with --insecure-options=http only, and never sees configured credentials."""
    with Site(authority, https=False) as site:
        write_config(
            rkt,
            "auth.d/a.json",
            {
                "rktKind": "auth",
                "domains": [site.host, f"{site.host}:80"],
                "type": "basic",
                "credentials": {"user": "u", "password": "p"},
            },
        )
        site.discoverable("/app", f"{site.host} {site.url('/images/app.{ext}')}")
        site.image(rkt)
        result = rkt.run(INSECURE, "fetch", site.name(), check=254)
        assert "discovery failed" in result.stderr
        assert site.server.requests == []
        rkt.run("--insecure-options=image,http", "fetch", site.name(), check=0)
        assert len(site.server.requests) == 2
        assert not any("Authorization" in request.headers for request in site.server.requests)


def test_a_private_root_counts_for_its_host_only(rkt: Rkt, site: Site, authority: Authority) -> None:
    """A host whose roots are configured is checked by them; other hosts are checked by the system's."""
    site.image(rkt)
    rkt.run(INSECURE, "fetch", site.url("/images/app.aci"), check=0)
    with Site(authority) as other:
        url = other.image(rkt)
        result = rkt.run(INSECURE, "fetch", url, check=254)
        assert "certificate is not valid" in result.stderr
        assert other.server.requests == []
