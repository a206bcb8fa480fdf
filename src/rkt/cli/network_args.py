# SPDX-License-Identifier: Apache-2.0
"""Values of ``--net``, ``--dns…`` and ``--hosts-entry`` (spec cli §1.7), without effects."""

from __future__ import annotations

from rkt.errors import UsageError, quoted
from rkt.schema.record import Record
from rkt.values import is_ip

#: Names that take no arguments.
_SPECIAL = frozenset(("all", "host"))


class Network(Record):
    """One network to join; ``args`` is handed to the plug-in as written."""

    name: str
    args: str = ""


class Dns(Record):
    """What the resolver file of a pod holds.

    Attributes:
        mode: ``host`` copies the host's file, ``none`` leaves the image's alone; empty writes what follows.
        servers: addresses.
        search, options, domain: as given.
    """

    mode: str = ""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain: str = ""


class Hosts(Record):
    """What is added to the hosts file of a pod; ``use_host`` copies the host's file instead."""

    use_host: bool = False
    entries: dict[str, list[str]] = {}


def parse_nets(values: list[str]) -> list[Network]:
    """All ``--net`` values: ``NAME[:ARGS][,NAME[:ARGS]…]``, repetitions add up."""
    networks: dict[str, Network] = {}
    for value in values:
        for element in value.split(","):
            name, colon, args = element.partition(":")
            if ":" in args:
                raise UsageError(f'network "{name}" provided with invalid arguments: {args}')
            if not name:
                raise UsageError("netname must not be empty")
            if colon and name in _SPECIAL:
                raise UsageError(f'arguments are not supported by special netname "{name}"')
            if name in networks:
                raise UsageError(f'found duplicate netname "{name}"')
            networks[name] = Network(name=name, args=args)
    return list(networks.values())


def parse_dns(servers: list[str], search: list[str], options: list[str], domain: str) -> Dns:
    """The four flags together: ``--dns``, ``--dns-search``, ``--dns-opt``, ``--dns-domain``."""
    addresses = [part for value in servers for part in value.split(",")]
    for mode in ("host", "none"):
        if mode in addresses:
            if len(addresses) > 1:
                raise UsageError(f"no other --dns options allowed when --dns={mode} is passed")
            if search or options or domain:
                raise UsageError(f"Cannot call --dns-opt, --dns-search, or --dns-domain with --dns={mode}")
            return Dns(mode=mode)
    for address in addresses:
        if not is_ip(address):
            raise UsageError(f"Invalid IP passed to --dns: {address}")
    for flag, words in (("search", search), ("opt", options), ("domain", [domain] if domain else [])):
        for word in words:
            # Another line of resolv.conf, or another field, must not come from inside a value.
            if not word or not word.isprintable() or " " in word:
                raise UsageError(f"invalid value {quoted(word)} for --dns-{flag}")
    return Dns(servers=addresses, search=list(search), options=list(options), domain=domain)


def parse_hosts(values: list[str]) -> Hosts:
    """All ``--hosts-entry`` values: ``IP=NAME[,IP=NAME…]`` or ``host``."""
    entries: dict[str, list[str]] = {}
    parts = [part for value in values for part in value.split(",")]
    if "host" in parts:
        if any(part != "host" for part in parts):
            raise UsageError("cannot pass --hosts-entry=host with multiple hosts-entries")
        return Hosts(use_host=True)
    for part in parts:
        address, equals, name = part.partition("=")
        if not equals or not name or "=" in name or not name.isprintable() or " " in name:
            raise UsageError(f"Did not understand --hosts-entry {part}")
        if not is_ip(address):
            raise UsageError(f"Invalid IP passed to --hosts-entry: {address}")
        entries.setdefault(address, []).append(name)
    return Hosts(entries=entries)
