# SPDX-License-Identifier: Apache-2.0
"""A stage1 that is a shell script, and images put straight into a store: pods without fetching and without isolation.

The stub does what the contract asks of a stage1 and writes down what stage0 gave it. How it ends is chosen by
``--hostname``: ``exit-N`` ends with N at once, ``sleep`` runs until it is stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.record import ImageRecord
from rkt.store.staging import Staging
from rkt.trust.verdict import KIND_INSECURE, Verdict
from rkt.values import ACIdentifier, ImageID
from tests.lib.aci import image_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lib.rkt import Result, Rkt, Running

STUB = "example.com/stage1-stub"
APP = "example.com/app"
#: Flags that make the stub the stage1 and let unsigned images run.
FLAGS = ("--insecure-options=image", f"--stage1-name={STUB}")

_RUN = r"""#!/bin/sh
set -eu
{
    for word in "$@"; do echo "arg $word"; done
    echo "cwd $(pwd -P)"
    echo "pid $$"
    echo "lock $(readlink /proc/$$/fd/$RKT_LOCK_FD)"
    for fd in /proc/$$/fd/*; do echo "fd ${fd##*/}"; done
    echo "umask $(umask)"
    echo "ignored $(sed -n 's/^SigIgn:[[:space:]]*//p' /proc/$$/status)"
    env | sed 's/^/env /'
    sed 's/^/mount /' /proc/self/mountinfo
    find . -path ./report -o -print | sed 's/^/file /'
} > report
if [ "${1:-}" = --debug ]; then shift; fi
behaviour=exit-0
for word in "$@"; do
    case $word in --hostname=*) behaviour=${word#--hostname=} ;; esac
done
mkdir -p logs
finish() {
    for app in appsinfo/*; do echo "$1" > "stage1/rootfs/rkt/status/${app##*/}"; done
    exit "$1"
}
for app in appsinfo/*; do
    name=${app##*/}
    echo "2026-01-02T03:04:05.000000001Z stdout F out of $name" >> "logs/$name.log"
    echo "2026-01-02T03:04:05.000000002Z stderr F err of $name" >> "logs/$name.log"
    if [ -d "stage1/rootfs/opt/stage2/$name/rootfs" ]; then
        echo written > "stage1/rootfs/opt/stage2/$name/rootfs/written" || :
    fi
done
ln -s ready stage1/rootfs/rkt/supervisor-status
trap 'finish 143' TERM
echo $$ > pid.new
mv pid.new pid
case $behaviour in
    exit-*) finish "${behaviour#exit-}" ;;
    sleep)
        while :; do sleep 0.02; done
        ;;
