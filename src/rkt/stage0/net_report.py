# SPDX-License-Identifier: Apache-2.0
"""What ``rkt net list`` and ``rkt net check`` tell: networks, who is on them, and whether they would work."""

from __future__ import annotations

import os

from rkt.errors import NetworkError, PodError, RktError
from rkt.net import config, plugin, program, record, sysctl, teardown
from rkt.pod import lifecycle, status
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.stage0 import contract, net_gc
from rkt.stage0.networks import directories
from rkt.stage0.stage1 import built_in_images
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.net.config import Found, Network
    from rkt.net.record import Interface
    from rkt.pod.lifecycle import Pod

OK = "ok"
NOTE = "note"
BAD = "bad"
#: Plugins that change the firewall by iptables.
_BY_IPTABLES = frozenset(("firewall", "portmap"))


class Finding(Record):
    """One thing that was looked at.

    Attributes:
        about: in few words, such as ``network default``.
        state: ``ok``, ``note`` or ``bad``.
        text: what was found.
        hint: what to type, empty for nothing.
    """

    about: str
    state: str
    text: str
    hint: str = ""


def networks(settings: Settings) -> Found:
    """Everything that ``--net`` may name, with the networks of the default stage1.

    Raises:
        NetworkError: a configuration cannot be used.
    """
    found = config.load([f"{each}/{config.SUBDIRECTORY}" for each in directories(settings)])
    return found.replace(networks={**_built_in(settings), **found.networks})


def _built_in(settings: Settings) -> dict[str, Network]:
    """The networks of the installation's own stage1, read from its image."""
    import tarfile

    images, default = built_in_images(settings)
    found = {}
    with tarfile.open(images[default].path) as archive:
        for member in archive:
            directory, _, name = member.name.rpartition("/")
            if directory == f"rootfs/{config.STAGE1_DIRECTORY}" and member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                network = config.parse(stream.read(), f"{images[default].path}/{member.name}")
                found[network.name] = network.replace(path=f"stage1:{config.STAGE1_DIRECTORY}/{name}")
    return found


def listing(settings: Settings) -> list[dict[str, Any]]:
    """The networks, as JSON has them, ordered as they are set up.

    Raises:
        NetworkError: a configuration cannot be used.
    """
    pods = _pods_by_network(settings)
    found = networks(settings).networks
    rows = [
        {
            "name": each.name,
            "plugins": [kind["type"] for kind in each.plugins],
            "cni_version": each.version,
            "subnets": subnets(each),
            "masqueraded": each.masquerades or each.is_masqueraded_by_us,
            "file": each.path,
            "pods": pods.pop(each.name, []),
        }
        for each in sorted(found.values(), key=lambda network: (network.file_name, network.name))
    ]
    # Pods keep what they were started with; what it was is in their directories.
    rows += [
        {
            "name": name,
            "plugins": [],
            "cni_version": "",
            "subnets": [],
            "masqueraded": False,
            "file": "",
            "pods": members,
        }
        for name, members in sorted(pods.items())
    ]
    return rows


def subnets(network: Network) -> list[str]:
    """The subnets, or fixed addresses, that a network's address management has."""
    found: list[str] = []
    for each in network.plugins:
        ipam = each.get("ipam")
        if not isinstance(ipam, dict):
            continue
        found.append(str(ipam.get("subnet") or ""))
        for ranges in ipam.get("ranges") or []:
            found += [str(part.get("subnet") or "") for part in ranges if isinstance(part, dict)]
        found += [
            str(part.get("address") or "") for part in ipam.get("addresses") or [] if isinstance(part, dict)
        ]
    return list(dict.fromkeys(filter(None, found)))


def _running(settings: Settings) -> Iterator[Pod]:
    """Pods that live, each opened; the caller closes it."""
    for uuid in sorted(lifecycle.uuids_in(settings.pods_dir, lifecycle.RUN)):
        pod = lifecycle.open_pod_at(settings.pods_dir, PodUUID(uuid), lifecycle.RUN)
        if pod is None:
            continue
        if pod.is_running:
            yield pod
        else:
            pod.close()


