# SPDX-License-Identifier: Apache-2.0
"""Pulling: one OCI image of several layers from a registry on loopback, by rkt and the peers installed, in one run.

``rkt fetch docker://…``, ``podman pull``, ``docker pull``, and ``skopeo copy`` into a layout with ``umoci unpack``, which is
all that these two do together. Each starts without the image and ends with its files unpacked. Then a second image is
pulled that has the layers of the first and a small one more. Memory is the anonymous memory of all processes that the
command has, sampled; of docker, what its daemon takes more than before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.bench import disk, fetch, peers
from tests.bench.rows import Row, measure_alone
from tests.lib.rkt import Rkt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LAYERS = 4
#: Of (time of rkt) / (time of a peer), for a large image, and of the peak memory (design §8).
BUDGET = 0.7
MEMORY_BUDGET_MIB = 128
_SAMPLE_SECONDS = 0.05
_EXTRA_BYTES = 1 << 20
_OCI = "application/vnd.oci.image"


@dataclass
class Puller:
    """How one engine pulls.

    Attributes:
        first, second: commands that pull the two images, one after the other.
        remove: commands after which nothing of them is there.
        environment: of all commands.
        daemon: process whose memory counts besides, 0 when there is none.
    """

    name: str
    first: list[list[str]]
    second: list[list[str]]
    remove: list[list[str]]
    environment: dict[str, str] | None = None
    daemon: int = 0
    times: list[float] = field(default_factory=list)
    shared: list[float] = field(default_factory=list)
    peak: float = 0.0


def make_images(tree: str, base: str) -> None:
    """Two images in a layout: ``first`` has the tree in layers, ``second`` one small layer more."""
    blobs = f"{base}/blobs/sha256"
    os.makedirs(blobs)
    os.makedirs(f"{base}/extra")
    with open(f"{base}/extra/extra", "wb") as file:
        file.write(os.urandom(_EXTRA_BYTES))
    directories = sorted(os.listdir(f"{tree}/srv"))
    shares = [directories[number::LAYERS] for number in range(LAYERS)]
    layers = [_layer(base, tree, [f"srv/{name}" for name in share]) for share in shares if share]
    extra = _layer(base, f"{base}/extra", ["extra"])
    shutil.rmtree(f"{base}/extra")

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    entries = []
    for name, used in (("first", layers), ("second", [*layers, extra])):
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in used]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": put(json.dumps(config).encode(), f"{_OCI}.config.v1+json"),
            "layers": [descriptor for _, descriptor in used],
        }
        entry = put(json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")
        entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": name}})
    for name, value in (
        ("index.json", {"schemaVersion": 2, "manifests": entries}),
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
    ):
        with open(f"{base}/{name}", "w", encoding="ascii") as text:
            json.dump(value, text)


def _layer(base: str, tree: str, members: Sequence[str]) -> tuple[str, dict[str, object]]:
    """A compressed layer in the layout; returns its diff ID and its descriptor."""
    plain = f"{base}/layer.tar"
    owner = ("--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0")
    subprocess.run(["tar", "-C", tree, *owner, "-cf", plain, *members], check=True)
    diff_id, _ = fetch.compress(plain, f"{plain}.gz")
    os.unlink(plain)
    with open(f"{plain}.gz", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
    os.rename(f"{plain}.gz", f"{base}/blobs/sha256/{digest}")
    kind = f"{_OCI}.layer.v1.tar+gzip"
    return f"sha256:{diff_id}", {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _anonymous_kib(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
    return total


def seconds(puller: Puller, commands: Sequence[Sequence[str]]) -> float:
    """How long commands take together."""
    return sum(fetch.timed(*words, env=puller.environment) for words in commands)


def peak_mib(puller: Puller, commands: Sequence[Sequence[str]]) -> float:
    """The most memory that commands have at once; looking for it takes time, so that theirs is not measured."""
    daemon = peers.descendants(puller.daemon) if puller.daemon else []
    before = _anonymous_kib(daemon)
    peak = 0
    for words in commands:
        process = subprocess.Popen(
            words,
            env=puller.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None:
            pids = {*peers.descendants(process.pid), *daemon}
            peak = max(peak, _anonymous_kib(list(pids)) - before)
            time.sleep(_SAMPLE_SECONDS)
        if process.returncode:
            raise peers.Unavailable(f"{words[0]} ended with status {process.returncode}")
    return peak / 1024


def pullers(base: str, port: int, stack: contextlib.ExitStack) -> Iterator[Puller]:
    """Every engine that is here."""
    images = [f"127.0.0.1:{port}/bench:{tag}" for tag in ("first", "second")]
    rkt = Rkt(f"{base}/rkt")
    insecure = "--insecure-options=image,http"
    first, second = (
        [rkt.command(insecure, "fetch", "--progress=none", f"docker://{image}")] for image in images
    )
    yield Puller("rkt", first, second, [rkt.command("image", "gc", "--grace-period=0s")], rkt.environment())
    if shutil.which("podman"):
        podman = ["podman", f"--root={base}/podman", f"--runroot={base}/podman-run"]
        first, second = ([[*podman, "pull", "-q", "--tls-verify=false", image]] for image in images)
        yield Puller("podman pull", first, second, [[*podman, "rmi", "-f", *images]])
    if shutil.which("dockerd"):
        # Registries on loopback need no TLS.
        os.makedirs(f"{base}/docker")
        docker = peers.Docker(f"{base}/docker", "")
        stack.callback(docker.close)
        docker.start()
        words = ["docker", "--host", docker.socket]
        first, second = ([[*words, "pull", "-q", image]] for image in images)
        yield Puller("docker pull", first, second, [[*words, "rmi", "-f", *images]], daemon=docker.daemon.pid)
    if shutil.which("umoci"):
        copy = ["skopeo", "copy", "-q", "--src-tls-verify=false"]
        first, second = (
            [
                [*copy, f"docker://{image}", f"oci:{base}/umoci:{number}"],
                ["umoci", "unpack", "--image", f"{base}/umoci:{number}", f"{base}/umoci-{number}"],
            ]
            for number, image in enumerate(images)
        )
        left = [f"{base}/umoci{ending}" for ending in ("", "-0", "-1")]
        yield Puller("skopeo copy, umoci unpack", first, second, [["rm", "-rf", *left]])


def measure(rounds: int, mib: int, files: int) -> list[Row]:
    """Rows of the report."""
    if not all(shutil.which(word) for word in ("docker-registry", "skopeo")):
        return [Row("pull of an OCI image", "skipped: docker-registry or skopeo is not installed")]
    rows = []
    with disk.journalled(mib) as base:
        fetch.make_tree(f"{base}/tree", mib, files)
        make_images(f"{base}/tree", f"{base}/layout")
        port = fetch.free_port()
        with contextlib.ExitStack() as stack:
            stack.enter_context(fetch.registry(base, port))
            for tag in ("first", "second"):
                words = ("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{base}/layout:{tag}")
                fetch.timed(*words, f"docker://127.0.0.1:{port}/bench:{tag}")
            found = list(pullers(base, port, stack))
            # The first round makes the disk and the page cache grow, and is not counted.
            for number in range(1 + rounds):
                for puller in found if number % 2 == 0 else found[::-1]:
                    puller.times.append(seconds(puller, puller.first))
                    puller.shared.append(seconds(puller, puller.second))
                    seconds(puller, puller.remove)
            for puller in found:
                del puller.times[0], puller.shared[0]
                puller.peak = peak_mib(puller, puller.first)
        what = f"pull of {mib} MiB in {files} files, {LAYERS} layers"
        is_large = mib >= fetch.LARGE_MIB
        rows += _rows(what, found, lambda puller: puller.times, BUDGET if is_large else 0)
        rows += _rows("second pull, shared layers", found, lambda puller: puller.shared, 0)
        rows += _memory(found)
    return rows


def _rows(
    what: str, found: Sequence[Puller], times: Callable[[Puller], list[float]], budget: float
) -> list[Row]:
    own = times(found[0])
    rows = [Row(f"{what}: {found[0].name}", f"{statistics.median(own):.2f} s")]
    for puller in found[1:]:
        theirs = times(puller)
        ratio = statistics.median(a / b for a, b in zip(own, theirs, strict=True))
        row = Row(f"{what}: {puller.name}", f"{statistics.median(theirs):.2f} s", f"{ratio:.2f}")
        if budget and puller.name in {"podman pull", "docker pull"}:
            row = replace(row, budget=f"{budget:.2f}", kept="yes" if ratio <= budget else "NO")
        rows.append(row)
    return rows


def _memory(found: Sequence[Puller]) -> list[Row]:
    own = found[0].peak
    rows = []
    for puller in found:
        row = Row(f"peak memory of a pull: {puller.name}", f"{puller.peak:.0f} MiB")
        if puller is found[0]:
            kept = "yes" if own <= MEMORY_BUDGET_MIB else "NO"
            row = replace(row, budget=f"{MEMORY_BUDGET_MIB} MiB", kept=kept)
        elif puller.peak:
            row = replace(row, ratio=f"{own / puller.peak:.2f}")
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(measure_alone(__doc__, measure))
