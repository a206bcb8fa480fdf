# SPDX-License-Identifier: Apache-2.0
"""Makes the sample of a data directory that every later version must be able to read.

``python -m tests.lib.format_samples tests/data/formats/N/data-directory.tar.xz``, once for each version N of the
formats, as root, by the first release that writes them. Afterwards the file is never changed: it stands for what is on
users' disks. It holds a signed image, a stage1 that is a shell script, a prepared pod and one that exited with status 7.
"""

from __future__ import annotations

import io
import lzma
import os
import sys
import tarfile
import tempfile

from tests.lib.aci import write_aci
from tests.lib.keys import KeyRing
from tests.lib.rkt import Rkt, remove_tree

IMAGE = "example.com/sample"
STAGE1 = "example.com/stage1-sample"
EXITED, PREPARED = "sample-exited", "sample-prepared"
KEY_FILE = "key.asc"
#: Run by stage0 in the pod directory as any stage1 is; needs nothing but a shell on the host.
_RUN = b"""#!/bin/sh
mkdir -p logs stage1/rootfs/rkt/status
echo "2026-01-02T03:04:05.678901234Z stdout F hello from the sample" >logs/sample.log
echo 7 >stage1/rootfs/rkt/status/sample
echo $$ >pid
exit 7
"""


def make(path: str) -> None:
    """Write the sample."""
    base = tempfile.mkdtemp(prefix="rkt-sample-")
    engine = Rkt(base)
    try:
        with KeyRing() as ring:
            key = ring.make("sample@example.com")
            public = os.path.join(engine.data, KEY_FILE)
            with open(public, "wb") as stream:
                stream.write(ring.export(key))
            image = os.path.join(base, "sample.aci")
            write_aci(
                image,
                ("/bin/sample", "an argument"),
                name=IMAGE,
                files={"bin/sample": (b"#!/bin/sh\n", 0o755), "etc/sample.conf": b"sample=1\n"},
                links={"bin/link": "sample"},
                labels={"version": "1.0"},
            )
            with open(image, "rb") as stream:
                signature = ring.sign(key, stream.read())
            with open(f"{image}.asc", "wb") as stream:
                stream.write(signature)
        stage1 = os.path.join(base, "stage1.aci")
        write_aci(
            stage1,
            None,
            name=STAGE1,
            files={"run": (_RUN, 0o755), "gc": (b"#!/bin/sh\n", 0o755), "enter": (b"#!/bin/sh\n", 0o755)},
            annotations=[
                {"name": f"coreos.com/rkt/stage1/{word}", "value": value}
                for word, value in {
                    "run": "/run",
                    "gc": "/gc",
                    "enter": "/enter",
                    "interface-version": "6",
                }.items()
            ],
        )
        engine.run("trust", f"--prefix={IMAGE}", "--skip-fingerprint-review", public, check=0)
        engine.run("fetch", image, check=0)
        engine.run("--insecure-options=image", "fetch", stage1, check=0)
        pod = ["--insecure-options=image", f"--stage1-name={STAGE1}"]
        engine.run(pod[0], "prepare", pod[1], f"--name={PREPARED}", IMAGE, check=0)
        engine.run(pod[0], "run", pod[1], "--net=none", f"--name={EXITED}", IMAGE, check=7)
        with open(path, "wb") as stream:
            stream.write(lzma.compress(_archive(engine.data)))
    finally:
        engine.stop_everything()
        remove_tree(base)


def _archive(directory: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(directory, ".", filter=_without_owner_names)
    return buffer.getvalue()


def _without_owner_names(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    # The group rkt has another number on every host; who reads the sample gives it to root.
    entry.uname = entry.gname = ""
    entry.gid = 0
    return None if entry.isfifo() or entry.type not in tarfile.SUPPORTED_TYPES else entry


if __name__ == "__main__":
    make(sys.argv[1])
