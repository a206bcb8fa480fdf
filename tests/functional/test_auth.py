# SPDX-License-Identifier: Apache-2.0
"""Credentials: who gets them, and above all who does not (spec cli §4.2, §10.3; invariants RG1, RG2, RG6, RG7)."""

from __future__ import annotations

import base64
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.server import Authority, Page
from tests.lib.site import Site, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
BASIC = f"Basic {base64.b64encode(b'bar:baz').decode()}"
BEARER = "Bearer sometoken"
WANTED = {"basic": BASIC, "oauth": BEARER}
RIGHT = {"basic": {"user": "bar", "password": "baz"}, "oauth": {"token": "sometoken"}}
WRONG = {"basic": {"user": "bar", "password": "no"}, "oauth": {"token": "another"}}
KINDS = ("basic", "oauth")


def serve(site: Site, images: Images, authorization: str) -> str:
    """Serve an image that prints a line to whoever sends that header; returns its URL."""
    path = images.busybox("example.com/authorized", ("/bin/echo", "authorized"))
    with open(path, "rb") as stream:
        site.server.put("/app.aci", Page(stream.read(), authorization=authorization))
    return site.url("/app.aci")


def configure(rkt: Rkt, site: Site, kind: str, credentials: dict[str, str], **where: Any) -> None:
    """Credentials for the host."""
    name = where.pop("name", "auth.d/test.json")
    write_config(
        rkt,
        name,
        {"rktKind": "auth", "domains": [site.host], "type": kind, "credentials": credentials},
        **where,
    )


def run(rkt: Rkt, url: str) -> Result:
    """Run the image, after it was refused for want of a signature."""
    refused = rkt.run("run", "--no-store", url, check=254)
    assert "error downloading the signature file" in refused.stderr
    return rkt.run(INSECURE, "run", "--no-store", url)


def assert_ran(result: Result) -> None:
    """The app's output."""
    assert result.status == 0, result
    assert result.lines == ["authorized"]


def assert_unauthorized(result: Result) -> None:
    """Refused by the server."""
    assert result.status == 254, result
    assert "bad HTTP status code: 401" in result.stderr


def test_a1_no_authentication(rkt: Rkt, site: Site, images: Images) -> None:
    """A server that asks for nothing gets nothing and serves."""
    assert_ran(run(rkt, serve(site, images, "")))
    assert not any("Authorization" in request.headers for request in site.server.requests)


@pytest.mark.parametrize("kind", KINDS)
def test_a2_to_a7_kinds_and_directories(rkt: Rkt, site: Site, images: Images, kind: str) -> None:
    """Without credentials 401; with them in the local or the system directory the app runs, signature asked likewise."""
    url = serve(site, images, WANTED[kind])
    assert_unauthorized(run(rkt, url))
    configure(rkt, site, kind, RIGHT[kind])
    assert_ran(run(rkt, url))
    os.unlink(f"{rkt.local}/auth.d/test.json")
    rkt.run("image", "rm", "example.com/authorized", check=0)
    configure(rkt, site, kind, RIGHT[kind], system=True)
    site.server.requests.clear()
    assert_ran(run(rkt, url))
    assert {request.headers.get("Authorization") for request in site.server.requests} == {WANTED[kind]}
    assert {"/app.aci", "/app.aci.asc"} <= set(site.server.paths())


def test_a8_a9_local_overrides_system(rkt: Rkt, site: Site, images: Images) -> None:
    """The local directory's credentials count, right or wrong."""
    url = serve(site, images, BEARER)
    configure(rkt, site, "oauth", RIGHT["oauth"], system=True)
    assert_ran(run(rkt, url))
    rkt.run("image", "rm", "example.com/authorized", check=0)
    configure(rkt, site, "oauth", WRONG["oauth"])
    assert_unauthorized(run(rkt, url))
    configure(rkt, site, "oauth", WRONG["oauth"], system=True)
    configure(rkt, site, "oauth", RIGHT["oauth"])
    assert_ran(run(rkt, url))


def test_a10_a11_files_that_do_not_count(rkt: Rkt, site: Site, images: Images) -> None:
    """Files of other names and in other directories are not read."""
    url = serve(site, images, BEARER)
    for name in ("auth.d/README", "auth.d/test.notjson", "sub/auth.d/test.json"):
        configure(rkt, site, "oauth", RIGHT["oauth"], name=name)
    with open(f"{rkt.local}/auth.d/README", "w", encoding="ascii") as file:
        file.write("This is not JSON")
    assert_unauthorized(run(rkt, url))


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_kind_fails(rkt: Rkt, site: Site, images: Images, kind: str) -> None:
    """Credentials of one kind do not open a server that wants the other; unneeded ones do no harm."""
    other = KINDS[1 - KINDS.index(kind)]
    configure(rkt, site, kind, RIGHT[kind])
    url = serve(site, images, WANTED[other])
    assert_unauthorized(rkt.run(INSECURE, "fetch", url))
    serve(site, images, "")
    rkt.run(INSECURE, "fetch", url, check=0)


