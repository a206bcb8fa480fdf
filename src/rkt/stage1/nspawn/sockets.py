# SPDX-License-Identifier: Apache-2.0
"""Sockets of the host's service manager in the pod: systemd-nspawn hands them on, and units there take them by address.

systemd gives what was passed to it to the socket units that it has loaded before it starts anything. What it has loaded by
then is what its mounts need, and these need ``local-fs.target``.
"""

from __future__ import annotations

from rkt.stage1.nspawn.unit_text import plain
from rkt.stage1.nspawn.units import unit_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.linux.listening import Listening

_DIRECTIVES = {"tcp": "ListenStream", "udp": "ListenDatagram"}


def socket_units(app: str, sockets: Sequence[Listening]) -> dict[str, bytes | str]:
    """Names and contents of what an app with sockets has beside its service, relative to the directory of units."""
    service = unit_name(app)
    units: dict[str, bytes | str] = {
        "local-fs.target": b"[Unit]\nDefaultDependencies=no\n",
        # The supervisor starts the app, at once and as often as is asked for; no client does.
        f"{service}.d/socket.conf": b"[Unit]\nStartLimitIntervalSec=infinity\nStartLimitBurst=1\n",
    }
    names = list(dict.fromkeys(each.name for each in sockets))
    for number, name in enumerate(names):
        # A unit has one name for all of its sockets.
        unit = f"{service.removesuffix('.service')}-{number}.socket"
        lines = [f"{_DIRECTIVES[each.protocol]}={_address(each)}" for each in sockets if each.name == name]
        text = "\n".join(
            (
                *lines,
                f"FileDescriptorName={plain(name.encode(), 'name of a socket').decode()}",
                f"Service={service}",
                "",
            )
        )
        units[unit] = f"[Unit]\nDefaultDependencies=no\n[Socket]\n{text}".encode()
        units[f"local-fs.target.d/{unit}.conf"] = f"[Unit]\nRequires={unit}\n".encode()
        units[f"default.target.d/{unit}.conf"] = f"[Unit]\nRequires={unit}\nAfter={unit}\n".encode()
    return units


def _address(each: Listening) -> str:
    return f"[{each.address}]:{each.port}" if ":" in each.address else f"{each.address}:{each.port}"
