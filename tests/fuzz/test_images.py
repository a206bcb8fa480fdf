# SPDX-License-Identifier: Apache-2.0
"""Images with random damage: unpacking ends in an ``ImageError`` or in a tree from which the same tar can be rebuilt.

``RKT_FUZZ_SECONDS`` sets how long it runs, 5 seconds without; ``RKT_FUZZ_SEED`` repeats a run.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path

from rkt.errors import ImageError, StoreError
from rkt.image.limits import DEFAULT_LIMITS
from tests.lib import aci
from tests.lib.unpacking import unpack

SECONDS = float(os.environ.get("RKT_FUZZ_SECONDS", "5"))
SEED = int(os.environ["RKT_FUZZ_SEED"])
LIMITS = DEFAULT_LIMITS.replace(tar_bytes=1 << 20, time_seconds=20, ratio_free_bytes=1 << 18, entries=500)
CORPUS = [
    aci.aci_tar(
        aci.directory("rootfs/bin", mode=0o555),
        aci.Entry("rootfs/bin/app", content=b"program" * 200, mode=0o4755, uid=1000),
        aci.hard_link("rootfs/bin/same", "rootfs/bin/app"),
        aci.symlink("rootfs/bin/sh", "../../../../etc"),
        aci.fifo("rootfs/pipe"),
        aci.device("rootfs/null"),
        aci.Entry(
            "rootfs/" + "n" * 180, content=b"x", records={b"SCHILY.xattr.user.k": b"v", b"mtime": b"1.5"}
        ),
        aci.Entry(
            "rootfs/gnu", before=aci.gnu_long(b"rootfs/" + b"g" * 120) + aci.gnu_long(b"l" * 120, b"K")
        ),
        aci.Entry("rootfs/big", uid=aci.base256(70_000, 8), mtime=aci.base256(-9, 12)),
    ),
]
#: Bytes that mean something somewhere.
INTERESTING = [
    b"\0",
    b"\xff",
    b"\x80",
    b"/",
    b"..",
    b"../",
    b"0",
    b"7",
    b"5",
    b"2",
    b"1",
    b"x",
    b"g",
    b"L",
    b"=",
    b"\n",
    b" ",
]


def fix_checksums(data: bytearray) -> None:
    """Give every block that looks like a header its right checksum, so that damage gets behind it."""
    for offset in range(0, len(data) - 511, 512):
        if data[offset + 257 : offset + 262] == b"ustar":
            data[offset + 148 : offset + 156] = b" " * 8
            data[offset + 148 : offset + 156] = b"%06o\0 " % sum(data[offset : offset + 512])


def damage(rng: random.Random, original: bytes) -> bytes:
    """A damaged copy."""
    data = bytearray(original)
    for _ in range(rng.randrange(1, 6)):
        # Half of the damage goes to headers.
        offset = rng.randrange(len(data))
        if rng.random() < 0.5:
            offset = (
                offset // 512 * 512
                + rng.choice((0, 100, 108, 124, 136, 156, 157, 257, 345))
                + rng.randrange(8)
            )
        choice = rng.random()
        if choice < 0.5:
            piece = rng.choice(INTERESTING)
            data[offset : offset + len(piece)] = piece
        elif choice < 0.7:
            block = offset // 512 * 512
            other = rng.randrange(len(data)) // 512 * 512
            data[block:block] = data[other : other + 512 * rng.randrange(1, 4)]
        elif choice < 0.85:
            block = offset // 512 * 512
            del data[block : block + 512]
        else:
            data[offset : offset + 1] = bytes([rng.randrange(256)])
    if rng.random() < 0.9:
        fix_checksums(data)
    return bytes(data)


def test_damaged_images() -> None:
    """No damage leads to another exception, to a file outside the target, or to a tree that differs from its tar."""
    rng = random.Random(SEED)
    deadline = time.monotonic() + SECONDS
    accepted = refused = 0
    while time.monotonic() < deadline or accepted + refused < 50:
        data = damage(rng, rng.choice(CORPUS))
        kind = rng.choice(("none", "none", "gzip", "bzip2", "xz"))
        blob = aci.compress(data, kind)
        if rng.random() < 0.1:
            broken = bytearray(blob)
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            blob = bytes(broken)
        with tempfile.TemporaryDirectory() as directory:
            base = Path(directory)
            try:
                image = unpack(base, blob, LIMITS)
            except ImageError as e:
                message = e.message
                refused += 1
            except StoreError as e:
                # A file that is said to be larger than what is left of the disk.
                if "No space left" not in e.message:
                    raise
                message = e.message
                refused += 1
            else:
                message = "accepted"
                accepted += 1
                if os.geteuid() == 0:
                    rebuilt = image.rebuild()
                    assert aci.image_id(rebuilt) == image.result.image_id, SEED
                    differences = image.verify()
                    assert differences == [], (SEED, differences)
            assert message.isprintable(), (SEED, message)
            assert sorted(os.listdir(base)) in (["rebuilt", "split", "tree"], ["split", "tree"]), SEED
    assert refused, SEED
