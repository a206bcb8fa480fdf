# SPDX-License-Identifier: Apache-2.0
"""Egress rules of a pod before it starts: whether they can be kept, and by whom they could be lifted."""

from __future__ import annotations

from rkt.errors import Stage1Error, UsageError
from rkt.net import egress
from rkt.schema import isolators
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.pod.lifecycle import Pod
    from rkt.schema.appc import ImageManifest, PodManifest
    from rkt.stage0.stage1 import Program

#: Capabilities of an app that make rules in its own network namespace a request: it could change them, or send what
#: passes by them.
_STRONGER = ("CAP_NET_ADMIN", "CAP_NET_RAW")


def check_manifest(manifest: PodManifest, program: Program) -> None:
    """Refuse rules that are malformed, or that a stage1 would not know of.

    Raises:
        UsageError, Stage1Error: so it is.
    """
    egress.parse([manifest.annotations[contract.ANNOTATION_EGRESS]])
    if not program.has(contract.ANNOTATION_EGRESSES):
        raise Stage1Error(
            f"the pod has egress rules, which {program.name} does not know", hint="leave --egress out"
        )


def warnings(manifest: PodManifest, images: Sequence[ImageManifest], insecure: Sequence[str]) -> list[str]:
    """A sentence for each app that the rules do not bind."""
    found = []
    for runtime, image in zip(manifest.apps, images, strict=True):
        app = runtime.app or image.app
        held = list(_STRONGER)
        if app is not None and "capabilities" not in insecure:
            retained = isolators.retained_capabilities(app.isolators)
            held = [name for name in _STRONGER if name in retained]
        if held:
            found.append(
                f'warning: app "{runtime.name}" has {" and ".join(held)}, by which it can get around the egress rules'
            )
    return found


def check_networks(networks: list[str]) -> None:
    """Refuse networks in which rules would say nothing.

    Raises:
        UsageError: so it is.
    """
    if networks in (["none"], ["host"]):
        raise UsageError(
            f"--egress flag does not work with '{networks[0]}' networking",
            hint="--net=default" if networks == ["host"] else "leave --egress out: nothing leaves the pod",
        )


def check_pod(pod: Pod, networks: list[str]) -> None:
    """The same for a pod on disk that is about to be run.

    Raises:
        UsageError: so it is.
    """
    if contract.ANNOTATION_EGRESS.encode() in (pod.read(contract.POD_MANIFEST) or b""):
        check_networks(networks)
