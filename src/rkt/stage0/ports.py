# SPDX-License-Identifier: Apache-2.0
"""Ports that a pod wants forwarded, where its networks cannot forward any."""

from __future__ import annotations

from rkt.errors import UsageError
from rkt.stage0.messages import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings


def check_ports(networks: list[str], settings: Settings) -> None:
    """Look whether the ports of a pod manifest, or of ``prepare``, can be had; those of ``run`` are looked at by themselves.

    With the host's network apps have the host's ports anyway, which is worth a notice. With none there is nothing to
    forward to.

    Args:
        networks: normalised ``--net`` list.
        settings: of the running command.
    Raises:
        UsageError: there is no network that forwards any.
    """
    if networks == ["host"]:
        tell(settings, "ports are not forwarded with 'host' networking: the apps listen on the host itself")
    elif networks == ["none"]:
        raise UsageError("the pod's ports do not work with 'none' networking", hint="--net=host")
    else:
        raise UsageError("ports cannot be forwarded yet", hint="--net=host")
