# SPDX-License-Identifier: Apache-2.0
"""The image that is to be checked: found, judged by the user's policy, put into the kit's own store.

A stage1 runs as root on the host. So one that nobody signed is refused here as everywhere, unless the user opts out.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile

from rkt.config.settings import InsecureOptions
from rkt.errors import NotFound, RktError, UsageError
from rkt.linux import libc
from rkt.schema.appc import parse_image_manifest
from rkt.stage0 import contract
from rkt.stage0.stage1 import NAME, PATH, URL, Choice, Program, built_in_images, find_stage1
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.values import is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.conformance.promises import Report
    from rkt.store.record import ImageRecord

_ENTRYPOINTS = (
    contract.ANNOTATION_RUN,
    contract.ANNOTATION_ENTER,
    contract.ANNOTATION_GC,
    contract.ANNOTATION_STOP,
    contract.ANNOTATION_APP_ADD,
    contract.ANNOTATION_APP_START,
    contract.ANNOTATION_APP_STOP,
    contract.ANNOTATION_APP_RM,
    contract.ANNOTATION_APP_UPDATE,
    contract.ANNOTATION_ATTACH,
)
_REQUIRED = (contract.ANNOTATION_RUN, contract.ANNOTATION_GC)
LIVE = (
    contract.ANNOTATION_APP_ADD,
    contract.ANNOTATION_APP_START,
    contract.ANNOTATION_APP_STOP,
    contract.ANNOTATION_APP_RM,
)


class Subject:
    """The image in the kit's store.

    Attributes:
        record: as stored there.
        manifest: its bytes.
        settings: of the kit's store.
    """

    def __init__(self, record: ImageRecord, settings: Settings) -> None:
        self.record = record
        self.settings = settings
        self.manifest = Store(settings.data_dir).manifest_bytes(record.key)

    @property
    def program(self) -> Program:
        """What the manifest says of entrypoints."""
        return Program(self.manifest)

    def check(self, report: Report) -> bool:
        """Look at the manifest and the files; whether pods can be tried."""
        try:
            image = parse_image_manifest(self.manifest)
            program = self.program
        except RktError as e:
            return report.hold("image.manifest", False, e.message)
        report.hold("image.manifest", "version" in image.labels, "no label version")
        declared = [each for each in _ENTRYPOINTS if program.has(each)]
        wrong = [problem for each in declared if (problem := self._wrong(program, each))]
        report.hold("image.entrypoints", not wrong, "; ".join(wrong))
        missing = [_short(each) for each in _REQUIRED if not program.has(each)]
        report.hold("image.required", not missing, f"not declared: {', '.join(missing)}")
        live = [_short(each) for each in LIVE if program.has(each)]
        report.hold("image.live", len(live) in {0, len(LIVE)}, f"only {', '.join(live)}")
        try:
            version = program.interface_version
            known = 1 <= version <= contract.INTERFACE_VERSION
            report.hold(
                "image.version", known, f"{version}; this rkt speaks 1 to {contract.INTERFACE_VERSION}"
            )
        except RktError as e:
            return report.hold("image.version", False, e.message)
        return not missing and not wrong

    def _wrong(self, program: Program, annotation: str) -> str:
        """Why an entrypoint cannot be executed; empty if it can."""
        try:
            path = program.entrypoint(annotation)
        except RktError as e:
            return e.message
        root = f"{Store(self.settings.data_dir).layer_path(self.record.layers[0])}/rootfs"
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = libc.openat2(
                root_fd, path.encode(), os.O_PATH, libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
            )
        except OSError as e:
            return f"{_short(annotation)} is /{path}, which the image has not: {e.strerror}"
        finally:
            os.close(root_fd)
        try:
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
        if not stat.S_ISREG(mode) or not mode & 0o100:
            return f"{_short(annotation)} is /{path}, which is no program that may be executed"
        return ""


def _short(annotation: str) -> str:
    return annotation.removeprefix(contract.ANNOTATION_PREFIX)


def obtain(word: str, settings: Settings, bench_settings: Settings, base: str) -> Subject:
    """Find an image and have it in the kit's store.

    Args:
        word: what the user typed: a built-in flavour, a directory of a built image, a file, a hash, a URL or a name.
        settings: the user's.
        bench_settings: of the kit.
        base: directory for files.
    Raises:
        NotVerified: it is not trusted.
        RktError: it cannot be had.
    """
    setup_data_dir(bench_settings.data_dir)
    # The user's policy and keys, the kit's store.
    judging = settings.replace(data_dir=bench_settings.data_dir, shared_dir="")
    store = Store(bench_settings.data_dir)
    flavours = _flavours(settings)
    if word in flavours:
        return Subject(find_stage1(Choice(kind=PATH, value=flavours[word]), judging, store), bench_settings)
    if os.path.isdir(word):
        path = f"{base}/directory.aci"
        pack(word, path)
        return Subject(find_stage1(Choice(kind=PATH, value=path), judging, store), bench_settings)
    if os.path.exists(word):
        return Subject(find_stage1(Choice(kind=PATH, value=word), judging, store), bench_settings)
    if word.startswith((".", "/")):
        raise NotFound(f"no file or directory {word}")
    found = _from_users_store(word, settings, base)
    if found is not None:
        trusting = judging.replace(insecure=InsecureOptions.parse("image"))
        return Subject(find_stage1(Choice(kind=PATH, value=found), trusting, store), bench_settings)
    kind = URL if "://" in word else NAME
    if is_image_hash(word):
        raise NotFound(f"no image {word} in {settings.data_dir}", hint="rkt image list")
    return Subject(find_stage1(Choice(kind=kind, value=word), judging, store), bench_settings)


def _flavours(settings: Settings) -> dict[str, str]:
    try:
        images, _ = built_in_images(settings)
    except RktError:
        return {}
    return {flavour: image.path for flavour, image in images.items()}


def _from_users_store(word: str, settings: Settings, base: str) -> str | None:
    """A copy of an image of the user's store that today's policy lets run; nothing there is changed."""
    from rkt.image.export import render_image
    from rkt.trust.policy import check_verdict

    if not os.path.isdir(f"{settings.data_dir}/cas"):
        return None
    store = Store(settings.data_dir)
    try:
        if is_image_hash(word):
            record = store.get(store.resolve_id(word))
        else:
            from rkt.fetch.reference import parse_reference
            from rkt.stage0.images import find_in_store

            found = find_in_store(parse_reference(word), settings, store)
            if found is None:
                return None
            record = found
    except NotFound:
        return None
    check_verdict(record.verdict, settings, opted_out=settings.insecure.image)
    directory = f"{base}/rendered"
    # With all that it depends on, so that the copy stands alone.
    render_image(store, record.key, directory, rootfs_only=False, overwrite=False)
    path = f"{base}/stored.aci"
    pack(directory, path)
    return path


def pack(directory: str, path: str) -> None:
    """Make an ACI of a directory that holds ``manifest`` and ``rootfs``.

    Raises:
        UsageError: it does not.
    """
    try:
        with open(f"{directory}/manifest", "rb") as stream:
            manifest = json.loads(stream.read())
        if not os.path.isdir(f"{directory}/rootfs"):
            raise UsageError(f"{directory} has no directory rootfs")
    except (OSError, ValueError) as e:
        raise UsageError(
            f"{directory} is no built image: {e}", hint="it holds a file manifest and a directory rootfs"
        ) from e
    if isinstance(manifest, dict):
        for name in ("dependencies", "pathWhitelist"):
            manifest.pop(name, None)
    copy = f"{path}.manifest"
    with open(copy, "w", encoding="utf-8") as stream:
        json.dump(manifest, stream)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(copy, "manifest")
        archive.add(f"{directory}/rootfs", "rootfs")
