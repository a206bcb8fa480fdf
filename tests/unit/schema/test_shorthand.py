# SPDX-License-Identifier: Apache-2.0
import pytest

from rkt.errors import UsageError
from rkt.schema.appc import ExposedPort, Port, Volume
from rkt.schema.isolators import Isolator, NameSet
from rkt.schema.shorthand import parse_port, parse_sandbox_port, parse_seccomp, parse_volume
from rkt.values import ACName


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("data,kind=host,source=/srv/a:b", Volume(name=ACName("data"), kind="host", source="/srv/a:b")),
        (
            "data,kind=host,source=/a%2F+b;c&d=e,readOnly=true,recursive=false",
            Volume(name=ACName("data"), kind="host", source="/a%2F+b;c&d=e", read_only=True, recursive=False),
        ),
        ("tmp,kind=empty", Volume(name=ACName("tmp"), kind="empty", mode=0o755, uid=0, gid=0)),
        (
            "tmp,kind=empty,mode=0123,uid=9991,gid=9992,readOnly=0",
            Volume(name=ACName("tmp"), kind="empty", mode=0o123, uid=9991, gid=9992, read_only=False),
        ),
    ],
)
def test_volume(text: str, volume: Volume) -> None:
    """Volumes of both kinds get their options and defaults (spec cli §1.7)."""
    assert parse_volume(text) == volume


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data",
        "Data,kind=empty",
        "../x,kind=empty",
        "data,kind=disk",
        "data,kind=host",
        "data,kind=host,source=srv",
        "data,kind=host,source=/srv,mode=0755",
        "data,kind=host,source=/srv,uid=0",
        "data,kind=host,source=/srv,gid=0",
        "data,kind=empty,source=/srv",
        "data,kind=empty,mode=0999",
        "data,kind=empty,mode=",
        "data,kind=empty,mode=17777777",
        "data,kind=empty,uid=-1",
        "data,kind=empty,uid=4294967295",
        "data,kind=empty,uid=root",
        "data,kind=empty,kind=empty",
        "data,kind=empty,size=5",
        "data,kind=empty,readOnly",
        "data,kind=empty,readOnly=maybe",
        "data,kind=host,source=/a,b",
        "data,kind=empty,",
    ],
)
def test_volume_that_is_bad(text: str) -> None:
    """Whatever is wrong with a volume, the message shows the flag's value."""
    with pytest.raises(UsageError) as caught:
        parse_volume(text)
    assert str(caught.value).startswith(f'invalid value in --volume flag "{text}": ')


def numbered(
    host_port: int, pod_port: int, protocol: str = "tcp", host_ip: str = "", name: str = ""
) -> ExposedPort:
    """A port by number."""
    given = ACName(name or f"{pod_port}-{protocol}")
    target = Port(name=given, protocol=protocol, port=pod_port)
    return ExposedPort(name=given, host_port=host_port, host_ip=host_ip, pod_port=target)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("foo:123", ExposedPort(name=ACName("foo"), host_port=123)),
        ("foo:127.0.0.1:65535", ExposedPort(name=ACName("foo"), host_port=65535, host_ip="127.0.0.1")),
        ("foo:[::1]:80", ExposedPort(name=ACName("foo"), host_port=80, host_ip="::1")),
        ("8080:80", numbered(8080, 80)),
        ("8080:80/tcp", numbered(8080, 80)),
        ("53:5353/udp", numbered(53, 5353, "udp")),
        ("127.0.0.1:8080:80", numbered(8080, 80, host_ip="127.0.0.1")),
        ("[2001:db8::1]:8080:80/udp", numbered(8080, 80, "udp", "2001:db8::1")),
        ("8080:127.0.0.1:80", ExposedPort(name=ACName("8080"), host_port=80, host_ip="127.0.0.1")),
    ],
)
def test_port(text: str, port: ExposedPort) -> None:
    """A port is name:[ip:]port, or by number [ip:]port:port."""
    assert parse_port(text) == port


