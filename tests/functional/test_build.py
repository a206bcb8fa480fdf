# SPDX-License-Identifier: Apache-2.0
"""What ``make setup`` builds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.lib.rkt import ROOT
from tools import module_file
from tools.build_launcher import MAX_SHEBANG_BYTES, head_of_script, real_interpreter

if TYPE_CHECKING:
    from pathlib import Path


def _build_stage1(directory: Path) -> bytes:
    subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            os.path.join(ROOT, "tools", "build_stage1.py"),
            "--output",
            str(directory),
        ],
        check=True,
        capture_output=True,
    )
    return (directory / "stage1-ns.aci").read_bytes()


def test_stage1_is_reproducible(rkt_binary: str, tmp_path: Path) -> None:
    """The same sources give the same image, byte for byte."""
    assert _build_stage1(tmp_path / "one") == _build_stage1(tmp_path / "two")


def test_stage1_list_names_the_image(rkt_binary: str, tmp_path: Path) -> None:
    """``stage1.json`` has the image's ID, and the name and version of its manifest."""
    data = _build_stage1(tmp_path)
    listed = json.loads((tmp_path / "stage1.json").read_bytes())
    image = listed["images"][listed["default"]]
    assert image["id"] == f"sha512-{hashlib.sha512(data).hexdigest()}"
    with tarfile.open(tmp_path / image["file"]) as archive:
        member = archive.extractfile("manifest")
        assert member is not None
        manifest = json.load(member)
    assert manifest["name"] == image["name"]
    assert {"name": "version", "value": image["version"]} in manifest["labels"]


def test_stage1_entrypoints_are_programs_in_the_image(rkt_binary: str, tmp_path: Path) -> None:
    """Every entrypoint that the manifest names leads to an executable file of the image."""
    _build_stage1(tmp_path)
    with tarfile.open(tmp_path / "stage1-ns.aci") as archive:
        member = archive.extractfile("manifest")
        assert member is not None
        annotations = {a["name"]: a["value"] for a in json.load(member)["annotations"]}
        for word in ("run", "enter", "gc", "stop"):
            entry = archive.getmember("rootfs" + annotations[f"coreos.com/rkt/stage1/{word}"])
            target = archive.getmember(f"rootfs/{entry.linkname}") if entry.issym() else entry
            assert target.isreg()
            assert target.mode & 0o111 == 0o111


def test_stage1_holds_only_what_stage1_may_import(rkt_binary: str, tmp_path: Path) -> None:
    """stage1 brings schema, linux, net and itself, and nothing of the side that decides."""
    _build_stage1(tmp_path)
    with tarfile.open(tmp_path / "stage1-ns.aci") as archive:
        modules = [name.split("/") for name in archive.getnames() if name.startswith("rootfs/lib/rkt/")]
    packages = {words[3] for words in modules if len(words) > 4 and words[3] != "__pycache__"}
    assert packages == {"schema", "linux", "net", "stage0", "stage1", "stage2"}


@pytest.mark.parametrize("length", [1, MAX_SHEBANG_BYTES + 100])
def test_launcher_starts_with_interpreters_at_long_paths(tmp_path: Path, length: int) -> None:
    """An interpreter whose path does not fit into a ``#!`` line is started all the same, with its options."""
    directory = tmp_path / ("d" * min(length, 200))
    directory.mkdir()
    interpreter = directory / "python"
    interpreter.symlink_to(real_interpreter())
    script = tmp_path / "script"
    script.write_text(
        head_of_script(str(interpreter), "-IS") + "import sys\nprint(sys.flags.isolated, sys.argv[1:])\n"
    )
    script.chmod(0o755)
    done = subprocess.run([str(script), "a b", "", "$x"], check=True, capture_output=True, text=True)
    assert done.stdout == "1 ['a b', '', '$x']\n"


def test_second_setup_finds_everything_in_place(rkt_binary: str) -> None:
    """Setting up again builds nothing and says nothing."""
    paths = [rkt_binary, os.path.join(ROOT, "build", "stage1", "stage1-ns.aci")]
    before = [os.stat(path).st_mtime_ns for path in paths]
    done = subprocess.run(
        [os.path.join(ROOT, "tools", "setup.sh"), "test"], check=True, capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""
    assert [os.stat(path).st_mtime_ns for path in paths] == before


def test_a_program_whose_modules_cannot_be_read(tmp_path: Path) -> None:
    """What keeps a program from its own modules is said in a line, not by a traceback."""
    script = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{module_file.LAUNCHER}"
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        254,
        f"cannot read {tmp_path}/modules: No such file or directory\n",
    )
