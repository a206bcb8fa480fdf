# SPDX-License-Identifier: Apache-2.0
"""What networks of pods need, tried in a network namespace that ends with the attempt."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from rkt.errors import NetworkError
from rkt.linux import libc
from rkt.linux.network_lo import loopback_up
from rkt.net import firewall, nft, plugin, program
from rkt.net.firewall import Endpoint
from rkt.net.ports import Forward
from rkt.stage0.host import kernel
from rkt.stage0.host.attempt import become_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: What the built-in networks are made of.
NEEDED_PLUGINS = ("bridge", "host-local")
#: Kinds of links that plugins make, and the plugin.
LINKS = ("veth", "bridge", "macvlan", "ipvlan", "vlan")
#: Kinds that are made of another link.
_ON_TOP = frozenset(("macvlan", "ipvlan", "vlan"))
# <linux/rtnetlink.h>, <linux/netlink.h>, <linux/if_link.h>
_RTM_NEWLINK, _NLMSG_ERROR = 16, 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 1, 4, 0x200, 0x400
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO = 3, 5, 18
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_VLAN_ID = 1, 2, 1
_MESSAGE = struct.Struct("=IHHII")
_INTERFACE = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
# <linux/if_tun.h>
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 2, 0x1000
#: Addresses for documentation (RFC 5737), and a pod that never was.
_DOCUMENTATION, _HOST = "192.0.2.2/24", "192.0.2.9"
_UUID = "00000000-0000-4000-8000-000000000000"


def link(kind: str) -> Callable[[], str]:
    """Whether a link of a kind can be made."""

    def act() -> str:
        _own_network()
        parent = 0
        if kind in _ON_TOP:
            _make_link("veth", "below", 0)
            parent = socket.if_nametoindex("below")
        _make_link(kind, "probe", parent)
        return ""

    return act


def tap() -> str:
    """Whether an app with ``/dev/net/tun`` can have a link of its own."""
    _own_network()
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", b"probe", _IFF_TAP | _IFF_NO_PI))
    finally:
        os.close(fd)
    return ""


def rules() -> str:
    """The kernel takes all rules of a pod with a port; returns the program's path."""
    path = nft.find()
    _own_network()
    _own_run()
    _make_link("veth", "probe", 0)
    endpoint = Endpoint(addresses=[_DOCUMENTATION], masquerade=True, links=["probe"])
    port = Forward(name="probe", protocol="tcp", host_ip=_HOST, host_port=80, pod_port=80)
    firewall.install(_UUID, [endpoint], [port])
    return path


def iptables() -> str:
    """Plugins that masquerade by iptables would find it working; returns its path."""
    path = program.find("iptables")
    if not path:
        raise OSError(0, "there is no such program")
    _own_network()
    _own_run()
    ended = program.run([path, "-w", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"])
    if ended.status:
        raise OSError(0, " ".join(ended.errors.split())[:200] or f"it ends with status {ended.status}")
    return path


def _own_run() -> None:
    """Locks of the firewall are files of the host."""
    kernel.own_mounts()
    libc.mount(b"tmpfs", b"/run", b"tmpfs", libc.MS_NOSUID | libc.MS_NODEV, b"mode=755")


def ipv6() -> str:
    """Whether a pod can have addresses of IPv6."""
    _own_network()
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as handle:
        handle.bind(("::1", 0))
    return ""


def plugins(local_config: str) -> dict[str, str]:
    """Plugins of the system's directories and those that are needed, with their paths; empty for what is missing."""
    search = plugin.directories(local_config, "")
    names = set(NEEDED_PLUGINS)
    for directory in plugin.SYSTEM_DIRECTORIES:
        try:
            names |= set(os.listdir(directory))
        except OSError:
            continue
    found = {}
    for name in sorted(names):
        try:
            found[name] = plugin.find(name, search)
        except NetworkError:
            if name in NEEDED_PLUGINS:
                found[name] = ""
    return found


def _own_network() -> None:
    become_root()
    libc.unshare(libc.CLONE_NEWNET)
    loopback_up()


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _make_link(kind: str, name: str, parent: int) -> None:
    """Ask the kernel for a link, as ``ip link add`` does.

    Raises:
        OSError: ``EOPNOTSUPP`` for a kind that it does not know.
    """
    about = _attribute(_IFLA_INFO_KIND, kind.encode())
    if kind == "vlan":
        about += _attribute(_IFLA_INFO_DATA, _attribute(_IFLA_VLAN_ID, struct.pack("=H", 1)))
    body = _INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
    if parent:
        body += _attribute(_IFLA_LINK, struct.pack("=I", parent))
    body += _attribute(_IFLA_LINKINFO, about)
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as handle:
        handle.settimeout(10)
        handle.send(_MESSAGE.pack(_MESSAGE.size + len(body), _RTM_NEWLINK, flags, 1, 0) + body)
        answer = handle.recv(65536)
    _, word, _, _, _ = _MESSAGE.unpack_from(answer)
    number = -struct.unpack_from("=i", answer, _MESSAGE.size)[0] if word == _NLMSG_ERROR else 0
    if number:
        raise OSError(number, os.strerror(number))
