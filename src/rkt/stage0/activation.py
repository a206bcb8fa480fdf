# SPDX-License-Identifier: Apache-2.0
"""Sockets that a service manager passed to ``rkt`` and that stage1 will hand to apps; imported when there are some."""

from __future__ import annotations

import os

from rkt.errors import UsageError
from rkt.linux import listening
from rkt.schema import activation, appc
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.pod.lifecycle import Pod


def passed() -> list[listening.Listening]:
    """Those that are meant for this process.

    Raises:
        UsageError: the variables that tell of them are malformed.
    """
    try:
        return listening.passed(dict(os.environ), os.getpid())
    except ValueError as e:
        raise UsageError(str(e)) from e


def check_sockets(manifest: bytes, images: dict[str, bytes]) -> frozenset[str]:
    """Refuse sockets that no app of a pod declares.

    Args:
        manifest: of the pod.
        images: manifest of each app's image by the name of the app.
    Returns:
        names of the ports for which there is a socket, and which are not forwarded therefore.
    Raises:
        UsageError: there are such, or their addresses differ from what ``--port`` says.
    """
    pod = appc.parse_pod_manifest(manifest)
    sockets = passed()
    if not sockets or pod.annotations.get(contract.ANNOTATION_MUTABLE) == "true":
        return frozenset()
    apps = []
    for runtime in pod.apps:
        app = runtime.app or appc.parse_image_manifest(images[str(runtime.name)]).app
        if app is not None:
            apps.append((str(runtime.name), app))
    return frozenset(wish.port for wish in activation.assign(sockets, activation.expected(apps, pod.ports)))


def check_pod_sockets(pod: Pod) -> frozenset[str]:
    """The same for a pod that is prepared, or was run before."""
    manifest = pod.read(contract.POD_MANIFEST) or b"{}"
    images = {}
    for runtime in appc.parse_pod_manifest(manifest).apps:
        images[str(runtime.name)] = pod.read(f"appsinfo/{runtime.name}/manifest") or b"{}"
    return check_sockets(manifest, images)
