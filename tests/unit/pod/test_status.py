# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

from rkt.pod import lifecycle, listing
from rkt.stage0 import contract

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pod_that_a_power_cut_left_without_content(tmp_path: Path) -> None:
    """Names that were written and content that was not: the pod is listed as over, with what is known of it."""
    lifecycle.ensure_directories(str(tmp_path))
    with lifecycle.create(str(tmp_path)) as pod:
        pod.write(contract.POD_MANIFEST, b"")
        pod.write(contract.NET_INFO, b"")
        pod.write(contract.EGRESS, b"")
        pod.move(lifecycle.RUN, sync=False)
        uuid = str(pod.uuid)
    problems: list[str] = []
    (found,) = listing.details(f"{tmp_path}/pods", problems)
    assert problems == []
    assert (found["name"], found["state"]) == (uuid, "exited")
