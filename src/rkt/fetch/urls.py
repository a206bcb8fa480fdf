# SPDX-License-Identifier: Apache-2.0
"""URLs: which may be asked for, where a server leads to, and what of them people are shown."""

from __future__ import annotations

from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from rkt.errors import FetchError, quoted

_PORTS = {"https": 443, "http": 80}


def check_url(url: str) -> str:
    """A URL that may be asked for: http or https, a host, no credentials, nothing unprintable.

    Raises:
        FetchError: anything else.
    """
    if not url.isprintable() or not url.isascii() or " " in url:
        raise FetchError(f"URL {quoted(url)} has characters that must be percent-encoded")
    try:
        parts = parse_url(url)
    except LocationParseError as e:
        raise FetchError(f"cannot parse URL {quoted(url)}") from e
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise FetchError(f"URL {quoted(url)} is neither http nor https")
    if parts.auth:
        raise FetchError(f"URL of host {parts.host} carries credentials, which everybody could read in ps(1)")
    return parts._replace(fragment=None).url


def follow(url: str, location: str) -> str:
    """Where a server leads to from a URL, in the form in which it may be asked for.

    Raises:
        FetchError: it is no URL, or one that ``check_url`` refuses.
    """
    try:
        return check_url(urljoin(url, location))
    except ValueError as e:
        raise FetchError(f'"{without_query(url)}" leads to {location[:256]!r}, which is no URL') from e


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL that ``check_url`` accepted."""
    parts = parse_url(url)
    scheme = parts.scheme or ""
    return scheme, (parts.host or "").lower(), parts.port or _PORTS.get(scheme, 0)


def without_query(url: str) -> str:
    """A URL for people, without what only its server understands."""
    base, mark, _ = url.partition("?")
    return f"{base}?…" if mark else base
