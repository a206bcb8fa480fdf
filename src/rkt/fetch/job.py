# SPDX-License-Identifier: Apache-2.0
"""Jobs for ``rkt-fetch``: each is run as a user of its own, and told no more of the configuration than it needs."""

from __future__ import annotations

import os

from rkt import __version__
from rkt.privsep.client import run_worker
from rkt.privsep.confine import FETCH_UID_BASE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from rkt.config.settings import Installation, Settings

#: What servers are told of who asks.
USER_AGENT = f"rkt/{__version__}"


def run_fetch(
    request: dict[str, Any],
    fds: Mapping[str, int],
    installation: Installation,
    *,
    seconds: float,
    on_event: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Let ``rkt-fetch`` do one job; see ``run_worker``.

    Args:
        request: as ``fetch.worker`` takes it, but for ``uid``.
        fds: descriptors that it gets; they stay the caller's.
        installation: where package and libraries are.
        seconds: it is killed after this time.
        on_event: is given each event; what is in it is foreign.
    """
    uid = FETCH_UID_BASE + (os.getpid() & 0xFFFF)
    return run_worker(
        "fetch", {**request, "uid": uid}, fds, installation, deadline_seconds=seconds, on_event=on_event
    )


def describe_way(
    settings: Settings, *urls: str, tls_insecure: bool, discovery: bool = False, credentials: bool = True
) -> dict[str, Any]:
    """How a worker reaches ``urls`` and what they redirect to: the members that every job on the network has.

    Args:
        settings: of the running command.
        urls: whose credentials are included; empty ones are passed over.
        tls_insecure: certificates are not checked.
        discovery: they are pages of discovery.
        credentials: whether any are included.
    """
    from rkt.config.network import load_network, read_client_certificate, read_roots
    from rkt.fetch.auth import authorization

    network = load_network(settings)
    allowed = [authorization(settings, url, discovery=discovery) for url in urls if url and credentials]
    clients = {host: read_client_certificate(tls) for host, tls in network.tls.items()}
    return {
        "user_agent": USER_AGENT,
        "tls_insecure": tls_insecure,
        "access": {
            "authorizations": [a for a in allowed if a is not None],
            "proxies": network.proxies,
            "roots": {host: read_roots(tls.roots) for host, tls in network.tls.items() if tls.roots},
            "clients": {host: client for host, client in clients.items() if client is not None},
        },
    }
