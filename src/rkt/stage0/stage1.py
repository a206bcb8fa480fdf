# SPDX-License-Identifier: Apache-2.0
"""Which stage1 a pod gets (spec cli §2.4), and what its manifest says of its entrypoints (spec runtime §1.5)."""

from __future__ import annotations

import os

from rkt.errors import ConfigError, InvalidManifest, NotFound, Stage1Error, UsageError, quoted
from rkt.fetch.reference import host_labels
from rkt.linux.files import read_bounded
from rkt.schema import jsontext
from rkt.schema.record import Record
from rkt.stage0 import contract
from rkt.stage0.images import find_image
from rkt.stage0.messages import diagnose
from rkt.trust.verdict import KIND_BUILTIN
from rkt.values import AppcReference, ImageID, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord

#: Index of the built-in stage1 images, in their directory.
INDEX = "stage1.json"
_INDEX_BYTES = 1 << 20

URL = "url"
PATH = "path"
NAME = "name"
HASH = "hash"
FROM_DIR = "from-dir"
#: Names of rkt's images of the flavour that runs systemd, by where that systemd came from (spec runtime §3.1), and ours.
_OLD_NAMES = frozenset(f"coreos.com/rkt/stage1-{name}" for name in ("coreos", "src", "host"))
_OLD_PREFIX = "coreos.com/rkt/stage1-src-"
_SYSTEMD_NAME = "coreos.com/rkt/stage1-nspawn"
#: What the ``--stage1-…`` flags can name.
KINDS = (URL, PATH, NAME, HASH, FROM_DIR)


class Choice(Record):
    """What the command line says; an empty kind means the configured or built-in default."""

    kind: str = ""
    value: str = ""


class BuiltIn(Record):
    """One stage1 image of the installation."""

    name: str
    version: str
    image_id: ImageID
    path: str


class Program:
    """A stage1 image's manifest, as far as stage0 cares."""

    __slots__ = ("_annotations", "name")

    def __init__(self, manifest: bytes) -> None:
        members = jsontext.parse(manifest, what="stage1 manifest")
        try:
            self.name = str(members["name"])
            self._annotations = {a["name"]: a["value"] for a in members.get("annotations") or []}
        except (KeyError, TypeError, AttributeError) as e:
            raise Stage1Error("stage1 manifest is malformed", hint="choose another stage1") from e

    @property
    def interface_version(self) -> int:
        """Version of the contract that it speaks; 1 when it does not say."""
        text = str(self._annotations.get(contract.ANNOTATION_INTERFACE_VERSION, "1"))
        if not is_number(text, most_digits=4):
            raise Stage1Error(f"{self.name}: invalid stage1 interface version {quoted(text)}")
        return int(text)

    @property
    def not_enforced(self) -> list[str]:
        """What it does not enforce, by its own word."""
        return [
            word
            for word in str(self._annotations.get(contract.ANNOTATION_NOT_ENFORCED, "")).split(",")
            if word
        ]

    def has(self, annotation: str) -> bool:
        """Whether it declares an entrypoint."""
        return annotation in self._annotations

    def entrypoint(self, annotation: str) -> str:
        """Path of an entrypoint relative to the stage1 root, without a leading slash.

        Raises:
            Stage1Error: not declared, or not a plain absolute path.
        """
        path = self._annotations.get(annotation)
        if path is None:
            raise Stage1Error(f"{self.name} does not declare the entrypoint {annotation}")
        parts = str(path).split("/")
        if parts[0] or len(parts) < 2 or "\0" in path or any(part in {"", ".", ".."} for part in parts[1:]):
            raise Stage1Error(
                f"{self.name}: entrypoint {annotation} is not a plain absolute path: {quoted(path)}"
            )
        return "/".join(parts[1:])


def read_program(pod: Pod) -> Program:
    """The program of a pod's own stage1.

    Raises:
        PodError: the pod was never prepared to the end, or is removed.
    """
    manifest = pod.read(contract.STAGE1_MANIFEST)
    if manifest is None:
        raise pod.lacks("has no stage1 manifest")
    return Program(manifest)


