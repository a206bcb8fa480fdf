# SPDX-License-Identifier: Apache-2.0
"""What plugins answer to ADD, in one form for all versions of CNI, and back for those that are told about it later.

Versions 0.1.0 and 0.2.0 have one address per family and no interfaces; 0.3.0 to 0.4.0 lists of both, each address with
its version; from 1.0.0 on that went away, and 1.1.0 added to routes and interfaces. Inside one list of plugins a result is
handed on as it came, so that nothing that we do not know is lost; it is converted only where versions differ.

Source: https://www.cni.dev/docs/spec/, "ADD Success".
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, NetworkError, quoted
from rkt.net.config import VERSIONS, at_least
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Most entries of one list that are believed.
_MAX_ENTRIES = 256
_DEFAULT_INTERFACE = -1


class Address(Record):
    """One address of a pod.

    Attributes:
        address: text, without the length of the prefix; ``prefix`` has that, in bits.
        gateway: text, empty for none.
        interface: index of its interface, -1 for the pod's.
    """

    address: str
    prefix: int
    gateway: str = ""
    interface: int = _DEFAULT_INTERFACE

    @property
    def is_v4(self) -> bool:
        """Whether it is of IPv4."""
        return ":" not in self.address

    @property
    def cidr(self) -> str:
        """``10.1.2.3/24``."""
        return f"{self.address}/{self.prefix}"

    @property
    def mask(self) -> str:
        """In dotted form, for IPv4; else the length."""
        if not self.is_v4:
            return str(self.prefix)
        bits = 0xFFFFFFFF << 32 - self.prefix & 0xFFFFFFFF
        return ".".join(str(bits >> shift & 0xFF) for shift in (24, 16, 8, 0))


class Route(Record):
    """One route of a pod; ``gateway`` is empty for that of its address."""

    destination: str
    gateway: str = ""


class Dns(Record):
    """What a network says about names."""

    servers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.servers or self.domain or self.search or self.options)


class Result(Record):
    """One answer.

    Attributes:
        interfaces: objects as plugins have them: ``name``, ``mac``, and ``sandbox`` for those inside the pod.
        addresses, routes, dns: checked.
    """

    interfaces: list[dict[str, Any]] = []
    addresses: list[Address] = []
    routes: list[Route] = []
    dns: Dns = Dns()

    @property
    def own_addresses(self) -> list[Address]:
        """Those of the pod; a plugin may report the host's end too."""
        return [each for each in self.addresses if self._is_inside(each.interface)]

    @property
    def address(self) -> Address | None:
        """The pod's first, IPv4 before IPv6."""
        own = self.own_addresses
        return next((each for each in own if each.is_v4), own[0] if own else None)

    def _is_inside(self, index: int) -> bool:
        return not 0 <= index < len(self.interfaces) or bool(self.interfaces[index].get("sandbox"))


def parse(answer: bytes, version: str, *, what: str) -> tuple[Result, dict[str, Any]]:
    """Read an answer.

    Args:
        answer: bytes that the plugin printed.
        version: of the configuration; an answer that does not say its own is of that.
        what: names the plugin in errors.
    Returns:
        the result, and the object for the next plugin, and for CHECK and DEL, in that version.
    Raises:
        NetworkError: it is no result.
    """
    if not answer.strip():
        # A plugin that only looks on may say nothing: there is nothing new.
        return Result(), {"cniVersion": version}
    try:
        members = jsontext.parse(answer, what=f"answer of {what}")
    except InvalidManifest as e:
        raise NetworkError(e.message) from None
    if not isinstance(members, dict):
        raise NetworkError(f"answer of {what} is not a JSON object")
    own = members.get("cniVersion") or version
    if own not in VERSIONS:
        raise NetworkError(f"answer of {what}: cniVersion {quoted(str(own))} is not supported")
    result = _Reader(what).read(members, own)
    return result, {"cniVersion": version, **members} if own == version else render(result, version)


def render(result: Result, version: str) -> dict[str, Any]:
    """A result as a plugin of some version expects it."""
    members: dict[str, Any] = {"cniVersion": version}
    if at_least(version, "0.3.0"):
        has_family = not at_least(version, "1.0.0")
        if result.interfaces:
            members["interfaces"] = result.interfaces
        if result.addresses:
            members["ips"] = [_render_address(each, has_family=has_family) for each in result.addresses]
        if result.routes:
            members["routes"] = [_render_route(each) for each in result.routes]
    else:
        for key, wants_v4 in (("ip4", True), ("ip6", False)):
            address = next((each for each in result.addresses if each.is_v4 is wants_v4), None)
            if address is None:
                continue
            members[key] = {"ip": address.cidr, **({"gateway": address.gateway} if address.gateway else {})}
            routes = [
                _render_route(each) for each in result.routes if (":" not in each.destination) is wants_v4
            ]
            if routes:
                members[key]["routes"] = routes
    dns = result.dns
    members["dns"] = {
        key: value
        for key, value in (
            ("nameservers", dns.servers),
            ("domain", dns.domain),
            ("search", dns.search),
            ("options", dns.options),
        )
        if value
    }
    return members


