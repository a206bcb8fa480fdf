# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.linux import seccomp_profiles
from rkt.schema import isolators


def test_every_wildcard_of_the_schema() -> None:
    """Each wildcard that a manifest may hold stands for some calls."""
    for name in isolators.SECCOMP_WILDCARDS - {isolators.SECCOMP_ALL, isolators.SECCOMP_EMPTY}:
        assert seccomp_profiles.wildcard(name)


def test_unknown_wildcard() -> None:
    """An unknown wildcard is refused and not ignored."""
    with pytest.raises(ValueError, match="unknown seccomp wildcard @x/y"):
        seccomp_profiles.expand(["read", "@x/y"])


def test_narrow() -> None:
    """An image's retain set keeps only what the default filter allows."""
    assert seccomp_profiles.narrow(["read", "mount", "bpf", "@systemd/mount", "personality"]) == [
        "chroot",
        "personality",
        "read",
    ]


def test_blacklist_is_not_allowed() -> None:
    """The black lists and the default filter have no call in common."""
    assert not set(seccomp_profiles.wildcard("@rkt/default-blacklist")) & set(
        seccomp_profiles.default_names()
    )
