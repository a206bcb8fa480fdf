# SPDX-License-Identifier: Apache-2.0
"""What people type, and lock files, which often come with somebody's sources."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from typing import TYPE_CHECKING, Any

from rkt.cli.logs import _time
from rkt.errors import InvalidManifest, UsageError
from rkt.net import egress
from rkt.pod import names
from rkt.schema import jsontext, limits, shorthand
from rkt.schema.appc import check_owner, parse_mode
from rkt.schema.duration import parse_duration, render_duration
from rkt.schema.oci import Platform
from rkt.schema.streams import parse_detach_keys
from rkt.stage0.lock import FORMAT, load_lock
from rkt.trust.rule_files import typed_prefix
from rkt.values import AppcReference, parse_boolean
from tests.fuzz.target import Target, Text
from tests.fuzz.targets.documents import JSON_PIECES

if TYPE_CHECKING:
    from collections.abc import Callable


def _volume(text: str) -> None:
    found = shorthand.parse_volume(text)
    assert "\0" not in found.source, "a NUL in a path"
    assert found.kind != "host" or found.source.startswith("/"), "a path that depends on where one stands"


def _port(text: str) -> None:
    refused = 0
    for parse in (shorthand.parse_port, shorthand.parse_sandbox_port):
        try:
            found = parse(text)
        except (UsageError, InvalidManifest):
            refused += 1
            if refused == 2:
                raise
            continue
        assert 0 < found.host_port < 65536, "no port"
        if found.host_ip:
            ipaddress.ip_address(found.host_ip)


def _egress(text: str) -> None:
    rules = egress.parse([text])
    assert egress.parse([",".join(map(str, rules))]) == rules, "written and read again"
    addresses = {rule.name: ["192.0.2.1"] for rule in rules if rule.name}
    script = egress.render(rules, addresses, ["192.0.2.53"])
    assert script.isascii(), "what nft reads is not plain"
    assert "include" not in script.split(), "nft reads something else"


def _sysctl(text: str) -> None:
    name, _, value = text.partition("=")
    limits.check_sysctl(name, value)
    assert os.path.normpath(f"/proc/sys/{name.replace('.', '/')}").startswith("/proc/sys/"), "a name climbs"
    assert "\n" not in value, "two lines"


def _duration(text: str) -> None:
    seconds = parse_duration(text)
    if seconds == int(seconds) and 0 <= seconds < 1e9:
        assert parse_duration(render_duration(seconds)) == seconds, "written and read again"


def _platform(text: str) -> None:
    found = Platform.parse(text)
    assert Platform.parse(str(found)) == found, "written and read again"


def _prefix(text: str) -> None:
    found = typed_prefix(text)
    assert typed_prefix(found) == found, "typed again it is another"


def _name(text: str) -> None:
    found = names.parse(text)
    assert "/" not in found, "a name is a path"
    assert found not in {"", ".", ".."}, "a name is a directory"
    assert found.isprintable(), "a name is no word"


PARSERS: dict[str, Callable[[str], object]] = {
    "volume": _volume,
    "device": shorthand.parse_device,
    "port": _port,
    "seccomp": shorthand.parse_seccomp,
    "boolean": parse_boolean,
    "ulimit": limits.parse_ulimit,
    "rate": lambda text: limits.parse_device_rate("read-bps", text),
    "cpus": lambda text: limits.parse_cpus(text, "cpus"),
    "sysctl": _sysctl,
    "egress": _egress,
    "duration": _duration,
    "since": lambda text: _time(text, "--since"),
    "platform": _platform,
    "prefix": _prefix,
    "keys": parse_detach_keys,
    "mode": parse_mode,
    "owner": lambda text: check_owner(text, "user"),
    "name": _name,
    "appc": AppcReference.parse,
}


def read_flag(text: str) -> None:
    """A value is understood, always as the same, or the flag is refused before there is a pod."""
    kind, _, value = text.partition(" ")
    if kind not in PARSERS or "\0" in value:
        raise UsageError("no such flag, or what no argument can have")
    PARSERS[kind](value)


def read_lock(data: bytes) -> None:
    """A lock file is understood in full, or refused as none."""
    with tempfile.NamedTemporaryFile(prefix="rkt-fuzz-", buffering=0) as file:
        file.write(data)
        lock = load_lock(file.name)
        again: Any = lock.to_json()
        assert again["format"] == FORMAT, "another format"
        file.seek(0)
        file.truncate()
        file.write(jsontext.dump(again).encode())
        assert load_lock(file.name).to_json() == again, "written and read again"


TARGETS = (
    Target(
        name="flag",
        read=Text(read_flag),
        refuses=(UsageError, InvalidManifest),
        pieces=(*(f"{name} ".encode() for name in PARSERS), b",kind=host", b",source=/", b"kind=empty", b",readOnly=true", b",mode=0755", b",uid=0", b"allow:", b"deny:", b"deny",
                b"/24", b":443", b"/tcp", b"[::1]", b"::/0", b"192.0.2.0", b"example.com", b"mode=retain", b"errno=EPERM", b"@rkt/default-whitelist", b"nofile=", b"unlimited",
                b"/dev/null:", b"1h30m", b"300ms", b"2026-01-31T12:00:00Z", b"+99:99", b"ctrl-", b"linux/arm64/v8", b"net.ipv4.", b"..", b"\xd9\xa3", b"\xc2\xb2", b"9" * 30, b"-1",
                b"docker.io/", b"*", b"\n", b"\xff"),
        max_bytes=512,
        shows_all=True,
    ),
    Target(
        name="lock-file",
        read=read_lock,
        refuses=(UsageError,),
        pieces=(*JSON_PIECES, b'"format"', b'"version"', b'"stage1"', b'"apps"', b'"volumes"', b'"id"', b'"signers"', b'"dependencies"', FORMAT.encode()),
    ),
)  # fmt: skip
