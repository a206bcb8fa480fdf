# SPDX-License-Identifier: Apache-2.0
"""What every released version wrote to disk is still read (docs/on-disk-format.md, docs/stability.md)."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.format_samples import EXITED, IMAGE, KEY_FILE, PREPARED, STAGE1
from tests.lib.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lib.rkt import Rkt

SAMPLES = sorted(glob.glob(os.path.join(ROOT, "tests", "data", "formats", "*")))

pytestmark = pytest.mark.root


@pytest.fixture(params=SAMPLES, ids=os.path.basename)
def aged(request: pytest.FixtureRequest, rkt: Rkt) -> Rkt:
    """An engine whose data directory was written by an earlier version, and that trusts the key of its image."""
    archive = os.path.join(request.param, "data-directory.tar.xz")
    # The program, because it restores times of symbolic links, which `rkt image verify` looks at.
    subprocess.run(["tar", "-C", rkt.data, "--numeric-owner", "-xpf", archive], check=True)
    rkt.run(
        "trust", f"--prefix={IMAGE}", "--skip-fingerprint-review", os.path.join(rkt.data, KEY_FILE), check=0
    )
    return rkt


def test_images_are_listed(aged: Rkt) -> None:
    """Names, versions and verdicts of stored images are shown."""
    listing = aged.run("image", "list", "--no-legend", check=0)
    assert any(f"{IMAGE}:1.0" in line and "openpgp" in line for line in listing.lines)
    assert any(STAGE1 in line and "NOT VERIFIED" in line for line in listing.lines)
    assert len(listing.lines) == 2


def test_image_is_whole_and_can_be_exported(aged: Rkt, tmp_path: Path) -> None:
    """The stored tree passes verification, and gives back the bytes whose digest is the image's ID."""
    aged.run("image", "verify", IMAGE, check=0)
    out = tmp_path / "out.aci"
    aged.run("image", "export", IMAGE, str(out), check=0)
    manifest = json.loads(aged.run("image", "cat-manifest", IMAGE, check=0).stdout)
    assert manifest["name"] == IMAGE
    keys = os.listdir(os.path.join(aged.data, "cas", "record"))
    assert f"sha512-{hashlib.sha512(out.read_bytes()).hexdigest()}"[: len(keys[0])] in keys


def test_pods_are_shown(aged: Rkt) -> None:
    """Names, states, exit status, manifest and log of stored pods are shown."""
    states = {pod["pod_name"]: pod for pod in _listed(aged)}
    assert states[EXITED]["state"] == "exited"
    assert states[PREPARED]["state"] == "prepared"
    status = aged.run("status", EXITED, check=0)
    assert "app-sample=7" in status.lines
    assert json.loads(aged.run("cat-manifest", EXITED, check=0).stdout)["apps"][0]["name"] == "sample"
    assert "hello from the sample" in aged.run("logs", EXITED, check=0).stdout


def _listed(aged: Rkt) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(aged.run("list", "--format=json", check=0).stdout)
    return found


def test_prepared_pod_still_runs(aged: Rkt) -> None:
    """A pod that an earlier version prepared is run, with the verdicts that it recorded."""
    aged.run("run-prepared", "--net=none", PREPARED, check=7)
    assert "hello from the sample" in aged.run("logs", PREPARED, check=0).stdout


def test_everything_can_be_collected(aged: Rkt) -> None:
    """Garbage collection takes the pods of an earlier version, and then its images."""
    aged.run("gc", "--grace-period=0", "--expire-prepared=0", check=0)
    assert aged.pods() == {}
    aged.run("image", "rm", IMAGE, STAGE1, check=0)
    assert os.listdir(os.path.join(aged.data, "cas", "layer")) == []
