# SPDX-License-Identifier: Apache-2.0
"""Who is behind what a pod is given."""

from __future__ import annotations

from rkt.linux import seccomp_profiles
from rkt.schema import isolators

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.schema.appc import App, ImageManifest
    from rkt.schema.isolators import Isolator
    from rkt.stage0.explain.subject import Subject

IMAGE, FLAG, MANIFEST, DEFAULT, POLICY = "image", "flag", "pod-manifest", "default", "trust-policy"
#: Isolators that say the same thing in two ways.
FAMILIES = (
    (isolators.CAPABILITIES_RETAIN, isolators.CAPABILITIES_REMOVE),
    (isolators.SECCOMP_RETAIN, isolators.SECCOMP_REMOVE),
)


def source_of(app: App, image: ImageManifest, subject: Subject, family: tuple[str, ...]) -> str:
    """Who is behind what the isolators of a family say."""
    said = [isolator for isolator in app.isolators if isolator.name in family]
    if not said:
        return DEFAULT
    return IMAGE if all(isolator in _tightened(image) for isolator in said) else subject.operator


def source_of_user(app: App, image: ImageManifest, subject: Subject) -> str:
    """Who is behind the user that an app runs as."""
    if image.app is not None and (image.app.user, image.app.group) == (app.user, app.group):
        return IMAGE
    return subject.operator


def _tightened(image: ImageManifest) -> list[Isolator]:
    return [] if image.app is None else isolators.tighten(image.app.isolators, seccomp_profiles.narrow)[0]
