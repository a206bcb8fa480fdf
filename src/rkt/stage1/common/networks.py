# SPDX-License-Identifier: Apache-2.0
"""The networks of a pod from stage1's side: planned before there is a pod, set up around its first process, released last."""

from __future__ import annotations

import _signal
import os

from rkt.errors import NetworkError, Stage1Error
from rkt.linux import files
from rkt.net import config, names, resolv_conf, rules, setup, teardown
from rkt.net.host import HostView
from rkt.schema import jsontext
from rkt.stage0 import contract
from rkt.stage1.common import hosts
from rkt.stage1.common.host_mounts import host_mounts, host_root
from rkt.stage1.common.say import say
from rkt.stage1.common.signals import STOP_SIGNALS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.net.ports import Forward
    from rkt.net.results import Dns
    from rkt.net.setup import Attached
    from rkt.stage1.common.arguments import RunArguments
    from rkt.stage1.common.pod import LoadedPod

#: Users' own name for the pod, in its directory (``pod.names``).
_POD_NAME = "name"
_MAX_NAME_BYTES = 256


class Networks:
    """What ``--net`` asks for, for one run of a pod.

    Attributes:
        attached: the networks that were set up, in order.
    """

    __slots__ = ("_arguments", "_lock_fd", "_path", "_plan", "_runtime", "_view", "attached")

    def __init__(self, arguments: RunArguments, lock_fd: int) -> None:
        """Find configurations and plugins; to be called where the host is seen, in the pod directory.

        Args:
            arguments: of ``run``.
            lock_fd: of the pod, which plugins keep open.
        Raises:
            NetworkError: a network is not to be had.
        """
        self._arguments = arguments
        self._lock_fd = lock_fd
        self._path = os.getcwd()
        self.attached: list[Attached] = []
        try:
            self._plan = setup.plan(
                config.parse_requests(arguments.networks or ["default"]),
                local_config=arguments.local_config,
                other_directories=other_directories(),
                stage1_root=os.path.abspath(contract.STAGE1_ROOTFS),
            )
        except NetworkError as e:
            raise NetworkError(f"failed to setup network: {e.message}", hint=e.hint) from e
        if arguments.debug:
            for notice in self._plan.notices:
                say(notice)
        self._runtime: dict[str, Any] = {}
        if arguments.resolv_mode == "stage0" and any(
            each.network.has_capabilities for each in self._plan.networks
        ):
            from rkt.net import capabilities

            text = hosts.resolv_file("stage0").decode("utf-8", "replace")
            self._runtime = capabilities.of_resolver(text)
        self._view = HostView(host_mounts(), host_root())

    def attach(self, pod: LoadedPod, netns_fd: int) -> None:
        """Set the networks up; to be called in the pod's network namespace.

        Args:
            pod: whose ports are forwarded.
            netns_fd: of the pod's network namespace.
        Raises:
            NetworkError, PodError, HostError: it could not be done; everything has been taken back.
        """
        setup.quiet_ipv6()
        forwards = _forwards(pod) if pod.manifest.ports else []
        runtime = dict(self._runtime)
        if forwards:
            runtime[rules.PORT_MAPPINGS] = [each.to_json() for each in forwards]
        try:
            # In this order: an interruption half way into the host's view, or out of it, would leave us there.
            with self._view, _Interruptible():
                self.attached = setup.attach(
                    self._plan,
                    uuid=self._arguments.uuid,
                    pod_path=self._path,
                    netns_fd=netns_fd,
                    hold_fd=self._lock_fd,
                    runtime=runtime,
                    forwards=forwards,
                    report=say,
                )
        except NetworkError as e:
            raise NetworkError(f"failed to setup network: {e.message}", hint=e.hint) from e
        except OSError as e:
            where = f": {os.fsdecode(e.filename)}" if e.filename else ""
            raise NetworkError(f"failed to setup network: {e.strerror}{where}") from e
        self._warn_of_dns()
        setup.record(self._path, setup.describe(self.attached, self._plan.networks))

    def restrict(self, text: str, resolv_mode: str, netns_fd: int) -> None:
        """Put the pod's egress rules in force; to be called before anything of the pod runs.

        Args:
            text: the rules.
            resolv_mode: where the pod's name servers are written.
            netns_fd: of the pod's network namespace.
        Raises:
            UsageError, HostError: they cannot be.
        """
        # Before it is where the host is seen only.
        from rkt.net import egress

        wanted = egress.parse([text])
        found = self.dns()
        servers = list(found[1].servers) if found is not None else []
        if resolv_mode in {"stage0", "host"}:
            servers = egress.name_servers(hosts.resolv_file(resolv_mode).decode("utf-8", "replace"))
        with self._view:
            addresses = egress.look_up(wanted)
            egress.install(wanted, addresses, servers, netns_fd)
        record = {"version": 1, "rules": [str(rule) for rule in wanted], "names": addresses}
        files.replace_file(contract.EGRESS, jsontext.dump(record).encode() + b"\n", 0o644, sync=False)

    def dns(self) -> tuple[str, Dns] | None:
        """The first network that says something about names, and what, where nobody else has (spec runtime §4.5)."""
        if self._arguments.resolv_mode != "default":
            return None
        speaking = (each for each in self.attached if not each.result.dns.is_empty)
        return next(((each.network.name, each.result.dns) for each in speaking), None)

    def _warn_of_dns(self) -> None:
        """Tell of networks that say something about names in vain."""
        if self._arguments.resolv_mode == "none":
            return
        found = self.dns()
        speaking = [each.network.name for each in self.attached if not each.result.dns.is_empty]
        for name in speaking[1:] if found is not None else speaking:
            say(f"warning: network {name} plugin specified DNS configuration, but DNS already supplied")

    def write_resolv_conf(self, path: str) -> bool:
        """Write what a network says about names, for apps; whether one does."""
        found = self.dns()
        if found is None:
            return False
        name, dns = found
        text = resolv_conf.render(
            f"rkt from network {name}",
            servers=dns.servers,
            search=dns.search,
            options=dns.options,
            domain=dns.domain,
        )
        files.write_new(path, text.encode(), 0o644)
        return True

    def publish(self, base: bytes | None) -> None:
        """Let the pods of these networks know this one by its names, and this one them.

        Args:
            base: what the pod's hosts file begins with; ``None`` if it has the host's.
        Raises:
            NetworkError: a file cannot be written.
        """
        uuid = self._arguments.uuid
        addresses: dict[str, list[str]] = {}
        for each in self.attached:
            found = addresses.setdefault(each.network.name, [])
            found += [address.address for address in each.result.own_addresses]
        try:
            own = files.read_bounded(_POD_NAME, _MAX_NAME_BYTES).decode().strip()
        except FileNotFoundError:
            own = ""
        called = names.pod_names(uuid, own, self._arguments.hostname)
        try:
            names.join(self._path, uuid, addresses=addresses, names=called, base=base)
        except OSError as e:
            raise NetworkError(f"cannot tell pods of each other's names: {e.strerror}: {e.filename}") from e

    def gateways(self) -> list[str]:
        """By which addresses the pod may reach its host: first those of the network whose traffic is masqueraded, as for ports."""
        hidden = (
            each for each in self.attached if each.network.masquerades or each.network.is_masqueraded_by_us
        )
        first = next(hidden, None)
        order = sorted(self.attached, key=lambda each: each is not first)
        return [address.gateway for each in order for address in each.result.own_addresses if address.gateway]

    def release(self) -> None:
        """Take everything back; nothing happens when nothing was made, or all was taken back before."""
        names.leave(self._arguments.uuid)
        if teardown.is_needed(self._path):
            with self._view:
                teardown.release(self._path, hold_fd=self._lock_fd, report=say)
        self._view.close()


