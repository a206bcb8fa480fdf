# SPDX-License-Identifier: Apache-2.0
"""Arguments of plugins that declare what they take: ``runtimeConfig`` for their ``capabilities``.

Arguments of ``--net`` reach plugins as ``CNI_ARGS``, which they read as they like. For what CNI has conventions for, a plugin
that declares the capability gets it in its configuration instead, with its type.

Source: https://www.cni.dev/docs/conventions/
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, NetworkError
from rkt.net import resolv_conf
from rkt.schema.quantity import to_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.net.config import Network

IPS = "ips"
MAC = "mac"
BANDWIDTH = "bandwidth"
DNS = "dns"
#: Members of ``bandwidth``, which are the names of the arguments too; bits each second, and bits.
_RATES = ("ingressRate", "egressRate")
_BURSTS = {"ingressRate": "ingressBurst", "egressRate": "egressBurst"}
#: What a rate without a burst gets, as the kubelet does: the plugin wants both.
_BURST_BITS = 2**31 - 1


def of_arguments(network: Network, args: str) -> tuple[str, dict[str, Any]]:
    """What of a network's arguments is for capabilities that its plugins declare.

    Args:
        network: whose plugins are asked.
        args: ``NAME=VALUE;…``.
    Returns:
        the arguments that are left for ``CNI_ARGS``, and values of capabilities by their names.
    Raises:
        NetworkError: a rate is no number of bits.
    """
    left: list[str] = []
    found: dict[str, Any] = {}
    for item in args.split(";") if args else []:
        name, _, value = item.partition("=")
        if name == "IP" and network.has_capability(IPS):
            found.setdefault(IPS, []).append(value)
        elif name == "MAC" and network.has_capability(MAC):
            found[MAC] = value
        elif name in {*_RATES, *_BURSTS.values()} and network.has_capability(BANDWIDTH):
            found.setdefault(BANDWIDTH, {})[name] = _bits(network, name, value)
        else:
            left.append(item)
    for rate in _RATES:
        if rate in found.get(BANDWIDTH, {}):
            found[BANDWIDTH].setdefault(_BURSTS[rate], _BURST_BITS)
    return ";".join(left), found


def of_resolver(text: str) -> dict[str, Any]:
    """The capability ``dns`` from the resolv.conf that the operator gave the pod."""
    found = resolv_conf.parse(text)
    dns = {"servers": found.servers, "searches": found.search, "options": found.options}
    return {DNS: dns} if any(dns.values()) else {}


def _bits(network: Network, name: str, value: str) -> int:
    try:
        return to_units(value, name)
    except InvalidManifest as e:
        raise NetworkError(
            f'network "{network.name}": {e.message}', hint=f"{name}=10M is ten million bits"
        ) from None
