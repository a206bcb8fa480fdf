# SPDX-License-Identifier: Apache-2.0
"""What networks and servers say: CNI, resolv.conf, discovery, registries, HTTP."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from rkt.errors import FetchError, NetworkError
from rkt.fetch import answer, challenge, discovery, repository, resume, urls
from rkt.metadata.http import Refused, end_of_head, parse_head
from rkt.metadata.registry import token_digest
from rkt.metadata.worker import Book
from rkt.net import config, egress, resolv_conf, results
from rkt.schema import jsontext
from tests.fuzz.target import Target
from tests.fuzz.targets.documents import JSON_PIECES

_PLUGIN = re.compile(r"[a-z0-9_.-]+")
_NAME = "example.com/app/server"
_LABELS = {"version": "1.0", "os": "linux", "arch": "amd64"}
_TOKEN = "ab" * 32
_UUID = "6733c088-a507-4694-aabf-bf80d7f1f9f4"


# --- CNI ----------------------------------------------------------------------------------------------------------


def read_cni_config(data: bytes) -> None:
    """A network's name is a word, and its plugins are programs of their directory and of no other (CVE-2021-20206)."""
    good = 0
    for path in ("/n/10-a.conf", "/n/10-a.conflist"):
        try:
            network = config.parse(data, path)
        except NetworkError:
            continue
        good += 1
        assert config.is_name(network.name), "the name of a network"
        assert "/" not in network.name, "a name is a path"
        assert network.version in config.VERSIONS, "a version"
        assert network.plugins, "no plugins"
        for plugin in network.plugins:
            kinds = [plugin["type"]]
            if plugin.get("ipam") and "type" in plugin["ipam"]:
                kinds.append(plugin["ipam"]["type"])
            assert all(_PLUGIN.fullmatch(kind) and kind not in {".", ".."} for kind in kinds), (
                "a program elsewhere"
            )
        assert config.parse(network.raw, path) == network, "read again"
        assert isinstance(network.masquerades, bool), "a flag"
        assert isinstance(network.has_capabilities, bool), "a flag"
        network.has_capability("portMappings")
    if not good:
        raise NetworkError("neither a network nor a list")


def read_cni_result(data: bytes) -> None:
    """Addresses are addresses; what a plugin says of names comes to the pod as these words and no others."""
    good = 0
    for version in ("0.2.0", "0.4.0", "1.0.0"):
        try:
            result, members = results.parse(data, version, what="plugin")
        except NetworkError:
            continue
        good += 1
        for address in result.addresses:
            ipaddress.ip_interface(f"{address.address}/{address.prefix}")
            assert address.cidr == f"{address.address}/{address.prefix}", "an address"
        for route in result.routes:
            ipaddress.ip_interface(route.destination)
        _ = result.own_addresses, result.address
        again, _ = results.parse(jsontext.dump(members).encode(), version, what="plugin")
        assert again.dns == result.dns, "names, after the next plugin"
        if version != "0.2.0":
            newest, _ = results.parse(
                jsontext.dump(results.render(result, "1.0.0")).encode(), "1.0.0", what="plugin"
            )
            assert newest == result, "written and read again"
        dns = result.dns
        text = resolv_conf.render(
            "test", servers=dns.servers, search=dns.search, options=dns.options, domain=dns.domain
        )
        assert resolv_conf.parse(text) == dns, "resolv.conf says something else"
    if not good:
        raise NetworkError("no result")


def read_resolv_conf(data: bytes) -> None:
    """Name servers that rules are made of are addresses, of a bounded number, and nothing else."""
    text = data.decode("utf-8", "replace")
    for server in egress.name_servers(text):
        ipaddress.ip_address(server)
    once = resolv_conf.parse(text)
    again = resolv_conf.parse(
        resolv_conf.render(
            "test", servers=once.servers, search=once.search, options=once.options, domain=once.domain
        )
    )
    assert again == once, "written and read again"


# --- HTTP ---------------------------------------------------------------------------------------------------------


