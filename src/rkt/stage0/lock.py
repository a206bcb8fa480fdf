# SPDX-License-Identifier: Apache-2.0
"""What a pod was made of when somebody looked: ``rkt lock`` writes it down, ``--locked`` refuses anything else.

A lock file is JSON for people to keep beside their own files (``docs/lock.md``)::

    {"format": "rkt.lock", "version": 1,
     "stage1": {"name": …, "id": "sha512-…", "signers": […]},
     "apps": [{"app": "web", "image": "docker://…", "name": …, "id": "sha256-…", "digest": "sha256:…", "signers": […],
               "dependencies": […]}],
     "volumes": […]}

What has to be held against it comes from the same plan as the pod itself, so nothing of the pod can be forgotten.
"""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest, NotLocked, UsageError, quoted
from rkt.linux.files import read_bounded, replace_file
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.trust.verdict import KIND_BUILTIN, KIND_OPENPGP
from rkt.values import ImageID, is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.fetch.reference import Reference
    from rkt.pod.request import AppRequest, PodRequest
    from rkt.stage0.image_volumes import ImageVolume
    from rkt.stage0.prepare import Plan, PlannedApp
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord
    from rkt.trust.verdict import Verdict

FORMAT = "rkt.lock"
VERSION = 1
#: Where it is kept unless somebody says otherwise.
USUAL_NAME = "rkt.lock"
#: Who vouches for the stage1 images of the installation.
INSTALLATION = "installation"
_MAX_BYTES = 1 << 20


class LockedImage(Record):
    """One image.

    Attributes:
        app: name of the app, or of the volume; empty for stage1 and dependencies.
        image: the reference as typed; empty likewise, and where the pod came of a manifest.
        name: of the image, with its version.
        image_id: whole.
        digest: by which a registry has it: of the index that it was chosen from, else of its manifest; empty for ACIs.
        signers: all that vouched for it; empty when nobody did.
        dependencies: what it depends on.
    """

    app: str
    image: str
    name: str
    image_id: ImageID
    digest: str = ""
    signers: list[str] = []
    dependencies: list[LockedImage] = []

    def to_json(self) -> dict[str, Any]:
        """The object of the file; what is empty is left out."""
        members: dict[str, Any] = {
            "app": self.app,
            "image": self.image,
            "name": self.name,
            "id": str(self.image_id),
            "digest": self.digest,
            "signers": self.signers,
            "dependencies": [dependency.to_json() for dependency in self.dependencies],
        }
        return {name: value for name, value in members.items() if value or name in {"id", "signers"}}


