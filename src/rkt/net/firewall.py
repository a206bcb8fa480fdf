# SPDX-License-Identifier: Apache-2.0
"""The host's rules for pods: ports, masquerading, and what keeps neighbours out of the host's loopback.

All of it is in two tables of our own, ``inet rkt`` and ``bridge rkt``, whose chains never change: a pod is elements of
their sets and maps, each with the pod's UUID as comment. So a packet costs the same however many pods there are, a pod's
rules come and go in one transaction, and the UUID is all that is needed to find them again. The last pod takes the tables
along.

A lock makes looking and changing one step. Where another table drops what it does not know (docker's FORWARD policy), the
pod's traffic is accepted there too (``forwarding``).

Source: spec runtime §4.6; invariants NT1, NT3 (CVE-2020-8558, CVE-2021-20199), NT4 (CVE-2019-9946).
"""

from __future__ import annotations

import os

from rkt.errors import HostError, PodError, quoted
from rkt.linux.locks import lock_file
from rkt.net import forwarding, nft, program, sysctl
from rkt.net.links import is_v6, link_to, network_of
from rkt.net.ports import EVERY, EVERY_IPV4, EVERY_IPV6, Forward
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rkt.linux.locks import Lock

#: Only root may come near: whoever holds the lock keeps every pod from starting.
_LOCK_DIRECTORY = "/run/rkt/rules"
_LOCK = f"{_LOCK_DIRECTORY}/.lock"
_TABLES = (("inet", "rkt"), ("bridge", "rkt"))
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:@-")
_MAX_NAME = 15
#: Sets whose keys begin by an interface; elements of these are names.
_OF_INTERFACES = frozenset(("guarded", "guards", "links"))
_FAMILIES = (("4", "ipv4_addr"), ("6", "ipv6_addr"))
_SETS = "".join(
    f"""\
add map inet rkt ports{number} {{ type inet_proto . inet_service : {kind} . inet_service ; }}
add map inet rkt bound{number} {{ type {kind} . inet_proto . inet_service : {kind} . inet_service ; }}
add set inet rkt near{number} {{ type {kind} . {kind} ; flags interval ; }}
add set inet rkt masqueraded{number} {{ type {kind} ; }}
add set inet rkt inside{number} {{ type {kind} . {kind} ; flags interval ; }}
"""
    for number, kind in _FAMILIES
)
#: Made anew in each transaction, so that the rules are those of the engine that ran last.
#:
#: ``arriving`` comes before all address translation: where a link may carry loopback addresses so that 127.0.0.1 leads to
#: pods, nobody else on it may use them. ``prerouting`` leaves loopback addresses alone, or a neighbour could reach a port
#: that is bound to 127.0.0.1; and what is not for this host is not for its pods. The source of a packet is changed only
#: where the answer would not come back this way: from a pod on the same link, and from loopback. The kernel delivers no
#: answer to ::1 that comes from a link, so ::1 leads to no pod.
_SKELETON = f"""\
add table inet rkt
{_SETS}\
add set inet rkt published {{ type ipv4_addr ; }}
add set inet rkt guarded {{ type ifname ; }}
add set inet rkt guards {{ type ifname . ipv4_addr ; }}
add chain inet rkt arriving {{ type filter hook prerouting priority -300 ; }}
add chain inet rkt prerouting {{ type nat hook prerouting priority -100 ; }}
add chain inet rkt output {{ type nat hook output priority -100 ; }}
add chain inet rkt postrouting {{ type nat hook postrouting priority 100 ; }}
add chain inet rkt forward_ports
flush table inet rkt
add rule inet rkt arriving iifname @guarded ip daddr 127.0.0.0/8 drop
add rule inet rkt arriving iifname @guarded ip saddr 127.0.0.0/8 drop
add rule inet rkt prerouting ip daddr 127.0.0.0/8 return
add rule inet rkt prerouting ip6 daddr ::1 return
add rule inet rkt prerouting fib daddr type local jump forward_ports
add rule inet rkt output ip6 daddr ::1 return
add rule inet rkt output fib daddr type local jump forward_ports
add rule inet rkt forward_ports dnat ip to ip daddr . meta l4proto . th dport map @bound4
add rule inet rkt forward_ports dnat ip to meta l4proto . th dport map @ports4
add rule inet rkt forward_ports dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
add rule inet rkt forward_ports dnat ip6 to meta l4proto . th dport map @ports6
add rule inet rkt postrouting ct status dnat ip saddr . ip daddr @near4 masquerade
add rule inet rkt postrouting ct status dnat ip6 saddr . ip6 daddr @near6 masquerade
add rule inet rkt postrouting ct status dnat ip saddr 127.0.0.0/8 ip daddr @published masquerade
add rule inet rkt postrouting ip saddr . ip daddr @inside4 return
add rule inet rkt postrouting ip6 saddr . ip6 daddr @inside6 return
add rule inet rkt postrouting ip daddr != 224.0.0.0/4 ip saddr @masqueraded4 masquerade
add rule inet rkt postrouting ip6 daddr != ff00::/8 ip6 saddr @masqueraded6 masquerade
"""
#: A pod that calls itself a router is not heard by the others (NT1).
_BRIDGE_SKELETON = """\
add table bridge rkt
add set bridge rkt links { type ifname ; }
add chain bridge rkt arriving { type filter hook prerouting priority -300 ; }
flush table bridge rkt
add rule bridge rkt arriving iifname @links icmpv6 type { nd-router-advert, nd-redirect } drop
"""
#: The chains of the host, and all elements of ours: in one run, whether our tables are there or not. Where tables of two
#: families are named, nft 1.0.6 does not find the first one.
_EVERYTHING = """\
list chains
list sets inet
list maps inet
list sets bridge
"""


