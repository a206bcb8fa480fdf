# SPDX-License-Identifier: Apache-2.0
"""Write an exited pod's app, with its changes, as an ACI (spec cli §2.14); not on the hot path."""

from __future__ import annotations

import os

from rkt.errors import HostError, PodError, UsageError
from rkt.pod import lifecycle
from rkt.stage0 import contract, roots
from rkt.stage0.held import hold
from rkt.stage0.messages import tell
from rkt.store.cas import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.linux.userns import IdRange
    from rkt.pod.lifecycle import Pod

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def export(settings: Settings, pod: Pod, app: str, output_path: str, *, overwrite: bool) -> None:
    """Write the ACI, compressed by gzip, with the image's own manifest, but that it depends on nothing any more.

    Args:
        settings: of the running command.
        pod: exited.
        app: its name.
        output_path: ends in ``.aci``.
        overwrite: whether an existing file is replaced.
    Raises:
        UsageError: the output's name will not do.
        PodError: the pod is not over, is being deleted, or has mounts below the app's root.
        NotFound: it was removed meanwhile.
        ImageError, HostError: the tree cannot be read or written.
    """
    from rkt.image.compression import GZIP
    from rkt.image.create import Options, create_aci
    from rkt.image.output import NewFile

    if not output_path.endswith(".aci"):
        raise UsageError(f"extension must be .aci (given {output_path})")
    _keep(pod)
    if not overwrite and os.path.lexists(output_path):
        raise UsageError("target file exists (try --overwrite)")
    output_path = os.path.abspath(output_path)
    # Held shared, the pod is not started or deleted; by this, no app of it is removed meanwhile.
    with pod.lock_changes():
        manifest = pod.read(f"appsinfo/{app}/manifest")
        if manifest is None:
            raise PodError(f'pod "{pod.uuid}" has no image manifest of app "{app}"')
        root_fd = _open_root(settings, pod, app)
        try:
            with NewFile(
                output_path, overwrite=overwrite, exists="target file exists (try --overwrite)"
            ) as output:
                options = Options(compression=GZIP, timestamp_seconds=None, ids=_ids(pod))
                created = create_aci(output.fd, _flat(manifest), options, rootfs_fd=root_fd)
                output.commit()
        finally:
            os.close(root_fd)
    for notice in created.notices:
        tell(settings, notice)


def _ids(pod: Pod) -> IdRange | None:
    if not pod.has(contract.PRIVATE_USERS_PREPARED):
        return None
    from rkt.pod.ranges import read

    return read(pod)


def _flat(manifest: bytes) -> bytes:
    """The manifest of an image that holds what its dependencies brought, and of whose files none is to be left out."""
    from rkt.schema import jsontext
    from rkt.schema.appc import parse_image_manifest

    parsed = parse_image_manifest(manifest)
    if not parsed.dependencies and not parsed.path_whitelist:
        return manifest
    return jsontext.dump(parsed.replace(dependencies=[], path_whitelist=[]).to_json()).encode()


def _keep(pod: Pod) -> None:
    """Hold the pod's lock shared, so that no gc deletes what is being read."""
    refusal = PodError(
        "pod is not exited. Only exited pods can be exported", hint=f"rkt status {pod.uuid.short}"
    )
    if not pod.is_exited or not hold(pod):
        raise refusal
    if pod.place not in {lifecycle.RUN, lifecycle.EXITED_GARBAGE} or not pod.has(contract.POD_MANIFEST):
        raise refusal


def _open_root(settings: Settings, pod: Pod, app: str) -> int:
    """The app's root file system as the pod left it; the working directory becomes the pod's."""
    # By descriptor: gc may move the pod to another place at any time.
    os.fchdir(pod.fd)
    if not pod.has(contract.OVERLAY_PREPARED):
        from rkt.linux.mount import mounts_below

        if mounts_below(f"{os.getcwd()}/{roots.app_root(app)}"):
            raise PodError(
                "pod has remaining mountpoints. Only pods using overlayfs or with no mountpoints can be exported",
                hint="rkt gc --mark-only",
            )
        return os.open(roots.app_root(app), _DIRECTORY)
    from rkt.linux import libc
    from rkt.linux.mount import enter_own_namespace, overlay

    store = Store(settings.data_dir)
    lowers = [f"{store.layer_path(layer)}/rootfs" for layer in roots.layer_keys(pod, app)]
    upper = os.path.realpath(roots.upper_path(roots.tree_key(pod, app), app))
    try:
        # This process's own mount namespace ends with it: nothing to take down, nothing to leak.
        enter_own_namespace()
        flags = libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV
        overlay([upper, *lowers], None, None, contract.STAGE1_ROOTFS, flags=flags)
    except OSError as e:
        raise HostError(
            f'cannot mount the overlay of app "{app}" again: {e.strerror}', hint="run as root"
        ) from e
    return os.open(contract.STAGE1_ROOTFS, _DIRECTORY)
