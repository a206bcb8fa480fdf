# SPDX-License-Identifier: Apache-2.0
"""What is said of hosts that nobody here has (``stage0.host.judge``), and how it looks."""

from __future__ import annotations

import errno
import struct

import pytest

from rkt.cli.check_host_text import render
from rkt.stage0.host import bus
from rkt.stage0.host.attempt import CannotTry, attempt
from rkt.stage0.host.facts import FLAVORS, UNSEEN, Facts, Trial
from rkt.stage0.host.judge import AREAS, Finding, Verdict, judge, verdicts
from rkt.stage0.host.needs import KERNEL, NETWORK, NSPAWN, PROGRAMS

YES = Trial(done=True)
#: What is tried beside the tables.
OTHERS = {
    "system call filters": YES,
    "Landlock": Trial(done=True, text="7"),
    "device program": YES,
    "kvm": YES,
    "tpm": YES,
    "machined": YES,
    "journal": YES,
    "SELinux": Trial(text="", errno=errno.ENOENT),
    "AppArmor": Trial(errno=errno.ENOENT),
    "freezer": YES,
    "cgroup.kill": YES,
    "writable": YES,
    "overlay": YES,
    "idmapped mounts": YES,
    "reflinks": YES,
}
ALL_TRIALS = OTHERS | {
    name: YES for each in (*KERNEL, *NETWORK, *PROGRAMS, *NSPAWN) for name in each.trials or (each.name,)
}
PERFECT = Facts(
    release="6.12.0",
    machine="x86_64",
    trials=ALL_TRIALS,
    layout="version 2",
    controllers=dict.fromkeys(("memory", "pids", "cpu", "cpuset", "io"), YES),
    file_system="xfs",
    free_bytes=100 << 30,
    free_inodes=10**7,
    init="systemd",
    time_seconds=2e9,
    installed_seconds=1.9e9,
    plugins={"bridge": "/usr/lib/cni/bridge", "host-local": "/usr/lib/cni/host-local"},
    default_flavor="ns",
    flavors=["ns", "nspawn", "fly"],
)


def with_trial(name: str, trial: Trial, facts: Facts = PERFECT) -> Facts:
    """A host on which one thing ends otherwise."""
    assert name in facts.trials
    return facts.replace(trials={**facts.trials, name: trial})


def judged(facts: Facts) -> tuple[dict[str, Finding], dict[str, Verdict]]:
    """Findings by name, verdicts by flavour."""
    findings = judge(facts)
    assert len({each.name for each in findings}) == len(findings)
    assert {each.area for each in findings} <= set(AREAS)
    return {each.name: each for each in findings}, {each.flavor: each for each in verdicts(facts, findings)}


def test_how_many_pods_of_nspawn_there_is_room_for() -> None:
    """The systemd of each takes three inotify instances of those that a user may have."""
    findings, _ = judged(with_trial("inotify", Trial(done=True, text="128")))
    assert findings["inotify"].text == "128 instances for each user, enough for 42 pods of nspawn at once"


def test_a_host_that_has_everything() -> None:
    """Every flavour that is built is ready, nothing is to be done, and kvm is said not to be built."""
    findings, flavors = judged(PERFECT)
    assert {each.state for each in findings.values()} <= {"ok", "none"}
    assert [flavors[name].state for name in FLAVORS] == ["ready", "ready", "ready", "not-built"]
    assert not any(each.reasons or each.hints for each in flavors.values())
    assert flavors["ns"].is_default
    assert not flavors["kvm"].can_run


