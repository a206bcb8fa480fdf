# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroup_limits
from tests.lib.unified import NAME, create

if TYPE_CHECKING:
    from tests.lib.unified import UnifiedKernel


def test_room_in_the_root(kernel: UnifiedKernel) -> None:
    """In the root cgroup, where the rule about processes does not hold, the pod is a child of it."""
    kernel.members["/c"] = {1, os.getpid()}
    group = create("/")
    assert group.unified_directory == f"/c/{NAME}"
    assert group.warnings == []
    assert kernel.controllers[f"/c/{NAME}"] == {"cpu", "memory", "pids"}
    assert os.getpid() in kernel.members["/c"]


def test_room_when_alone(kernel: UnifiedKernel) -> None:
    """A caller that is alone in its cgroup, as the main process of a unit, moves aside and stays below its unit."""
    kernel.members["/c/user.slice/session.scope"] = {os.getpid()}
    group = create("/user.slice/session.scope")
    assert group.unified_directory == f"/c/user.slice/session.scope/{NAME}"
    assert group.warnings == []
    assert kernel.members[f"/c/user.slice/session.scope/{NAME}.supervisor"] == {os.getpid()}
    assert kernel.controllers[f"/c/user.slice/session.scope/{NAME}"] == {"cpu", "memory", "pids"}


def test_room_beside_others(kernel: UnifiedKernel) -> None:
    """A shell in the same cgroup is left alone: the pod goes beside it, no higher than needed, and nobody is moved."""
    kernel.members["/c/user.slice/session.scope"] = {os.getpid(), 1}
    group = create("/user.slice/session.scope")
    assert group.unified_directory == f"/c/user.slice/{NAME}"
    assert group.record() == f"/user.slice/{NAME}\n"
    assert group.warnings == []
    assert kernel.members["/c/user.slice/session.scope"] == {os.getpid(), 1}
    assert kernel.controllers[f"/c/user.slice/{NAME}"] == {"cpu", "memory", "pids"}


def test_somebody_comes_while_room_is_made(kernel: UnifiedKernel) -> None:
    """A caller who has moved aside in vain goes back and removes what it made: no pod is beside it, so nobody else would."""
    scope = "/c/user.slice/session.scope"
    kernel.members[scope] = {os.getpid()}
    kernel.after_move = lambda: kernel.members[scope].add(7)
    group = create("/user.slice/session.scope")
    assert group.unified_directory == f"/c/user.slice/{NAME}"
    assert group.warnings == []
    assert kernel.members[scope] == {os.getpid(), 7}
    assert f"{scope}/{NAME}.supervisor" not in kernel.members


def test_no_way_back(kernel: UnifiedKernel) -> None:
    """Where the caller may not go back it says what is left, and the pod is made all the same."""
    scope = "/c/user.slice/session.scope"
    kernel.members[scope] = {os.getpid()}
    kernel.after_move = lambda: kernel.members[scope].add(7)
    kernel.refused = {scope}
    group = create("/user.slice/session.scope")
    assert group.unified_directory == f"/c/user.slice/{NAME}"
    assert group.warnings == [f"{scope}/{NAME}.supervisor is left: refused"]


def test_no_way_aside(kernel: UnifiedKernel) -> None:
    """A caller who may make a cgroup but not move there leaves nothing behind."""
    scope = "/c/user.slice/session.scope"
    kernel.members[scope] = {os.getpid()}
    kernel.refused = {f"{scope}/{NAME}.supervisor"}
    group = create("/user.slice/session.scope")
    assert group.warnings[0] == f"no cgroup {scope}/{NAME}: refused"
    assert set(kernel.members) == {"/c", "/c/user.slice", scope}


def test_missing_controller(kernel: UnifiedKernel) -> None:
    """A controller that the host lacks is a warning, and an error only when a limit is asked for."""
    for table in kernel.controllers.values():
        table.discard("cpu")
    group = create("/user.slice")
    assert group.warnings == ["cgroup controller cpu is not available on this host"]
    assert group.has("memory")
    with pytest.raises(OSError, match="cpu is not available") as refused:
        cgroup_limits.set_cpu_limit(group, 500)
    assert refused.value.errno == errno.ENOTSUP
