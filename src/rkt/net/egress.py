# SPDX-License-Identifier: Apache-2.0
"""What a pod may talk to: rules in its own network namespace, put there from outside before anything of it runs.

A rule is ``allow`` or ``deny``, of everything or of a target: an address, a network, or a name, which is looked up on the
host when the pod starts, each perhaps with a port. The first rule that fits counts. With one ``allow`` of a target in the
list what no rule fits is denied, else it is allowed.

Always allowed are the pod's loopback, answers to those who came to the pod, and what IPv6 needs to find its neighbours;
and where a name is allowed, the pod's own name servers.
"""

from __future__ import annotations

import os
from _socket import getaddrinfo

from rkt.errors import HostError, UsageError, quoted
from rkt.linux import libc
from rkt.net import nft, program, resolv_conf
from rkt.net.links import canonical, is_v6, network_of, packed
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

ALLOW = "allow"
DENY = "deny"
EXAMPLE = "--egress=allow:192.0.2.0/24:443/tcp,allow:example.com,deny"
_PROTOCOLS = ("tcp", "udp")
_DIGITS = frozenset("0123456789")
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_MAX_NAME = 253
_MAX_RULES = 256
#: Addresses that a name may have.
_MAX_ADDRESSES = 256
_LOOKUP_SECONDS = 20
_NOBODY = 65534
#: In a resolv.conf, as many as glibc reads.
_MAX_SERVERS = 3


class Rule(Record):
    """One rule.

    Attributes:
        action: ``allow`` or ``deny``.
        network: ``ADDRESS/BITS``; empty for a name and for everything.
        name: of a host; empty for a network and for everything.
        first_port, last_port: 0 for every port.
        protocol: ``tcp`` or ``udp``; empty for both.
    """

    action: str
    network: str = ""
    name: str = ""
    first_port: int = 0
    last_port: int = 0
    protocol: str = ""

    @property
    def is_of_everything(self) -> bool:
        """Whether no rule after it counts."""
        return not (self.network or self.name)

    def __str__(self) -> str:
        """As it is written; parsing that gives the same rule."""
        if self.is_of_everything:
            return self.action
        address, _, bits = self.network.partition("/")
        end = f"/{bits}" if self.network and bits != ("128" if is_v6(address) else "32") else ""
        if self.first_port and is_v6(address):
            address = f"[{address}]"
        target = self.name or f"{address}{end}"
        if self.first_port:
            target += f":{self.first_port}"
            if self.last_port != self.first_port:
                target += f"-{self.last_port}"
            if self.protocol:
                target += f"/{self.protocol}"
        return f"{self.action}:{target}"


def parse(values: Iterable[str]) -> list[Rule]:
    """The rules of all ``--egress`` flags in their order.

    Raises:
        UsageError: one is not understood, or stands behind one that leaves nothing over for it.
    """
    rules: list[Rule] = []
    for value in values:
        for text in value.split(","):
            if rules and rules[-1].is_of_everything:
                raise UsageError(
                    f"--egress: {quoted(text)} comes after {rules[-1]}, which leaves nothing to decide",
                    hint=EXAMPLE,
                )
            rules.append(_parse_rule(text))
    if len(rules) > _MAX_RULES:
        raise UsageError(f"--egress: {len(rules)} rules are more than {_MAX_RULES}")
    return rules


def _parse_rule(text: str) -> Rule:
    action, colon, target = text.partition(":")
    if action not in {ALLOW, DENY}:
        raise UsageError(f"--egress: {quoted(text)} begins neither by allow nor by deny", hint=EXAMPLE)
    if not colon:
        return Rule(action=action)
    host, bits, ports = _split(target, text)
    first = last = 0
    protocol = ""
    if ports is not None:
        numbers, slash, protocol = ports.partition("/")
        start, dash, end = numbers.partition("-")
        first = _number(start, 1, 65535, text)
        last = _number(end, first, 65535, text) if dash else first
        if slash and protocol not in _PROTOCOLS:
            raise UsageError(f"--egress: invalid protocol {quoted(protocol)} in {quoted(text)}: tcp or udp")
    rule = Rule(action=action, first_port=first, last_port=last, protocol=protocol)
    try:
        width = len(packed(host)) * 8
    except (OSError, ValueError):
        if bits is not None or not _is_name(host):
            raise UsageError(
                f"--egress: {quoted(host)} in {quoted(text)} is neither an address nor the name of a host",
                hint=EXAMPLE,
            ) from None
        if action == DENY:
            raise UsageError(
                f"--egress: {quoted(text)}: a name cannot be denied, it may have other addresses at any time",
                hint="deny by address, or allow what is wanted and deny the rest",
            ) from None
        return rule.replace(name=host.lower().rstrip("."))
    length = width if bits is None else _number(bits, 0, width, text)
    network = network_of(host, length)
    if network != f"{canonical(host)}/{length}":
        raise UsageError(
            f"--egress: {quoted(text)}: {host} is not the first address of its network", hint=network
        )
    return rule.replace(network=network)


def _split(target: str, text: str) -> tuple[str, str | None, str | None]:
    """Host, bits and ports; ``None`` for what is not given.

    An IPv6 address stands in brackets when a port follows.
    """
    if target.startswith("["):
        host, bracket, rest = target[1:].partition("]")
        if not bracket or not is_v6(host):
            raise UsageError(f"--egress: {quoted(text)} has no IPv6 address in its brackets", hint=EXAMPLE)
        bits, colon, ports = rest.partition(":")
        if bits and not bits.startswith("/"):
            raise UsageError(f"--egress: {quoted(text)} is not understood", hint=EXAMPLE)
        return host, bits[1:] if bits else None, ports if colon else None
    if target.count(":") > 1:
        host, slash, bits = target.partition("/")
        return host, bits if slash else None, None
    target, colon, ports = target.partition(":")
    host, slash, bits = target.partition("/")
    return host, bits if slash else None, ports if colon else None


