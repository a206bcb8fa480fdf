# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import tarfile

import pytest

from rkt.cli.stage1_check import render
from rkt.conformance import app
from rkt.conformance.promises import ABSENT, FAILED, GROUPS, LEFT_OUT, OK, PROMISES, UNREACHED, Report
from rkt.conformance.subject import pack
from rkt.errors import UsageError
from tests.lib.rkt import ROOT
from tests.lib.stage1_sample import SAMPLE

GUIDE = os.path.join(ROOT, "docs", "stage1-implementors-guide.md")


def test_every_check_names_a_section_of_the_guide() -> None:
    """What a failed check points to is a heading there."""
    with open(GUIDE, encoding="utf-8") as stream:
        headings = {line.lstrip("#").strip() for line in stream if line.startswith("#")}
    assert {promise.section for promise in PROMISES} <= headings


def test_the_sample_is_short() -> None:
    """The sample is read at one sitting."""
    with open(os.path.join(SAMPLE, "stage1"), encoding="utf-8") as stream:
        assert len(stream.readlines()) <= 200


def test_names_are_unique() -> None:
    """A check is known by its name."""
    names = [promise.name for promise in PROMISES]
    assert len(set(names)) == len(names)
    assert all(name.count(".") == 1 for name in names)


def test_a_failure_stays() -> None:
    """What failed once does not hold, whatever is found later; what nobody looked at is not ok."""
    report = Report()
    assert not report.hold("run.pid", False, "first")
    assert report.hold("run.pid", True, "")
    report.hold("run.lock", True, "not shown")
    report.absent("run.cgroup", why="none")
    report.hold("enter.root", True, "")
    states = {each.promise.name: (each.state, each.seen) for each in report.finish(("run",))}
    assert states["run.pid"] == (FAILED, "first")
    assert states["run.lock"] == (OK, "")
    assert states["run.cgroup"] == (ABSENT, "none")
    assert states["run.ready"] == (UNREACHED, "an earlier check failed")
    assert states["enter.root"][0] == states["gc.twice"][0] == LEFT_OUT
    assert list(states) == [promise.name for promise in PROMISES]


def test_the_table() -> None:
    """A line for what holds; for what does not, what was expected, what was seen, and where it is told; then a sum."""
    report = Report()
    for promise in PROMISES:
        report.hold(promise.name, True, "")
    report.hold("run.pid", False, "there are pid and ppid")
    report.absent("attach.list", why="no attach")
    text = render(report.finish(GROUPS), 200)
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("! failed"))
    assert "run.pid " in lines[at]
    assert [line.strip() for line in lines[at + 1 : at + 3]] == [
        "seen: there are pid and ppid",
        'guide: "Files of the pod"',
    ]
    assert any(
        line.startswith("- not declared  attach.list") and line.endswith("no attach") for line in lines
    )
    assert lines[-1] == f"{len(PROMISES) - 2} ok, 1 failed, 1 not declared"


def test_the_app_brings_what_it_needs(tmp_path: object) -> None:
    """Its image holds the programs of its script, and for each its loader, if it has one."""
    path = f"{tmp_path}/app.aci"
    app.write_image(path)
    with tarfile.open(path) as archive:
        names = archive.getnames()
        loaders = {
            loader.lstrip("/")
            for program in ("sh", "sleep", "env", "cat")
            if (loader := app.interpreter(os.path.realpath(f"/bin/{program}")))
        }
    assert names[0] == "manifest"
    assert {"rootfs/check", "rootfs/bin/sh", "rootfs/bin/sleep", "rootfs/proc"} <= set(names)
    assert {f"rootfs/{loader}" for loader in loaders} <= set(names)


@pytest.mark.parametrize("manifest", [None, "{", "{}"])
def test_a_directory_that_is_no_image(tmp_path: object, manifest: str | None) -> None:
    """Without a manifest and a rootfs there is nothing to check."""
    directory = f"{tmp_path}/image"
    os.mkdir(directory)
    if manifest is not None:
        with open(f"{directory}/manifest", "w", encoding="ascii") as stream:
            stream.write(manifest)
    with pytest.raises(UsageError):
        pack(directory, f"{tmp_path}/image.aci")
