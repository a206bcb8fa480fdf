# SPDX-License-Identifier: Apache-2.0
"""What the operator's configuration says about servers, on the worker's side: credentials, proxies, root certificates.

It comes as the member ``access`` of the worker's request, which ``fetch.remote.describe`` makes.
"""

from __future__ import annotations

import ssl

import urllib3
from urllib3.util import parse_url

from rkt.errors import FetchError
from rkt.fetch.auth import https_origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Access:
    """Headers and connections for the URLs of one download.

    Made before the worker confines itself. Nothing is sent because of the environment or of a ``.netrc`` (RG7).
    """

    def __init__(self, description: dict[str, Any], context: ssl.SSLContext, **pool_options: Any) -> None:
        self._allowed: list[dict[str, Any]] = description.get("authorizations") or []
        self._proxies: dict[str, str] = description.get("proxies") or {}
        self._contexts: dict[tuple[str, int], ssl.SSLContext] = {}
        self._default = context
        if context.verify_mode == ssl.CERT_NONE:
            urllib3.disable_warnings()
        else:
            roots: dict[str, str] = description.get("roots") or {}
            self._contexts = {_origin(host): _context(host, pem) for host, pem in roots.items()}
        self._options = pool_options
        self._pools: dict[tuple[str, int], urllib3.PoolManager] = {}

    def headers(self, url: str, first_url: str) -> dict[str, str]:
        """Credentials for ``url``, to which ``first_url`` redirected or which it is."""
        origin = https_origin(url)
        if origin is None or origin != https_origin(first_url):
            return {}
        for allowed in self._allowed:
            if origin == (allowed["host"], allowed["port"]) and _is_for(allowed, url):
                headers: dict[str, str] = allowed["headers"]
                return headers
        return {}

    def pool(self, url: str) -> urllib3.PoolManager:
        """Connections on the way that ``url`` is reached by."""
        proxy = self.proxy(url)
        context = self._contexts.get(https_origin(url) or ("", 0), self._default)
        key = (proxy, id(context))
        if key not in self._pools:
            options = {**self._options, "ssl_context": context}
            self._pools[key] = (
                urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
            )
        return self._pools[key]

    def proxy(self, url: str) -> str:
        """URL of the proxy for ``url``: of its host, else of the nearest domain above, else of all; or empty."""
        host = (parse_url(url).host or "").lower()
        labels = host.split(".")
        domains = [f"*.{'.'.join(labels[i:])}" for i in range(1, len(labels))]
        for pattern in (host, *domains, "*"):
            if pattern in self._proxies:
                return self._proxies[pattern]
        return ""

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()


def _is_for(allowed: dict[str, Any], url: str) -> bool:
    """Whether headers that are good for one URL only are asked for at that URL."""
    only = allowed.get("url")
    return only is None or parse_url(only)._replace(fragment=None).url == url


def _origin(host: str) -> tuple[str, int]:
    return https_origin(f"https://{host}") or ("", 0)


def _context(host: str, pem: str) -> ssl.SSLContext:
    """TLS 1.2 or later by these root certificates and no others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=pem)
    except ssl.SSLError as e:
        raise FetchError(
            f"the root certificates configured for {host} cannot be read: {e.reason or e}"
        ) from e
    return context