@pytest.mark.parametrize(
    ("trial", "number", "finding", "states", "words"),
    [
        ("mnt namespace", errno.EPERM, "mount namespace", "missing missing missing", "CAP_SYS_ADMIN"),
        ("pid namespace", errno.EINVAL, "namespaces", "missing missing ready", "CONFIG_PID_NS"),
        ("net namespace", errno.ENOSPC, "namespaces", "missing missing ready", "max_"),
        ("user namespace", errno.ENOSPC, "user namespaces", "limited limited ready", "max_user_namespaces="),
        ("inotify", errno.EMFILE, "inotify", "ready limited ready", "fs.inotify.max_user_instances="),
        ("mounts", errno.ENOSYS, "mounts", "missing missing missing", "5.12"),
        ("paths", errno.ENOSYS, "paths", "missing missing missing", "5.6"),
        ("processes", errno.ENOSYS, "processes", "missing missing missing", "filter"),
        ("mqueue", errno.ENODEV, "file systems", "missing missing ready", "POSIX_MQUEUE"),
        ("device nodes", errno.EPERM, "device nodes", "missing missing ready", "CAP_MKNOD"),
        (
            "system call filters",
            errno.EINVAL,
            "system calls",
            "missing missing ready",
            "insecure-options=seccomp",
        ),
        ("Landlock", errno.EOPNOTSUPP, "Landlock", "limited limited limited", "lsm="),
        ("device program", errno.EINVAL, "devices", "limited limited ready", "Delegate=yes"),
        ("freezer", 0, "freezer", "limited limited ready", "version 2"),
        ("writable", errno.EROFS, "directory", "missing missing missing", "remount,rw"),
        ("overlay", errno.EINVAL, "overlay", "limited limited limited", "modprobe overlay"),
        ("idmapped mounts", errno.EINVAL, "idmapped mounts", "limited limited ready", "5.19"),
        ("bridge", errno.EOPNOTSUPP, "veth and bridge", "limited limited ready", "modprobe"),
        ("nftables", 0, "nftables", "limited limited ready", "apt install nftables"),
        ("gpgv", errno.ENOENT, "gpgv", "limited limited limited", "apt install gpgv"),
        ("libseccomp", 0, "libseccomp", "limited limited limited", "libseccomp2"),
        ("stage1 images", 0, "stage1 images", "missing missing missing", "make setup"),
        ("reaper", errno.ENOENT, "first process", "missing ready ready", "catatonit"),
        ("systemd-nspawn", errno.ENOENT, "systemd-nspawn", "ready missing ready", "systemd-container"),
        ("systemd", errno.ENOENT, "systemd", "ready missing ready", "apt install systemd"),
        ("machined", errno.ENOENT, "machined", "ready limited ready", "dbus"),
    ],
)
def test_one_thing_is_missing(trial: str, number: int, finding: str, states: str, words: str) -> None:
    """Each thing stops or limits the flavours that need it, no others, and says what would change it."""
    findings, flavors = judged(with_trial(trial, Trial(errno=number, text="" if number else "it said no")))
    assert [flavors[name].state for name in ("ns", "nspawn", "fly")] == states.split()
    found = findings[finding]
    assert found.state == ("missing" if "missing" in states else "limited")
    assert words in found.hint
    assert ("it said no" if not number else "(") in found.text
    for flavor in flavors.values():
        assert bool(flavor.reasons) == (flavor.state in {"limited", "missing"})
        assert not flavor.reasons or found.hint in flavor.hints


@pytest.mark.parametrize(
    "name",
    [
        "ipvlan",
        "macvlan",
        "vlan",
        "tap",
        "iptables",
        "IPv6",
        "reflinks",
        "cgroup.kill",
        "journal",
        "tpm",
        "kvm",
    ],
)
def test_what_only_some_ask_for_limits_nobody(name: str) -> None:
    """What is missed by those alone who ask for it is said, and changes no verdict."""
    findings, flavors = judged(with_trial(name, Trial(errno=errno.EOPNOTSUPP)))
    assert findings["TPM" if name == "tpm" else name].state == "none"
    assert [flavors[flavor].state for flavor in ("ns", "nspawn", "fly")] == ["ready"] * 3


def test_nspawn_without_machined() -> None:
    """The line of nspawn says what a person loses."""
    _, flavors = judged(with_trial("machined", Trial(errno=errno.ENOENT)))
    assert flavors["nspawn"].can_run
    assert flavors["nspawn"].reasons == ["machined (machinectl will not list pods)"]