def test_other_hosts_see_nothing(rkt: Rkt, site: Site, authority: Authority, images: Images) -> None:
    """A redirect to another host, another port or http carries no credentials, not even those of that host."""
    with Site(authority) as other:
        other.configure(rkt)
        target = serve(other, images, "")
        write_config(
            rkt,
            "auth.d/all.json",
            {
                "rktKind": "auth",
                "domains": [site.host, other.host],
                "type": "basic",
                "credentials": RIGHT["basic"],
            },
        )
        site.server.put("/app.aci", Page(redirect=target, authorization=BASIC))
        rkt.run(INSECURE, "fetch", site.url("/app.aci"), check=0)
        assert site.server.requests[-1].headers["Authorization"] == BASIC
        assert other.server.paths() == ["/app.aci"]
        seen = " ".join(
            f"{name}: {value}" for r in other.server.requests for name, value in r.headers.items()
        )
        assert "Authorization" not in seen
        assert "baz" not in seen
        assert BASIC.split()[1] not in seen


def test_a_port_of_its_own(rkt: Rkt, site: Site, images: Images) -> None:
    """Credentials for host:8443 are not for host; those for host:443 are."""
    url = serve(site, images, BASIC)
    path = "auth.d/test.json"
    entry = {"rktKind": "auth", "type": "basic", "credentials": RIGHT["basic"]}
    write_config(rkt, path, {**entry, "domains": [f"{site.host}:8443"]})
    assert_unauthorized(rkt.run(INSECURE, "fetch", url))
    write_config(rkt, path, {**entry, "domains": [f"{site.host}:443"]})
    rkt.run(INSECURE, "fetch", url, check=0)


def test_plain_http_never_sees_credentials(rkt: Rkt, authority: Authority, images: Images) -> None:
    """Credentials that are configured for the very host are not sent by http."""
    with Site(authority, https=False) as site:
        write_config(
            rkt,
            "auth.d/test.json",
            {
                "rktKind": "auth",
                "domains": [site.host, f"{site.host}:80"],
                "type": "oauth",
                "credentials": RIGHT["oauth"],
            },
        )
        rkt.run(INSECURE, "fetch", serve(site, images, ""), check=0)
        assert not any("Authorization" in request.headers for request in site.server.requests)


def test_discovery_pages_get_them(rkt: Rkt, site: Site) -> None:
    """The pages of a name are asked with the host's credentials."""
    configure(rkt, site, "basic", RIGHT["basic"])
    site.discoverable("/app", f"{site.host} {site.url('/images/app.{ext}')}", authorization=BASIC)
    site.image(rkt, page={"authorization": BASIC})
    rkt.run(INSECURE, "fetch", site.name(), check=0)


def test_discovery_that_is_redirected_takes_nothing_along(rkt: Rkt, site: Site, authority: Authority) -> None:
    """Page, signature and image on another host than asked: that host sees no credentials of either."""
    with Site(authority) as other:
        other.configure(rkt)
        both = {"rktKind": "auth", "domains": [site.host, other.host], "type": "oauth"}
        write_config(rkt, "auth.d/all.json", {**both, "credentials": RIGHT["oauth"]})
        page = f'<meta name="ac-discovery" content="{site.host} {site.url("/images/app.{ext}")}">'
        other.server.put("/page", page.encode())
        site.server.put("/app?ac-discovery=1", Page(redirect=other.url("/page"), authorization=BEARER))
        site.image(rkt, path="/real.aci")
        other.server.pages["/real.aci"] = site.server.pages["/real.aci"]
        site.server.put("/images/app.aci", Page(redirect=other.url("/real.aci"), authorization=BEARER))
        rkt.run(INSECURE, "fetch", site.name(), check=0)
        rkt.run("fetch", "--pull-policy=update", site.name(), check=254)
        assert {"/page", "/real.aci"} <= set(other.server.paths())
        assert not any("uthorization" in name for r in other.server.requests for name in r.headers)


