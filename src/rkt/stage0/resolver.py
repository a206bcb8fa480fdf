# SPDX-License-Identifier: Apache-2.0
"""How the apps of a pod resolve names: the modes stage1 is told, the files stage0 writes (spec runtime §3.8)."""

from __future__ import annotations

from rkt.schema.record import Record

DEFAULT = "default"
STAGE0 = "stage0"
HOST = "host"
RESOLV_CONF = "etc/rkt-resolv.conf"
HOSTS = "etc/rkt-hosts"

_HOSTS_HEAD = "# This is the default rkt /etc/hosts\n"
_LOCALHOST4 = "127.0.0.1\tlocalhost localhost.domain localhost4 localhost4.localdomain4"
_HOSTS_REST = (
    "::1\tip6-localhost ip6-loopback localhost6 localhost6.localdomain6\n"
    "fe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
    "ff02::3\tip6-allhosts\n"
)


class Resolver(Record):
    """The DNS and hosts flags of one run.

    Attributes:
        dns_mode: ``host``, ``none``, or empty: what follows counts.
        servers: addresses.
        search, options, domain: as given.
        use_host_file: copy the host's hosts file instead of the entries.
        hosts: address -> names.
    """

    dns_mode: str = ""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain: str = ""
    use_host_file: bool = False
    hosts: dict[str, list[str]] = {}

    @property
    def resolv_mode(self) -> str:
        """``default``, ``stage0``, ``host`` or ``none``."""
        if self.dns_mode:
            return self.dns_mode
        return STAGE0 if self.servers or self.search or self.options or self.domain else DEFAULT

    @property
    def hosts_mode(self) -> str:
        """``default``, ``stage0`` or ``host``."""
        if self.use_host_file:
            return HOST
        return STAGE0 if self.hosts else DEFAULT

    @property
    def is_default(self) -> bool:
        """Whether stage1 needs to be told nothing."""
        return self.resolv_mode == DEFAULT and self.hosts_mode == DEFAULT

    def render_resolv_conf(self) -> str:
        """Text of ``rkt-resolv.conf``."""
        from rkt.net import resolv_conf

        return resolv_conf.render(
            "rkt run",
            servers=self.servers,
            search=self.search,
            options=self.options,
            domain=self.domain,
        )

    def render_hosts(self, hostname: str) -> str:
        """Text of ``rkt-hosts``."""
        added = "".join(f"{address} {' '.join(names)}\n" for address, names in self.hosts.items())
        return (
            f"{_HOSTS_HEAD}{_LOCALHOST4} {hostname}\n{_HOSTS_REST}# Added by rkt run --hosts-entry\n{added}"
        )
