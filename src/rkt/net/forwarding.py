# SPDX-License-Identifier: Apache-2.0
"""Other people's firewalls that drop what they do not know: a pod's traffic is accepted there as well.

A packet is forwarded only if every table lets it pass, so rules of our own cannot help where docker, or the operator, gave
the FORWARD chain the policy DROP. Only chains with that policy are touched, only at their end, so that what the operator
refuses by rule stays refused; each rule has the pod's UUID as comment. Chains of iptables are changed by iptables, which
could not read them any more otherwise.
"""

from __future__ import annotations

from rkt.errors import HostError
from rkt.linux.files import read_bounded
from rkt.net import nft, program
from rkt.net.links import is_v6, network_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LEGACY_TABLES = {
    "iptables": "/proc/thread-self/net/ip_tables_names",
    "ip6tables": "/proc/thread-self/net/ip6_tables_names",
}
_OF_FAMILY = {"ip": "iptables", "ip6": "ip6tables"}
_MAX_BYTES = 1 << 16


def accept(uuid: str, addresses: Sequence[str], chains: list[dict[str, Any]]) -> None:
    """Have a pod's packets forwarded where they would be dropped by policy.

    Args:
        uuid: the pod's.
        addresses: its addresses, each with its bits.
        chains: what ``list chains`` named.
    Raises:
        HostError: a firewall cannot be changed.
    """
    script: list[str] = []
    for chain in _closed(chains):
        if tool := _tool_of(chain):
            _add(tool, uuid, addresses)
            continue
        where = f"{chain['family']} {chain['table']} {chain['name']}"
        end = f'accept comment "{_mark(uuid)}"'
        script += [f"add rule {where} {rule} {end}" for rule in _rules(addresses, chain["family"])]
    if script:
        nft.run("".join(f"{line}\n" for line in script))
    for name in _OF_FAMILY.values():
        if _is_legacy_closed(name):
            _add(f"{name}-legacy", uuid, addresses)


def rules_to_forget(uuid: str, chains: list[dict[str, Any]]) -> list[str]:
    """What deletes such rules from chains that are nft's.

    Args:
        uuid: the pod's.
        chains: what ``list chains`` named.
    """
    script: list[str] = []
    for chain in _of_others(chains):
        if not _tool_of(chain):
            where = f"{chain['family']} {chain['table']} {chain['name']}"
            rules = [entry["rule"] for entry in nft.try_run(f"list chain {where}\n") or [] if "rule" in entry]
            script += [
                f"delete rule {where} handle {rule['handle']}"
                for rule in rules
                if rule.get("comment") == _mark(uuid)
            ]
    return script


def forget(uuid: str, chains: list[dict[str, Any]]) -> None:
    """Take such rules out of chains that are those of iptables; harmless when there are none.

    Raises:
        HostError: a firewall cannot be changed.
    """
    for tool in filter(None, map(_tool_of, _of_others(chains))):
        _delete(tool, uuid)
    for name in _OF_FAMILY.values():
        if _has_legacy(name):
            _delete(f"{name}-legacy", uuid)


def _mark(uuid: str) -> str:
    return f"rkt-{uuid}"


def _of_others(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Base chains that see what is forwarded."""
    chains = [entry["chain"] for entry in objects if "chain" in entry]
    return [
        chain
        for chain in chains
        if chain.get("hook") == "forward"
        and chain["family"] in {"ip", "ip6", "inet"}
        and chain["table"] != "rkt"
    ]


def _closed(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chain for chain in _of_others(objects) if chain.get("policy") == "drop"]


def _tool_of(chain: dict[str, Any]) -> str:
    """The program that keeps a chain, when it is one of iptables; empty when nft will do."""
    if chain["table"] != "filter" or chain["name"] != "FORWARD" or chain["family"] not in _OF_FAMILY:
        return ""
    tool = f"{_OF_FAMILY[chain['family']]}-nft"
    return tool if program.find(tool) else ""


def _rules(addresses: Sequence[str], family: str) -> list[str]:
    """For each address: what it sends, what answers it, what came by a port, and its neighbours."""
    rules = []
    for text in addresses:
        address, _, bits = text.partition("/")
        ip = "ip6" if is_v6(address) else "ip"
        if family in {ip, "inet"}:
            network = network_of(address, int(bits))
            rules += [
                f"{ip} daddr {address} ct state established,related",
                f"{ip} daddr {address} ct status dnat",
                f"{ip} saddr {network} {ip} daddr {address}",
                f"{ip} saddr {address}",
            ]
    return rules


def _add(tool: str, uuid: str, addresses: Sequence[str]) -> None:
    v6 = tool.startswith("ip6")
    rules = []
    for text in addresses:
        address, _, bits = text.partition("/")
        if is_v6(address) == v6:
            end = f"-m comment --comment {_mark(uuid)} -j ACCEPT"
            rules += [
                f"-A FORWARD -d {address} -m conntrack --ctstate RELATED,ESTABLISHED {end}",
                f"-A FORWARD -d {address} -m conntrack --ctstate DNAT {end}",
                f"-A FORWARD -s {network_of(address, int(bits))} -d {address} {end}",
                f"-A FORWARD -s {address} {end}",
            ]
    _restore(tool, rules)


def _delete(tool: str, uuid: str) -> None:
    rules = [
        f"-D{line.removeprefix('-A')}"
        for line in _listed(tool)
        if line.startswith("-A FORWARD ") and f" --comment {_mark(uuid)} " in line
    ]
    _restore(tool, rules)


def _restore(tool: str, rules: Sequence[str]) -> None:
    if not rules:
        return
    path = program.find(f"{tool}-restore")
    if not path:
        raise HostError(
            f"the host has no {tool}-restore program, by which its firewall is kept",
            hint="apt install iptables",
        )
    text = "".join(f"{line}\n" for line in ("*filter", *rules, "COMMIT"))
    ended = program.run([path, "-w", "--noflush"], text)
    if ended.status:
        raise HostError(f"{path} refused rules for a pod: {ended.errors.strip()}")


def _listed(tool: str) -> list[str]:
    path = program.find(tool)
    if not path:
        return []
    ended = program.run([path, "-w", "-S", "FORWARD"])
    if ended.status:
        raise HostError(f"{path} cannot list the chain FORWARD: {ended.errors.strip()}")
    return ended.output.splitlines()


def _has_legacy(name: str) -> bool:
    """Whether the older iptables filter here; asking its program would make its table."""
    try:
        return b"filter\n" in read_bounded(_LEGACY_TABLES[name], _MAX_BYTES)
    except FileNotFoundError:
        return False


def _is_legacy_closed(name: str) -> bool:
    return _has_legacy(name) and "-P FORWARD DROP" in _listed(f"{name}-legacy")