def _number(text: str, least: int, most: int, rule: str) -> int:
    if not text or len(text) > 5 or not _DIGITS.issuperset(text) or not least <= int(text) <= most:
        raise UsageError(f"--egress: {quoted(text)} in {quoted(rule)} is not a number from {least} to {most}")
    return int(text)


def _is_name(text: str) -> bool:
    labels = text.lower().rstrip(".").split(".")
    return (
        len(text) <= _MAX_NAME
        and _NAME_CHARACTERS.issuperset(text.lower())
        and all(label and len(label) <= 63 and label[0] != "-" for label in labels)
        # What is almost an address is a mistake.
        and not _DIGITS.issuperset(labels[-1])
    )


def look_up(rules: Iterable[Rule]) -> dict[str, list[str]]:
    """Addresses of the names in rules, asked of the host's resolver by a process that may do nothing else.

    Raises:
        HostError: a name has none.
    """
    names = list(dict.fromkeys(rule.name for rule in rules if rule.name))
    if not names:
        return {}
    answer = os.memfd_create("addresses")
    try:
        pid = os.fork()
        if not pid:
            _ask(names, answer)
        program.wait(pid, "looking names up for --egress", _LOOKUP_SECONDS)
        text = os.pread(answer, os.fstat(answer).st_size, 0).decode("ascii", "replace")
    finally:
        os.close(answer)
    found: dict[str, list[str]] = {name: [] for name in names}
    for line in text.splitlines():
        name, _, address = line.partition(" ")
        try:
            address = canonical(address)
        except (OSError, ValueError):
            continue
        if name in found and address not in found[name] and len(found[name]) < _MAX_ADDRESSES:
            found[name].append(address)
    for name, addresses in found.items():
        if not addresses:
            raise HostError(
                f'the host finds no address for "{name}", which --egress allows',
                hint=f"getent ahosts {name}",
            )
    return found


def _ask(names: Sequence[str], fd: int) -> NoReturn:
    try:
        # What a name server answers is nothing for root to read.
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        for name in names:
            try:
                entries = getaddrinfo(name.encode("ascii"), None)
            except OSError:
                continue
            # Without the number of a link, which is the host's.
            lines = [f"{name} {str(entry[4][0]).partition('%')[0]}\n" for entry in entries]
            os.write(fd, "".join(lines).encode("ascii"))
    finally:
        os._exit(0)


def name_servers(text: str) -> list[str]:
    """Addresses in a resolv.conf, as nftables has them."""
    found = []
    for server in resolv_conf.parse(text).servers:
        try:
            found.append(canonical(server))
        except (OSError, ValueError):
            continue
    return found[:_MAX_SERVERS]


def render(rules: Sequence[Rule], addresses: dict[str, list[str]], servers: Sequence[str]) -> str:
    """The transaction that puts rules in force.

    Args:
        rules: in their order.
        addresses: of the names in them.
        servers: the pod's name servers.
    """
    denies = any(rule.action == ALLOW and not rule.is_of_everything for rule in rules)
    if rules and rules[-1].is_of_everything:
        denies = rules[-1].action == DENY
    policy = "drop" if denies else "accept"
    lines = [
        "add table inet rkt",
        f"add chain inet rkt egress {{ type filter hook output priority 0 ; policy {policy} ; }}",
        "flush chain inet rkt egress",
    ]

    def add(text: str) -> None:
        lines.append(f"add rule inet rkt egress {text}")

    add('oifname "lo" accept')
    add("ct state established,related accept")
    # Neighbour discovery, and membership in the groups by which it works.
    add("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")
    add(
        "ip6 daddr ff02::/16 icmpv6 type { mld-listener-report, mld-listener-reduction, mld2-listener-report } accept"
    )
    if any(rule.name for rule in rules):
        for server in servers:
            ip = "ip6" if is_v6(server) else "ip"
            add(f"{ip} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept")
    for rule in rules:
        verdict = "accept" if rule.action == ALLOW else "reject with icmpx type admin-prohibited"
        if rule.is_of_everything:
            continue
        networks = [rule.network] if rule.network else addresses[rule.name]
        for v6 in (False, True):
            own = [each for each in networks if is_v6(each) == v6]
            if own:
                add(f"{'ip6' if v6 else 'ip'} daddr {{ {', '.join(own)} }}{_port_of(rule)} {verdict}")
    if denies:
        add("reject with icmpx type admin-prohibited")
    return "".join(f"{line}\n" for line in lines)


def _port_of(rule: Rule) -> str:
    if not rule.first_port:
        return ""
    ports = str(rule.first_port)
    if rule.last_port != rule.first_port:
        ports += f"-{rule.last_port}"
    return (
        f" {rule.protocol} dport {ports}"
        if rule.protocol
        else f" meta l4proto {{ tcp, udp }} th dport {ports}"
    )


def install(
    rules: Sequence[Rule], addresses: dict[str, list[str]], servers: Sequence[str], netns_fd: int
) -> None:
    """Put rules in force in a pod's network namespace, before anything of the pod runs.

    Raises:
        HostError: the host cannot do it.
    """
    nft.run(render(rules, addresses, servers), netns_fd=netns_fd)
