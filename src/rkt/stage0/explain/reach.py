# SPDX-License-Identifier: Apache-2.0
"""What of the host an app can reach: files by volumes, and devices."""

from __future__ import annotations

import os
import stat

from rkt.pod import risk
from rkt.schema.appc import VOLUME_DEVICE, VOLUME_HOST, VOLUME_IMAGE
from rkt.schema.mounts import pair_mounts
from rkt.stage0.explain.sources import DEFAULT, IMAGE
from rkt.stage1.common import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.schema.appc import App, RuntimeApp
    from rkt.schema.mounts import PairedMount
    from rkt.stage0.explain.report import Report

_HARMLESS_DEVICES = frozenset(os.fsdecode(name) for name, _, _ in paths.DEVICES)


def reach(report: Report, runtime: RuntimeApp, app: App, name: str) -> dict[str, Any]:
    """Paths and devices, beyond what is the pod's own."""
    subject = report.subject
    sources = {volume.name: volume.source for volume in subject.manifest.volumes}
    sources |= {each.app_volume.name: each.app_volume.source for each in runtime.mounts if each.app_volume}
    mounted: list[dict[str, Any]] = []
    devices: list[dict[str, Any]] = []
    for mount in pair_mounts(runtime, app, subject.manifest):
        source = IMAGE if mount.implicit else subject.operator
        if mount.kind == VOLUME_DEVICE:
            devices.append(
                {"path": mount.path, "host_path": mount.source, "access": mount.access, "source": source}
            )
            _judge_device(report, name, mount, source)
            continue
        entry: dict[str, Any] = {
            "path": mount.path,
            "kind": mount.kind,
            "read_only": mount.read_only,
            "source": source,
        }
        if mount.kind == VOLUME_HOST:
            entry["host_path"] = mount.source
            entry["recursive"] = mount.recursive
            _judge_volume(report, name, mount, source)
        elif mount.kind == VOLUME_IMAGE:
            entry["image_id"] = sources[mount.name]
        mounted.append(entry)
    if not runtime.readonly_rootfs:
        report.add(
            "writable-root", name, DEFAULT, f"{name} can change its own files", "--readonly-rootfs=true"
        )
    return {"paths": mounted, "devices": devices}


def _judge_volume(report: Report, app: str, mount: PairedMount, source: str) -> None:
    where = os.path.realpath(mount.source or "/")
    shown = mount.source if where == mount.source else f"{mount.source} ({where})"
    # A read-only mount keeps nobody from talking to a socket.
    can_write = not mount.read_only or _kind(where) == stat.S_IFSOCK
    sensitive = risk.is_sensitive(where, report.settings.data_dir)
    kind = f"{'sensitive' if sensitive else 'volume'}-{'write' if can_write else 'read'}"
    verb = "can change" if can_write else "can read"
    grave = ", where it keeps programs, settings or secrets" if sensitive else ""
    remedy = f"a narrower directory than {mount.source}" if sensitive else f"leave out volume {mount.name}"
    if not mount.read_only:
        remedy = f"--volume={mount.name},kind=host,source={mount.source},readOnly=true, or {remedy}"
    report.add(kind, app, source, f"{app} {verb} {shown} of this machine{grave}", remedy)


def _judge_device(report: Report, app: str, mount: PairedMount, source: str) -> None:
    where = os.path.realpath(mount.source or "/")
    if where[1:] in _HARMLESS_DEVICES:
        return
    sensitive = _kind(where) == stat.S_IFBLK or where in {"/dev/mem", "/dev/kmem", "/dev/port"}
    grave = ", which holds files or memory of this machine" if sensitive else ""
    report.add(
        "sensitive-device" if sensitive else "device",
        app,
        source,
        f"{app} can use {mount.source} ({mount.access}){grave}",
        f"leave out --device={mount.source}",
    )


def _kind(path: str) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        return 0  # the pod will not start without it
