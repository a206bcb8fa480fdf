# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import tarfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from rkt.cli.stage1_check import render
from rkt.conformance import app
from rkt.conformance.pods import Pods
from rkt.conformance.promises import ABSENT, FAILED, GROUPS, LEFT_OUT, OK, PROMISES, UNREACHED, Report
from rkt.conformance.subject import pack
from rkt.errors import UsageError
from tests.lib.rkt import ROOT
from tests.lib.stage1_sample import SAMPLE

if TYPE_CHECKING:
    from pathlib import Path

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


class Said:
    """A command that has ended."""

    stderr = 'warning: image signature verification has been disabled\n\nrun: app "other" is refused\n'


class Base:
    """Runs no command."""

    def __init__(self, base: Path) -> None:
        self.base = str(base)

    def run(self, *_words: str) -> Said:
        """It fails before there is a pod."""
        return Said()


def kit(tmp_path: Path) -> Pods:
    """What looks at an image that does not matter."""
    program = SimpleNamespace(not_enforced=[])
    subject = SimpleNamespace(record=SimpleNamespace(key="sha512-0"), program=program)
    return Pods(cast("Any", Base(tmp_path)), cast("Any", subject), "sha512-1", Report(), GROUPS)


def test_a_pod_of_two_apps_that_is_refused(tmp_path: Path) -> None:
    """When rkt refuses several apps, that is what is told of them, and not a file that is missing."""
    pods = kit(tmp_path)

    def act(each: Pods) -> None:
        each.run_two(["stay"], ["exit", "5"], "status.several")

    pods.attempt(act)
    (found,) = [each for each in pods.report.finish(GROUPS) if each.promise.name == "status.several"]
    assert (found.state, found.seen) == (FAILED, 'there is no pod: run: app "other" is refused')
    assert not pods.report.obstacle


def test_an_image_that_writes_nonsense(tmp_path: Path) -> None:
    """What cannot be read as what it should be ends a round, not the command."""
    pods = kit(tmp_path)

    def act(_: Pods) -> None:
        int("rights", 16)

    pods.attempt(act)
    assert "rights" in pods.report.obstacle
