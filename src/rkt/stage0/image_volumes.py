# SPDX-License-Identifier: Apache-2.0
"""Volumes that are the files of an image: found, judged and referred to as images of apps are, and never written to.

::

    $POD/imageVolumes/NAME/               of a volume of the pod; APP.NAME of one that only an app has
    ├── treeStoreID                   key of the image
    ├── layers                        its layer, or the tree that was rendered of it and what it depends on
    ├── verdict, dependencies/        as of apps
    └── rootfs/                       where stage0 mounts it, read-only, in the pod's mount namespace
"""

from __future__ import annotations

import os

from rkt.errors import HostError, PodError
from rkt.linux import libc
from rkt.schema.appc import VOLUME_IMAGE, parse_image_manifest
from rkt.schema.mounts import belongs_to, named_volumes, own_directory
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.stage0.images import compose, find_image
from rkt.trust.policy import check_verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod
    from rkt.schema.appc import Mount, PodManifest, RuntimeApp, Volume
    from rkt.stage0.images import Composed
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord


class ImageVolume(Record):
    """One volume with its image.

    Attributes:
        name: of its directory.
    """

    name: str
    image: ImageRecord
    composed: Composed

    @property
    def directory(self) -> str:
        """Its place in the pod directory."""
        return f"{contract.IMAGE_VOLUMES}/{self.name}"


def find_image_volumes(
    manifest: PodManifest, settings: Settings, store: Store, *, pull_policy: str
) -> list[ImageVolume]:
    """The images that volumes of a pod are made of, fetched when the policy allows it.

    Raises:
        NotFound, NotVerified, FetchError, UsageError: an image cannot be had, or may not be used.
    """
    found = []
    for name, volume in named_volumes(manifest):
        if volume.kind != VOLUME_IMAGE:
            continue
        image = find_image(volume.source, settings, pull_policy=pull_policy, store=store)
        check_verdict(image.verdict, settings, opted_out=settings.insecure.image)
        # One directory has to hold the whole, so that a plain bind mount will do.
        composed = compose(
            image,
            parse_image_manifest(store.manifest_bytes(image.key)),
            settings,
            store,
            pull_policy=pull_policy,
            single=True,
        )
        store.touch(image.key)
        found.append(ImageVolume(name=name, image=image, composed=composed))
    return found


def with_ids(manifest: PodManifest, volumes: list[ImageVolume]) -> PodManifest:
    """The manifest with the IDs of the images instead of what they were called."""
    ids = {volume.name: volume.image.image_id for volume in volumes}

    def known(name: str, volume: Volume) -> Volume:
        return volume.replace(source=ids[name]) if name in ids else volume

    def of_app(app: RuntimeApp, mount: Mount) -> Mount:
        own = mount.app_volume
        if own is None:
            return mount
        return mount.replace(app_volume=known(own_directory(app.name, own.name), own))

    return manifest.replace(
        volumes=[known(volume.name, volume) for volume in manifest.volumes],
        apps=[app.replace(mounts=[of_app(app, mount) for mount in app.mounts]) for app in manifest.apps],
    )


def refer(pod: Pod, volumes: list[ImageVolume]) -> None:
    """Name the images in the pod directory; from then on the store keeps them."""
    if not volumes:
        return
    if not pod.has(contract.IMAGE_VOLUMES):
        pod.make_directory(contract.IMAGE_VOLUMES)
    for volume in volumes:
        pod.make_directory(volume.directory)
        pod.make_directory(f"{volume.directory}/rootfs")
        pod.write(f"{volume.directory}/treeStoreID", volume.image.key.encode())
        pod.write(f"{volume.directory}/layers", f"{volume.composed.layers[0]}\n".encode())


def directories(pod: Pod, apps: list[str] | None = None) -> list[str]:
    """Places of a pod's image volumes in its directory: all, or the pod's own and those of some apps."""
    if not pod.has(contract.IMAGE_VOLUMES):
        return []
    return [
        f"{contract.IMAGE_VOLUMES}/{name}"
        for name in sorted(os.listdir(f"{pod.path}/{contract.IMAGE_VOLUMES}"))
        if apps is None or "." not in name or any(belongs_to(app, name) for app in apps)
    ]


def mount_image_volumes(pod: Pod, store: Store, places: list[str]) -> None:
    """Mount some; the working directory is the pod directory, the mount namespace is the pod's own.

    Args:
        pod: the pod.
        store: where the images are.
        places: out of ``directories``.
    Raises:
        HostError: the kernel refuses.
        PodError: the pod was not prepared to the end.
    """
    from rkt.linux.mount import bind
    from rkt.store.refs import parse_layer

    attributes = libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV
    for directory in places:
        text = pod.read_text(f"{directory}/layers")
        if not text:
            raise PodError(f'pod "{pod.uuid}" does not say which image {directory} is made of')
        source = f"{store.layer_path(parse_layer(text))}/rootfs"
        try:
            bind(source, f"{directory}/rootfs", attributes=attributes, recursive=False)
        except OSError as e:
            raise HostError(f"cannot mount {directory}: {e.strerror}") from e
