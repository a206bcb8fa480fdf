# SPDX-License-Identifier: Apache-2.0
"""The host's rules for what plugins have set up, recorded in the pod directory before they are made (invariant NT7)."""

from __future__ import annotations

import os

from rkt.linux import files
from rkt.net import firewall
from rkt.net.firewall import Endpoint
from rkt.net.links import link_to
from rkt.stage0.contract import NET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.net.config import Network
    from rkt.net.ports import Forward
    from rkt.net.setup import Attached

#: Says that the host may have rules with the pod's UUID.
RECORD = f"{NET}/rules"
#: The capability of plugins that forward ports themselves.
PORT_MAPPINGS = "portMappings"
_BITS = {4: 32, 6: 128}


def forwarder(networks: Sequence[Network]) -> Network | None:
    """The first network whose plugins forward ports themselves."""
    return next((each for each in networks if each.has_capability(PORT_MAPPINGS)), None)


def install(pod_path: str, uuid: str, attached: Sequence[Attached], forwards: Sequence[Forward]) -> None:
    """Put the host's rules for a pod in force.

    Args:
        pod_path: absolute path of the pod directory.
        uuid: of the pod.
        attached: its networks, in their order.
        forwards: its ports; those that no plugin forwards are.
    Raises:
        PodError, HostError: they cannot be; then there are none.
    """
    if forwarder([each.network for each in attached]) is not None:
        forwards = []
    endpoints = [
        Endpoint(
            addresses=[address.cidr for address in each.result.own_addresses],
            masquerade=each.network.is_masqueraded_by_us,
            masqueraded=each.network.masquerades,
            links=_links(each),
        )
        for each in attached
    ]
    files.replace_file(f"{pod_path}/{RECORD}", b"", 0o644, sync=False)
    firewall.install(uuid, endpoints, forwards)


def remove(pod_path: str, uuid: str) -> None:
    """Take them back; harmless when there are none.

    Raises:
        HostError: the host cannot do it; to be tried again.
    """
    path = f"{pod_path}/{RECORD}"
    if os.path.lexists(path):
        firewall.remove(uuid)
        os.unlink(path)


def _links(attached: Attached) -> list[str]:
    """The host's ends of a pod's interfaces, without what pods have in common, such as a bridge."""
    names = [str(each.get("name", "")) for each in attached.result.interfaces if not each.get("sandbox")]
    shared = set()
    for address in attached.result.own_addresses:
        link = link_to(address.address)
        if link is not None and link.prefix != _BITS[4 if address.is_v4 else 6]:
            shared.add(link.interface)
    return [name for name in names if name and name not in shared]