class Endpoint(Record):
    """What a pod has in one network.

    Attributes:
        addresses: ``ADDRESS/BITS`` of either family.
        masquerade: whether its packets are to leave the host under the host's address.
        masqueraded: whether they do so already, by a plugin's doing.
        links: the host's ends of its interfaces there.
    """

    addresses: list[str]
    masquerade: bool = False
    masqueraded: bool = False
    links: list[str] = []


def forwardable(endpoints: Sequence[Endpoint], *, v6: bool) -> tuple[str, int] | None:
    """Address and bits that ports lead to: in the first network that is masqueraded, else the last one (spec runtime §4.6)."""
    preferred = [each for each in endpoints if each.masquerade or each.masqueraded] or list(
        reversed(endpoints)
    )
    for endpoint in (*preferred, *endpoints):
        for text in endpoint.addresses:
            address, _, bits = text.partition("/")
            if is_v6(address) == v6:
                return address, int(bits)
    return None


def install(uuid: str, endpoints: Sequence[Endpoint], forwards: Sequence[Forward]) -> None:
    """Put a pod's rules in force; nothing of them is there when this fails.

    Args:
        uuid: the pod's.
        endpoints: its networks, in their order.
        forwards: its ports.
    Raises:
        PodError: a port leads to another pod already, or the pod has no address for it.
        HostError: the host cannot do it.
    """
    addresses = [address for endpoint in endpoints for address in endpoint.addresses]
    links = [link for endpoint in endpoints for link in endpoint.links]
    routes = [link_to(address.partition("/")[0]) for address in addresses]
    sysctl.ignore_router_advertisements([*links, *(route.interface for route in routes if route)])
    if not addresses:
        if forwards:
            raise PodError("ports cannot be forwarded: the pod has no address", hint="--net=default")
        return
    pod = _Pod(uuid)
    for link in links:
        # Not to fail over a link that a plugin gives to several pods.
        pod.lines.append(f'add element bridge rkt links {{ "{_interface(link)}" comment "{uuid}" }}')
    for endpoint in endpoints:
        if endpoint.masquerade:
            _masquerade(pod, endpoint)
    guarded = _forward(pod, endpoints, forwards) if forwards else []
    with _lock():
        for interface in guarded:
            before = sysctl.read(f"ipv4/conf/{interface}/route_localnet")
            pod.lines.append(
                f'add element inet rkt guarded {{ "{_interface(interface)}" comment "{before}" }}'
            )
        # Not in one run with what follows: nft would name chains that it has not made yet.
        found = nft.run("list chains\n" + ("list maps inet\n" if forwards else ""))
        _refuse_taken(forwards, found, uuid)
        if pod.lines:
            nft.run(f"{_SKELETON}{_BRIDGE_SKELETON if links else ''}{pod.script}")
        try:
            # Only now: what keeps others out is there.
            for interface in guarded:
                sysctl.write(f"ipv4/conf/{interface}/route_localnet", "1")
            forwarding.accept(uuid, addresses, found)
        except BaseException:
            _remove(uuid)
            raise