class Lock(Record):
    """A lock file.

    Attributes:
        path: as typed.
        stage1: its image.
        apps, volumes: in the order of the pod.
    """

    path: str
    stage1: LockedImage
    apps: list[LockedImage]
    volumes: list[LockedImage] = []

    def to_json(self) -> dict[str, Any]:
        """The document."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "stage1": self.stage1.to_json(),
            "apps": [app.to_json() for app in self.apps],
        }
        if self.volumes:
            document["volumes"] = [volume.to_json() for volume in self.volumes]
        return document

    def pin(self, request: PodRequest, settings: Settings, store: Store) -> PodRequest:
        """The request, with images that are not here yet to be had by their digests.

        Raises:
            NotLocked: an image is asked for that the file does not have.
        """
        return request.replace(
            apps=[self._pin(app, request.pull_policy, settings, store) for app in request.apps]
        )

    def _pin(self, app: AppRequest, policy: str, settings: Settings, store: Store) -> AppRequest:
        from rkt.fetch import reference as references
        from rkt.stage0.images import find_in_store

        if is_image_hash(app.reference):
            return app
        parsed = references.parse_reference(app.reference)
        if parsed.kind == references.FILE or parsed.kind in references.LOCAL_KINDS:
            return app
        locked = self._asked(parsed)
        if locked is None:
            raise self._added(app.name or "", app.reference)
        # What a tag stands for by now is seen where it is asked for, or was: that is to be noticed, not to be passed over.
        if policy == references.POLICY_UPDATE or find_in_store(parsed, settings, store) is not None:
            return app
        if store.contains(locked.image_id.key):
            return app.replace(reference=str(locked.image_id))
        if parsed.kind == references.DOCKER and locked.digest:
            return app.replace(reference=_by_digest(parsed, locked))
        return app

    def _asked(self, parsed: Reference) -> LockedImage | None:
        """The image of the file that a reference means."""
        wanted = _same(parsed)
        for locked in self.apps:
            if locked.image and _same_text(locked.image) == wanted:
                return locked
            if locked.digest and wanted == _by_digest_of(locked):
                return locked
        return None

    def check_stage1(self, stage1: ImageRecord) -> None:
        """Refuse another stage1, before the images of apps are looked for.

        Raises:
            NotLocked: it is another, or others vouch for it.
        """
        self._check(
            "stage1",
            self.stage1,
            stage1,
            "leave --stage1-… out; or write the file again with rkt lock IMAGE…",
        )

    def check(self, plan: Plan, *, complete: bool) -> None:
        """Hold all that a pod would be made of against the file.

        Args:
            plan: the pod.
            complete: whether it must have every app of the file.
        Raises:
            NotLocked: something differs; the message says what.
        """
        self.check_stage1(plan.stage1)
        self.check_apps(plan.apps)
        there = {str(app.name) for app in plan.apps}
        missing = [locked.app for locked in self.apps if locked.app not in there]
        if missing and complete:
            raise NotLocked(
                f"app {quoted(missing[0])} of {self.path} is missing in this pod",
                hint=f"name all images: {' '.join(locked.image or locked.name for locked in self.apps)}",
            )
        self.check_volumes(plan.volumes)

    def check_apps(self, apps: Iterable[PlannedApp]) -> None:
        """Hold apps against the file.

        Raises:
            NotLocked: one is not in it, or is of another image.
        """
        by_name = {locked.app: locked for locked in self.apps}
        for app in apps:
            locked = by_name.get(str(app.name))
            if locked is None:
                raise self._added(app.name, app.image.full_name)
            what = f"app {quoted(app.name)}"
            self._check(what, locked, app.image, self._remedy(locked))
            self._check_dependencies(what, locked, app.composed.dependencies)

    def check_volumes(self, volumes: Iterable[ImageVolume]) -> None:
        """Hold volumes that are images against the file.

        Raises:
            NotLocked: one is not in it, or is another image.
        """
        by_name = {locked.app: locked for locked in self.volumes}
        for volume in volumes:
            locked = by_name.get(volume.name)
            if locked is None:
                raise NotLocked(f"volume {quoted(volume.name)} is not in {self.path}", hint=self._again())
            what = f"volume {quoted(volume.name)}"
            self._check(what, locked, volume.image, self._again())
            self._check_dependencies(what, locked, volume.composed.dependencies)

    def _check(self, what: str, locked: LockedImage, image: ImageRecord, remedy: str) -> None:
        signers = signers_of(image.verdict)
        if locked.image_id != image.image_id:
            problem = f"{what} is another image than {self.path} has"
        elif not set(locked.signers) <= set(signers):
            problem = f"{what} is the image that {self.path} has, but others vouch for it"
            remedy = f"trust those whom it names (rkt why {image.image_id.key.medium} says who counts); or {self._again()}"
        else:
            return
        failure = NotLocked(problem, hint=remedy)
        failure.add_note(f"locked: {_described(locked.name, locked.image_id, locked.signers)}")
        failure.add_note(f"found:  {_described(image.full_name, image.image_id, signers)}")
        raise failure

    def _check_dependencies(self, what: str, locked: LockedImage, found: Sequence[ImageRecord]) -> None:
        by_id = {dependency.image_id: dependency for dependency in locked.dependencies}
        for image in found:
            dependency = by_id.get(image.image_id)
            if dependency is None:
                raise NotLocked(
                    f"{what} depends on {image.full_name} ({image.image_id.key.medium}), which {self.path} does not have",
                    hint=self._again(),
                )
            self._check(f"{image.full_name}, on which {what} depends,", dependency, image, self._again())

    def _added(self, name: str, image: str) -> NotLocked:
        has = ", ".join(locked.app for locked in self.apps) or "no app"
        app = f"app {quoted(name)} ({image})" if name else f"image {quoted(image)}"
        return NotLocked(
            f"{app} is not in {self.path}, which has {has}", hint=f"leave it out; or {self._again()}"
        )

    def _remedy(self, locked: LockedImage) -> str:
        """How to get what is locked, and how to lock what is there."""
        by_digest = _by_digest_of(locked)
        pinned = f"for the locked image write {by_digest}; " if by_digest else ""
        return f"{pinned}to accept the new one {self._again()}"

    def _again(self) -> str:
        output = "" if self.path == USUAL_NAME else f"--output={self.path} "
        return f"write the file again: rkt lock {output}IMAGE…"


def load_lock(path: str) -> Lock:
    """Read a lock file.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        data = read_bounded(os.path.realpath(path), _MAX_BYTES)
    except FileNotFoundError:
        raise UsageError(f"there is no lock file {path}", hint=f"rkt lock --output={path} IMAGE…") from None
    except OSError as e:
        raise UsageError(f"cannot read the lock file {path}: {e.strerror}") from e
    try:
        document = jsontext.parse(data, what=path, limit_bytes=_MAX_BYTES)
        return _parse(document, path)
    except (InvalidManifest, KeyError, TypeError, AttributeError, ValueError) as e:
        what = e.message if isinstance(e, InvalidManifest) else f"member {e} is missing or of the wrong kind"
        raise UsageError(f"{path} is no lock file of rkt: {what}", hint="rkt lock IMAGE… writes one") from e


