# SPDX-License-Identifier: Apache-2.0
"""Archives that must be refused, and why; tests give them to the parser, to the unpacker and to the real engine."""

from __future__ import annotations

from tests.lib import aci

MANIFEST = aci.manifest_entry()
ROOTFS = aci.directory("rootfs")
LINK_OUT = aci.symlink("rootfs/out", "../../outside")
ABSOLUTE_LINK = aci.symlink("rootfs/abs", "/")


def image(*entries: aci.Entry | bytes) -> bytes:
    """A valid image with these members more."""
    return aci.tar_bytes([MANIFEST, ROOTFS, *entries])


#: What is wrong -> (the archive, what the refusal says). UN… are the invariants of docs/security.md.
REFUSED = {
    # UN1
    "UN1 climbing": (image(aci.Entry("rootfs/../../outside/victim")), "climbs"),
    "UN1 climbing at the top": (image(aci.Entry("../outside/victim")), "climbs"),
    "UN1 climbing at the end": (image(aci.directory("rootfs/..")), "climbs"),
    "UN1 climbing by PAX": (
        image(aci.Entry("rootfs/x", records={b"path": b"rootfs/a/../../../x"})),
        "climbs",
    ),
    "UN1 climbing by GNU name": (image(aci.Entry("x", before=aci.gnu_long(b"rootfs/../../x"))), "climbs"),
    "UN1 absolute": (image(aci.Entry("/etc/passwd")), "absolute"),
    # UN2
    "UN2 file through a link": (
        image(LINK_OUT, aci.Entry("rootfs/out/victim", content=b"!")),
        "not a directory",
    ),
    "UN2 file through an absolute link": (
        image(ABSOLUTE_LINK, aci.Entry("rootfs/abs/tmp/x")),
        "not a directory",
    ),
    "UN2 directory through a link": (image(LINK_OUT, aci.directory("rootfs/out/d")), "not a directory"),
    "UN2 link through a link": (image(LINK_OUT, aci.symlink("rootfs/out/l", "x")), "not a directory"),
    "UN2 pipe through a link": (image(LINK_OUT, aci.fifo("rootfs/out/p")), "not a directory"),
    "UN2 file onto a link": (
        image(aci.symlink("rootfs/v", "../../outside/victim"), aci.Entry("rootfs/v")),
        "duplicate",
    ),
    "UN2 directory onto a link": (image(LINK_OUT, aci.directory("rootfs/out", mode=0o777)), "duplicate"),
    "UN2 link in the image": (
        image(aci.directory("rootfs/usr"), aci.symlink("rootfs/bin", "usr"), aci.Entry("rootfs/bin/x")),
        "not a directory",
    ),
    # UN3
    "UN3 link to the outside": (image(aci.hard_link("rootfs/h", "../outside/victim")), "climbs"),
    "UN3 link to the host": (image(aci.hard_link("rootfs/h", "/etc/passwd")), "absolute"),
    "UN3 link through a link": (
        image(LINK_OUT, aci.hard_link("rootfs/h", "rootfs/out/victim")),
        "no file so far",
    ),
    "UN3 link to the manifest": (image(aci.hard_link("rootfs/h", "manifest")), "outside rootfs"),
    "UN3 link to a directory": (
        image(aci.directory("rootfs/d"), aci.hard_link("rootfs/h", "rootfs/d")),
        "no file",
    ),
    "UN3 link to rootfs": (image(aci.hard_link("rootfs/h", "rootfs")), "outside rootfs"),
    "UN3 link to what comes later": (
        image(aci.hard_link("rootfs/h", "rootfs/f"), aci.Entry("rootfs/f")),
        "no file",
    ),
    "UN3 link to itself": (image(aci.hard_link("rootfs/h", "rootfs/h")), "no file so far"),
    # UN4
    "UN4 root is a link": (aci.tar_bytes([aci.symlink(".", "/"), MANIFEST, ROOTFS]), "root of the image"),
    "UN4 root is a file": (aci.tar_bytes([aci.Entry("./."), MANIFEST, ROOTFS]), "root of the image"),
    "UN4 root is a device": (aci.tar_bytes([aci.device("."), MANIFEST, ROOTFS]), "root of the image"),
    "UN4 rootfs is a link": (
        aci.tar_bytes([MANIFEST, aci.symlink("rootfs", "/")]),
        "rootfs is not a directory",
    ),
    "UN4 rootfs is a file": (aci.tar_bytes([MANIFEST, aci.Entry("rootfs")]), "rootfs is not a directory"),
    "UN4 rootfs replaced": (image(aci.symlink("./rootfs/.", "/")), "rootfs is not a directory"),
    # UN9
    "UN9 uid 2^32": (image(aci.Entry("rootfs/f", records={b"uid": b"4294967296"})), "out of range"),
    "UN9 uid -1": (image(aci.Entry("rootfs/f", uid=b"\xff" * 8)), "out of range"),
    "UN9 gid 2^32-1": (image(aci.Entry("rootfs/f", records={b"gid": b"4294967295"})), "out of range"),
    # UN11
    "UN11 claims more than there is": (image(aci.header(b"rootfs/f", size=1 << 30)), "truncated|No space"),
    "UN11 claims 2^62": (image(aci.header(b"rootfs/f", size=aci.base256(1 << 62, 12))), "No space"),
    "UN11 giant PAX header": (image(aci.header(b"x", b"x", size=16 << 20)), "extension header of"),
    "UN11 sparse": (image(aci.Entry("rootfs/f", records={b"GNU.sparse.size": b"99999999999"})), "sparse"),
    # UN12
    "UN12 two files": (image(aci.Entry("rootfs/f"), aci.Entry("rootfs/f", content=b"2")), "duplicate"),
    "UN12 two spellings": (image(aci.Entry("rootfs/f"), aci.Entry("./rootfs//./f")), "duplicate"),
    "UN12 two directories": (image(aci.directory("rootfs/d"), aci.directory("rootfs/d/")), "duplicate"),
    "UN12 file over directory": (image(aci.directory("rootfs/d"), aci.Entry("rootfs/d")), "duplicate"),
    "UN12 directory over file": (image(aci.Entry("rootfs/d"), aci.directory("rootfs/d")), "duplicate"),
    "UN12 file over implied directory": (image(aci.Entry("rootfs/d/f"), aci.Entry("rootfs/d")), "duplicate"),
    "UN12 file below file": (image(aci.Entry("rootfs/f"), aci.Entry("rootfs/f/g")), "not a directory"),
    "UN12 device over file": (image(aci.Entry("rootfs/f"), aci.device("rootfs/f")), "duplicate"),
    "UN12 file over device": (image(aci.device("rootfs/f"), aci.Entry("rootfs/f")), "duplicate"),
    "UN12 two devices": (image(aci.device("rootfs/f"), aci.device("rootfs/f")), "duplicate"),
    "UN12 file below device": (image(aci.device("rootfs/f"), aci.Entry("rootfs/f/g")), "not a directory"),
    "UN12 link over file": (
        image(aci.Entry("rootfs/f"), aci.Entry("rootfs/g"), aci.hard_link("rootfs/g", "rootfs/f")),
        "duplicate",
    ),
    "UN12 two roots": (
        aci.tar_bytes([aci.directory("."), aci.directory("./"), MANIFEST, ROOTFS]),
        "duplicate",
    ),
    # UN13
    "UN13 too deep": (image(aci.directory("rootfs/" + "d/" * 256)), "components"),
    "UN13 600 levels": (image(aci.directory("rootfs/" + "d/" * 600)), "components"),
    "UN13 long name": (image(aci.Entry("rootfs/" + "n" * 256)), "name of 256"),
    "UN13 long path": (image(aci.Entry("rootfs/" + "/".join(["n" * 200] * 21))), "path of"),
    "UN13 long link": (image(aci.symlink("rootfs/l", "x" * 4096)), "text of 4096"),
    "UN13 empty link": (image(aci.symlink("rootfs/l", "")), "text of 0"),
    # UN17
    "UN17 hidden behind the end": (image() + b"hidden", "behind the end"),
    "UN17 an archive behind the end": (image() + image(), "behind the end"),
    "UN17 behind gzip": (aci.compress(image(), "gzip") + b"hidden", "trailing"),
    "UN17 a second gzip member": (aci.compress(image(), "gzip") * 2, "behind the end"),
    "UN17 truncated tar": (image()[:-1024], "end-of-archive"),
    "UN17 truncated gzip": (aci.compress(image(), "gzip")[:-1], "truncated"),
    # UN19
    "UN19 two manifests": (image(aci.manifest_entry(b"{}")), "duplicate"),
    "UN19 two spellings of manifest": (image(aci.Entry("./manifest")), "duplicate"),
    "UN19 no manifest": (aci.tar_bytes([ROOTFS]), "no image manifest"),
    "UN19 no rootfs": (aci.tar_bytes([MANIFEST]), "no rootfs"),
    "UN19 something else": (image(aci.Entry("hash")), "unrecognised file path"),
    "UN19 below manifest": (image(aci.Entry("manifest/x")), "unrecognised file path"),
    "UN19 name with the same start": (image(aci.Entry("rootfs-evil/x")), "unrecognised file path"),
    "UN19 manifest is a link": (
        aci.tar_bytes([aci.symlink("manifest", "/etc/passwd"), ROOTFS]),
        "not a regular",
    ),
    "UN19 manifest is a directory": (aci.tar_bytes([aci.directory("manifest"), ROOTFS]), "not a regular"),
    "UN19 giant manifest": (
        aci.tar_bytes([aci.manifest_entry(b" " * (4 << 20) + b"{}"), ROOTFS]),
        "manifest has",
    ),
}
