# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from rkt.errors import Stage1Error
from rkt.stage0 import contract
from rkt.stage1.common import limits, own_files
from rkt.stage1.ns import run as ns
from rkt.stage1.nspawn import command, root, scope
from rkt.stage1.nspawn import run as nspawn

if TYPE_CHECKING:
    from pathlib import Path

UUID = "6f1e1f0c-0000-4000-8000-000000000001"


@pytest.mark.parametrize("flavour", [ns, nspawn])
def test_a_pod_without_cgroups_leaves_no_socket(
    flavour: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that fails before it has cgroups was not killed: the socket that would say so is gone."""
    seen: list[bool] = []

    def refuse(*_: object, **__: object) -> None:
        seen.append(os.path.exists(contract.CONTROL_SOCKET))
        raise Stage1Error("cannot restrict the pod's devices")

    def nothing(*_: object, **__: object) -> None:
        pass

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(contract.ENV_LOCK_FD, "0")
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    monkeypatch.setattr(flavour, "load_pod", lambda: SimpleNamespace(apps=["an app"]))
    for name in ("find_networks", "make_own_files"):
        monkeypatch.setattr(own_files, name, nothing)
    monkeypatch.setattr(flavour, "save_run", nothing)
    monkeypatch.setattr(flavour, "Volumes", lambda *_, **__: SimpleNamespace(devices=list))
    monkeypatch.setattr(flavour, "libc", SimpleNamespace(close_range=nothing, CLOSE_RANGE_CLOEXEC=0))
    monkeypatch.setattr(flavour, "mount", SimpleNamespace(enter_own_namespace=nothing))
    monkeypatch.setattr(limits, "has_sysctls", nothing)
    monkeypatch.setattr(limits, "create_groups", refuse)
    if flavour is nspawn:
        monkeypatch.setattr(command, "find_nspawn", nothing)
        monkeypatch.setattr(root, "make_shared", nothing)
        monkeypatch.setattr(scope, "enter", nothing)
    umask = os.umask(0o022)
    try:
        with pytest.raises(Stage1Error, match="cannot restrict"):
            flavour.main(["--net=none", UUID])
    finally:
        os.umask(umask)
    assert seen == [True]
    assert not os.path.lexists(contract.CONTROL_SOCKET)