def _parse(document: Any, path: str) -> Lock:
    if type(document) is not dict or document.get("format") != FORMAT:
        raise InvalidManifest(f'its format is not "{FORMAT}"')
    if document["version"] != VERSION:
        raise InvalidManifest(f"it has version {document['version']!r}, this rkt reads version {VERSION}")
    unknown = sorted(document.keys() - {"format", "version", "stage1", "apps", "volumes"})
    if unknown:
        raise InvalidManifest(f"unknown member {quoted(unknown[0])}")
    return Lock(
        path=path,
        stage1=_parse_image(document["stage1"]),
        apps=[_parse_image(item) for item in document["apps"]],
        volumes=[_parse_image(item) for item in document.get("volumes", [])],
    )


def _parse_image(value: Any) -> LockedImage:
    unknown = sorted(value.keys() - {"app", "image", "name", "id", "digest", "signers", "dependencies"})
    if unknown:
        # It would look as if it were held against something.
        raise InvalidManifest(f"unknown member {quoted(unknown[0])}")
    signers = value["signers"]
    texts = (value.get("app", ""), value.get("image", ""), value.get("name", ""), value.get("digest", ""))
    if type(signers) is not list or not all(type(text) is str for text in (*signers, *texts)):
        raise InvalidManifest("a member is no text")
    return LockedImage(
        app=texts[0],
        image=texts[1],
        name=texts[2],
        image_id=ImageID.parse(value["id"]),
        digest=texts[3],
        signers=signers,
        dependencies=[_parse_image(item) for item in value.get("dependencies", [])],
    )


def make_lock(path: str, plan: Plan, request: PodRequest) -> Lock:
    """What a lock file would say of a plan."""
    references = [app.reference for app in request.apps] or [""] * len(plan.apps)
    return Lock(
        path=path,
        stage1=_locked("", "", plan.stage1, plan.stage1_composed.dependencies),
        apps=[
            _locked(str(app.name), reference, app.image, app.composed.dependencies)
            for app, reference in zip(plan.apps, references, strict=True)
        ],
        volumes=[
            _locked(volume.name, "", volume.image, volume.composed.dependencies) for volume in plan.volumes
        ],
    )


def write_lock(lock: Lock) -> None:
    """Put the file in its place, whole or not at all; another file than a lock is not overwritten.

    Raises:
        UsageError: it cannot be.
    """
    if os.path.lexists(lock.path):
        load_lock(lock.path)
    text = jsontext.dump_pretty(lock.to_json()).replace("\t", "  ") + "\n"
    try:
        replace_file(os.path.realpath(lock.path), text.encode(), 0o644)
    except OSError as e:
        raise UsageError(f"cannot write the lock file {lock.path}: {e.strerror}") from e


def signers_of(verdict: Verdict) -> list[str]:
    """Who vouched for an image, in the words of lock files."""
    if verdict.kind == KIND_OPENPGP:
        return [f"openpgp:{verdict.fingerprint}"]
    if verdict.kind == KIND_BUILTIN:
        return [INSTALLATION]
    return list(dict.fromkeys(f"{fact.kind}:{fact.signer}" for fact in verdict.facts if fact.signer))


def _locked(app: str, reference: str, image: ImageRecord, dependencies: Iterable[ImageRecord]) -> LockedImage:
    return LockedImage(
        app=app,
        image=reference,
        name=image.full_name,
        image_id=image.image_id,
        digest=(image.oci.index_digest or image.key.digest) if image.oci else "",
        signers=signers_of(image.verdict),
        dependencies=[_locked("", "", dependency, ()) for dependency in dependencies],
    )


def _described(name: str, image_id: ImageID, signers: Sequence[str]) -> str:
    return f"{name} {image_id.key.medium}, vouched for by {', '.join(signers) or 'nobody'}"


def _same_text(text: str) -> str:
    from rkt.fetch.reference import parse_reference

    return _same(parse_reference(text))


def _same(parsed: Reference) -> str:
    """The same text for all ways to write a reference."""
    from rkt.fetch.reference import NAME

    return str(parsed.name) if parsed.kind == NAME else parsed.remote_key("") or parsed.text


def _by_digest(parsed: Reference, locked: LockedImage) -> str:
    from rkt.fetch.oci_reference import parse_docker

    return f"docker://{parse_docker(parsed.location).name}@{locked.digest}"


def _by_digest_of(locked: LockedImage) -> str:
    """The reference that will always lead to a locked image of a registry; empty for others."""
    from rkt.fetch.reference import DOCKER, parse_reference

    if not locked.digest or not locked.image or is_image_hash(locked.image):
        return ""
    parsed = parse_reference(locked.image)
    return _by_digest(parsed, locked) if parsed.kind == DOCKER else ""
