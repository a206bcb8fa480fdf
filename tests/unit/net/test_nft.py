# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.errors import HostError
from rkt.net import nft, program


def test_a_host_without_nft(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program the error names it, what it is for, and the package that has it."""
    monkeypatch.setattr(program, "DIRECTORIES", ())
    with pytest.raises(HostError, match="no nft program, which sets up ports") as caught:
        nft.find()
    assert "apt install nftables" in caught.value.hint


def test_a_script_that_is_refused() -> None:
    """The first complaint of nft is shown, and nothing else of it."""
    if not program.find("nft"):
        pytest.skip("the host has no nft")
    with pytest.raises(nft.NftError, match=r"^nft refused rules for the pod's network: syntax error"):
        nft.run("add nonsense\n")