def _check_url(url: str, *, allow_http: bool) -> None:
    assert url.isascii(), "not ASCII"
    assert url.isprintable(), "it breaks a line"
    assert " " not in url, "it breaks a request"
    assert url.startswith(("https:", "http:") if allow_http else "https:"), "another scheme"
    assert urls.check_url(url) == url, "it becomes another"


def read_discovery(data: bytes) -> None:
    """Only prefixes that cover a name count, by component, and what is asked for is https unless http is allowed (RG5)."""
    entries = discovery.parse_page(data)
    assert len(entries) <= 256, "too many"
    for allow_http in (False, True):
        for found in discovery.endpoints(entries, _NAME, _LABELS, allow_http=allow_http):
            _check_url(found["image"], allow_http=allow_http)
            _check_url(found["signature"], allow_http=allow_http)
        for url in discovery.key_urls(entries, _NAME, allow_http=allow_http):
            _check_url(url, allow_http=allow_http)
    covering = {"example.com", "example.com/app", _NAME}
    for entry in entries:
        assert discovery.covers(entry.prefix, _NAME) == (entry.prefix in covering), (
            "a prefix that does not cover"
        )


def read_url(data: bytes) -> None:
    """A URL that may be asked for is one line of ASCII without credentials, and asking again changes nothing."""
    url = urls.check_url(data.decode("utf-8", "surrogateescape"))
    _check_url(url, allow_http=True)
    scheme, host, port = urls.origin(url)
    assert scheme in {"http", "https"}, "another scheme"
    assert host, "no host"
    assert 0 <= port <= 65535, "no port"
    assert "@" not in url.partition("//")[2].partition("/")[0].partition("?")[0], "credentials"


def read_challenge(data: bytes) -> None:
    """Whatever a server wants is a list of schemes and texts; what is written again reads as the same."""
    found = challenge.parse_challenges(data.decode("latin-1"))
    assert len(found) <= len(data), "more than was said"
    written = ", ".join(
        scheme + " " + ", ".join(f'{name}="{value}"' for name, value in _escaped(parameters).items())
        for scheme, parameters in found
    )
    if len(written) <= challenge._MAX_CHALLENGE_LENGTH:
        assert challenge.parse_challenges(written) == found, "written and read again"
    for scheme, parameters in found:
        assert scheme == scheme.lower(), "a scheme is not in lower case"
        assert all(name == name.lower() for name in parameters), "a parameter is not in lower case"


def _escaped(parameters: dict[str, str]) -> dict[str, str]:
    return {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}


def read_registry(data: bytes) -> None:
    """What a registry says in an error is bounded and shows no control character; a token is one word for a header."""
    words = repository.error_words(data)
    assert words.isprintable(), "control characters"
    assert len(words) < 1000, "too long"
    token = challenge._read_token(data, "https://example.com/token")
    assert re.fullmatch(r"[!-~]+", token), "a token breaks a header"


def _headers(data: bytes) -> dict[str, str]:
    lines = [line.partition(":") for line in data.decode("latin-1").split("\n")]
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def read_headers(data: bytes) -> None:
    """Whatever a server says of a file's version and age, it is believed in full or not at all."""
    headers = _headers(data)
    validators = resume.read_validators(headers, "https://example.com/x.aci", None)
    assert resume.parse_validators(validators.seal()) == validators, "written and read again"
    assert re.fullmatch(r"[ -~]*", validators.if_range), "a header is broken"
    assert 0 <= answer.parse_max_age(headers.get("Cache-Control", "")) < 10**12, "an age"
    assert answer.parse_retry_after(headers.get("Retry-After", ""), 1_790_000_000.0) >= 0, "in the past"
    resume.parse_validators(data)


def read_metadata_request(data: bytes) -> None:
    """A request of a pod is refused or answered; no line that is written down has the token or another line in it."""
    book = Book(b"k" * 64)
    book.put(_UUID, token_digest(_TOKEN), {"pod/uuid": ("text", _UUID)})
    start = end_of_head(data)
    if not start:
        raise Refused(400, "not whole")
    head: Any = parse_head(data[:start], max_body_bytes=1 << 20)
    answer, line = book.answer(head, data[start : start + head.length])
    assert 200 <= answer.status < 600, "a status"
    assert line.isprintable(), "more than one line"
    assert _TOKEN not in line, "the token is written down"