def test_port_whose_name_is_a_number() -> None:
    """What an image calls 80 is meant by 80, as in rkt; by number it is had with an address or a protocol."""
    declared = frozenset({"80"})
    assert parse_port("80:8080", declared) == ExposedPort(name=ACName("80"), host_port=8080)
    assert parse_port("8080:80", declared) == numbered(8080, 80)
    assert parse_port("0.0.0.0:80:8080", declared) == numbered(80, 8080, host_ip="0.0.0.0")


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("web:tcp:80:0.0.0.0:8080", numbered(8080, 80, host_ip="0.0.0.0", name="web")),
        ("dns:udp:53:[::1]:5353", numbered(5353, 53, "udp", "::1", name="dns")),
        ("8080:80/udp", numbered(8080, 80, "udp")),
        ("[::1]:8080:80", numbered(8080, 80, host_ip="::1")),
    ],
)
def test_port_of_a_sandbox(text: str, port: ExposedPort) -> None:
    """Where no image declares ports they are written out: name, protocol, both numbers, the address."""
    assert parse_sandbox_port(text) == port


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web:80", '--port invalid format: "web:80"'),
        ("web:tcp:80:8080", "--port invalid format"),
        ("web:tcp:80:::1:8080", "--port invalid format"),
        ("web:sctp:80:0.0.0.0:8080", 'invalid protocol "sctp"'),
        ("web:tcp:0:0.0.0.0:8080", '"0" is not a valid port number'),
        ("web:tcp:80::8080", '"" is not a valid IP'),
        ("WEB:tcp:80:0.0.0.0:8080", '"WEB" is not a valid port name'),
        ("80", "--port invalid format"),
        ("80:90:100", '"80:90:100" is not in name:[ip:]port format'),
    ],
)
def test_port_of_a_sandbox_that_is_bad(text: str, message: str) -> None:
    """Each wrong part is refused in rkt's words."""
    with pytest.raises(UsageError) as caught:
        parse_sandbox_port(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", '"foo" is not in name:[ip:]port format'),
        ("foo:::1:80", '"foo:::1:80" is not in name:[ip:]port format'),
        ("f$o:123", '"f$o" is not a valid port name'),
        ("foo:1.2.3:80", '"1.2.3" is not a valid IP'),
        ("foo:256.0.0.1:80", '"256.0.0.1" is not a valid IP'),
        ("foo:01.0.0.1:80", '"01.0.0.1" is not a valid IP'),
        ("foo:[::g]:80", '"::g" is not a valid IP'),
        ("foo:[1.2.3.4]:80", '"1.2.3.4" is not a valid IP'),
        ("foo::80", '"" is not a valid IP'),
        ("foo:0", '"0" is not a valid port number'),
        ("foo:65536", '"65536" is not a valid port number'),
        ("foo:x", '"x" is not a valid port number'),
        ("foo:", '"" is not a valid port number'),
        ("foo:+80", '"+80" is not a valid port number'),
        ("80", '"80" is not in name:[ip:]port format'),
        ("80:81:82", '"81" is not a valid IP'),
        ("80:0", '"0" is not a valid port number'),
        ("80:90/sctp", 'invalid protocol "sctp"'),
        ("80:90/", 'invalid protocol ""'),
        ("web:90/udp", '"90/udp" is not a valid port number'),
        ("1.2.3.4:80", '"1.2.3.4:80" is not in name:[ip:]port format'),
        ("[::1:80:90", '"[::1:80:90" is not in name:[ip:]port format'),
        ("[1.2.3.4]:80:90", '"1.2.3.4" is not a valid IP'),
        ("1.2.3.4:80:90:100", '"1.2.3.4:80:90:100" is not in name:[ip:]port format'),
    ],
)
def test_port_that_is_bad(text: str, message: str) -> None:
    """Each wrong part of a port is refused in rkt's words."""
    with pytest.raises(UsageError) as caught:
        parse_port(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("mode=retain,@appc.io/all", "os/linux/seccomp-retain-set", NameSet(names=["@appc.io/all"])),
        (
            "mode=remove,errno=EXFULL,stat",
            "os/linux/seccomp-remove-set",
            NameSet(names=["stat"], errno="EXFULL"),
        ),
        ("stat,mode=remove,open", "os/linux/seccomp-remove-set", NameSet(names=["stat", "open"])),
    ],
)
def test_seccomp(text: str, name: str, value: NameSet) -> None:
    """Mode and error stand anywhere among the system calls."""
    assert parse_seccomp(text) == Isolator(name=name, value=value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stat", "invalid seccomp mode command-line override"),
        ("mode=keep,stat", "invalid seccomp mode command-line override"),
        ("mode=retain,color=red,stat", "invalid seccomp command-line override"),
        ("mode=retain,mode=retain,stat", "invalid seccomp command-line override"),
        ("mode=retain", "--seccomp must not be empty"),
        ("mode=retain,", 'invalid system call ""'),
        ("mode=retain,@nope", "unknown seccomp wildcard"),
        ("mode=remove,errno=no,stat", 'invalid errno "no"'),
    ],
)
def test_seccomp_that_is_bad(text: str, message: str) -> None:
    """Bad modes, keys, names and errors are refused in rkt's words."""
    with pytest.raises(UsageError) as caught:
        parse_seccomp(text)
    assert message in str(caught.value)
