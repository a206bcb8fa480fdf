# SPDX-License-Identifier: Apache-2.0
"""The filter that a unit asks of systemd answers as the compiled filter of ``ns`` does."""

from __future__ import annotations

import errno
import os

import pytest

from rkt.errors import Stage1Error
from rkt.linux import seccomp, seccomp_profiles, syscalls
from rkt.linux.seccomp_isolators import REMOVE, RETAIN, compile_isolators
from rkt.schema.isolators import Isolator, NameSet
from rkt.stage1.nspawn import filters
from tests.lib.bpf import AUDIT_ARCH, AUDIT_ARCH_I386, run_seccomp

MACHINE = os.uname().machine
ALLOW = seccomp.SCMP_ACT_ALLOW
KILL = seccomp.SCMP_ACT_KILL_PROCESS
ENOSYS = seccomp.scmp_act_errno(errno.ENOSYS)

try:
    DEFAULT = seccomp.compile_filter(seccomp.default_profile())
    POD = seccomp.compile_pod_filter()
except OSError as e:
    pytest.skip(f"libseccomp: {e}", allow_module_level=True)
NUMBERS = syscalls.numbers(MACHINE)
if MACHINE not in AUDIT_ARCH or NUMBERS is None:
    pytest.skip(f"no table for {MACHINE}", allow_module_level=True)

#: Isolators by what they say.
CHOICES: dict[str, tuple[str, list[str], str] | None] = {
    "none": None,
    "remove": (REMOVE, ["chmod", "fchmodat", "ptrace", "kill"], ""),
    "remove with an errno": (REMOVE, ["chmod", "mount"], "EACCES"),
    "remove nothing": (REMOVE, ["@appc.io/empty"], ""),
    "retain": (RETAIN, ["read", "write", "clone", "socket", "personality", "clone3"], ""),
    "retain with an errno": (RETAIN, ["@rkt/default-whitelist", "ptrace"], "EACCES"),
    "retain the default": (RETAIN, ["@docker/default-whitelist"], "EPERM"),
}


def _isolators(choice: str) -> list[Isolator]:
    given = CHOICES[choice]
    return [] if given is None else [Isolator(name=given[0], value=NameSet(names=given[1], errno=given[2]))]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else int(getattr(errno, text))


def as_systemd_reads(lines: list[tuple[str, str]]) -> tuple[dict[str, int], int]:
    """Answer by name, and to every other call, as systemd does with an allow list: what is refused twice is forgotten."""
    default = KILL
    answers: dict[str, int] = {}
    for name, value in lines:
        if name == "SystemCallErrorNumber":
            default = seccomp.scmp_act_errno(_number(value))
        elif name == "SystemCallFilter":
            for word in value.removeprefix("~").split():
                call, _, answer = word.partition(":")
                if not value.startswith("~"):
                    answers[call] = ALLOW
                elif call == "@default":
                    answers.clear()
                elif answer and call not in answers:
                    answers[call] = KILL if answer == "kill" else seccomp.scmp_act_errno(_number(answer))
                else:
                    answers.pop(call, None)
    return answers, default


@pytest.mark.parametrize("choice", CHOICES)
def test_each_call_gets_the_same_answer(choice: str) -> None:
    """Every call of the machine, with arguments that no condition is about, is answered as in ``ns`` (RN14, RN17)."""
    isolators = _isolators(choice)
    compiled = compile_isolators([(i.name, i.value.names, i.value.errno) for i in isolators], DEFAULT)
    answers, default = as_systemd_reads(filters.directives(isolators, pod_filtered=True))
    assert NUMBERS is not None
    # clone3 is answered by RestrictNamespaces= too; socket is narrowed by family, of which 1 is let through.
    for name, number in NUMBERS.items():
        arguments = (1,) if name in {"socket", "socketpair"} else ()
        wanted = run_seccomp(compiled, number, arguments, arch=AUDIT_ARCH[MACHINE])
        assert answers.get(name, default) == wanted, name