esac
"""
_STOP = r"""#!/bin/sh
set -eu
echo "stop $*" >> "${STUB_TRACE:-/dev/null}"
signal=TERM
if [ "$1" = --force ]; then signal=KILL; fi
kill -"$signal" "$(cat pid)"
"""
_GC = r"""#!/bin/sh
echo "gc $* in $(pwd -P) root $(ls stage1/rootfs/rkt/status)" >> "${STUB_TRACE:-/dev/null}"
"""
_ENTER = r"""#!/bin/sh
echo "enter in $(pwd -P) with TERM=$TERM:"
for word in "$@"; do echo "arg $word"; done
exit 9
"""


def put_tree(
    data_dir: str,
    manifest: dict[str, Any],
    files: Mapping[str, bytes | tuple[bytes, int]],
    *,
    links: Mapping[str, str] | None = None,
    verdict: Verdict | None = None,
) -> ImageRecord:
    """Commit an image made of files (path -> content, or content and mode) without reading any archive."""
    setup_data_dir(data_dir)
    data = json.dumps(manifest).encode()
    digest = hashlib.sha512(data + repr(sorted(files.items())).encode()).hexdigest()
    identity = ImageID.parse(f"sha512-{digest}")
    labels = {label["name"]: label["value"] for label in manifest["labels"]}
    name = manifest["name"]
    if verdict is None:
        verdict = Verdict(kind=KIND_INSECURE, name=name, rule="--insecure-options=image", checked_at=1)
    record = ImageRecord(
        key=identity.key,
        image_id=identity,
        name=ACIdentifier.parse(name),
        labels=labels,
        import_time_ns=1_700_000_000 * 10**9,
        origin="test",
        size_bytes=len(data),
        tree_size_bytes=0,
        verdict=verdict,
        layers=[identity.key],
        manifest_digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
    )
    with Staging(data_dir) as staging:
        root = f"{staging.path}/layer/rootfs"
        os.makedirs(root)
        os.chmod(root, 0o755)
        for path, content in files.items():
            text, mode = content if isinstance(content, tuple) else (content, 0o644)
            target = f"{root}/{path}"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(text)
            os.chmod(target, mode)
        for path, link in (links or {}).items():
            os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
            os.symlink(link, f"{root}/{path}")
        for path in ("manifest", "layer/manifest"):
            with open(f"{staging.path}/{path}", "wb") as file:
                file.write(data)
        with open(f"{staging.path}/split", "wb"):
            pass
        return Store(data_dir).put(staging.path, staging.fd, record)


def put_stub(data_dir: str, *, interface_version: int | None = 6, **entrypoints: str | None) -> ImageRecord:
    """Commit the stub stage1; a keyword names another path for an entrypoint, ``None`` leaves it out."""
    paths = {"run": "/run", "enter": "/enter", "gc": "/gc", "stop": "/stop", **entrypoints}
    annotations = [
        {"name": f"coreos.com/rkt/stage1/{name}", "value": path} for name, path in paths.items() if path
    ]
    if interface_version is not None:
        annotations.append(
            {"name": "coreos.com/rkt/stage1/interface-version", "value": str(interface_version)}
        )
    manifest = image_manifest(STUB, None, annotations=annotations, labels={"version": "1"})
    scripts = {"run": _RUN, "enter": _ENTER, "gc": _GC, "stop": _STOP}
    return put_tree(data_dir, manifest, {name: (text.encode(), 0o755) for name, text in scripts.items()})


def put_app(data_dir: str, name: str = APP, *, version: str = "1.0", **more: Any) -> ImageRecord:
    """Commit an app image with a few files; ``more`` goes into the manifest."""
    manifest = image_manifest(name, labels={"version": version}, **more)
    files: dict[str, bytes | tuple[bytes, int]] = {
        "bin/app": (b"#!/bin/sh\n", 0o755),
        "bin/sh": (b"#!/bin/sh\n", 0o755),
        "etc/os-release": b"NAME=test\n",
    }
    return put_tree(data_dir, manifest, files)


class StubPods:
    """An engine whose store holds the stub and one app."""

    def __init__(self, rkt: Rkt) -> None:
        self.rkt = rkt
        self.stage1 = put_stub(rkt.data)
        self.app = put_app(rkt.data)
        self.trace = f"{rkt.base}/trace"

    @property
    def environment(self) -> dict[str, str]:
        """Where the stub's stop and gc write that they ran."""
        return {"STUB_TRACE": self.trace}

    def run(self, *words: str, check: int | None = 0) -> Result:
        """``rkt run`` with the stub; flags first."""
        return self.rkt.run("run", *FLAGS, *words, check=check, env=self.environment)

    def exited(self, *words: str, status: int = 0) -> str:
        """Run a pod to its end; its UUID."""
        before = set(self.rkt.pods("run"))
        self.run(f"--hostname=exit-{status}", *words, APP, check=status)
        (uuid,) = set(self.rkt.pods("run")) - before
        return uuid

    def prepared(self, *words: str) -> str:
        """Prepare a pod; its UUID."""
        return self.rkt.run("prepare", *FLAGS, *words, APP, check=0).stdout.strip()

    def running(self, *words: str) -> tuple[Running, str]:
        """Start a pod that sleeps; the process and the UUID."""
        process = self.rkt.popen("run", *FLAGS, "--hostname=sleep", *words, APP, env=self.environment)
        return process, self.rkt.wait_for_pod()

    def report(self, uuid: str) -> dict[str, list[str]]:
        """What stage0 gave the stub's run entrypoint: kind of line -> values."""
        lines: dict[str, list[str]] = {}
        with open(f"{self.rkt.pod_path(uuid)}/report", encoding="utf-8") as stream:
            for line in stream:
                kind, _, value = line.rstrip("\n").partition(" ")
                lines.setdefault(kind, []).append(value)
        return lines
