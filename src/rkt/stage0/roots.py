# SPDX-License-Identifier: Apache-2.0
"""Root file systems of a pod: overlays over the store's layers, or copies (spec runtime §2.5).

::

    $POD/overlay/                     0750, set-group-id bit removed
    ├── STAGE1-KEY/                   0750, group rkt: exit statuses are read here
    │   ├── upper/                    stage1's changes: rkt/status/APP, opt/stage2/APP/{manifest,rootfs}
    │   └── work/
    └── APP-IMAGE-KEY/                0700: an app's files, its setuid files too, are for root alone (HH1)
        ├── upper/APP/
        └── work/APP/
    $POD/stage1/rootfs/               where stage1's overlay is mounted, in the pod's mount namespace; or the copy
    $POD/stage1/rootfs/opt/stage2/APP/rootfs/     likewise for each app
    $POD/appsinfo/APP/{treeStoreID,layers}        layers: only when the root is not just the layer of the image's own key
"""

from __future__ import annotations

import os

from rkt.errors import HostError, PodError
from rkt.linux.files import write_new
from rkt.pod.lifecycle import DIRECTORY_MODE, FILE_MODE
from rkt.stage0 import contract
from rkt.values import ImageKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.linux.userns import IdRange, UserNamespace
    from rkt.pod.lifecycle import Pod
    from rkt.store.cas import Store
    from rkt.values import TreeID

OVERLAY = "overlay"
LAYERS = "layers"
_STAGE1_LAYERS = "stage1/layers"
# <linux/magic.h> and the out-of-tree file systems' own headers.
_UNFIT_FILE_SYSTEMS = {0x61756673: "aufs", 0x2FC12FC1: "zfs", 0x794C7630: "overlay"}
_MODPROBE = "/sbin/modprobe"


def overlay_unsupported(data_dir: str) -> str:
    """Why overlays cannot be used below the data directory; empty when they can."""
    if not _knows_overlay() and not (_load_overlay() and _knows_overlay()):
        return "the kernel does not know the overlay file system"
    from rkt.linux import libc

    fd = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unfit = _UNFIT_FILE_SYSTEMS.get(libc.statfs_type(fd) & 0xFFFFFFFF)
    finally:
        os.close(fd)
    return f"the data directory is on {unfit}" if unfit else ""


def _knows_overlay() -> bool:
    with open("/proc/filesystems", "rb", buffering=0) as file:
        return b"\toverlay\n" in file.readall()


def _load_overlay() -> bool:
    """Ask for the kernel module, as the first pod after a boot has to where overlay is one."""
    try:
        pid = os.posix_spawn(
            _MODPROBE, ["modprobe", "--quiet", "overlay"], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        )
    except OSError:
        return False
    return os.waitpid(pid, 0)[1] == 0


def _info(app: str | None, name: str, stage1_name: str) -> str:
    return stage1_name if app is None else f"appsinfo/{app}/{name}"


def record_layers(pod: Pod, app: str | None, key: ImageKey, layers: Sequence[ImageKey | TreeID]) -> None:
    """Note which layers a root is made of; from then on the store keeps them. ``None`` stands for stage1."""
    pod.write(_info(app, "treeStoreID", contract.STAGE1_TREE_ID), key.encode())
    if list(layers) != [key]:
        pod.write(_info(app, LAYERS, _STAGE1_LAYERS), "".join(f"{layer}\n" for layer in layers).encode())


def tree_key(pod: Pod, app: str | None) -> ImageKey:
    """The image a root was made of.

    Raises:
        PodError: the pod was not prepared to the end.
    """
    text = pod.read_text(_info(app, "treeStoreID", contract.STAGE1_TREE_ID))
    if not text:
        raise PodError(f'pod "{pod.uuid}" does not say which image {app or "stage1"} is made of')
    return ImageKey.parse(text)


def layer_keys(pod: Pod, app: str | None) -> list[ImageKey | TreeID]:
    """Layers of a root, the topmost first; or the one tree that was rendered of them."""
    text = pod.read_text(_info(app, LAYERS, _STAGE1_LAYERS))
    if not text:
        return [tree_key(pod, app)]
    from rkt.store.refs import parse_layer

    return [parse_layer(line) for line in text.split("\n")]


def upper_path(key: ImageKey, app: str | None) -> str:
    """Where changes go, relative to the pod directory."""
    return f"{OVERLAY}/{key}/upper" if app is None else f"{OVERLAY}/{key}/upper/{app}"


def work_path(key: ImageKey, app: str | None) -> str:
    """The overlay's scratch directory, relative to the pod directory."""
    return f"{OVERLAY}/{key}/work" if app is None else f"{OVERLAY}/{key}/work/{app}"


def app_root(app: str) -> str:
    """Where stage1 finds an app's root, relative to the pod directory."""
    return f"{contract.STAGE1_ROOTFS}/{contract.APPS_DIR}/{app}/rootfs"


def lay_out_overlays(pod: Pod) -> None:
    """The directory that holds all overlays of a pod."""
    pod.make_directory(OVERLAY)
    # Else everything made inside the pod would inherit the group by the set-group-id bit.
    os.chmod(OVERLAY, DIRECTORY_MODE, dir_fd=pod.fd)