def _forwards(pod: LoadedPod) -> list[Forward]:
    """The ports that are forwarded: all for which no service manager passed sockets."""
    from rkt.net.ports import forwards_of

    found = forwards_of(pod.manifest.ports, [(app.name, app.app.ports) for app in pod.apps])
    if "LISTEN_FDS" not in os.environ or not pod.apps:
        return found
    from rkt.stage1.common import activation

    served = activation.served(pod)
    return [each for each in found if each.name not in served]


def release_left(path: str, *, hold_fd: int) -> None:
    """Take back what a pod whose supervisor is gone has left of its networks; told of where that cannot be.

    Args:
        path: absolute path of the pod directory.
        hold_fd: descriptor that plugins keep open, -1 for none.
    """
    names.leave(os.path.basename(path))
    view = HostView(host_mounts(), host_root())
    with view:
        teardown.release(path, hold_fd=hold_fd, report=say)
    view.close()


def other_directories() -> list[str]:
    """Further directories of network configurations that stage0 knows."""
    return [each for each in os.environ.get(contract.ENV_NET_DIRECTORIES, "").split(":") if each]


class _Interruptible:
    """Inside, a signal that stops pods is an error, so that what is half made is taken back; a second one waits for that."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before: dict[int, Any] = {}
        for number in STOP_SIGNALS:
            before = _signal.getsignal(number)
            if before != _signal.SIG_IGN:
                self._before[number] = before
                _signal.signal(number, _stop)

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            _signal.signal(number, before)


def _stop(_number: int, _frame: object) -> None:
    for each in STOP_SIGNALS:
        _signal.signal(each, _signal.SIG_IGN)
    raise Stage1Error("the pod was stopped while its networks were set up")
