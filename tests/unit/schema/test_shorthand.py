# SPDX-License-Identifier: Apache-2.0
import pytest

from rkt.errors import UsageError
from rkt.schema.appc import ExposedPort, Volume
from rkt.schema.isolators import Isolator, NameSet
from rkt.schema.shorthand import parse_port, parse_seccomp, parse_volume
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


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("foo:123", ExposedPort(name=ACName("foo"), host_port=123)),
        ("foo:127.0.0.1:65535", ExposedPort(name=ACName("foo"), host_port=65535, host_ip="127.0.0.1")),
        ("foo:[::1]:80", ExposedPort(name=ACName("foo"), host_port=80, host_ip="::1")),
    ],
)
def test_port(text: str, port: ExposedPort) -> None:
    """A port is name:[ip:]port."""
    assert parse_port(text) == port


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