def program_root(pod: Pod, store: Store) -> str:
    """Directory in which a pod's stage1 programs are found on the host.

    The overlay of a running pod is mounted in the pod's own mount namespace only, so the programs are taken from the
    layer, which nothing in the pod can write to (invariants RN1, EN2), and which stays when the pod goes at this moment. A
    pod with a copy can do without it.
    """
    from rkt.stage0.roots import layer_keys

    layer = f"{store.layer_path(layer_keys(pod, None)[0])}/rootfs"
    if pod.has(contract.OVERLAY_PREPARED) or os.path.isdir(layer):
        return layer
    return f"{pod.path}/{contract.STAGE1_ROOTFS}"


def built_in_images(settings: Settings) -> tuple[dict[str, BuiltIn], str]:
    """The installation's stage1 images by flavour, and the default flavour.

    Raises:
        Stage1Error: the index is missing or malformed.
    """
    directory = settings.installation.stage1_images_path
    path = f"{directory}/{INDEX}"
    try:
        index = jsontext.parse(read_bounded(path, _INDEX_BYTES), what=path)
        images = {
            flavor: BuiltIn(
                name=entry["name"],
                version=entry["version"],
                image_id=ImageID.parse(entry["id"]),
                path=os.path.join(directory, os.path.basename(entry["file"])),
            )
            for flavor, entry in index["images"].items()
        }
        default = index["default"]
    except FileNotFoundError as e:
        raise Stage1Error(
            f"no built-in stage1 images: {path} is missing",
            hint="in a checkout make setup; a Python wheel has none: --stage1-path=stage1-ns.aci of the release",
        ) from e
    except (OSError, InvalidManifest, KeyError, TypeError, AttributeError) as e:
        raise Stage1Error(f"cannot use {path}: {e}") from e
    return images, default


def choose(values: dict[str, Any]) -> Choice:
    """The ``--stage1-…`` flags to a choice.

    Args:
        values: flag name -> list of the values given.
    Raises:
        UsageError: more than one was given.
    """
    given = [kind for kind in KINDS if values.get(f"stage1-{kind}")]
    if len(given) > 1:
        raise UsageError(f"flags --stage1-{given[0]} and --stage1-{given[1]} are mutually exclusive")
    if not given:
        return Choice()
    flag = f"stage1-{given[0]}"
    if len(values[flag]) > 1:
        raise UsageError(f"--{flag} already used")
    return Choice(kind=given[0], value=values[flag][0])


def find_stage1(choice: Choice, settings: Settings, store: Store) -> ImageRecord:
    """The stage1 image, imported or fetched if need be.

    Raises:
        RktError: it cannot be had.
    """
    if choice.kind in {HASH, URL}:
        return find_image(choice.value, settings, store=store)
    if choice.kind == PATH:
        return _from_file(os.path.abspath(choice.value), settings, store)
    if choice.kind == NAME:
        return _by_name(choice.value, settings, store)
    if choice.kind == FROM_DIR:
        return _from_directory(choice.value, settings, store)
    configured = _configured(settings)
    if configured is not None:
        return _by_configuration(configured, settings, store)
    images, default = built_in_images(settings)
    if default not in images:
        raise Stage1Error(
            "neither the location of the default stage1 image nor its filename are set",
            hint="use --stage1-{path,url,name,hash,from-dir}",
        )
    return _built_in(images[default], settings, store)


def _built_in(image: BuiltIn, settings: Settings, store: Store) -> ImageRecord:
    key = image.image_id.key
    if store.contains(key):
        record = store.get(key)
        # Somebody may have fetched that very file with another verdict; as one of the installation it has a better one.
        if record.verdict.kind == KIND_BUILTIN:
            reference = f"{image.name}:{image.version}"
            diagnose(settings, "image", f"using image from local store for image name {reference}")
            return record
    from rkt.store.builtin import import_builtin_stage1

    diagnose(settings, "image", f"using image from file {image.path}")
    return import_builtin_stage1(settings, image.path, image.image_id)


def _from_file(path: str, settings: Settings, store: Store) -> ImageRecord:
    directory, base = os.path.split(os.path.realpath(path))
    if directory == os.path.realpath(settings.installation.stage1_images_path):
        images, _ = built_in_images(settings)
        for image in images.values():
            if os.path.basename(image.path) == base:
                return _built_in(image, settings, store)
    return find_image(path, settings, store=store)