def _render_address(address: Address, *, has_family: bool) -> dict[str, Any]:
    members: dict[str, Any] = {"version": "4" if address.is_v4 else "6"} if has_family else {}
    members["address"] = address.cidr
    if address.gateway:
        members["gateway"] = address.gateway
    if address.interface != _DEFAULT_INTERFACE:
        members["interface"] = address.interface
    return members


def _render_route(route: Route) -> dict[str, str]:
    return {"dst": route.destination, **({"gw": route.gateway} if route.gateway else {})}


class _Reader:
    """Reads one answer; every part is text that somebody else wrote."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def read(self, members: dict[str, Any], version: str) -> Result:
        if at_least(version, "0.3.0"):
            return Result(
                interfaces=self._objects(members, "interfaces"),
                addresses=[
                    self._address(each, "address", self._interface(each))
                    for each in self._objects(members, "ips")
                ],
                routes=[self._route(each) for each in self._objects(members, "routes")],
                dns=self._dns(members),
            )
        families = [self._object(members, key) for key in ("ip4", "ip6")]
        return Result(
            addresses=[self._address(each, "ip", _DEFAULT_INTERFACE) for each in families if each],
            routes=[self._route(route) for each in families for route in self._objects(each, "routes")],
            dns=self._dns(members),
        )

    def _error(self, text: str) -> NetworkError:
        return NetworkError(f"answer of {self._what}: {text}")

    def _object(self, members: dict[str, Any], key: str) -> dict[str, Any]:
        value = members.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._error(f"{key} is not a JSON object")
        return value

    def _objects(self, members: dict[str, Any], key: str) -> list[dict[str, Any]]:
        value = members.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self._error(f"{key} is not a list of JSON objects")
        if len(value) > _MAX_ENTRIES:
            raise self._error(f"{key} has {len(value)} entries")
        return value

    def _text(self, members: dict[str, Any], key: str) -> str:
        value = members.get(key)
        if value is None:
            return ""
        if not isinstance(value, str) or not value.isprintable():
            raise self._error(f"{key} is not text")
        return value

    def _texts(self, members: dict[str, Any], key: str) -> list[str]:
        value = members.get(key)
        if value is None:
            return []
        # They become words of lines in a file that programs in the pod read.
        if not isinstance(value, list) or not all(
            isinstance(each, str) and each and each.isprintable() and " " not in each for each in value
        ):
            raise self._error(f"{key} is not a list of words")
        if len(value) > _MAX_ENTRIES:
            raise self._error(f"{key} has {len(value)} entries")
        return value

    @staticmethod
    def _interface(members: dict[str, Any]) -> int:
        index = members.get("interface")
        return index if isinstance(index, int) and not isinstance(index, bool) else _DEFAULT_INTERFACE

    def _address(self, members: dict[str, Any], key: str, interface: int) -> Address:
        text = self._text(members, key)
        address, prefix = self._network(text)
        gateway = self._text(members, "gateway")
        if gateway and not is_address(gateway):
            raise self._error(f"gateway {quoted(gateway)} is not an address")
        return Address(address=address, prefix=prefix, gateway=gateway, interface=interface)

    def _network(self, text: str) -> tuple[str, int]:
        address, _, prefix = text.partition("/")
        longest = 128 if ":" in address else 32
        if is_address(address) and is_number(prefix, most_digits=3):
            bits = int(prefix)
            if bits <= longest:
                return address, bits
        raise self._error(f"{quoted(text)} is not an address with the length of its prefix")

    def _route(self, members: dict[str, Any]) -> Route:
        destination = self._text(members, "dst")
        self._network(destination)
        gateway = self._text(members, "gw")
        if gateway and not is_address(gateway):
            raise self._error(f"gw {quoted(gateway)} is not an address")
        return Route(destination=destination, gateway=gateway)

    def _dns(self, members: dict[str, Any]) -> Dns:
        dns = self._object(members, "dns")
        servers = self._texts(dns, "nameservers")
        for server in servers:
            if not is_address(server.partition("%")[0]):
                raise self._error(f"nameserver {quoted(server)} is not an address")
        domain = self._text(dns, "domain")
        if " " in domain:
            raise self._error(f"domain {quoted(domain)} is not a domain")
        return Dns(
            servers=servers,
            domain=domain,
            search=self._texts(dns, "search"),
            options=self._texts(dns, "options"),
        )


def is_address(text: str) -> bool:
    """Whether this is an address of IPv4 or IPv6."""
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        return False
    return True