def remove(uuid: str) -> None:
    """Take back all rules of a pod; harmless when there are none.

    Raises:
        HostError: the host cannot do it; to be tried again.
    """
    if not program.find("nft"):
        # Whoever has no nft now had none when the pod started.
        return
    with _lock():
        _remove(uuid)


class _Pod:
    """Collects elements of one pod."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.lines: list[str] = []

    def add(self, name: str, key: str, value: str = "") -> None:
        data = f" : {value}" if value else ""
        self.lines.append(f'create element inet rkt {name} {{ {key} comment "{self.uuid}"{data} }}')

    @property
    def script(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def _masquerade(pod: _Pod, endpoint: Endpoint) -> None:
    for text in endpoint.addresses:
        address, _, bits = text.partition("/")
        number = "6" if is_v6(address) else "4"
        pod.add(f"masqueraded{number}", address)
        pod.add(f"inside{number}", f"{address} . {network_of(address, int(bits))}")


def _forward(pod: _Pod, endpoints: Sequence[Endpoint], forwards: Sequence[Forward]) -> list[str]:
    """Lead ports to a pod; the interfaces that have to carry loopback addresses for it."""
    guarded: list[str] = []
    for v6 in (False, True):
        number, every = ("6", EVERY_IPV6) if v6 else ("4", EVERY_IPV4)
        wanted = [each for each in forwards if each.host_ip == EVERY or is_v6(each.host_ip) == v6]
        target = forwardable(endpoints, v6=v6)
        if target is None:
            named = next((each for each in wanted if each.host_ip != EVERY), None)
            if named is not None:
                raise PodError(
                    f"port {named} cannot be forwarded: the pod has no IPv{number} address",
                    hint="rkt run --net=NETWORK that has one",
                )
            continue
        if not wanted:
            continue
        address, bits = target
        for each in wanted:
            value = f"{address} . {each.pod_port}"
            if each.host_ip in {EVERY, every}:
                pod.add(f"ports{number}", f"{each.protocol} . {each.host_port}", value)
            else:
                pod.add(f"bound{number}", f"{each.host_ip} . {each.protocol} . {each.host_port}", value)
        link = link_to(address)
        # Alone on its link, nobody but the pod itself talks to it without passing here.
        alone = link is None or link.prefix == (128 if v6 else 32)
        pod.add(f"near{number}", f"{address if alone else network_of(address, bits)} . {address}")
        if not v6 and any(_is_loopback(each.host_ip) for each in wanted):
            if link is None:
                raise PodError(
                    f"ports cannot be forwarded: the host has no route to {address}",
                    hint="ip route get " + address,
                )
            pod.add("published", address)
            pod.add("guards", f'"{_interface(link.interface)}" . {address}')
            guarded.append(link.interface)
    return guarded


def _is_loopback(host_ip: str) -> bool:
    return host_ip in {EVERY, EVERY_IPV4} or host_ip.startswith("127.")


def _interface(name: str) -> str:
    """A name that may stand in a script.

    Raises:
        HostError: it may not.
    """
    if not 0 < len(name) <= _MAX_NAME or not _NAME_CHARACTERS.issuperset(name):
        raise HostError(f"interface {quoted(name)} of the host has a name that rules cannot have")
    return name


def _refuse_taken(forwards: Sequence[Forward], objects: list[dict[str, Any]], uuid: str) -> None:
    """Refuse ports that lead to other pods already.

    Raises:
        PodError: one does.
    """
    for kind, held in _elements(objects):
        family, rkt, name = kind
        if (family, rkt) != ("inet", "rkt") or not name.startswith(("ports", "bound")):
            continue
        for key, owner in held:
            if owner == uuid:
                continue
            every = EVERY_IPV6 if name.endswith("6") else EVERY_IPV4
            *address, protocol, port = key
            for forward in forwards:
                if forward.meets(str(protocol), int(port), str(address[0]) if address else every):
                    raise PodError(f"port {forward} is forwarded to pod {owner} already")


def _elements(
    objects: list[dict[str, Any]],
) -> list[tuple[tuple[str, str, str], list[tuple[list[Any], str]]]]:
    """(family, table, name) of each set and map, with the parts of the key and the comment of each element."""
    found = []
    for entry in objects:
        held = entry.get("set") or entry.get("map")
        if not held:
            continue
        elements = []
        for element in held.get("elem", []):
            # Of a map: the key and what it leads to.
            key = element[0] if isinstance(element, list) else element
            comment = ""
            if isinstance(key, dict) and "elem" in key:
                comment = key["elem"].get("comment", "")
                key = key["elem"]["val"]
            parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
            elements.append((parts, comment))
        found.append(((held["family"], held["table"], held["name"]), elements))
    return found


def _remove(uuid: str) -> None:
    objects = nft.run(_EVERYTHING)
    script = forwarding.rules_to_forget(uuid, objects)
    sets = _elements(objects)
    for family, table in _TABLES:
        held = {name: elements for (*where, name), elements in sets if where == [family, table]}
        if not held:
            continue
        guards = held.get("guards", [])
        still_guarded = {str(parts[0]) for parts, owner in guards if owner != uuid}
        for parts, before in held.get("guarded", []):
            # Unless it did so before there were pods.
            if str(parts[0]) not in still_guarded and before == "0":
                sysctl.write(f"ipv4/conf/{parts[0]}/route_localnet", "0")
        if not {owner for name in held if name != "guarded" for _, owner in held[name]} - {uuid}:
            script.append(f"delete table {family} {table}")
            continue
        for name, elements in held.items():
            for parts, owner in elements:
                if owner == uuid or (name == "guarded" and str(parts[0]) not in still_guarded):
                    script.append(f"delete element {family} {table} {name} {{ {_rendered(name, parts)} }}")
    if script:
        nft.run("".join(f"{line}\n" for line in script))
    forwarding.forget(uuid, objects)


def _rendered(name: str, parts: list[Any]) -> str:
    words = []
    for at, part in enumerate(parts):
        if isinstance(part, dict):
            prefix = part["prefix"]
            words.append(f"{prefix['addr']}/{prefix['len']}")
        elif at == 0 and name in _OF_INTERFACES:
            words.append(f'"{_interface(str(part))}"')
        else:
            words.append(str(part))
    return " . ".join(words)


def _lock() -> Lock:
    for directory, mode in ((os.path.dirname(_LOCK_DIRECTORY), 0o755), (_LOCK_DIRECTORY, 0o700)):
        try:
            os.mkdir(directory, mode)
        except FileExistsError:
            continue
        except OSError as e:
            raise HostError(f"cannot make {directory}: {e.strerror}") from e
    try:
        return lock_file(_LOCK, exclusive=True, mode=0o600)
    except OSError as e:
        raise HostError(f"cannot lock {_LOCK}: {e.strerror}") from e