_HTTP_PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b" ", b":", b"%", b"%00", b"%ff", b"%2f", b"%zz", b"/", b"//", b"/../", b"?", b"#", b"&", b"=", b"+",
    b";", b"HTTP/1.1", b"HTTP/0.9", b"Content-Length: 1\r\n", b"Content-Length: -1\r\n", b"9" * 400, b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"content", b"signature", b"uuid", _TOKEN.encode(),
)  # fmt: skip
_CNI_PIECES = (
    b'"type"', b'"ipam"', b'"plugins"', b'"cniVersion"', b'"0.2.0"', b'"1.0.0"', b'"../x"', b'"capabilities"', b'"ips"', b'"address"', b'"ip4"',
    b'"10.0.0.1/24"', b'"fe80::1/64"', b'"gateway"', b'"routes"', b'"dst"', b'"dns"', b'"nameservers"', b'"search"', b'"options"', b'"domain"',
    b'"interface"', b'"interfaces"', b'"sandbox"', b'"\xe2\x80\xa8nameserver 6.6.6.6"',
)  # fmt: skip

TARGETS = (
    Target(name="cni-config", read=read_cni_config, refuses=(NetworkError,), pieces=(*JSON_PIECES, *_CNI_PIECES)),
    Target(name="cni-result", read=read_cni_result, refuses=(NetworkError,), pieces=(*JSON_PIECES, *_CNI_PIECES)),
    Target(
        name="resolv-conf",
        read=read_resolv_conf,
        pieces=(b"nameserver ", b"search ", b"options ", b"domain ", b"\n", b"\r", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8", b"::1", b"%eth0", b"127.0.0.1",
                b"#", b";", b"\t"),
    ),
    Target(
        name="discovery",
        read=read_discovery,
        pieces=(b"<meta ", b'name="ac-discovery"', b'name="ac-discovery-pubkeys"', b'content="', b"example.com/app ", b"{version}", b"{name}", b"{ext}",
                b"{", b"}", b"https://", b"http://", b"<!--", b"-->", b"<![CDATA[", b"<!DOCTYPE ", b"<!", b"<?", b"<script>", b"</script>", b"&#x0a;", b"&amp;",
                b"&", b'"', b"'", b">", b"/>", b"\0", b"\xff", b"@"),
    ),
    Target(
        name="url",
        read=read_url,
        refuses=(FetchError,),
        pieces=(b"https://", b"http://", b"@", b":", b"[::1]", b"%0a", b"%", b"//", b"..", b"?", b"#", b"\\", b"\r\n", b":99999", b":0", b"\xc3\xa9", b"xn--", b"[", b"]"),
        shows_all=True,
    ),
    Target(
        name="http-challenge",
        read=read_challenge,
        pieces=(b"Bearer ", b"Basic ", b'realm="', b"service=", b"scope=", b",", b'"', b"\\", b"=", b" ", b"\t", b"\r\n", b"\xff", b'realm="https://'),
    ),
    Target(
        name="registry-answer",
        read=read_registry,
        refuses=(FetchError,),
        pieces=(*JSON_PIECES, b'"errors"', b'"code"', b'"message"', b'"token"', b'"access_token"', b'"abc\\r\\nX: y"'),
    ),
    Target(
        name="http-headers",
        read=read_headers,
        pieces=(b"ETag: ", b'"abc"', b"W/", b"Last-Modified: ", b"Date: ", b"Mon, 23 Nov 2026 01:00:00 GMT", b"Sun, 22 Nov 2026 01:00:00 +99999999999999999999",
                b"Cache-Control: ", b"Retry-After: ", b"max-age=", b"no-store", b"\n", b",", b"99999999999", b"-0000", b" 99999 "),
    ),
    Target(name="metadata-request", read=read_metadata_request, refuses=(Refused,), pieces=_HTTP_PIECES),
)  # fmt: skip
