# SPDX-License-Identifier: Apache-2.0
"""Root's side of small questions to servers: where is an image, what is in this key file or signature.

``rkt-fetch`` asks and reads the answers (``fetch.discovery``); here its request is made, and what it found is checked
again before it is used (invariant RG5).
"""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit

from rkt.errors import FetchError
from rkt.fetch.job import describe_way, run_fetch
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.values import AppcReference

#: Until a page or a key file is there, in seconds (spec cli §6.4).
DOCUMENT_SECONDS = 120.0
IMAGES = "images"
KEYS = "keys"
_MAX_URL_LENGTH = 4096
_MAX_FOUND = 16
_MAX_TRIED = 64


class Endpoint(Record):
    """Where an image may be had, and its signature."""

    image: str
    signature: str


class Tried(Record):
    """A page of discovery that led nowhere, and why."""

    page: str
    cause: str


class Found(Record):
    """What discovery found: endpoints or URLs of keys, and the pages that failed before."""

    endpoints: list[Endpoint]
    keys: list[str]
    tried: list[Tried]


def discover(
    wanted: AppcReference, settings: Settings, *, what: str, allow_http: bool, tls_insecure: bool
) -> Found:
    """Ask the pages of a name where its images or keys are (spec cli §5.4).

    Args:
        wanted: name and labels, os and arch included.
        settings: configuration and installation.
        what: ``IMAGES`` or ``KEYS``.
        allow_http: http where https fails, and in what is found.
        tls_insecure: certificates are not checked.
    """
    host = wanted.name.partition("/")[0]
    answer = run_fetch(
        {
            "op": "discover",
            "name": wanted.name,
            "labels": dict(wanted.labels),
            "what": what,
            "allow_http": allow_http,
            **describe_way(settings, f"https://{host}/", tls_insecure=tls_insecure, discovery=True),
        },
        {},
        settings.installation,
        seconds=DOCUMENT_SECONDS,
    )
    try:
        return Found(
            endpoints=[
                Endpoint(
                    image=_url(item["image"], allow_http=allow_http),
                    signature=_url(item["signature"], allow_http=allow_http),
                )
                for item in answer["endpoints"][:_MAX_FOUND]
            ],
            keys=[_url(item, allow_http=allow_http) for item in answer["keys"][:_MAX_FOUND]],
            tried=[
                Tried(page=str(item["page"])[:_MAX_URL_LENGTH], cause=str(item["cause"])[:_MAX_URL_LENGTH])
                for item in answer["tried"][:_MAX_TRIED]
            ],
        )
    except (KeyError, TypeError) as e:
        raise FetchError("rkt-fetch reported no result of discovery") from e


def simple_endpoints(wanted: AppcReference) -> list[Endpoint]:
    """Where appc's simple discovery looks: ``https://NAME-VERSION-OS-ARCH.aci``; nowhere for a bare host name."""
    if "/" not in wanted.name:
        # What follows the name would become a part of the host.
        return []
    labels = {"version": "latest", **wanted.labels}
    ending = "-".join(quote(labels[label], safe="") for label in ("version", "os", "arch"))
    base = f"https://{wanted.name}-{ending}"
    return [Endpoint(image=f"{base}.aci", signature=f"{base}.aci.asc")]


def read_document(
    url: str,
    settings: Settings,
    *,
    limit_bytes: int,
    tls_insecure: bool,
    credentials: bool = True,
    defer: bool = False,
) -> bytes | None:
    """The content of a small file; None when ``defer`` and the server asks to come back (202).

    Raises:
        FetchError: it cannot be had.
    """
    body_fd = os.memfd_create("document")
    try:
        answer = run_fetch(
            {
                "op": "document",
                "url": url,
                "limit_bytes": limit_bytes,
                **describe_way(settings, url, tls_insecure=tls_insecure, credentials=credentials),
            },
            {"body": body_fd},
            settings.installation,
            seconds=DOCUMENT_SECONDS,
        )
        if answer.get("deferred"):
            if not defer:
                raise FetchError("server asked to defer the download again")
            return None
        data = os.pread(body_fd, limit_bytes + 1, 0)
    finally:
        os.close(body_fd)
    if len(data) > limit_bytes:
        raise FetchError(f'"{url}" is too large: more than {limit_bytes} bytes')
    return data


def _url(value: object, *, allow_http: bool) -> str:
    """A URL that foreign text led to, in the form in which it may be asked for."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise FetchError("discovery led to something that is no URL")
    try:
        parts = urlsplit(value)
    except ValueError as e:
        raise FetchError(f'discovery led to "{value[:256]}", which is no URL') from e
    schemes = ("https", "http") if allow_http else ("https",)
    if (
        len(value) > _MAX_URL_LENGTH
        or parts.scheme not in schemes
        or not parts.hostname
        or "@" in parts.netloc
    ):
        raise FetchError(f'discovery led to "{value[:256]}", which is not accepted')
    return f"{parts.scheme}{value[len(parts.scheme) :]}"
