# SPDX-License-Identifier: Apache-2.0
"""Where the apps of a registered pod reach the metadata service (spec runtime §5.6); imported for such pods.

The token comes in a file of root's, not among the arguments of a process, which everybody on the host can read.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error
from rkt.linux import files, metadata_socket
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.networks import Networks

_LIMIT_BYTES = 4096
_SECONDS = 5.0
_LAST_SECONDS = 1.0
_LOOPBACK = "127.0.0.1"


def reach(arguments: RunArguments, networks: Networks | None) -> RunArguments:
    """The arguments with the URL of the service.

    Args:
        arguments: of ``run``.
        networks: the pod's, ``None`` for the host's own.
    Raises:
        Stage1Error: as ``announce``.
    """
    gateways = None if networks is None else networks.gateways()
    return arguments.replace(metadata_url=announce(arguments, gateways))


def announce(arguments: RunArguments, gateways: Iterable[str] | None) -> str:
    """The URL for the apps, which is written down for commands that enter them.

    Args:
        arguments: of ``run``.
        gateways: in the order in which they are to be tried, the addresses of the host in the pod's networks; ``None`` for
            the host's own network.
    Raises:
        Stage1Error: the service listens on none of them.
    """
    token, port = _read()
    address = _LOOPBACK if gateways is None else _listen(arguments.uuid, gateways)
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}/{token}"
    files.replace_file(contract.METADATA_URL, url.encode(), 0o600, sync=False)
    return url


def _read() -> tuple[str, int]:
    words = files.read_bounded(contract.MDS_REGISTERED, _LIMIT_BYTES).decode().split()
    if len(words) != 2 or not words[1].isdecimal():
        raise Stage1Error(f"{contract.MDS_REGISTERED} is damaged")
    return words[0], int(words[1])


def _listen(uuid: str, gateways: Iterable[str]) -> str:
    reasons = []
    for address in gateways:
        try:
            status, text = metadata_socket.ask("PUT", f"/listen/{uuid}/{address}", seconds=_SECONDS)
        except OSError as e:
            raise Stage1Error(f"could not reach the metadata service: {e.strerror or e}") from e
        if status == 200:
            return address
        reasons.append(text)
    raise Stage1Error(
        f"the pod cannot reach the metadata service: {'; '.join(reasons) or 'none of its networks has a gateway'}",
        hint="--mds-register needs a network whose gateway is this host",
    )


def known_url() -> str:
    """The URL of a pod that runs; empty if it is not registered."""
    try:
        return files.read_bounded(contract.METADATA_URL, _LIMIT_BYTES).decode()
    except FileNotFoundError:
        return ""


def forget(uuid: str) -> None:
    """The pod is over: nobody asks in its name any more. What fails is left to ``rkt gc``."""
    try:
        status, _ = metadata_socket.ask("DELETE", f"/pods/{uuid}", seconds=_LAST_SECONDS)
    except OSError:
        return
    if status in {200, 404} and os.path.exists(contract.MDS_REGISTERED):
        os.unlink(contract.MDS_REGISTERED)
