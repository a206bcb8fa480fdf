# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import resource
from typing import Any

import pytest

from rkt.errors import InvalidManifest
from rkt.schema import limits


@pytest.mark.parametrize(
    ("text", "name", "soft", "hard"),
    [
        ("nofile=1024:2048", "nofile", 1024, 2048),
        ("nofile=1024", "nofile", 1024, 1024),
        ("core=0", "core", 0, 0),
        ("memlock=unlimited", "memlock", -1, -1),
        ("stack=8388608:-1", "stack", 8388608, -1),
        ("nproc=0:unlimited", "nproc", 0, -1),
    ],
)
def test_ulimit(text: str, name: str, soft: int, hard: int) -> None:
    """A limit has a name, a soft value, and a hard one that defaults to it."""
    assert limits.parse_ulimit(text) == (name, {"soft": soft, "hard": hard})


@pytest.mark.parametrize(
    "text",
    ["", "nofile", "nofile=", "nofile=a", "nofile=1:", "nofile=1:2:3", "nofile=-2", "nofile=unlimited:5", "nofile=3:2",
     "NOFILE=1", "locks=1", "nofile=1.5", "nofile=99999999999999999999", "nofile= 1"],
)  # fmt: skip
def test_bad_ulimit(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidManifest):
        limits.parse_ulimit(text)


def test_names_are_the_kernels() -> None:
    """Every name is one that setrlimit(2) has here."""
    assert all(hasattr(resource, f"RLIMIT_{name.upper()}") for name in limits.RLIMIT_NAMES)


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"nofile": 5}, {"nofile": {}}, {"nofile": {"soft": 1}}, {"nofile": {"hard": True}}, {"x": {"hard": 1}},
     {"nofile": {"hard": 1, "other": 2}}, {"nofile": {"hard": 1.5}}],
)  # fmt: skip
def test_bad_rlimits(value: Any) -> None:
    """An isolator that says something else is refused."""
    with pytest.raises(InvalidManifest):
        limits.read_rlimits(value, "isolator")


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", {0}), ("0-3,6", {0, 1, 2, 3, 6}), ("2-2", {2}), ("1,1", {1})]
)
def test_cpus(text: str, cpus: set[int]) -> None:
    """Ranges and single numbers, as the kernel writes them."""
    assert limits.parse_cpus(text, "list") == cpus


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "-1", "1-", "3-1", "a", "1-2-3", "99999", "0 1", None, 5, "0-8192"]
)
def test_bad_cpus(text: object) -> None:
    """A list that cannot be read is refused."""
    with pytest.raises(InvalidManifest):
        limits.parse_cpus(text, "list")


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("net.core.somaxconn", "net"),
        ("net.ipv4.conf.eth0.rp_filter", "net"),
        ("net.ipv6.conf.all.disable_ipv6", "net"),
        ("kernel.sem", "ipc"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel.msgmax", "ipc"),
        ("fs.mqueue.queues_max", "ipc"),
        ("kernel.domainname", "uts"),
    ],
)
def test_sysctls_of_a_pod(name: str, namespace: str) -> None:
    """Each belongs to one of the pod's own namespaces."""
    assert limits.check_sysctl(name, "1") == namespace


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.core_pattern", "x"),
        ("kernel.hostname", "x"),
        ("kernel.msg", "1"),
        ("kernel.semx", "1"),
        ("kernel.sem.x", "1"),
        ("fs.mqueue", "1"),
        ("fs.mqueue.", "1"),
        ("net", "1"),
        ("net.core", "1"),
        ("net.core.", "1"),
        (".net.core.x", "1"),
        ("net/core/somaxconn", "1"),
        ("net.core.somaxconn+kernel.core_pattern", "1"),
        ("net.core.somaxconn", "1+kernel.core_pattern=x"),
        ("net.core.somaxconn", "1\n2"),
        ("net.core.somaxconn", ""),
        ("net.core.somaxconn", " "),
        ("net.core.somaxconn", "1" * 1025),
        ("net.core.somaxconn", 1),
        ("net.core.-x", "1"),
        ("net.core.\u0131", "1"),
        ("net.core.x\0", "1"),
    ],
)
def test_sysctls_of_nobody(name: str, value: object) -> None:
    """The host's parameters, malformed names and values are refused (CVE-2022-0811)."""
    with pytest.raises(InvalidManifest):
        limits.check_sysctl(name, value)


def test_device_rates() -> None:
    """A flag is one element of the isolator; rates are quantities."""
    limit = {"device": "/dev/disk/by-id/a:b", "read-bps": 1500000}
    assert limits.parse_device_rate("read-bps", "/dev/disk/by-id/a:b:1.5M") == limit
    assert limits.read_io_limits([limit], "isolator") == [limit]


@pytest.mark.parametrize(
    "value",
    [None, [], {}, [{}], [{"device": "/dev/sda"}], [{"device": "sda", "read-bps": 1}], [{"read-bps": 1, "write-bps": 1}],
     [{"device": "/dev/sda", "read-bps": 0}], [{"device": "/dev/sda", "speed": 1}], [{"device": "/dev/../x", "read-bps": 1}],
     [{"device": "/dev/sda", "read-bps": "fast"}]],
)  # fmt: skip
def test_bad_device_rates(value: Any) -> None:
    """A limit of a disk names a device by its absolute path, and rates above 0."""
    with pytest.raises(InvalidManifest):
        limits.read_io_limits(value, "isolator")