def test_config_shows_what_counts(rkt: Rkt, site: Site) -> None:
    """``rkt config`` lists credentials without secrets, proxies, certificates and registries."""
    configure(rkt, site, "oauth", RIGHT["oauth"])
    client = {"certificate": "/c.pem", "key": "/c.key"}
    write_config(rkt, "fetch.d/client.json", {"rktKind": "tls", "hosts": ["a.example"], **client})
    rules: dict[str, dict[str, Any]] = {
        "index.docker.io": {"mirrors": ["https://m.example/hub"]},
        "q.example": {"tokenHosts": ["t.example"]},
        "r.example:5000": {"http": True},
    }
    for number, (registry, rule) in enumerate(rules.items()):
        content = {"rktKind": "registry", "registries": [registry], **rule}
        write_config(rkt, f"fetch.d/registry{number}.json", content)
    login = {"rktKind": "dockerAuth", "credentials": {"user": "me", "password": "secret-x"}}
    write_config(rkt, "auth.d/docker.json", {**login, "registries": ["docker.io"]})
    write_config(rkt, "fetch.d/proxy.json", {"rktKind": "proxy", "hosts": ["*"], "url": "http://p.example:1"})
    result = rkt.run("config", check=0)
    stage0 = json.loads(result.stdout)["stage0"]
    assert {entry["hosts"][0]: entry for entry in stage0 if entry["rktKind"] == "tls"} == {
        site.host: {
            "rktVersion": "v1",
            "rktKind": "tls",
            "hosts": [site.host],
            "roots": site.authority.root,
        },
        "a.example": {"rktVersion": "v1", "rktKind": "tls", "hosts": ["a.example"], **client},
    }
    found = {entry["registries"][0]: entry for entry in stage0 if entry["rktKind"] == "registry"}
    rules["registry-1.docker.io"] = rules.pop("index.docker.io")
    assert found == {
        name: {"rktVersion": "v1", "rktKind": "registry", "registries": [name], **rule}
        for name, rule in rules.items()
    }
    entries = {entry["rktKind"]: entry for entry in stage0}
    assert entries["dockerAuth"]["registries"] == ["registry-1.docker.io"]
    assert "secret-x" not in result.stdout
    assert entries["auth"]["domains"] == [site.host]
    assert entries["proxy"]["url"] == "http://p.example:1"
    assert "sometoken" not in result.stdout


def test_aws(rkt: Rkt, site: Site, images: Images) -> None:
    """Each request is signed for its own URL, with the region configured; the secret itself is not sent."""
    url = serve(site, images, "")
    configure(
        rkt,
        site,
        "aws",
        {"accessKeyID": "AKID", "secretAccessKey": "s3cret-key", "awsRegion": "eu-west-9"},
    )
    rkt.run("fetch", url, check=254)
    rkt.run(INSECURE, "fetch", url, check=0)
    seen = [request.headers["Authorization"] for request in site.server.requests]
    assert len(set(seen)) == 2
    for header in seen:
        assert header.startswith("AWS4-HMAC-SHA256 Credential=AKID/")
        assert "/eu-west-9/s3/aws4_request" in header
        assert "s3cret" not in header


def test_readable_by_everyone_is_refused(rkt: Rkt, site: Site, images: Images) -> None:
    """A file with credentials that everyone can read stops the fetch, with the command that mends it."""
    configure(rkt, site, "basic", RIGHT["basic"], mode=0o644)
    result = rkt.run(INSECURE, "fetch", serve(site, images, BASIC), check=254)
    assert "open to everyone" in result.stderr
    assert "chmod 0600" in result.stderr
    assert "baz" not in result.stderr


class _Proxy(ThreadingHTTPServer):
    """Remembers request lines and passes nothing on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.headers: list[str] = []
        super().__init__(("127.0.0.1", 0), _ProxyHandler)


class _ProxyHandler(BaseHTTPRequestHandler):
    server: _Proxy

    def do_CONNECT(self) -> None:
        self._note()

    def do_GET(self) -> None:
        self._note()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass

    def _note(self) -> None:
        self.server.lines.append(self.requestline)
        self.server.headers += [f"{name}: {value}" for name, value in self.headers.items()]
        self.send_error(403)


@pytest.fixture
def proxy() -> Iterator[_Proxy]:
    """A proxy that refuses."""
    with _Proxy() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_proxies_come_from_the_configuration_only(
    rkt: Rkt, site: Site, images: Images, proxy: _Proxy
) -> None:
    """Proxy variables are not read; the configured proxy is used for its hosts, and sees no credentials."""
    url = serve(site, images, BASIC)
    configure(rkt, site, "basic", RIGHT["basic"])
    address = f"http://127.0.0.1:{proxy.server_address[1]}"
    variables = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"), address
    )
    rkt.run(INSECURE, "fetch", url, env=variables, check=0)
    assert proxy.lines == []
    write_config(rkt, "fetch.d/proxy.json", {"rktKind": "proxy", "hosts": ["*"], "url": address})
    result = rkt.run(INSECURE, "fetch", url, check=254)
    assert "403" in result.stderr
    assert {line.rpartition(" ")[0] for line in proxy.lines} == {f"CONNECT {site.host}:443"}
    assert not any("uthorization" in header for header in proxy.headers)
    write_config(rkt, "fetch.d/direct.json", {"rktKind": "proxy", "hosts": [site.host], "url": ""})
    rkt.run(INSECURE, "fetch", url, check=0)
