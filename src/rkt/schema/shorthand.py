# SPDX-License-Identifier: Apache-2.0
"""The short forms in which flags write volumes, ports and system call filters (spec cli §1.7).

Values are split at commas only, and taken as they are: no escapes, so no commas in paths.
"""

from __future__ import annotations

from rkt.errors import InvalidManifest, UsageError, quoted
from rkt.schema.appc import (
    DEFAULT_ACCESS,
    MAX_ID,
    VOLUME_DEVICE,
    ExposedPort,
    Mount,
    Port,
    Volume,
    make_volume,
    parse_mode,
)
from rkt.schema.isolators import SECCOMP_REMOVE, SECCOMP_RETAIN, Isolator, seccomp_set
from rkt.values import ACName, is_ipv4, is_ipv6, is_number, parse_boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PORT_EXAMPLE = "--port=NAME:HOSTPORT, or by number: --port=8080:80, --port=127.0.0.1:8080:80/udp"
_VOLUME_KEYS = frozenset(("kind", "source", "readOnly", "recursive", "mode", "uid", "gid", "size", "access"))


def parse_volume(text: str, *, flag: str = "--volume") -> Volume:
    """``NAME,kind=KIND[,source=PATH][,readOnly=BOOL][,recursive=BOOL][,mode=OCTAL][,uid=N][,gid=N][,size=N][,access=rwm]``.

    Raises:
        UsageError: ``invalid value in --volume flag …``, or what else ``flag`` is called, and what is wrong with it.
    """
    try:
        name, *options = text.split(",")
        values = _options(options, _VOLUME_KEYS, "volume")
        mode = values.get("mode")
        return make_volume(
            name=ACName.parse(name, what="volume name"),
            kind=values.get("kind", ""),
            source=values.get("source", ""),
            read_only=parse_boolean(values["readOnly"]) if "readOnly" in values else None,
            recursive=parse_boolean(values["recursive"]) if "recursive" in values else None,
            mode=None if mode is None else parse_mode(mode),
            uid=_id(values["uid"], "uid") if "uid" in values else None,
            gid=_id(values["gid"], "gid") if "gid" in values else None,
            size=values.get("size"),
            access=values.get("access"),
        )
    except (UsageError, InvalidManifest) as e:
        raise UsageError(f"invalid value in {flag} flag {quoted(text)}: {e}") from e


def parse_device(text: str) -> Mount:
    """``/dev/PATH[:/TARGET][:rwm]``: a device of the host, at the same place in the app unless another is given.

    Raises:
        UsageError: ``invalid value in --device flag …``, and what is wrong with it.
    """
    source, *more = text.split(":")
    target = more.pop(0) if more and more[0].startswith("/") else source
    access = more.pop(0) if more else DEFAULT_ACCESS
    try:
        if more:
            raise UsageError("at most a source, a target and the access are expected")
        name = ACName.sanitize(source)
        volume = make_volume(name=name, kind=VOLUME_DEVICE, source=source, access=access)
    except (UsageError, InvalidManifest) as e:
        raise UsageError(
            f"invalid value in --device flag {quoted(text)}: {e}", hint="--device=/dev/fuse:rw"
        ) from e
    return Mount(volume=name, path=target, app_volume=volume)


def parse_port(text: str, declared: frozenset[str] = frozenset()) -> ExposedPort:
    """``NAME:[HOSTIP:]HOSTPORT`` or ``[HOSTIP:]HOSTPORT:PODPORT[/PROTOCOL]``; an IPv6 address stands in brackets.

    Args:
        text: value of ``--port``.
        declared: names of the ports of the pod's images; one that looks like a number is a name all the same, as in rkt.
    Raises:
        UsageError: with rkt's words on the part that is wrong.
    """
    head, colon, rest = text.partition(":")
    if (
        text.startswith("[")
        or is_ipv4(head)
        or (is_number(head) and head not in declared and ":" not in rest)
    ):
        return _numbered_port(text)
    name = head
    host_ip, has_ip, port = rest.rpartition(":")
    bracketed = host_ip.startswith("[") and host_ip.endswith("]")
    if not colon or (":" in host_ip and not bracketed):
        raise UsageError(f"{quoted(text)} is not in name:[ip:]port format", hint=_PORT_EXAMPLE)
    return ExposedPort(
        name=_port_name(name),
        host_port=_port_number(port),
        host_ip=_host_address(host_ip) if has_ip else "",
    )


