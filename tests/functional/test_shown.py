# SPDX-License-Identifier: Apache-2.0
"""What ``explain`` reads of layers is what the kernel's overlay shows of them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from rkt.stage0.shown import ShownRoot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root
TOP, MIDDLE, BOTTOM = "top", "middle", "bottom"
#: Layer and path -> content of a file; ``None`` is a whiteout, ``...`` an opaque directory, ``"-> x"`` a link.
Layers = dict[tuple[str, str], "str | object | None"]
CASES: dict[str, tuple[Layers, str | None]] = {
    "lowest": ({(BOTTOM, "etc/passwd"): "b", (TOP, "etc/group"): "g"}, "b"),
    "topmost": ({(BOTTOM, "etc/passwd"): "b", (MIDDLE, "etc/passwd"): "m", (TOP, "etc/x"): "x"}, "m"),
    "nowhere": ({(BOTTOM, "etc/group"): "g"}, None),
    "whiteout": ({(BOTTOM, "etc/passwd"): "b", (TOP, "etc/passwd"): None}, None),
    "whiteout of the directory": ({(BOTTOM, "etc/passwd"): "b", (TOP, "etc"): None}, None),
    "again below a whiteout": (
        {(BOTTOM, "etc/passwd"): "b", (MIDDLE, "etc/passwd"): None, (TOP, "etc/passwd"): "t"},
        "t",
    ),
    "whiteout below": ({(MIDDLE, "etc"): None, (BOTTOM, "etc/passwd"): "b", (TOP, "etc/group"): "g"}, None),
    "opaque": ({(BOTTOM, "etc/passwd"): "b", (TOP, "etc"): ..., (TOP, "etc/group"): "g"}, None),
    "opaque with it": ({(BOTTOM, "etc/passwd"): "b", (TOP, "etc"): ..., (TOP, "etc/passwd"): "t"}, "t"),
    "opaque in the middle": (
        {(BOTTOM, "etc/passwd"): "b", (MIDDLE, "etc"): ..., (TOP, "etc/group"): "g"},
        None,
    ),
    "a file in place of the directory": ({(BOTTOM, "etc/passwd"): "b", (TOP, "etc"): "file"}, None),
    "a directory over a file": ({(BOTTOM, "etc"): "file", (TOP, "etc/passwd"): "t"}, "t"),
    "a file in between": (
        {(BOTTOM, "etc/passwd"): "b", (MIDDLE, "etc"): "file", (TOP, "etc/group"): "g"},
        None,
    ),
    "link to another layer": ({(TOP, "etc/passwd"): "-> ../usr/passwd", (BOTTOM, "usr/passwd"): "u"}, "u"),
    "absolute link": ({(TOP, "etc/passwd"): "-> /usr/passwd", (BOTTOM, "usr/passwd"): "u"}, "u"),
    "link of the directory": ({(TOP, "etc"): "-> usr/./etc", (BOTTOM, "usr/etc/passwd"): "u"}, "u"),
    "link out of the root": ({(TOP, "etc/passwd"): "-> ../../../usr/x", (BOTTOM, "usr/x"): "u"}, "u"),
    "link to a whiteout": (
        {(TOP, "etc/passwd"): "-> x", (MIDDLE, "etc/x"): None, (BOTTOM, "etc/x"): "b"},
        None,
    ),
    "link to itself": ({(TOP, "etc/passwd"): "-> passwd", (BOTTOM, "etc/passwd"): "b"}, None),
}


def build(base: Path, layers: Layers) -> list[str]:
    """The layers as they are in a store, the topmost first."""
    for name in (TOP, MIDDLE, BOTTOM):
        (base / name).mkdir()
    for (name, path), content in layers.items():
        target = base / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            os.mknod(target, 0o020000, os.makedev(0, 0))
        elif content is ...:
            target.mkdir()
            os.setxattr(target, "trusted.overlay.opaque", b"y")
        elif str(content).startswith("-> "):
            target.symlink_to(str(content)[3:])
        else:
            target.write_text(str(content))
    return [f"{base}/{name}" for name in (TOP, MIDDLE, BOTTOM)]


def shown(layers: list[str]) -> str | None:
    """What ``ShownRoot`` has as ``etc/passwd``."""
    try:
        fd = ShownRoot(layers).open(b"etc/passwd", os.O_RDONLY)
    except OSError:
        return None
    with open(fd, encoding="ascii") as stream:
        return stream.read()


def mounted(base: Path, layers: list[str]) -> str | None:
    """What a program in an overlay of them has."""
    where = base / "mounted"
    where.mkdir()
    script = 'mount -t overlay -o "ro,lowerdir=$1" overlay "$2" && exec chroot "$2" /busybox cat /etc/passwd'
    busybox = subprocess.run(
        ["sh", "-c", "command -v busybox"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with open(busybox, "rb") as stream:
        (base / BOTTOM / "busybox").write_bytes(stream.read())
    (base / BOTTOM / "busybox").chmod(0o755)
    command = ["unshare", "--mount", "sh", "-c", script, "sh", ":".join(layers), str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "mount:" not in done.stderr, done.stderr
    return None if done.returncode else done.stdout


@pytest.mark.parametrize("case", CASES)
def test_as_the_kernel_shows_it(tmp_path: Path, case: str) -> None:
    """Links, whiteouts and opaque directories lead to the same file, or to none, and no descriptor stays open."""
    layers, expected = CASES[case]
    paths = build(tmp_path, layers)
    before = os.listdir("/proc/self/fd")
    assert shown(paths) == expected
    assert os.listdir("/proc/self/fd") == before
    assert mounted(tmp_path, paths) == expected


def chain(base: Path) -> None:
    """A hundred links that each go up and down a hundred times."""
    for number in range(100):
        (base / TOP / "etc" / f"l{number}").symlink_to("../etc/" * 100 + f"l{number + 1}")
    (base / TOP / "etc/passwd").symlink_to("l0")


def deep(base: Path) -> None:
    """A way of more components than are followed."""
    path = base / TOP / "etc"
    for _ in range(300):
        path /= "d"
    path.mkdir(parents=True)
    (path / "p").write_text("deep")
    (base / TOP / "etc/passwd").symlink_to("d/" * 300 + "p")


@pytest.mark.parametrize("hostile", [chain, deep])
def test_a_long_way_ends(tmp_path: Path, hostile: Callable[[Path], None]) -> None:
    """A way that an image makes long on purpose is given up, and counts as no file."""
    paths = build(tmp_path, {(TOP, "etc/group"): "g"})
    hostile(tmp_path)
    before = os.listdir("/proc/self/fd")
    assert shown(paths) is None
    assert os.listdir("/proc/self/fd") == before
