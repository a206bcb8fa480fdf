# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import Any

import pytest

from rkt.config.settings import Installation, Settings
from rkt.stage0 import contract, entrypoint, gc, live, start, stop
from rkt.stage0.resolver import Resolver
from rkt.stage0.run import _LEFT_OUT, _LOADER_PREFIXES, RunOptions, _arguments
from rkt.stage0.stage1 import Program
from tests.lib.rkt import ROOT

_UUID = "5bc080ca-0000-4000-8000-000000000000"


def text(name: str) -> str:
    """A page of the documentation."""
    with open(os.path.join(ROOT, "docs", name), encoding="utf-8") as stream:
        return stream.read()


CONTRACT = text("stage1-contract.md")
ANNOTATIONS = sorted(
    value.removeprefix(contract.ANNOTATION_PREFIX)
    for name, value in vars(contract).items()
    if name.startswith("ANNOTATION_")
    and isinstance(value, str)
    and value.startswith(contract.ANNOTATION_PREFIX)
    and value not in {contract.ANNOTATION_PREFIX, contract.ANNOTATION_MUTABLE}
)


@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_every_annotation_is_told(annotation: str) -> None:
    """What stage0 reads of a stage1's manifest is in the reference, and in the guide."""
    for page in (CONTRACT, text("stage1-implementors-guide.md")):
        assert re.search(rf"[`/]{re.escape(annotation)}`", page), annotation


def test_arguments_stand_in_the_order_in_which_they_come() -> None:
    """The reference's table of arguments is what stage0 passes, one by one, and since when."""
    pod: Any = SimpleNamespace(uuid=_UUID, read_text=lambda _name: "65536:65536")
    settings = Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""), debug=True
    )
    options = RunOptions(
        networks=["host"],
        interactive=True,
        hostname="a",
        ipc="private",
        mutable=True,
        resolver=Resolver(dns_mode="host", use_host_file=True),
    )
    insecure = ["capabilities", "paths", "seccomp"]
    table = CONTRACT.partition("| argument | when | since |")[2].partition("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    told = [(flag, int(row[-2])) for row in rows for flag in re.findall(r"`(--[a-z-]+|UUID)", row[1])]
    assert [flag for flag, _ in told].index("--mds-token") == [flag for flag, _ in told].index(
        "--local-config"
    ) - 1
    told = [each for each in told if each[0] != "--mds-token"]
    for version in range(1, contract.INTERFACE_VERSION + 1):
        annotation = {"name": contract.ANNOTATION_INTERFACE_VERSION, "value": str(version)}
        program = Program(
            repr({"name": "example.com/a", "annotations": [annotation]}).replace("'", '"').encode()
        )
        passed = _arguments(pod, program, settings, options, insecure)
        expected = [flag for flag, since in told if since <= version]
        assert [word.partition("=")[0].replace(_UUID, "UUID") for word in passed] == expected


def test_what_start_removes_is_told() -> None:
    """Each file of the last run that stage0 takes away is named."""
    for name in (*start._OF_A_RUN, contract.PID, *start._OF_AN_APP):
        assert re.search(rf"[`/]{re.escape(name)}`", CONTRACT), name


def test_what_is_left_out_of_the_environment_is_told() -> None:
    """Each variable that steers loaders and interpreters is named."""
    for name in (
        *_LEFT_OUT,
        *(f"{prefix.removesuffix('_')}_*" for prefix in _LOADER_PREFIXES if prefix != "PYTHON"),
    ):
        assert f"`{name}`" in CONTRACT, name
    assert "`PYTHON*`" in CONTRACT


def test_deadlines_are_told() -> None:
    """How long entrypoints may take is what the reference says."""
    seconds = (gc._GC_TIMEOUT_SECONDS, stop._TIMEOUT_SECONDS, live._TIMEOUT_SECONDS, stop._READY_SECONDS)
    collect, end, change, ready = (f"{each:.0f} s" for each in seconds)
    assert f"`gc` after {collect}, `stop` after {end}, `app/…` after {change}" in CONTRACT
    assert f"for {ready}" in CONTRACT
    assert entrypoint._NOT_STARTED == 254
