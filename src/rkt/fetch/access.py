# SPDX-License-Identifier: Apache-2.0
"""What the operator's configuration says about servers, on the worker's side: credentials, proxies, certificates.

It comes as the member ``access`` of the worker's request, which ``fetch.job.describe_way`` makes.
"""

from __future__ import annotations

import os
import ssl
import threading

import urllib3
from urllib3.util import parse_url

from rkt.config.network import proxy_for
from rkt.errors import FetchError
from rkt.fetch.auth import https_origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Where distributions keep the certificates when OpenSSL's own default is empty.
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class Access:
    """Headers and connections for the URLs of one download.

    Made before the worker confines itself. Nothing is sent because of the environment or of a ``.netrc`` (RG7).
    """

    def __init__(self, description: dict[str, Any], context: ssl.SSLContext, **pool_options: Any) -> None:
        self._allowed: list[dict[str, Any]] = description.get("authorizations") or []
        self._proxies: dict[str, str] = description.get("proxies") or {}
        self._default = context
        insecure = context.verify_mode == ssl.CERT_NONE
        if insecure:
            urllib3.disable_warnings()
        roots: dict[str, str] = {} if insecure else description.get("roots") or {}
        clients: dict[str, dict[str, str]] = description.get("clients") or {}
        self._contexts = {
            _origin(host): _context(host, roots.get(host, ""), clients.get(host), insecure=insecure)
            for host in {**roots, **clients}
        }
        self._options = pool_options
        self._pools: dict[tuple[str, int], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

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
        with self._lock:
            if key not in self._pools:
                options = {**self._options, "ssl_context": context}
                self._pools[key] = (
                    urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
                )
            return self._pools[key]

    def proxy(self, url: str) -> str:
        """URL of the proxy for ``url``: of its host, else of the nearest domain above, else of all; or empty."""
        return proxy_for(self._proxies, (parse_url(url).host or "").lower())

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


def make_context(*, insecure: bool = False) -> ssl.SSLContext:
    """TLS 1.2 or later, without any root certificate; ``insecure`` checks none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def load_system_roots(context: ssl.SSLContext) -> None:
    """Accept what this system's certificates vouch for."""
    context.set_default_verify_paths()
    if not context.get_ca_certs():
        for path in _CA_FILES:
            if os.path.exists(path):
                context.load_verify_locations(path)
                break


def _context(host: str, roots: str, client: dict[str, str] | None, *, insecure: bool) -> ssl.SSLContext:
    """By these root certificates and no others, if there are any; with a client certificate, if there is one."""
    context = make_context(insecure=insecure)
    what = "root certificates"
    try:
        if roots:
            context.load_verify_locations(cadata=roots)
        elif not insecure:
            load_system_roots(context)
        if client is not None:
            what = "client certificate and key"
            # The library reads files only, and this one is nobody else's.
            fd = os.memfd_create("client")
            try:
                os.write(fd, f"{client['certificate']}\n{client['key']}".encode("ascii"))
                context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_password)
            finally:
                os.close(fd)
    except (ssl.SSLError, ValueError) as e:
        reason = getattr(e, "reason", None) or e
        raise FetchError(f"the {what} configured for {host} cannot be used: {reason}") from e
    return context


def _no_password() -> str:
    """Called for an encrypted key, where the library would ask on the terminal."""
    raise ValueError("the key is encrypted")