def parse_sandbox_port(text: str) -> ExposedPort:
    """``NAME:PROTOCOL:PODPORT:HOSTIP:HOSTPORT``, where no image declares ports, or all by number as in ``parse_port``.

    Raises:
        UsageError: with rkt's words on the part that is wrong.
    """
    name, _, rest = text.partition(":")
    protocol, _, rest = rest.partition(":")
    pod_port, _, rest = rest.partition(":")
    host_ip, colon, host_port = rest.rpartition(":")
    if ":" in text and (text.startswith("[") or is_ipv4(name) or (is_number(name) and not colon)):
        return _numbered_port(text)
    if not colon or (":" in host_ip and not host_ip.startswith("[")):
        raise UsageError(
            f"--port invalid format: {quoted(text)}", hint="--port=NAME:PROTOCOL:PODPORT:HOSTIP:HOSTPORT"
        )
    port_name = _port_name(name)
    return ExposedPort(
        name=port_name,
        host_port=_port_number(host_port),
        host_ip=_host_address(host_ip),
        pod_port=Port(name=port_name, protocol=_protocol(protocol), port=_port_number(pod_port)),
    )


def _numbered_port(text: str) -> ExposedPort:
    host_ip, ports = "", text
    if text.startswith("["):
        address, bracket, ports = text.partition("]:")
        host_ip = f"{address}]" if bracket else ""
    elif is_ipv4(text.partition(":")[0]):
        host_ip, _, ports = text.partition(":")
    host_port, colon, target = ports.partition(":")
    pod_port, slash, protocol = target.partition("/")
    if not colon or ":" in target:
        raise UsageError(f"{quoted(text)} is not in name:[ip:]port format", hint=_PORT_EXAMPLE)
    number = _port_number(pod_port)
    protocol = _protocol(protocol) if slash else "tcp"
    name = ACName(f"{number}-{protocol}")
    return ExposedPort(
        name=name,
        host_port=_port_number(host_port),
        host_ip=_host_address(host_ip) if host_ip else "",
        pod_port=Port(name=name, protocol=protocol, port=number),
    )


def _port_name(text: str) -> ACName:
    try:
        return ACName.parse(text, what="port name")
    except InvalidManifest as e:
        raise UsageError(f"{quoted(text)} is not a valid port name: {e}", hint=_PORT_EXAMPLE) from e


def _port_number(text: str) -> int:
    if not is_number(text, most_digits=5) or not 1 <= int(text) <= 65535:
        raise UsageError(f"{quoted(text)} is not a valid port number")
    return int(text)


def _host_address(text: str) -> str:
    bracketed = text.startswith("[") and text.endswith("]")
    address = text[1:-1] if bracketed else text
    if not (is_ipv6(address) if bracketed else is_ipv4(address)):
        raise UsageError(f"{quoted(address)} is not a valid IP")
    return address


def _protocol(text: str) -> str:
    if text not in {"tcp", "udp"}:
        raise UsageError(f"invalid protocol {quoted(text)}", hint="tcp or udp")
    return text


_SECCOMP_EXAMPLE = "--seccomp=mode=remove,errno=EPERM,chown,fchown"


def parse_seccomp(text: str) -> Isolator:
    """``mode=retain|remove[,errno=E],SYSCALL,…``, keys in any order.

    Raises:
        UsageError: the mode is missing or bad, another key, or a bad name.
    """
    mode = errno = ""
    names: list[str] = []
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if not equals:
            names.append(word)
        elif key == "mode" and not mode:
            mode = value
        elif key == "errno" and not errno:
            errno = value
        else:
            raise UsageError(f"invalid seccomp command-line override: {quoted(word)}", hint=_SECCOMP_EXAMPLE)
    if mode not in {"retain", "remove"}:
        raise UsageError(f"invalid seccomp mode command-line override: {quoted(mode)}", hint=_SECCOMP_EXAMPLE)
    try:
        value_set = seccomp_set(names, errno, "--seccomp")
    except InvalidManifest as e:
        raise UsageError(str(e)) from e
    return Isolator(name=SECCOMP_RETAIN if mode == "retain" else SECCOMP_REMOVE, value=value_set)


def _options(words: Sequence[str], known: frozenset[str], what: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known:
            raise UsageError(f"unknown {what} parameter {quoted(key)}")
        if not equals:
            raise UsageError(f"{what} parameter {quoted(key)} has no value")
        if key in values:
            raise UsageError(f"{what} parameter {quoted(key)} is given twice")
        values[key] = value
    return values


def _id(text: str, what: str) -> int:
    if not is_number(text, most_digits=10) or int(text) > MAX_ID:
        raise UsageError(f"invalid {what} {quoted(text)}: ids go from 0 to {MAX_ID}")
    return int(text)
