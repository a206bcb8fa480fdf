# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from rkt.errors import InvalidManifest
from rkt.linux import capabilities
from rkt.schema import isolators
from rkt.schema.isolators import AppArmorProfile, Isolator, NameSet, Resource, SELinuxContext

RETAIN = "os/linux/capabilities-retain-set"
REMOVE = "os/linux/capabilities-remove-set"
CALLS_RETAIN = "os/linux/seccomp-retain-set"
CALLS_REMOVE = "os/linux/seccomp-remove-set"


def one(name: str, value: Any) -> Any:
    """The typed value of a single isolator of an app."""
    (isolator,) = isolators.parse_isolators([{"name": name, "value": value}], pod=False)
    assert isolator.name == name
    return isolator.value


GOOD: list[tuple[str, Any, Any]] = [
    (RETAIN, {"set": ["CAP_KILL", "CAP_CHOWN"]}, NameSet(names=["CAP_KILL", "CAP_CHOWN"])),
    (REMOVE, {"set": ["CAP_KILL"]}, NameSet(names=["CAP_KILL"])),
    (CALLS_RETAIN, {"set": ["@appc.io/all"]}, NameSet(names=["@appc.io/all"])),
    (CALLS_RETAIN, {"set": ["read", "_llseek"], "errno": ""}, NameSet(names=["read", "_llseek"])),
    (CALLS_REMOVE, {"set": ["stat"], "errno": "EXFULL"}, NameSet(names=["stat"], errno="EXFULL")),
    (
        CALLS_REMOVE,
        {"set": ["@systemd/clock"], "errno": "E2BIG"},
        NameSet(names=["@systemd/clock"], errno="E2BIG"),
    ),
    ("os/linux/no-new-privileges", True, True),
    ("os/linux/oom-score-adj", -1000, -1000),
    ("os/linux/cpu-shares", 262144, 262144),
    (
        "os/linux/selinux-context",
        {"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"},
        SELinuxContext(user="u", role="r", type="t", level="s0:c1,c2"),
    ),
    ("os/linux/apparmor-profile", {"profile": "p"}, AppArmorProfile(profile="p")),
    (
        "resource/cpu",
        {"limit": "500m"},
        Resource(limit="500m", request="500m", limit_amount=500, request_amount=500),
    ),
    (
        "resource/memory",
        {"Request": "1Ki", "LIMIT": 4194304, "default": False},
        Resource(limit="4194304", request="1Ki", limit_amount=4194304, request_amount=1024),
    ),
    ("resource/memory", {"request": 1}, Resource(request="1", request_amount=1)),
    (
        "resource/block-iops",
        {"default": True, "limit": "5"},
        Resource(limit="5", limit_amount=5, default=True),
    ),
    (
        "resource/block-bandwidth",
        {"default": True, "limit": "5k"},
        Resource(limit="5k", limit_amount=5000, default=True),
    ),
    (
        "resource/network-bandwidth",
        {"default": True, "limit": "5k"},
        Resource(limit="5k", limit_amount=5000, default=True),
    ),
]


