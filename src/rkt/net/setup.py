# SPDX-License-Identifier: Apache-2.0
"""Set up a pod's networks: its namespace gets a name on the host, then each network's plugins are asked to ADD it.

What is about to be made is written down first, in the pod directory (spec runtime §4.7)::

    netns             path of the namespace's file, /run/netns/rkt-UUID
    net/FILE          copy of the configuration of each network
    net/ethN.json     record of one interface: which plugins were called with what, and what they answered
    net-info.json     what the pod has, for people and programs; once everything is there

so that ``teardown`` needs nothing else, whenever the engine is killed.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import NetworkError
from rkt.linux import files, libc
from rkt.net import config, plugin, results, rules, sysctl, teardown
from rkt.net.plugin import Attachment
from rkt.net.record import NETNS_DIRECTORY, Call, Interface, copy_path, lock_plugins
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.stage0.contract import NET, NET_INFO, NETNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rkt.net.config import Network, Request
    from rkt.net.ports import Forward
    from rkt.net.results import Result


class Planned(Record):
    """One network that is to be set up.

    Attributes:
        args: of the operator, without what is in ``runtime``.
        interface: name that it gets in the pod.
        programs: path of each plugin of the network, in order.
        runtime: values of capabilities that the network's plugins declare, from the operator's arguments.
    """

    network: config.Network
    args: str
    interface: str
    programs: list[str]
    runtime: dict[str, Any] = {}


class Plan(Record):
    """What a pod gets; made before anything else of the pod, so that what is wrong is noticed then.

    Attributes:
        search: directories of plugins.
        notices: definitions that do not count, in words.
    """

    networks: list[Planned]
    search: list[str]
    notices: list[str] = []


class Attached(Record):
    """One network that was set up.

    Attributes:
        result: what all its plugins together made of it.
    """

    network: config.Network
    interface: str
    args: str
    result: results.Result


def plan(
    requests: Sequence[Request],
    *,
    local_config: str,
    other_directories: Sequence[str] = (),
    stage1_root: str = "",
) -> Plan:
    """Find the networks of a pod and their plugins.

    Args:
        requests: without ``host`` and ``none``.
        local_config: the administrator's configuration directory, which wins.
        other_directories: of network configurations, which come next.
        stage1_root: of the pod's stage1, whose networks come last.
    Raises:
        NetworkError: a network or a plugin is missing, or not to be trusted.
    """
    last = [f"{stage1_root}/{config.STAGE1_DIRECTORY}"] if stage1_root else []
    found = config.load([f"{local_config}/{config.SUBDIRECTORY}", *other_directories, *last])
    search = plugin.directories(local_config, stage1_root)
    networks = []
    for index, (network, words) in enumerate(config.select(found, requests)):
        args = words
        values: dict[str, Any] = {}
        if args and network.has_capabilities:
            from rkt.net import capabilities

            args, values = capabilities.of_arguments(network, args)
        networks.append(
            Planned(
                network=network,
                args=args,
                interface=f"eth{index}",
                programs=_programs(network, search),
                runtime=values,
            )
        )
    return Plan(networks=networks, search=search, notices=found.notices)


def _programs(network: Network, search: Sequence[str]) -> list[str]:
    programs = []
    for each in network.plugins:
        programs.append(plugin.find(each["type"], search))
        if ipam := (each.get("ipam") or {}).get("type"):
            # The plugin looks for it by itself; that it would find the right one is better known before.
            plugin.find(ipam, search)
    return programs


def quiet_ipv6() -> None:
    """Let interfaces of the namespace that the caller is in neither take routes from strangers nor wait for addresses.

    Router advertisements of anybody on the link would make that one the pod's router (invariant NT1). Addresses are given
    by plugins, which make sure that they are free; plugins that wait until the kernel has asked too take a second longer.
    """
    for name in ("all/accept_ra", "default/accept_ra", "default/accept_dad"):
        sysctl.write(f"ipv6/conf/{name}", "0")


def attach(
    plan: Plan,
    *,
    uuid: str,
    pod_path: str,
    netns_fd: int,
    hold_fd: int,
    runtime: dict[str, Any],
    forwards: Sequence[Forward],
    report: Callable[[str], None],
) -> list[Attached]:
    """Name the pod's network namespace and set its networks up; to be called in the host's view.

    Args:
        plan: what to set up.
        uuid: of the pod.
        pod_path: absolute path of the pod directory.
        netns_fd: of the pod's network namespace.
        hold_fd: descriptor that plugins keep open, -1 for none.
        runtime: values of capabilities by their names, for plugins that declare them.
        forwards: ports of the host that lead to the pod.
        report: says what went wrong while something was taken back.
    Raises:
        NetworkError: a plugin refused; everything has been taken back.
        PodError, HostError: so did the host's firewall; likewise.
        OSError: a file could not be written, or the namespace not be mounted; likewise.
    """
    path = f"{NETNS_DIRECTORY}/rkt-{uuid}"
    try:
        files.replace_file(f"{pod_path}/{NETNS}", path.encode() + b"\n", 0o644, sync=False)
        os.makedirs(f"{pod_path}/{NET}", mode=0o755, exist_ok=True)
        mount_namespace(netns_fd, path)
        attached = []
        for each in plan.networks:
            attachment = Attachment(
                container_id=uuid,
                netns=path,
                interface=each.interface,
                args=each.args,
                search=plan.search,
                hold_fd=hold_fd,
            )
            result = _add(each, attachment, pod_path, {**runtime, **each.runtime})
            attached.append(
                Attached(network=each.network, interface=each.interface, args=each.args, result=result)
            )
        rules.install(pod_path, uuid, attached, forwards)
    except BaseException:
        teardown.release(pod_path, hold_fd=hold_fd, report=report)
        raise
    return attached


def mount_namespace(netns_fd: int, path: str) -> None:
    """Give a network namespace a name.

    Its directory is made a mount that is shared, as ip-netns(8) does: so unmounting a name reaches the copies that other
    mount namespaces have, and would keep the namespace alive (kubernetes#48427).

    Raises:
        OSError: it could not be mounted; ``EEXIST`` when the name is taken.
    """
    directory = NETNS_DIRECTORY.encode()
    os.makedirs(directory, mode=0o755, exist_ok=True)
    try:
        libc.mount(None, directory, None, libc.MS_SHARED | libc.MS_REC)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        libc.mount(directory, directory, None, libc.MS_BIND | libc.MS_REC)
        libc.mount(None, directory, None, libc.MS_SHARED | libc.MS_REC)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0))
    libc.mount(f"/proc/self/fd/{netns_fd}".encode(), path.encode(), None, libc.MS_BIND)


def _add(planned: Planned, attachment: Attachment, pod_path: str, runtime: dict[str, Any]) -> Result:
    network = planned.network
    copy = copy_path(network.file_name)
    files.replace_file(f"{pod_path}/{copy}", network.raw, 0o644, sync=False)
    configurations = [configuration(network, index, runtime) for index in range(len(network.plugins))]
    record = Interface(
        name=attachment.interface,
        network=network.name,
        copy=copy,
        version=network.version,
        args=attachment.args,
        search=attachment.search,
        check=network.check,
        calls=[
            Call(program=program, configuration=each)
            for program, each in zip(planned.programs, configurations, strict=True)
        ],
    )
    if not config.at_least(network.version, "1.1.0"):
        return _add_each(network, record, attachment, pod_path)
    with lock_plugins(exclusive=False):
        return _add_each(network, record, attachment, pod_path)


def _add_each(network: Network, record: Interface, attachment: Attachment, pod_path: str) -> Result:
    """Write the record, then call every plugin in order."""
    record.write(pod_path)
    if config.at_least(network.version, "1.1.0"):
        _ask_status(record, attachment)
    result = results.Result()
    previous: dict[str, Any] | None = None
    for index, call in enumerate(record.calls):
        name = call.program.rpartition("/")[2]
        try:
            raw = network.raw
            if network.is_list or "runtimeConfig" in call.configuration:
                members = dict(call.configuration)
                if previous is not None:
                    members["prevResult"] = previous
                    # Before it does anything: a plugin such as firewall takes back by this what it did.
                    record.replace(result=previous).write(pod_path)
                raw = jsontext.dump(members).encode()
            answer = plugin.run(call.program, plugin.ADD, raw, attachment, version=network.version)
            if answer.strip() or not index:
                result, previous = results.parse(answer, network.version, what=f'plugin "{name}"')
        except NetworkError as e:
            raise NetworkError(f'network "{network.name}": {e.message}', hint=e.hint) from e
    record.replace(result=previous or {}).write(pod_path)
    return result


def _ask_status(record: Interface, attachment: Attachment) -> None:
    """Ask plugins that can tell whether they are ready, instead of letting the pod find out half way."""
    for call in record.calls:
        raw = jsontext.dump(call.configuration).encode()
        try:
            plugin.run(call.program, plugin.STATUS, raw, attachment, version=record.version)
        except NetworkError as e:
            raise NetworkError(f'network "{record.network}" is not ready: {e.message}', hint=e.hint) from e


def configuration(network: Network, index: int, runtime: dict[str, Any]) -> dict[str, Any]:
    """What one plugin of a network reads, but for the result of the one before it.

    Args:
        network: the network.
        index: of the plugin.
        runtime: values of capabilities by their names; a plugin gets those that it declares.
    """
    members = dict(network.plugins[index])
    if network.is_list:
        members["name"] = network.name
        members["cniVersion"] = network.version
    declared = members.get("capabilities") or {}
    wanted = {name: runtime[name] for name in declared if declared[name] is True and name in runtime}
    if wanted:
        members["runtimeConfig"] = {**(members.get("runtimeConfig") or {}), **wanted}
    if network.is_list:
        # As libcni does: plugins are not told what they declare.
        members.pop("capabilities", None)
    return members


def describe(attached: Sequence[Attached], records: Sequence[Planned]) -> list[dict[str, Any]]:
    """What ``net-info.json`` says, by the members' names of spec runtime §4.7; those from ``ips`` on are ours."""
    return [_describe(each, planned.programs[0]) for each, planned in zip(attached, records, strict=True)]


def _describe(attached: Attached, program: str) -> dict[str, Any]:
    result = attached.result
    first = result.address
    v4 = first if first is not None and first.is_v4 else None
    own = result.own_addresses
    gateway = next((each.gateway for each in own if each.gateway), "")
    members: dict[str, Any] = {
        "netName": attached.network.name,
        "netConf": copy_path(attached.network.file_name),
        "pluginPath": program,
        "ifName": attached.interface,
        "ip": v4.address if v4 else "",
        "args": attached.args,
        "mask": v4.mask if v4 else "",
        "ips": [each.cidr for each in own],
    }
    if gateway:
        members["gateway"] = gateway
    if result.routes:
        members["routes"] = [
            {"dst": each.destination, **({"gw": each.gateway} if each.gateway else {})}
            for each in result.routes
        ]
    return members


def record(pod_path: str, described: list[dict[str, Any]]) -> None:
    """Write ``net-info.json``."""
    data = jsontext.dump(described).encode() + b"\n"
    files.replace_file(f"{pod_path}/{NET_INFO}", data, 0o644, sync=False)
