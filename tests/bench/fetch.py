# SPDX-License-Identifier: Apache-2.0
"""Fetching: one image with many files by ``rkt fetch``, signature verified, beside ``podman`` and ``docker pull``.

rkt downloads an ACI from a plain HTTP server, the peers the same files as one layer from a registry, all on loopback, all
compressed by gzip, all unpacked and committed by the end. Runs alternate; each starts with an empty store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.bench import disk, peers
from tests.bench.rows import Row, measure_alone
from tests.lib.aci import image_manifest
from tests.lib.keys import KeyRing
from tests.lib.rkt import Rkt

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "bench.example/big"
#: Of (time of rkt) / (time of a peer), for a large image (design §8).
BUDGET = 0.7
LARGE_MIB = 1000
_REGISTRY = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def make_tree(path: str, mib: int, files: int) -> None:
    """A tree of so many files in directories of a hundred; half of each is random, so that it compresses by half."""
    dice = random.Random(3)
    size = (mib << 20) // files
    for number in range(files):
        directory = os.path.join(path, "srv", f"{number // 100:04}")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"{number % 100:02}"), "wb") as file:
            file.write(dice.randbytes(size // 2) + b"0123456789abcdef" * (size // 32))


def compress(path: str, target: str) -> tuple[str, int]:
    """gzip; returns hex sha256 and size of the uncompressed file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
        size = file.tell()
    with open(target, "wb") as file:
        subprocess.run(["gzip", "-c", "-6", path], stdout=file, check=True)
    return digest.hexdigest(), size


def make_aci(tree: str, target: str) -> None:
    """The tree as an ACI."""
    plain = f"{target}.tar"
    manifest = json.dumps(image_manifest(NAME, ["/bin/true"])).encode()
    with tarfile.open(plain, "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("manifest")
        info.size = len(manifest)
        with tempfile.TemporaryFile() as file:
            file.write(manifest)
            file.seek(0)
            archive.addfile(info, file)
        archive.add(tree, "rootfs")
    compress(plain, target)
    os.unlink(plain)


def make_layout(tree: str, target: str) -> None:
    """The tree as an OCI image of one layer."""
    blobs = os.path.join(target, "blobs", "sha256")
    os.makedirs(blobs)
    plain = os.path.join(target, "layer.tar")
    with tarfile.open(plain, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(os.path.join(tree, "srv"), "srv")
    diff_id, _ = compress(plain, f"{plain}.gz")
    os.unlink(plain)

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    prefix = "application/vnd.oci.image"
    with open(f"{plain}.gz", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = os.stat(f"{plain}.gz").st_size
    os.rename(f"{plain}.gz", os.path.join(blobs, digest))
    layer = {"mediaType": f"{prefix}.layer.v1.tar+gzip", "digest": f"sha256:{digest}", "size": size}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    kind = f"{prefix}.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": put(json.dumps(config).encode(), f"{prefix}.config.v1+json"),
        "layers": [layer],
    }
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), kind)]}
    for name, value in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(target, name), "w", encoding="ascii") as text:
            json.dump(value, text)


