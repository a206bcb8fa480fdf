# SPDX-License-Identifier: Apache-2.0
"""The pod as stage1 finds it in its working directory: manifest, image manifests, apps."""

from __future__ import annotations

from rkt.errors import Stage1Error
from rkt.linux import files
from rkt.schema import appc
from rkt.schema.record import Record
from rkt.stage0 import contract

_LIMIT_BYTES = 4 << 20


class PodApp(Record):
    """One app with the ``app`` section that counts: the pod manifest's, else the image's (spec cli §9.5)."""

    runtime: appc.RuntimeApp
    app: appc.App
    image: appc.ImageManifest

    @property
    def name(self) -> str:
        """The app's name in the pod."""
        return str(self.runtime.name)

    @property
    def rootfs_path(self) -> str:
        """The app's root below the pod directory."""
        return f"{contract.STAGE1_ROOTFS}/{contract.APPS_DIR}/{self.runtime.name}/rootfs"


class LoadedPod(Record):
    """A pod manifest with its apps in order."""

    manifest: appc.PodManifest
    apps: list[PodApp]

    def app(self, name: str) -> PodApp:
        """The app of that name.

        Raises:
            Stage1Error: there is none.
        """
        for app in self.apps:
            if app.name == name:
                return app
        raise Stage1Error(
            f"no app {name!r} in this pod", hint=f"apps: {', '.join(app.name for app in self.apps)}"
        )


def load_pod() -> LoadedPod:
    """Read the pod whose directory is the working directory.

    Raises:
        Stage1Error: an app has neither a section in the pod manifest nor one in its image.
        OSError, InvalidManifest: a file is missing or damaged.
    """
    manifest = appc.parse_pod_manifest(files.read_bounded(contract.POD_MANIFEST, _LIMIT_BYTES))
    apps = []
    for runtime in manifest.apps:
        image = appc.parse_image_manifest(
            files.read_bounded(f"appsinfo/{runtime.name}/manifest", _LIMIT_BYTES)
        )
        # An image may only tighten its isolators (design §9.4); the pod manifest is the operator's word.
        app = runtime.app or (image.app and appc.tightened_app(image.app, _narrow)[0])
        if app is None:
            raise Stage1Error(
                f"app {str(runtime.name)!r} has no app section in the pod manifest or in its image"
            )
        apps.append(PodApp(runtime=runtime, app=app, image=image))
    return LoadedPod(manifest=manifest, apps=apps)


def _narrow(names: list[str]) -> list[str]:
    """The system calls of an image's wish that the default filter allows; costs an import, so only when asked."""
    from rkt.linux import seccomp_profiles

    return seccomp_profiles.narrow(names)
