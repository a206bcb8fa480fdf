# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io

import pytest

from rkt.linux import mount

TABLE = b"""\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:40 / /pods rw,nosuid,nodev shared:7 master:2 - tmpfs tmpfs rw,size=4k
41 40 0:41 /a\\040b /pods/one\\040two\\134x rw - overlay overlay rw,lowerdir=/l\\054x
42 41 0:42 / /pods/one\\040two\\134x/deep ro - tmpfs some\\040thing ro
43 27 0:43 / /pods2 rw - tmpfs tmpfs rw
"""


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_lines", lambda _pid: iter(io.BytesIO(TABLE).read().splitlines()))


def test_mountinfo() -> None:
    """Each column is found, with escaped characters put back and any number of optional fields."""
    first, root, pods, overlay, deep, _ = mount.mountinfo()
    assert (first.mount_id, first.parent_id, first.device, first.fstype) == (22, 27, "0:21", "proc")
    assert (root.propagation, root.source, root.super_options) == ("shared:1", "/dev/vda", "rw,discard")
    assert (pods.propagation, pods.options) == ("shared:7 master:2", "rw,nosuid,nodev")
    assert (overlay.root, overlay.point, overlay.propagation) == ("/a b", "/pods/one two\\x", "")
    assert deep.source == "some thing"


@pytest.mark.parametrize(
    "line", [b"", b"1 2 3", b"22 27 0:21 / /proc rw,relatime proc proc rw", b"1 2 0:1 / /x rw - t"]
)
def test_damaged_line(line: bytes) -> None:
    """What is not a line of mountinfo is an error."""
    with pytest.raises(ValueError, match="not a line of mountinfo"):
        mount.Mount(line)


def test_mounts_below() -> None:
    """Mounts below a path are found by component, the path itself included, never those beside it."""
    assert mount.mounts_below("/pods") == ["/pods", "/pods/one two\\x", "/pods/one two\\x/deep"]
    assert mount.mounts_below("/pods/") == mount.mounts_below("/pods")
    assert mount.mounts_below(b"/pods/one two\\x/deep") == ["/pods/one two\\x/deep"]
    assert mount.mounts_below("/pod") == []
    assert len(mount.mounts_below("/")) == 6


def test_unescape() -> None:
    """Octal escapes are put back wherever they stand."""
    assert mount.unescape(b"\\011a\\012\\134\\043") == "\ta\n\\#"
    assert mount.unescape(b"plain") == "plain"
