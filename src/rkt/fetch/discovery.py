# SPDX-License-Identifier: Apache-2.0
"""``rkt-fetch``: reads the pages that say where the images and keys of a name are, and small files (spec cli §5.4).

A page is foreign HTML of at most 1 MiB; what it says counts only for names that its prefix covers, component by
component (invariants RG5, SG2). Pages and what they lead to are https unless the caller allows http, and credentials
are never sent by http.
"""

from __future__ import annotations

import contextlib
import re
from html.parser import HTMLParser
from urllib.parse import quote

from rkt.errors import FetchError
from rkt.fetch import transport, urls
from rkt.fetch.limits import DEFAULT_TRANSFER_LIMITS
from rkt.privsep import confine
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.privsep.worker import Emit

#: Largest page that is read, in bytes.
MAX_PAGE_BYTES = 1 << 20
_TOTAL_SECONDS = 110.0
_MAX_ENTRIES = 256
_MAX_TEMPLATE_LENGTH = 2048
_FIELD = re.compile(r"\{([^{}]*)\}")
#: What a label's value may put into a URL as it is.
_LITERAL = "/:@!$&'()*+,;=-._~"
_DISCOVERY = "ac-discovery"
_PUBKEYS = "ac-discovery-pubkeys"


class Entry(Record):
    """One ``<meta name="ac-…" content="PREFIX TEMPLATE">``."""

    name: str
    prefix: str
    template: str


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta" or len(self.entries) >= _MAX_ENTRIES:
            return
        # Of an attribute that is given twice the first counts, as in HTML.
        values = {name: value or "" for name, value in reversed(attrs)}
        name = values.get("name", "")
        prefix, _, template = values.get("content", "").strip().partition(" ")
        template = template.strip()
        if name.startswith("ac-") and prefix and template and len(template) <= _MAX_TEMPLATE_LENGTH:
            self.entries.append(Entry(name=name, prefix=prefix, template=template))


def parse_page(data: bytes) -> list[Entry]:
    """The entries of a page, in its order; whatever else is in it is passed over."""
    page = _Page()
    # The parser gives up on some malformed declarations; what stood before them is as good as before.
    with contextlib.suppress(AssertionError):
        page.feed(data.decode("utf-8", "replace"))
    return page.entries


def covers(prefix: str, name: str) -> bool:
    """Whether a name is the prefix or lies below it, component by component."""
    parts = prefix.split("/")
    return name.split("/")[: len(parts)] == parts


def render(template: str, name: str, labels: dict[str, str], ext: str) -> str | None:
    """A template with all its fields filled in; None when it has others.

    Args:
        template: of a page.
        name: of the image.
        labels: of the image; without a version it is ``latest``.
        ext: for ``{ext}``.
    """
    values = {"version": "latest", **labels, "name": name, "ext": ext}
    missing = False

    def fill(match: re.Match[str]) -> str:
        nonlocal missing
        if match[1] not in values:
            missing = True
            return ""
        return quote(values[match[1]], safe=_LITERAL)

    url = _FIELD.sub(fill, template)
    return None if missing or "{" in url or "}" in url else url


def endpoints(
    entries: list[Entry], name: str, labels: dict[str, str], *, allow_http: bool
) -> list[dict[str, str]]:
    """Where the entries of a page say that the image is, in their order."""
    found = []
    for entry in entries:
        if entry.name == _DISCOVERY and covers(entry.prefix, name):
            image = _accept(render(entry.template, name, labels, "aci"), allow_http=allow_http)
            signature = _accept(render(entry.template, name, labels, "aci.asc"), allow_http=allow_http)
            if image and signature:
                found.append({"image": image, "signature": signature})
    return found


def key_urls(entries: list[Entry], name: str, *, allow_http: bool) -> list[str]:
    """Where the entries of a page say that the keys of a name are, in their order."""
    urls = [
        _accept(entry.template, allow_http=allow_http)
        for entry in entries
        if entry.name == _PUBKEYS and covers(entry.prefix, name)
    ]
    return [url for url in dict.fromkeys(urls) if url]


def _accept(url: str | None, *, allow_http: bool) -> str:
    """A URL as it will be asked for; empty when it may not be."""
    if url is None:
        return ""
    try:
        url = urls.check_url(url)
    except FetchError:
        return ""
    return url if allow_http or url.startswith("https:") else ""


class _Networked:
    """What both kinds of work share."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])
        self._user_agent: str = request["user_agent"]
        self._client = transport.Client(
            transport.make_tls_context(insecure=request["tls_insecure"]),
            user_agent=request["user_agent"],
            limits=DEFAULT_TRANSFER_LIMITS.replace(total_seconds=_TOTAL_SECONDS, idle_seconds=20.0),
            access=request["access"],
        )

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the network and the descriptors; the host's files for reading."""
        confine.begin(b"rkt-fetch", network=True)
        confine.confine_fetch(
            network=True, file_size_bytes=DEFAULT_TRANSFER_LIMITS.signature_bytes, uid=self._uid
        )


class Discover(_Networked):
    """``{"op": "discover", "name", "labels", "what", "allow_http"}``: the pages of a name, from its own upwards."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        self._name: str = request["name"]
        self._labels: dict[str, str] = request["labels"]
        self._what: str = request["what"]
        self._allow_http: bool = request["allow_http"]
        # Some of the parser's parts are only imported by use.
        parse_page(b"<!DOCTYPE html><meta name='ac-' content='&amp;'></meta>")

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Ask until a page says something usable."""
        tried: list[dict[str, str]] = []
        components = self._name.split("/")
        for count in range(len(components), 0, -1):
            page = "/".join(components[:count])
            for scheme in ("https", "http") if self._allow_http else ("https",):
                entries = self._entries(f"{scheme}://{page}?ac-discovery=1", tried)
                if entries is None:
                    continue
                found = self._found(entries)
                if found["endpoints"] or found["keys"]:
                    return {**found, "tried": tried}
                break
        return {"endpoints": [], "keys": [], "tried": tried}

    def _entries(self, url: str, tried: list[dict[str, str]]) -> list[Entry] | None:
        """What a page says; None when there is no such page."""
        try:
            return parse_page(self._client.get(url, limit_bytes=MAX_PAGE_BYTES))
        except FetchError as e:
            tried.append({"page": url, "cause": e.message})
            return None

    def _found(self, entries: list[Entry]) -> dict[str, Any]:
        if self._what == "keys":
            return {"endpoints": [], "keys": key_urls(entries, self._name, allow_http=self._allow_http)}
        return {
            "endpoints": endpoints(entries, self._name, self._labels, allow_http=self._allow_http),
            "keys": [],
        }


class Document(_Networked):
    """``{"op": "document", "url", "limit_bytes"}``: a small file into the descriptor ``body``."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        self._url: str = request["url"]
        self._limit_bytes = int(request["limit_bytes"])

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Ask; a server may say 202 to have it later."""
        answer = self._client.download(self._url, fds["body"], limit_bytes=self._limit_bytes, defer=True)
        return {"deferred": answer.deferred, "size_bytes": answer.size_bytes}
