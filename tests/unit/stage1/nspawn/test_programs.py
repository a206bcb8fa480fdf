# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from rkt.stage1.nspawn.programs import explain, find_program
from rkt.stage2.exec import ExecPlan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def plan(name: str, path: str = "/usr/bin:/bin", directory: str = "/") -> ExecPlan:
    """An app with that program."""
    return ExecPlan(
        argv=[name.encode()],
        environment={b"PATH": path.encode()},
        uid=0,
        gid=0,
        groups=[0],
        working_directory=directory.encode(),
        capabilities=0,
        no_new_privileges=True,
        seccomp=b"",
    )


def elf(interpreter: bytes) -> bytes:
    """The beginning of a 64-bit program with a dynamic loader."""
    head = bytearray(b"\x7fELF\x02\x01".ljust(64, b"\0"))
    head[32:40] = (64).to_bytes(8, "little")
    head[54:56] = (56).to_bytes(2, "little")
    head[56:58] = (1).to_bytes(2, "little")
    segment = struct.pack("<IIQQQQQQ", 3, 4, 120, 120, 120, len(interpreter) + 1, len(interpreter) + 1, 1)
    return bytes(head) + segment + interpreter + b"\0"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """An app's root with a few programs."""

    def put(name: str, data: bytes, mode: int = 0o755) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)

    put("usr/bin/tool", b"\x7fELF static")
    put("bin/locked", b"", 0o644)
    put("bin/script", b"#!/bin/no-such -x\n")
    put("bin/nested", b"#! /usr/bin/tool\n")
    put("bin/dynamic", elf(b"/lib/ld.so"))
    (tmp_path / "bin" / "link").symlink_to("/usr/bin/tool")
    (tmp_path / "bin" / "away").symlink_to("../../../../../../../bin/sh-of-the-host")
    (tmp_path / "usr" / "bin" / "directory").mkdir()
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("name", "path", "directory", "found", "text"),
    [
        ("/usr/bin/tool", "", "/", "/usr/bin/tool", ""),
        ("tool", "/bin:/usr/bin", "/", "/usr/bin/tool", ""),
        ("link", "/bin", "/", "/bin/link", ""),
        ("nested", "/bin", "/", "/bin/nested", ""),
        ("bin/tool", "", "/usr", "/usr/bin/tool", ""),
        ("./tool", "", "/usr/bin", "/usr/bin/./tool", ""),
        ("tool", ":bin", "/usr", "/usr/bin/tool", ""),
        ("directory", "/usr/bin", "/", "/usr/bin/directory", 'Error: Unable to execute "/usr/bin/directory": Permission denied'),
        ("nothing", "/bin:/usr/bin", "/", "/bin/nothing", 'Error: unable to find "nothing" in "/bin:/usr/bin"'),
        ("locked", "/bin", "/", "/bin/locked", 'Error: Unable to execute "/bin/locked": Permission denied'),
        ("/bin/gone", "", "/", "/bin/gone", 'Error: Unable to open "/bin/gone": No such file or directory'),
        ("/bin/script", "", "/", "/bin/script", 'Error: Unable to open "/bin/no-such": No such file or directory'),
        ("/bin/dynamic", "", "/", "/bin/dynamic", 'Error: Unable to open "/lib/ld.so": No such file or directory'),
        ("/bin/away", "", "/", "/bin/away", 'Error: Unable to open "/bin/away": No such file or directory'),
    ],
)  # fmt: skip
def test_a_program_is_found_or_explained(
    root: int, name: str, path: str, directory: str, found: str, text: str
) -> None:
    """Below the app's root alone, as execve in the app would, with the words that ``ns`` has for what is missing."""
    place, said = find_program(root, plan(name, path, directory))
    if "PATH" not in said and not name.startswith(("directory", "locked")):
        assert place.decode() == found
    assert said == text
    assert explain(root, b"/usr/bin/tool") == ""