@pytest.mark.parametrize(("name", "value", "typed"), GOOD)
def test_values(name: str, value: Any, typed: Any) -> None:
    """Each isolator of spec cli §9.7 gives its typed value, and reads back from what it writes."""
    assert one(name, value) == typed
    written = Isolator(name=name, value=typed).to_json()
    assert isolators.parse_isolators([written], pod=False) == [Isolator(name=name, value=typed)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (RETAIN, {"set": []}),
        (RETAIN, {}),
        (RETAIN, ["CAP_KILL"]),
        (RETAIN, {"set": ["KILL"]}),
        (RETAIN, {"set": ["CAP_KILL\n"]}),
        (RETAIN, {"set": ["cap_kill"]}),
        (RETAIN, {"set": [7]}),
        (CALLS_REMOVE, {"set": []}),
        (CALLS_REMOVE, {"set": [""]}),
        (CALLS_REMOVE, {"set": ["~read"]}),
        (CALLS_REMOVE, {"set": ["@unknown/group"]}),
        (CALLS_REMOVE, {"set": ["stat"], "errno": "5"}),
        (CALLS_REMOVE, {"set": ["stat"], "errno": "Eperm"}),
        (CALLS_REMOVE, {"set": ["stat"], "errno": 5}),
        ("os/linux/no-new-privileges", "true"),
        ("os/linux/no-new-privileges", 1),
        ("os/linux/no-new-privileges", None),
        ("os/linux/oom-score-adj", 1001),
        ("os/linux/oom-score-adj", -1001),
        ("os/linux/oom-score-adj", 1.0),
        ("os/linux/oom-score-adj", True),
        ("os/linux/cpu-shares", 1),
        ("os/linux/cpu-shares", 262145),
        ("os/linux/selinux-context", {"user": "u", "role": "r"}),
        ("os/linux/selinux-context", {"user": "u:v", "role": "r", "type": "t"}),
        ("os/linux/selinux-context", {"user": "u\n", "role": "r", "type": "t"}),
        ("os/linux/apparmor-profile", {}),
        ("resource/cpu", {}),
        ("resource/cpu", {"limit": "-1"}),
        ("resource/cpu", {"limit": "1x"}),
        ("resource/memory", {"limit": "1", "default": True}),
        ("resource/memory", {"limit": "1", "Limit": "2"}),
        ("resource/block-iops", {"limit": "5"}),
        ("resource/block-iops", {"default": True}),
        ("resource/block-iops", {"default": True, "limit": "5", "request": "5"}),
        ("os/unix/sysctl", {"net.ipv4.ip_forward": "1"}),
        ("example.com/unknown", True),
    ],
)
def test_values_that_are_bad(name: str, value: Any) -> None:
    """A value outside its rules, an unknown isolator, or one that only pods have is refused on an app."""
    with pytest.raises(InvalidManifest):
        one(name, value)


def test_unknown_on_an_app() -> None:
    """An unknown isolator on an app is refused in the library's words."""
    with pytest.raises(InvalidManifest, match="invalid isolator"):
        one("example.com/x", {})


def test_pod_scope() -> None:
    """A pod may have sysctls, and isolators that nobody knows are kept as they are."""
    raw = [
        {"name": "os/unix/sysctl", "value": {"net.ipv4.ip_forward": "1"}},
        {"name": "example.com/x", "value": [1, {"a": None}]},
        {"name": "example.com/x", "value": None},
    ]
    assert [isolator.to_json() for isolator in isolators.parse_isolators(raw, pod=True)] == raw
    with pytest.raises(InvalidManifest, match="sysctl"):
        isolators.parse_isolators([{"name": "os/unix/sysctl", "value": {"a": 1}}], pod=True)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([(RETAIN, {"set": ["CAP_KILL"]})] * 2, "appears twice"),
        ([("os/linux/cpu-shares", 2), ("os/linux/cpu-shares", 3)], "appears twice"),
        ([(RETAIN, {"set": ["CAP_KILL"]}), (REMOVE, {"set": ["CAP_KILL"]})], "conflict"),
        (
            [(CALLS_RETAIN, {"set": ["read"]}), (CALLS_REMOVE, {"set": ["stat"]})],
            "too many seccomp isolators specified",
        ),
        (
            [(CALLS_RETAIN, {"set": ["read"]}), (CALLS_RETAIN, {"set": ["stat"]})],
            "too many seccomp isolators specified",
        ),
    ],
)
def test_together(elements: list[tuple[str, Any]], message: str) -> None:
    """Repetitions and conflicts are refused where the specification says so."""
    raw = [{"name": name, "value": value} for name, value in elements]
    with pytest.raises(InvalidManifest, match=message):
        isolators.parse_isolators(raw, pod=False)


def test_last_one_wins() -> None:
    """Of several memory isolators the last one counts, none gives nothing."""
    parsed = isolators.parse_isolators(
        [{"name": "resource/memory", "value": {"limit": size}} for size in ("1Mi", "2Mi")], pod=False
    )
    assert isolators.last(parsed, isolators.MEMORY).limit_amount == 2 << 20
    assert isolators.last(parsed, isolators.CPU) is None


