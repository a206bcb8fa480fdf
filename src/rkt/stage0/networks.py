# SPDX-License-Identifier: Apache-2.0
"""Which networks there are, as far as that can be known before there is a pod with its stage1."""

from __future__ import annotations

from rkt.errors import NetworkError
from rkt.net import config, nft, plugin
from rkt.schema import jsontext
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.net.config import Request
    from rkt.pod.lifecycle import Pod

#: Names of stage1 images that bring the built-in networks and no others.
_OWN_STAGE1 = ("coreos.com/rkt/stage1-ns", "coreos.com/rkt/stage1-nspawn")


def check_networks(requests: list[Request], settings: Settings, *, is_own_stage1: bool) -> None:
    """Notice what stage1 would refuse.

    Args:
        requests: without ``host`` and ``none``.
        settings: of the running command.
        is_own_stage1: whether stage1 is of this installation, so that its networks are known.
    Raises:
        NetworkError: a configuration is damaged or not to be trusted; a network or a plugin is missing.
    """
    try:
        _check(requests, settings, is_own_stage1=is_own_stage1)
    except NetworkError as e:
        # As rkt words it: that it is stage0 which noticed is of no use to anybody.
        raise NetworkError(f"stage1: failed to setup network: {e.message}", hint=e.hint) from e


def check_pod_networks(pod: Pod, networks: list[str], settings: Settings) -> None:
    """Likewise for a pod that has its stage1 already.

    Args:
        pod: the pod.
        networks: normalised ``--net`` list.
        settings: of the running command.
    """
    if networks in (["none"], ["host"]):
        return
    name = jsontext.parse(pod.read(contract.STAGE1_MANIFEST) or b"{}", what="stage1's manifest").get("name")
    check_networks(config.parse_requests(networks), settings, is_own_stage1=name in _OWN_STAGE1)


def _check(requests: list[Request], settings: Settings, *, is_own_stage1: bool) -> None:
    found = config.load([f"{each}/{config.SUBDIRECTORY}" for each in directories(settings)])
    search = plugin.directories(settings.local_config_dir, "")
    kinds: list[str] = []
    missing = []
    for request in requests:
        network = found.networks.get(request.name)
        if network is not None:
            for each in network.plugins:
                kinds += [each["type"], *filter(None, [(each.get("ipam") or {}).get("type")])]
        elif request.name in config.BUILT_IN or request.name == "all":
            kinds += config.BUILT_IN_PLUGINS
        else:
            missing.append(request.name)
    if not is_own_stage1:
        return
    if missing:
        known = ", ".join(sorted({*found.networks, *config.BUILT_IN}))
        raise NetworkError(
            f"networks not found: {', '.join(missing)}", hint=f"--net=none, --net=host, or one of: {known}"
        )
    for kind in kinds:
        plugin.find(kind, search)
    nft.find()


def directories(settings: Settings) -> list[str]:
    """Configuration directories, the one that wins first."""
    return [
        each
        for each in (settings.local_config_dir, settings.user_config_dir, settings.system_config_dir)
        if each
    ]
