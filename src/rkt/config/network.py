# SPDX-License-Identifier: Apache-2.0
"""Kinds ``proxy`` and ``tls`` of ``fetch.d``: by which way servers are reached, who vouches for them, and for us.

rkt reads no proxy variables and no ``SSL_CERT_FILE``: it often runs with more rights than whoever set its environment
(invariant RG7). What they would say is said here instead.
"""

from __future__ import annotations

import os

from rkt.config.files import read_directory
from rkt.errors import ConfigError
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from rkt.config.files import ConfigFile
    from rkt.config.settings import Settings

    T = TypeVar("T")

#: All kinds of ``fetch.d``.
FETCH_KINDS = ("proxy", "registry", "tls")
#: Every host.
ANY = "*"
_MAX_PEM_BYTES = 256 << 10
_WRITABLE_BY_ALL = 0o002
_OPEN_TO_ALL = 0o007
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._[]:")


class TlsConfig(Record):
    """TLS with one host.

    Attributes:
        roots: path of the root certificates that alone count; empty for those of the system.
        certificate, key: paths of the client certificate that is shown, and of its private key; both or neither.
    """

    roots: str = ""
    certificate: str = ""
    key: str = ""


class NetworkConfig(Record):
    """How servers are reached.

    Attributes:
        proxies: host, ``*.domain`` or ``*`` to the URL of a proxy; empty for none.
        tls: host, or host and port, to what is particular about TLS with it.
    """

    proxies: dict[str, str] = {}
    tls: dict[str, TlsConfig] = {}


def load_network(settings: Settings) -> NetworkConfig:
    """Merge all directories, by host; later directories win."""
    proxies: dict[str, str] = {}
    tls: dict[str, TlsConfig] = {}
    for directory in settings.config_dirs:
        own_proxies: dict[str, str] = {}
        own_tls: dict[str, TlsConfig] = {}
        for file in read_directory(f"{directory}/fetch.d", FETCH_KINDS):
            if file.kind == "proxy":
                _read_hosts(file, _proxy_url(file), own_proxies, patterns=True)
            elif file.kind == "tls":
                _read_hosts(file, _tls(file), own_tls, patterns=False)
        proxies |= own_proxies
        tls |= own_tls
    return NetworkConfig(proxies=proxies, tls=tls)


def read_roots(path: str) -> str:
    """The certificates of a file, as text.

    Raises:
        ConfigError: it cannot be read, everybody can write to it, or there is no certificate in it.
    """
    return _read_pem(path, "root certificates", "CERTIFICATE", _WRITABLE_BY_ALL, "o-w")


def read_client_certificate(tls: TlsConfig) -> dict[str, str] | None:
    """``certificate`` and ``key`` as text; None when there are none, or when this user is not to read the key.

    Raises:
        ConfigError: they cannot be read, or the key is open to everyone (invariant RG6).
    """
    if not tls.certificate or (os.geteuid() != 0 and not os.access(tls.key, os.R_OK)):
        return None
    return {
        "certificate": _read_pem(
            tls.certificate, "client certificate", "CERTIFICATE", _WRITABLE_BY_ALL, "o-w"
        ),
        "key": _read_pem(tls.key, "private key", "PRIVATE KEY", _OPEN_TO_ALL, "o-rwx"),
    }


def proxy_for(proxies: dict[str, str], host: str) -> str:
    """URL of the proxy for a host: of the host, else of the nearest domain above, else of all; empty for none."""
    labels = host.split(".")
    domains = [f"*.{'.'.join(labels[i:])}" for i in range(1, len(labels))]
    for pattern in (host, *domains, ANY):
        if pattern in proxies:
            return proxies[pattern]
    return ""


def _read_pem(path: str, what: str, label: str, forbidden: int, remedy: str) -> str:
    from rkt.linux.files import read_bounded

    try:
        if os.stat(path).st_mode & forbidden:
            verb = "written" if forbidden == _WRITABLE_BY_ALL else "read"
            raise ConfigError(f'{what} "{path}" may be {verb} by everyone', hint=f"chmod {remedy} {path}")
        data = read_bounded(os.path.realpath(path), _MAX_PEM_BYTES)
    except OSError as e:
        raise ConfigError(f'cannot read the {what} "{path}": {e.strerror}') from e
    # A private key may say of what kind it is: BEGIN EC PRIVATE KEY.
    if b"-----BEGIN " not in data or f"{label}-----".encode() not in data or not data.isascii():
        raise ConfigError(f'"{path}" is not a file with a {label.lower()} in PEM form')
    return data.decode("ascii")


def is_host(text: str) -> bool:
    """Whether this may be a host, perhaps with a port, in lower case."""
    return bool(text) and _HOST_CHARACTERS.issuperset(text)


def _read_hosts(file: ConfigFile, value: T, found: dict[str, T], *, patterns: bool) -> None:
    hosts = file.texts("hosts")
    if not hosts:
        raise file.error("no hosts specified")
    for host in hosts:
        bare = host.removeprefix("*.") if patterns and host != ANY else host
        if not (patterns and host == ANY) and not is_host(bare):
            raise file.error(f'"{host}" is not a host, in lower case')
        if host in found:
            raise file.error(f'{file.kind} for host "{host}" is already specified')
        found[host] = value


def _proxy_url(file: ConfigFile) -> str:
    url = file.text("url")
    if "url" not in file.members:
        raise file.error('no proxy url specified; "" means none')
    scheme, _, rest = url.partition("://")
    if url and (scheme != "http" or not rest.strip("/") or "@" in rest or not url.isprintable()):
        raise file.error(f'"{url}" is not the URL of a proxy, such as http://proxy.example.com:3128')
    return url


def _tls(file: ConfigFile) -> TlsConfig:
    paths = {name: file.text(name) for name in ("roots", "certificate", "key")}
    for name, path in paths.items():
        if path and not path.startswith("/"):
            raise file.error(f"{name} must be an absolute path")
    if bool(paths["certificate"]) != bool(paths["key"]):
        raise file.error("certificate and key come together")
    if not any(paths.values()):
        raise file.error("neither roots nor certificate and key specified")
    return TlsConfig(**paths)
