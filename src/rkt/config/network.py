# SPDX-License-Identifier: Apache-2.0
"""Kinds ``proxy`` and ``tls`` of ``fetch.d``: by which way servers are reached, and who vouches for them.

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
    from rkt.config.files import ConfigFile
    from rkt.config.settings import Settings

#: Every host.
ANY = "*"
_MAX_ROOTS_BYTES = 256 << 10
_WRITABLE_BY_ALL = 0o002
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._[]:")


class NetworkConfig(Record):
    """How servers are reached.

    Attributes:
        proxies: host, ``*.domain`` or ``*`` to the URL of a proxy; empty for none.
        roots: host, or host and port, to the file of root certificates that alone count for it.
    """

    proxies: dict[str, str] = {}
    roots: dict[str, str] = {}


def load_network(settings: Settings) -> NetworkConfig:
    """Merge all directories, by host; later directories win."""
    proxies: dict[str, str] = {}
    roots: dict[str, str] = {}
    for directory in settings.config_dirs:
        own_proxies: dict[str, str] = {}
        own_roots: dict[str, str] = {}
        for file in read_directory(f"{directory}/fetch.d", ("proxy", "tls")):
            if file.kind == "proxy":
                _read_hosts(file, _proxy_url(file), own_proxies, patterns=True)
            else:
                _read_hosts(file, _roots_path(file), own_roots, patterns=False)
        proxies |= own_proxies
        roots |= own_roots
    return NetworkConfig(proxies=proxies, roots=roots)


def read_roots(path: str) -> str:
    """The certificates of a file, as text.

    Raises:
        ConfigError: it cannot be read, everybody can write to it, or there is no certificate in it.
    """
    from rkt.linux.files import read_bounded

    try:
        if os.stat(path).st_mode & _WRITABLE_BY_ALL:
            raise ConfigError(
                f'root certificates "{path}" may be written by everyone', hint=f"chmod o-w {path}"
            )
        data = read_bounded(os.path.realpath(path), _MAX_ROOTS_BYTES)
    except OSError as e:
        raise ConfigError(f'cannot read the root certificates "{path}": {e.strerror}') from e
    if b"-----BEGIN CERTIFICATE-----" not in data or not data.isascii():
        raise ConfigError(f'"{path}" is not a file of certificates in PEM form')
    return data.decode("ascii")


def _read_hosts(file: ConfigFile, value: str, found: dict[str, str], *, patterns: bool) -> None:
    hosts = file.texts("hosts")
    if not hosts:
        raise file.error("no hosts specified")
    for host in hosts:
        bare = host.removeprefix("*.") if patterns and host != ANY else host
        if not (patterns and host == ANY) and (not bare or not _HOST_CHARACTERS.issuperset(bare)):
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


def _roots_path(file: ConfigFile) -> str:
    path = file.text("roots")
    if not path.startswith("/"):
        raise file.error("roots must be an absolute path")
    return path