def lay_out_overlay(
    pod: Pod,
    store: Store,
    app: str | None,
    key: ImageKey,
    layers: Sequence[ImageKey | TreeID],
    ids: IdRange | None = None,
) -> None:
    """Directories for one root's changes; the new root directory looks as the image's own, to the pod with ``ids``."""
    fd = pod.fd
    top = f"{OVERLAY}/{key}"
    try:
        os.mkdir(top, 0o700, dir_fd=fd)
    except FileExistsError:
        pass  # two apps of one image
    else:
        os.mkdir(f"{top}/upper", 0o755, dir_fd=fd)
        os.mkdir(f"{top}/work", 0o755, dir_fd=fd)
        if app is None:
            os.chown(top, -1, os.fstat(fd).st_gid, dir_fd=fd)
            os.chmod(top, DIRECTORY_MODE, dir_fd=fd)
    upper = upper_path(key, app)
    if app is not None:
        os.mkdir(upper, 0o755, dir_fd=fd)
        os.mkdir(work_path(key, app), 0o755, dir_fd=fd)
    like = os.stat(f"{store.layer_path(layers[0])}/rootfs", follow_symlinks=False)
    owner = (like.st_uid, like.st_gid)
    if ids is not None:
        owner = (ids.outside(like.st_uid), ids.outside(like.st_gid))
    os.chown(upper, *owner, dir_fd=fd)
    os.chmod(upper, like.st_mode & 0o7777, dir_fd=fd)


def lay_out_stage1(pod: Pod, base: str, apps: list[tuple[str, bytes]]) -> None:
    """What stage0 owes stage1 inside stage1's root.

    Args:
        pod: being prepared.
        base: stage1's writable root relative to the pod directory, not mounted.
        apps: (app name, bytes of the image manifest).
    """
    fd = pod.fd
    _make_directories(fd, base, contract.STATUS_DIR)
    _make_directories(fd, base, contract.APPS_DIR)
    os.chmod(f"{base}/{contract.APPS_DIR}", 0o700, dir_fd=fd)
    for app, manifest in apps:
        directory = f"{base}/{contract.APPS_DIR}/{app}"
        os.mkdir(directory, 0o755, dir_fd=fd)
        write_new(f"{directory}/manifest", manifest, FILE_MODE, dir_fd=fd)
        os.mkdir(f"{directory}/rootfs", 0o755, dir_fd=fd)


def _make_directories(fd: int, base: str, path: str) -> None:
    for part in path.split("/"):
        base = f"{base}/{part}"
        try:
            os.mkdir(base, 0o755, dir_fd=fd)
        except FileExistsError:
            continue


def mount_root(
    pod: Pod,
    store: Store,
    app: str | None,
    users: UserNamespace | None = None,
    *,
    target: str = "",
    readonly: bool = False,
) -> None:
    """Mount one overlay; the working directory is the pod directory, the mount namespace is the pod's own.

    Args:
        pod: that is about to run.
        store: where the layers are.
        app: whose root; ``None`` for stage1's.
        users: the layers are shown with the ids of this pod's user namespace.
        target: where, if not at its own place.
        readonly: as it is, without a way to change it.
    Raises:
        HostError: the kernel refuses.
    """
    from rkt.linux.mount import overlay

    key = tree_key(pod, app)
    target = target or (contract.STAGE1_ROOTFS if app is None else app_root(app))
    lowers = [f"{store.layer_path(layer)}/rootfs" for layer in layer_keys(pod, app)]
    upper, work = upper_path(key, app), work_path(key, app)

    def attach() -> None:
        if readonly:
            overlay([os.path.realpath(upper), *lowers], None, None, target)
        else:
            overlay(lowers, upper, work, target)

    try:
        if users is not None:
            from rkt.stage0.users import ShownLayers

            with ShownLayers(lowers, users):
                attach()
            return
        attach()
    except OSError as e:
        raise HostError(
            f"cannot mount the overlay of {app or 'stage1'}: {e.strerror}",
            hint="try --no-overlay",
        ) from e


def link_mtab(app: str, ids: IdRange | None = None) -> None:
    """Make ``/etc/mtab`` of an app where it has ``/etc`` and no such file; the working directory is the pod's.

    The image decides what ``etc`` is: it is resolved inside the app's root, so a link to the host's stays inside
    (invariant RN6, CVE-2024-5154). The link belongs to root, the pod's with ``ids``.
    """
    from rkt.linux import libc

    root = os.open(app_root(app), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        etc = libc.openat2(
            root, b"etc", os.O_PATH | os.O_DIRECTORY, libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
        )
    except OSError:
        return  # no /etc, or something odd: then the app does without
    finally:
        os.close(root)
    try:
        os.symlink("../proc/self/mounts", "mtab", dir_fd=etc)
        if ids is not None:
            os.chown("mtab", ids.first, ids.first, dir_fd=etc, follow_symlinks=False)
    except FileExistsError:
        pass
    finally:
        os.close(etc)