@contextlib.contextmanager
def serving(*command: str, port: int) -> Iterator[None]:
    """A server, from when it listens to the end of ``with``."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise peers.Unavailable(f"{command[0]} does not listen") from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def registry(base: str, port: int) -> contextlib.AbstractContextManager[None]:
    """``docker-registry`` on loopback, with its files below a directory."""
    configuration = f"{base}/registry.yml"
    with open(configuration, "w", encoding="ascii") as text:
        text.write(_REGISTRY.format(directory=f"{base}/registry", port=port))
    return serving("docker-registry", "serve", configuration, port=port)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def timed(*command: str, env: dict[str, str] | None = None) -> float:
    """Seconds that a command takes; it must succeed.

    What was written before stands on the disk when it begins: an engine that waits until its files do, as rkt, would
    otherwise wait for those of the one before as well.
    """
    os.sync()
    started = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise peers.Unavailable(f"{command[0]}: {done.stderr.decode(errors='replace')[-300:]}")
    return seconds


def _pullers(base: str, stack: contextlib.ExitStack) -> dict[str, tuple[list[str], list[str]]]:
    """Name of each peer that is here -> the commands that pull and remove the image."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    if not all(shutil.which(word) for word in ("docker-registry", "skopeo")):
        return found
    port = free_port()
    stack.enter_context(registry(base, port))
    image = f"127.0.0.1:{port}/big:1"
    timed("skopeo", "copy", "--dest-tls-verify=false", f"oci:{base}/oci", f"docker://{image}")
    if shutil.which("podman"):
        podman = ["podman", f"--root={base}/podman", f"--runroot={base}/podman-run"]
        found["podman"] = (
            [*podman, "pull", "-q", "--tls-verify=false", image],
            [*podman, "rmi", "-f", image],
        )
    if shutil.which("dockerd"):
        # Registries on loopback need no TLS.
        docker = peers.Docker(base, "")
        stack.callback(docker.close)
        docker.start()
        words = ["docker", "--host", docker.socket]
        found["docker"] = ([*words, "pull", "-q", image], [*words, "rmi", "-f", image])
    return found


def _times(base: str, rounds: int) -> dict[str, list[float]]:
    port = free_port()
    rkt = Rkt(os.path.join(base, "rkt"))
    with KeyRing() as ring:
        key = ring.make("bench@example.com")
        with open(f"{base}/www/big.aci", "rb") as file:
            signature = ring.sign(key, file.read())
        with open(f"{base}/www/big.aci.asc", "wb") as file:
            file.write(signature)
        with open(f"{base}/key.asc", "wb") as file:
            file.write(ring.export(key))
    rkt.run("trust", "--root", "--skip-fingerprint-review", f"{base}/key.asc", check=0)
    times: dict[str, list[float]] = {"rkt": []}
    with contextlib.ExitStack() as stack:
        web = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", f"{base}/www", str(port))
        stack.enter_context(serving(*web, port=port))
        pullers = _pullers(base, stack)
        # The first round makes the disk and the page cache grow, and is not counted.
        for _ in range(1 + rounds):
            command = rkt.command("fetch", "--progress=none", f"http://127.0.0.1:{port}/big.aci")
            times["rkt"].append(timed(*command, env=rkt.environment()))
            rkt.run("image", "rm", NAME, check=0)
            for name, (pull, remove) in pullers.items():
                times.setdefault(name, []).append(timed(*pull))
                timed(*remove)
    return {name: each[1:] for name, each in times.items()}


def measure(rounds: int, mib: int, files: int) -> list[Row]:
    """Rows of the report."""
    with disk.journalled(mib) as base:
        os.makedirs(f"{base}/rkt")
        os.makedirs(f"{base}/www")
        make_tree(f"{base}/tree", mib, files)
        make_aci(f"{base}/tree", f"{base}/www/big.aci")
        make_layout(f"{base}/tree", f"{base}/oci")
        times = _times(base, rounds)
    what = f"fetch of {mib} MiB in {files} files"
    own = times.pop("rkt")
    rows = [Row(f"{what}: rkt, verified", f"{statistics.median(own):.2f} s")]
    for name, theirs in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, theirs, strict=True))
        row = Row(f"{what}: {name} pull", f"{statistics.median(theirs):.2f} s", f"{ratio:.2f}")
        if mib >= LARGE_MIB:
            row = replace(row, budget=f"{BUDGET:.2f}", kept="yes" if ratio <= BUDGET else "NO")
        rows.append(row)
    if not times:
        rows.append(Row("podman pull, docker pull", "skipped: docker-registry or skopeo is not installed"))
    return rows


if __name__ == "__main__":
    sys.exit(measure_alone(__doc__, measure))
