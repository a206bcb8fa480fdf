# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.errors import RktError
from rkt.stage1.common.arguments import parse_run

UUID = "6cd2b1b0-3b0a-4f0e-8a52-6a2d3b0c7d11"


def test_every_argument_of_the_contract_is_understood() -> None:
    """The arguments of spec runtime §1.5, in that order, arrive as typed values."""
    parsed = parse_run(
        [
            "--debug",
            "--net=none",
            "--interactive",
            "--private-users=65536:65536",
            "--local-config=/etc/other",
            "--hostname=web",
            "--dns-conf-mode=resolv=stage0,hosts=host",
            "--disable-capabilities-restriction",
            "--disable-paths",
            "--disable-seccomp",
            "--mutable",
            "--ipc=parent",
            UUID,
        ]
    )
    assert parsed.uuid == UUID
    assert parsed.debug
    assert parsed.interactive
    assert parsed.mutable
    assert parsed.networks == ["none"]
    assert parsed.private_users == "65536:65536"
    assert parsed.local_config == "/etc/other"
    assert parsed.hostname == "web"
    assert (parsed.resolv_mode, parsed.hosts_mode, parsed.ipc) == ("stage0", "host", "parent")
    assert parsed.disable_capabilities_restriction
    assert parsed.disable_paths
    assert parsed.disable_seccomp


def test_nothing_is_loosened_unless_it_is_asked_for() -> None:
    """A bare UUID means every protection, a private IPC namespace and the default network list."""
    parsed = parse_run([UUID])
    assert not parsed.disable_capabilities_restriction
    assert not parsed.disable_paths
    assert not parsed.disable_seccomp
    assert parsed.networks == []
    assert parsed.ipc == "auto"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--unknown", UUID],
        ["--debug=yes", UUID],
        ["--ipc=maybe", UUID],
        ["--dns-conf-mode=resolv=sometimes", UUID],
        ["not-a-uuid"],
        ["../../etc"],
    ],
)
def test_what_is_not_understood_is_refused(words: list[str]) -> None:
    """An unknown argument or value, or no UUID, ends the run instead of being ignored."""
    with pytest.raises(RktError):
        parse_run(words)
