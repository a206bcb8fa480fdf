# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rkt.linux import libc, userns
from rkt.linux.userns import IdRange

#: ``cap_net_bind_service=ep`` as setcap(8) writes it.
REVISION_2 = bytes.fromhex("0100000200040000000000000000000000000000")
IDS = IdRange(3_000_000, 65536)


def test_a_range_maps_there_and_back() -> None:
    """The first id of the range is the pod's root, the last one its last."""
    assert [IDS.outside(number) for number in (0, 1000, 65535)] == [3_000_000, 3_001_000, 3_065_535]
    assert [IDS.inside(number) for number in (3_000_000, 3_065_535)] == [0, 65535]
    assert [IDS.seen_inside(number) for number in (0, 3_000_007, 3_065_536)] == [0, 7, 3_065_536]
    assert str(IdRange.parse(str(IDS))) == "3000000:65536"


@pytest.mark.parametrize("number", [-1, 65536, 2**32 - 1, 2**32])
def test_an_id_that_the_pod_has_not_is_an_error(number: int) -> None:
    """Nothing is wrapped (UN9)."""
    with pytest.raises(OSError, match="is outside the pod's, 0 to 65535") as failure:
        IDS.outside(number)
    assert failure.value.errno == errno.EOVERFLOW


@pytest.mark.parametrize("number", [0, 2_999_999, 3_065_536])
def test_an_id_of_somebody_else_is_not_the_pods(number: int) -> None:
    """What is not in the range has no id in the pod."""
    with pytest.raises(OSError, match="is not in the pod's range 3000000:65536"):
        IDS.inside(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "1",
        "1:",
        ":1",
        "0:65536",
        "-1:5",
        "1:0",
        "4294967294:2",
        "1:2:3",
        "a:1",
        "٣:1",
        "1 :1",
        "1:1\n",
        "12345678901:1",
    ],
)
def test_ranges_that_cannot_be(text: str) -> None:
    """A range without ids, with the host's root, beyond the last id, or that is no range is refused."""
    with pytest.raises(ValueError, match="not a range of ids"):
        IdRange.parse(text)


def test_file_capabilities_get_the_pods_root_as_owner_and_lose_it_again() -> None:
    """Only root of that user namespace can use them, and an export has what an image had."""
    shifted = userns.shift_capabilities(REVISION_2, IDS)
    assert len(shifted) == 24
    assert shifted[3] == 3
    assert shifted[:3] == REVISION_2[:3]
    assert shifted[4:20] == REVISION_2[4:]
    assert int.from_bytes(shifted[20:], "little") == 3_000_000
    assert userns.unshift_capabilities(shifted, IDS) == REVISION_2
    assert userns.unshift_capabilities(REVISION_2, IDS) == REVISION_2


def test_file_capabilities_of_another_owner() -> None:
    """Those of a user namespace inside the pod keep their owner, and one that the pod has not is an error."""
    of_5 = REVISION_2[:3] + b"\x03" + REVISION_2[4:] + (5).to_bytes(4, "little")
    shifted = userns.shift_capabilities(of_5, IDS)
    assert int.from_bytes(shifted[20:], "little") == 3_000_005
    assert userns.unshift_capabilities(shifted, IDS) == of_5
    with pytest.raises(OSError, match="outside the pod's"):
        userns.shift_capabilities(of_5[:20] + (70000).to_bytes(4, "little"), IDS)
    with pytest.raises(OSError, match="not the value"):
        userns.shift_capabilities(b"\0" * 20, IDS)


@pytest.mark.root
def test_a_namespace_without_a_process_has_its_map() -> None:
    """It is another one than the caller's, no child is left, and no descriptor but its own."""
    before = set(os.listdir("/proc/self/fd"))
    children = Path("/proc/thread-self/children").read_text()
    with userns.UserNamespace.create(IDS) as users:
        assert os.fstat(users.idmap_fd).st_ino != os.stat("/proc/self/ns/user").st_ino
        assert len(set(os.listdir("/proc/self/fd")) - before) == 1
        assert Path("/proc/thread-self/children").read_text() == children
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_work_as_the_owner_of_a_pods_files(tmp_path: os.PathLike[str]) -> None:
    """What is made meanwhile belongs to the pod's root, though its directory is another's; afterwards to root again."""
    directory = os.fspath(tmp_path)
    os.chmod(directory, 0o700)
    capabilities = libc.capget()
    userns.assume_owner(IDS.first)
    try:
        assert libc.capget() == capabilities
        os.mkdir(f"{directory}/pods")
        os.mknod(f"{directory}/null", 0o020600, os.makedev(1, 3))
    finally:
        userns.assume_owner(0)
    os.mkdir(f"{directory}/roots")
    owners = {name: os.lstat(f"{directory}/{name}") for name in ("pods", "null", "roots")}
    assert {name: (found.st_uid, found.st_gid) for name, found in owners.items()} == {
        "pods": (3_000_000, 3_000_000),
        "null": (3_000_000, 3_000_000),
        "roots": (0, 0),
    }