def test_conditions_on_arguments_are_those_of_ns() -> None:
    """The pod's filter with ``RestrictNamespaces=`` refuses the arguments that ``ns`` refuses, and nothing else."""
    assert NUMBERS is not None
    lines = dict(filters.directives([], pod_filtered=True))
    assert lines["RestrictNamespaces"] == "yes"
    assert set(lines["RestrictAddressFamilies"].split()) == {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
    assert {"LockPersonality", "SystemCallArchitectures"}.isdisjoint(lines)
    tried: list[tuple[str, tuple[int, ...]]] = [
        *[("ioctl", (0, request)) for request in (0x5412, 0x541C, 1 << 40 | 0x5412, 0x5401)],
        *[("socket", (family, 1, 0)) for family in range(50)],
        ("socket", (16, 3, 9)),
        *[("socketpair", (family, 1, 0)) for family in (1, 2, 40)],
        *[("personality", (value,)) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x40000, 0x400000, 1)],
        ("personality", (0xFFFFFFFFFFFFFFFF,)),
    ]
    for name, arguments in tried:
        wanted = run_seccomp(DEFAULT, NUMBERS[name], arguments, arch=AUDIT_ARCH[MACHINE])
        assert run_seccomp(POD, NUMBERS[name], arguments, arch=AUDIT_ARCH[MACHINE]) == wanted, (
            name,
            arguments,
        )


def test_the_pods_filter_lets_systemd_work() -> None:
    """Whatever else is called, in namespaces, mounts and the like, the filter of a whole pod lets it through."""
    assert NUMBERS is not None
    conditional = {name for name, _, _ in seccomp_profiles.EXCEPTIONS} | {"personality"}
    for name, number in NUMBERS.items():
        if name not in conditional or name == "clone":
            answer = run_seccomp(POD, number, (0x7E020000,), arch=AUDIT_ARCH[MACHINE])
            assert answer == ALLOW, name


@pytest.mark.skipif(MACHINE != "x86_64", reason="i386 and x32 are ABIs of x86-64")
def test_other_abis_do_not_exist_in_a_pod() -> None:
    """Calls of i386 and x32 answer ENOSYS for all of a pod, as in ``ns``, and not by a signal (RN15)."""
    for number in (20, 102, 359, 165):
        assert run_seccomp(POD, number, arch=AUDIT_ARCH_I386) == ENOSYS
        assert run_seccomp(POD, 0x40000000 | number, arch=AUDIT_ARCH[MACHINE]) == ENOSYS


def test_no_filter_and_no_filter_of_the_pods() -> None:
    """An app that is to have no filter has no directives; others of its pod get what comes nearest."""
    everything = [Isolator(name=RETAIN, value=NameSet(names=["@appc.io/all"], errno=""))]
    assert filters.directives(everything, pod_filtered=False) == []
    lines = dict(filters.directives([], pod_filtered=False))
    assert (lines["SystemCallArchitectures"], lines["LockPersonality"]) == ("native", "yes")


def test_calls_that_are_given_back_stay() -> None:
    """``unshare`` in a retain set is not taken away again by another directive."""
    wanted = [Isolator(name=RETAIN, value=NameSet(names=["unshare", "clone"], errno="EPERM"))]
    assert "RestrictNamespaces" not in dict(filters.directives(wanted, pod_filtered=True))


def test_wrong_isolators_are_refused() -> None:
    """An unknown wildcard, an unknown name to remove and two isolators are errors of rkt's."""
    for isolators in (
        [Isolator(name=RETAIN, value=NameSet(names=["@no/such"], errno=""))],
        [Isolator(name=REMOVE, value=NameSet(names=["no_such_call"], errno=""))],
        _isolators("remove") + _isolators("retain"),
    ):
        with pytest.raises(Stage1Error):
            filters.directives(isolators, pod_filtered=True)