@pytest.mark.parametrize(
    ("values", "default", "expected"),
    [([], True, True), ([], False, False), ([False], True, False), ([False, True], False, True)],
)
def test_no_new_privileges(values: list[bool], default: bool, expected: bool) -> None:
    """One isolator that is true is enough (spec runtime §6.7 S8 and S9)."""
    parsed = isolators.parse_isolators(
        [{"name": isolators.NO_NEW_PRIVILEGES, "value": v} for v in values], pod=False
    )
    assert isolators.no_new_privileges(parsed, default=default) is expected


def test_retained_capabilities() -> None:
    """Retain is exactly that set, remove takes from the default, nothing is the default (spec runtime §3.11)."""
    default = list(isolators.DEFAULT_CAPABILITIES)
    assert isolators.retained_capabilities([]) == default
    for name, names, expected in (
        (RETAIN, ["CAP_NET_ADMIN", "CAP_NET_ADMIN"], ["CAP_NET_ADMIN"]),
        (REMOVE, ["CAP_CHOWN", "CAP_SYS_ADMIN"], default[1:]),
        (REMOVE, default, []),
    ):
        assert isolators.retained_capabilities([Isolator(name=name, value=NameSet(names=names))]) == expected


def test_the_default_is_eleven_capabilities_and_none_of_the_dangerous_ones() -> None:
    """Invariant RN10, also as the mask the kernel gets."""
    assert len(isolators.DEFAULT_CAPABILITIES) == 11
    assert capabilities.mask(isolators.DEFAULT_CAPABILITIES) == 0x800405FB
    for name in ("CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"):
        assert name not in isolators.DEFAULT_CAPABILITIES


def narrow(names: list[str]) -> list[str]:
    """A default filter that allows reading and writing only."""
    return [name for name in names if name in {"read", "write"}]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        (RETAIN, NameSet(names=["CAP_KILL", "CAP_SYS_ADMIN"]), [(RETAIN, NameSet(names=["CAP_KILL"]))]),
        (
            RETAIN,
            NameSet(names=["CAP_SYS_ADMIN"]),
            [(REMOVE, NameSet(names=list(isolators.DEFAULT_CAPABILITIES)))],
        ),
        (CALLS_RETAIN, NameSet(names=["@appc.io/all"]), []),
        (CALLS_RETAIN, NameSet(names=["bpf"]), []),
        (
            CALLS_RETAIN,
            NameSet(names=["read", "bpf"], errno="EIO"),
            [(CALLS_RETAIN, NameSet(names=["read"], errno="EIO"))],
        ),
        (isolators.NO_NEW_PRIVILEGES, False, []),
        (isolators.OOM_SCORE_ADJ, -1, []),
        (isolators.CPU_SHARES, 1025, []),
        (isolators.SELINUX_CONTEXT, SELinuxContext(user="u", role="r", type="t"), []),
        (isolators.APPARMOR_PROFILE, AppArmorProfile(profile="unconfined"), []),
    ],
)
def test_images_cannot_loosen(name: str, value: Any, kept: list[tuple[str, Any]]) -> None:
    """An image's wish for more than the default is cut down to the default (design §9.4)."""
    tightened, _ = isolators.tighten([Isolator(name=name, value=value)], narrow)
    assert [(isolator.name, isolator.value) for isolator in tightened] == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (RETAIN, NameSet(names=["CAP_KILL"])),
        (REMOVE, NameSet(names=["CAP_KILL"])),
        (CALLS_RETAIN, NameSet(names=["read", "write"])),
        (CALLS_REMOVE, NameSet(names=["stat"], errno="EXFULL")),
        (isolators.NO_NEW_PRIVILEGES, True),
        (isolators.OOM_SCORE_ADJ, 0),
        (isolators.CPU_SHARES, 1024),
        (isolators.MEMORY, Resource(limit="1", limit_amount=1)),
    ],
)
def test_images_may_tighten(name: str, value: Any) -> None:
    """What confines an app more than the default stays, without a word."""
    isolator = Isolator(name=name, value=value)
    assert isolators.tighten([isolator], narrow) == ([isolator], [])


def test_refused_wishes_are_told() -> None:
    """Each capability that was not granted is named, with the flag that grants it."""
    _, notices = isolators.tighten(
        [Isolator(name=RETAIN, value=NameSet(names=["CAP_KILL", "CAP_BPF"]))], narrow
    )
    assert notices == ["CAP_BPF: give them by --caps-retain"]