def _pods_by_network(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for pod in _running(settings):
        with pod:
            try:
                joined = status.networks(pod)
            except RktError:
                continue  # rkt list tells of it
            name = pod.read_text("name") or ""
            for each in joined:
                first = [each.ip] if each.ip else []
                member = {
                    "uuid": str(pod.uuid),
                    "interface": str(each.raw.get("ifName", "")),
                    "ips": each.raw.get("ips") or first,
                }
                if name:
                    member["pod_name"] = name
                found.setdefault(each.name, []).append(member)
    return found


def check(settings: Settings) -> list[Finding]:
    """Look at the host, at every configuration, at the pods that live and at what others left."""
    found, usable = _check_files(settings)
    return [*_check_host(usable), *found, *_check_pods(settings), *_check_left(settings)]


def _check_host(usable: list[Network]) -> list[Finding]:
    path = program.find("nft")
    findings = [
        Finding(about="host", state=OK, text=f"nftables: {path}")
        if path
        else Finding(
            about="host",
            state=BAD,
            text="there is no nft program, which sets up ports, masquerading and egress rules",
            hint="apt install nftables",
        )
    ]
    asking = [each.name for each in usable if _needs_iptables(each)]
    path = program.find("iptables")
    if path:
        findings.append(Finding(about="host", state=OK, text=f"iptables: {path}"))
    elif asking:
        text = f"there is no iptables program, which plugins of {', '.join(asking)} run"
        findings.append(Finding(about="host", state=BAD, text=text, hint="apt install iptables"))
    if sysctl.read("ipv4/ip_forward") == "1":
        findings.append(Finding(about="host", state=OK, text="IPv4 packets are forwarded"))
    else:
        text = "IPv4 packets are not forwarded yet: plugins such as bridge switch that on for the first pod"
        findings.append(Finding(about="host", state=NOTE, text=text))
    return findings


def _needs_iptables(network: Network) -> bool:
    return network.masquerades or any(each["type"] in _BY_IPTABLES for each in network.plugins)


def _check_files(settings: Settings) -> tuple[list[Finding], list[Network]]:
    """What is to be said of each file, and the networks that can be asked for."""
    search = plugin.directories(settings.local_config_dir, "")
    findings: list[Finding] = []
    winners: dict[str, Network] = {}
    for directory in directories(settings):
        try:
            paths = config.paths(f"{directory}/{config.SUBDIRECTORY}")
        except NetworkError as e:
            findings.append(_bad("networks", e))
            continue
        for path in paths:
            try:
                network = config.load_network(path)
            except NetworkError as e:
                findings.append(_bad("networks", e))
                continue
            winner = winners.setdefault(network.name, network)
            if winner is not network:
                text = f"{path} does not count: {winner.path} has that name"
                findings.append(Finding(about=f"network {network.name}", state=NOTE, text=text))
    try:
        built_in = _built_in(settings)
    except RktError as e:
        findings.append(_bad("networks", e))
        built_in = {}
    usable = list({**built_in, **winners}.values())
    for network in sorted(usable, key=lambda each: (each.file_name, each.name)):
        about = f"network {network.name}"
        try:
            programs = _plugins(network, search)
            asked = _ask_status(network, search)
        except NetworkError as e:
            findings.append(_bad(about, e))
        else:
            text = f"{network.path}, CNI {network.version}, {', '.join(programs)}{asked}"
            findings.append(Finding(about=about, state=OK, text=text))
    return findings, usable


def _bad(about: str, e: RktError) -> Finding:
    return Finding(about=about, state=BAD, text=e.message, hint=e.hint)


def _plugins(network: Network, search: list[str]) -> list[str]:
    """Paths of all programs of a network.

    Raises:
        NetworkError: one is missing, or not to be trusted.
    """
    kinds: list[str] = []
    for each in network.plugins:
        kinds += [each["type"], *filter(None, [(each.get("ipam") or {}).get("type")])]
    return [plugin.find(kind, search) for kind in dict.fromkeys(kinds)]


def _ask_status(network: Network, search: list[str]) -> str:
    """Have plugins that can tell say whether they are ready.

    Raises:
        NetworkError: one is not.
    """
    from rkt.net import setup
    from rkt.net.plugin import Attachment

    if not config.at_least(network.version, "1.1.0"):
        return ""
    nobody = Attachment(container_id="", netns="", interface="", args="", search=search)
    for index, each in enumerate(network.plugins):
        raw = jsontext.dump(setup.configuration(network, index, {})).encode()
        found = plugin.find(each["type"], search)
        plugin.run(found, plugin.STATUS, raw, nobody, version=network.version)
    return ", ready"


def _check_pods(settings: Settings) -> list[Finding]:
    findings = []
    for pod in _running(settings):
        with pod:
            # One that is being set up right now has no results yet.
            for name in record.names(pod.path) if pod.has(contract.NET_INFO) else []:
                finding = _check_interface(pod, name)
                # What went away while it was looked at was not broken.
                if finding.state == OK or (pod.refresh() and pod.is_running):
                    findings.append(finding)
    return findings


def _check_interface(pod: Pod, name: str) -> Finding:
    about = f"pod {pod.uuid.short}"
    try:
        interface = record.load(pod.path, name)
        netns = f"{record.NETNS_DIRECTORY}/rkt-{pod.uuid}"
        if not teardown.is_namespace(netns):
            raise PodError(f"{netns} is no network namespace any more", hint=f"rkt stop {pod.uuid.short}")
        asked = _ask_check(interface, str(pod.uuid), netns)
    except RktError as e:
        hint = e.hint or f"rkt stop {pod.uuid.short} && rkt start {pod.uuid.short}"
        return Finding(about=about, state=BAD, text=f"{name}: {e.message}", hint=hint)
    text = f"{name} in {interface.network}{': as its plugins made it' if asked else ''}"
    return Finding(about=about, state=OK, text=text)


def _ask_check(interface: Interface, uuid: str, netns: str) -> bool:
    """CHECK, of the plugins of one interface in their order; whether their version of CNI has it."""
    from rkt.net.plugin import Attachment

    if not (interface.check and interface.result and config.at_least(interface.version, "0.4.0")):
        return False
    attachment = Attachment(
        container_id=uuid, netns=netns, interface=interface.name, args=interface.args, search=interface.search
    )
    for call in interface.calls:
        raw = jsontext.dump({**call.configuration, "prevResult": interface.result}).encode()
        plugin.run(call.program, plugin.CHECK, raw, attachment, version=interface.version)
    return True


def _check_left(settings: Settings) -> list[Finding]:
    findings = []
    for pod in net_gc.over(settings):
        with pod:
            text = "is over, and its networks are not taken back"
            findings.append(Finding(about=f"pod {pod.uuid.short}", state=BAD, text=text, hint="rkt net gc"))
    for uuid in net_gc.left(settings):
        text = "is gone, and its networks could not be taken back"
        findings.append(Finding(about=f"pod {uuid[:8]}", state=BAD, text=text, hint="rkt net gc"))
    for uuid in net_gc.named_namespaces():
        own = lifecycle.is_anywhere(settings.pods_dir, uuid) or uuid in net_gc.left(settings)
        path = f"{record.NETNS_DIRECTORY}/rkt-{uuid}"
        if not own and os.path.lexists(path):
            text = f"{path} is of a pod that is not in {settings.data_dir}"
            findings.append(Finding(about="others", state=NOTE, text=text))
    return findings