@pytest.mark.parametrize(
    ("version", "state"), [("1", "limited"), ("2", "ok"), ("3", "ok"), ("4", "ok"), ("9", "ok")]
)
def test_versions_of_landlock(version: str, state: str) -> None:
    """The first version, which refuses links between directories, is too little for the unpacker."""
    findings, _ = judged(with_trial("Landlock", Trial(done=True, text=version)))
    assert findings["Landlock"].state == state
    assert f"version {version}" in findings["Landlock"].text


@pytest.mark.parametrize(
    ("layout", "controllers", "lost"),
    [
        ("", {}, "limits of any kind"),
        (
            "version 1",
            {**PERFECT.controllers, "devices": YES, "memory": Trial(text="no hierarchy is mounted")},
            "limits of memory",
        ),
        (
            "hybrid",
            {**PERFECT.controllers, "devices": YES, "pids": Trial(errno=errno.EROFS)},
            "limits of processes",
        ),
        (
            "version 2",
            {**PERFECT.controllers, "cpu": Trial(text="/x cannot be written to")},
            "limits of CPU time",
        ),
    ],
)
def test_control_groups(layout: str, controllers: dict[str, Trial], lost: str) -> None:
    """Each layout is judged by which controllers a pod would get; what is lost is named, with what would bring it."""
    findings, flavors = judged(PERFECT.replace(layout=layout, controllers=controllers))
    assert flavors["ns"].reasons == [lost]
    assert flavors["fly"].state == "ready"
    assert flavors["ns"].hints
    assert findings["layout"].text.startswith(layout or "none")


@pytest.mark.parametrize(
    ("missing", "state", "words"),
    [
        ([], "ok", "all"),
        (["CAP_SYS_RESOURCE"], "limited", "cannot be raised"),
        (["CAP_NET_ADMIN", "CAP_SYS_RESOURCE"], "limited", "networks cannot be set up"),
        (["CAP_SYSLOG"], "limited", "nor can apps have them"),
        (["CAP_MKNOD", "CAP_SYSLOG"], "missing", "without CAP_MKNOD"),
    ],
)
def test_capabilities(missing: list[str], state: str, words: str) -> None:
    """Root without some capabilities can do less, without others nothing."""
    findings, flavors = judged(PERFECT.replace(missing_capabilities=missing))
    assert findings["capabilities"].state == state
    assert words in findings["capabilities"].text
    assert flavors["fly"].state == ("ready" if state == "ok" else state)


def test_nobody_but_root() -> None:
    """What a user was denied is not known instead of missing, and what is missing for everybody still is."""
    denied = {
        name: Trial(errno=errno.EACCES)
        if name in {"device nodes", "freezer", "tap", "tpm", "kvm", "writable"}
        else each
        for name, each in PERFECT.trials.items()
    }
    facts = PERFECT.replace(
        euid=1000,
        missing_capabilities=["CAP_SYS_ADMIN"],
        trials={**denied, "overlay": UNSEEN},
        controllers=dict.fromkeys(PERFECT.controllers, Trial(errno=errno.EACCES)),
    )
    findings, flavors = judged(facts)
    for name in ("device nodes", "freezer", "tap", "TPM", "kvm", "directory", "overlay", "memory"):
        assert findings[name].state == "unknown", name
    assert flavors["ns"].state == "unknown"
    assert not flavors["ns"].can_run
    assert flavors["ns"].hints == ["sudo rkt check-host"]
    _, flavors = judged(with_trial("mounts", Trial(errno=errno.ENOSYS), facts))
    assert flavors["ns"].state == "missing"


def test_little_room_and_a_clock_that_is_behind() -> None:
    """A full disk and a clock before the installation are told with what to type."""
    findings, flavors = judged(PERFECT.replace(free_bytes=1 << 20, time_seconds=0.0))
    assert findings["room"].hint == "rkt gc, rkt image gc"
    assert "not valid yet" in findings["clock"].text
    assert flavors["ns"].can_run
    findings, _ = judged(PERFECT.replace(free_inodes=7))
    assert findings["room"].state == "limited"
    findings, _ = judged(PERFECT.replace(free_inodes=-1))
    assert findings["room"].state == "ok"
    assert "inodes" not in findings["room"].text