def _by_name(text: str, settings: Settings, store: Store) -> ImageRecord:
    reference = AppcReference.parse(text)
    try:
        images, _ = built_in_images(settings)
    except Stage1Error:
        images = {}
    for image in images.values():
        if image.name == reference.name and reference.labels.get("version", image.version) == image.version:
            return _built_in(image, settings, store)
    successor = _successor(reference.name, images)
    if successor is not None and "version" not in reference.labels:
        labels = {**host_labels(), **reference.labels}
        if store.find_by_name(AppcReference(reference.name, labels)) is None:
            return _built_in(successor, settings, store)
    return find_image(text, settings, store=store)


def _successor(name: str, images: dict[str, BuiltIn]) -> BuiltIn | None:
    """Of an old name, the built-in image that is meant by it now."""
    if name not in _OLD_NAMES and not name.startswith(_OLD_PREFIX):
        return None
    return next((image for image in images.values() if image.name == _SYSTEMD_NAME), None)


def _from_directory(name: str, settings: Settings, store: Store) -> ImageRecord:
    if "/" in name or name in {"", ".", ".."}:
        raise UsageError(
            f"--stage1-from-dir takes a file name, not {quoted(name)}", hint="--stage1-path=PATH"
        )
    directory = settings.installation.stage1_images_path
    if _has_configuration(settings, "paths.d"):
        from rkt.config.paths import load_paths

        directory = load_paths(settings).stage1_images or directory
    if not os.path.exists(f"{directory}/{name}"):
        images, _ = built_in_images(settings)
        successor = _successor(_name_of_file(name), images)
        if successor is not None:
            return _built_in(successor, settings, store)
    return _from_file(f"{directory}/{name}", settings, store)


def _name_of_file(base: str) -> str:
    """The name that an image of rkt's has whose file is called ``stage1-NAME.aci``."""
    return f"coreos.com/rkt/{base.removesuffix('.aci')}"


def _has_configuration(settings: Settings, subdirectory: str) -> bool:
    """Whether any configuration directory has files of that kind; spares the parsers when there are none."""
    for directory in settings.config_dirs:
        try:
            names = os.listdir(f"{directory}/{subdirectory}")
        except FileNotFoundError:
            continue
        except NotADirectoryError as e:
            raise ConfigError(f'expected "{directory}/{subdirectory}" to be a directory') from e
        if any(name.endswith(".json") for name in names):
            return True
    return False


def _configured(settings: Settings) -> Any:
    if not _has_configuration(settings, "stage1.d"):
        return None
    from rkt.config.stage1 import load_stage1

    configured = load_stage1(settings)
    return configured if configured.name or configured.location else None


def _by_configuration(configured: Any, settings: Settings, store: Store) -> ImageRecord:
    """Name and version in the store first, then the location (spec cli §2.4 steps 2 and 3)."""
    images, _ = built_in_images(settings)
    if configured.name and not configured.version.endswith("-dirty"):
        name = AppcReference.parse(f"{configured.name}:{configured.version}")
        found = store.find_by_name(AppcReference(name.name, {**host_labels(), **name.labels}))
        if found is not None:
            diagnose(settings, "image", f"using image from local store for image name {name}")
            return store.get(found)
    location = configured.location
    if not location:
        for image in images.values():
            # Another version of the same flavour will do; another flavour isolates differently and will not.
            if image.name == configured.name:
                return _built_in(image, settings, store)
        successor = _successor(configured.name, images)
        if successor is not None:
            return _built_in(successor, settings, store)
        raise NotFound(
            f'no stage1 image "{configured.name}:{configured.version}", which the configuration asks for',
            hint="rkt fetch it, or configure its location",
        )
    if not location.startswith("/"):
        return find_image(location, settings, store=store)
    try:
        return _from_file(location, settings, store)
    except Exception as e:
        # As in rkt: the file of that name beside the built-in images, which needs no signature.
        beside = f"{settings.installation.stage1_images_path}/{os.path.basename(location)}"
        for image in images.values():
            if image.path == beside:
                return _built_in(image, settings, store)
        successor = _successor(_name_of_file(os.path.basename(location)), images)
        if successor is not None:
            return _built_in(successor, settings, store)
        if isinstance(e, OSError):
            raise Stage1Error(f"cannot load stage1 image {location}: {e.strerror}") from e
        raise