def test_plugins_of_the_default_network() -> None:
    """Without the plugins that it is made of there is no default network; others are not missed."""
    findings, flavors = judged(
        PERFECT.replace(plugins={"bridge": "", "host-local": "/opt/cni/bin/host-local"})
    )
    assert "bridge" in findings["CNI plugins"].text
    assert "host-local" not in findings["CNI plugins"].text
    assert flavors["ns"].reasons == ["the default network (use --net=host or --net=none)"]


def test_flavors_that_are_not_installed() -> None:
    """A package may leave flavours out; a stage1 of somebody else makes none of ours the default."""
    _, flavors = judged(PERFECT.replace(flavors=["ns"], default_flavor=""))
    assert flavors["nspawn"].reasons == ["not part of this installation"]
    assert not any(each.is_default for each in flavors.values())


@pytest.mark.parametrize(("mode", "state"), [("enforcing", "limited"), ("permissive", "ok")])
def test_selinux(mode: str, state: str) -> None:
    """Where SELinux is enforced it is said that pods have no label of their own."""
    findings, flavors = judged(with_trial("SELinux", Trial(done=True, text=mode)))
    assert findings["SELinux"].state == state
    assert flavors["ns"].state == "ready"


def test_inside_of_a_container() -> None:
    """Whoever looks from within a container is told that the host may have more."""
    findings, _ = judged(PERFECT.replace(is_confined="user namespace"))
    assert "user namespace already" in findings["confinement"].text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_text_stays_in_its_columns(width: int) -> None:
    """Every line but commands to copy fits, columns line up, and nothing of the host reaches the terminal raw."""
    facts = with_trial("gpgv", Trial(text="bad \x1b[2J\n things " * 20))
    findings = judge(facts)
    text = render(findings, verdicts(facts, findings), width)
    least = max(len(each.name) for each in findings) + 43
    for line in text.splitlines():
        assert len(line) <= max(width, least) or line.lstrip().startswith("-> ")
    assert "\x1b" not in text
    assert text.endswith("  kvm     not built yet\n")
    assert "  ns      ready, without images signed by OpenPGP (the default)\n" in text.replace(
        "\n          ", " "
    )
    colored = render(findings, verdicts(facts, findings), width, colors=True)
    assert "\x1b[32mok\x1b[0m       user" in colored
    assert (
        colored.replace("\x1b[32m", "").replace("\x1b[33m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
        == text
    )


def test_an_attempt_reports_and_ends() -> None:
    """What a child learnt, its error, that it could not try, and that it hung or died, come back as what they are."""

    def hang() -> str:
        import time

        time.sleep(60)
        return ""

    def die() -> str:
        import os

        os._exit(3)

    def refuse() -> str:
        raise CannotTry

    def fail() -> str:
        raise OSError(errno.EXDEV, "over there")

    def break_down() -> str:
        return str(1 // 0)

    assert attempt(lambda: "learnt it") == Trial(done=True, text="learnt it")
    assert attempt(fail) == Trial(errno=errno.EXDEV, text="over there")
    assert attempt(refuse) == UNSEEN
    assert "0.1 seconds" in attempt(hang, seconds=0.1).text
    assert not attempt(die).done
    assert "ZeroDivisionError" in attempt(break_down).text


def test_words_to_and_from_the_bus() -> None:
    """A call is built, and an answer read, as the specification has it."""
    message = bus.call(1, "Hello")
    assert len(message) % 8 == 0
    assert message[:4] == b"l\x01\x00\x01"
    assert b"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00" in message
    assert struct.unpack_from("<I", message, 8)[0] == 1
    words = ["org.freedesktop.DBus", ":1.0", bus.MACHINED]
    body = b""
    for word in words:
        body += bytes(-len(body) % 4) + struct.pack("<I", len(word)) + word.encode() + b"\0"
    assert bus.strings(struct.pack("<I", len(body)) + body) == words
