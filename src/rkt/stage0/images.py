# SPDX-License-Identifier: Apache-2.0
"""From what the user typed to an image in the store (spec cli §5.1 and §5.3).

An image that is in the store under a hash or a name is found with the standard library alone. Everything else, files
and URLs included, is ``rkt.fetch``'s, which is imported only then. Whether the image may run is not decided here.
"""

from __future__ import annotations

from rkt.errors import NotFound, StoreError
from rkt.fetch.reference import (
    POLICY_NEVER,
    POLICY_NEW,
    POLICY_UPDATE,
    host_labels,
    parse_reference,
)
from rkt.schema.record import Record
from rkt.stage0.messages import diagnose
from rkt.store.cas import Store
from rkt.trust.policy import is_about
from rkt.values import AppcReference, is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.fetch.dependencies import Fetcher
    from rkt.fetch.reference import Reference
    from rkt.image.render import Part
    from rkt.schema.appc import ImageManifest
    from rkt.store.record import ImageRecord
    from rkt.values import ImageKey, TreeID


def find_image(
    reference: str,
    settings: Settings,
    *,
    signature: str | None = None,
    pull_policy: str = POLICY_NEW,
    store: Store | None = None,
    fetcher: Fetcher | None = None,
) -> ImageRecord:
    """The image ``reference`` stands for, fetched when the policy allows it and the store does not have it.

    Args:
        reference: hash, name, path or URL, as typed.
        settings: of the running command.
        signature: file to use instead of the signature that lies beside the image or is discovered.
        pull_policy: ``new``, ``update`` or ``never``.
        store: opened before, for speed.
        fetcher: from ``expect``.
    Raises:
        NotFound, NotVerified, FetchError, UsageError: the image cannot be had.
    """
    if store is None:
        store = Store(settings.data_dir)
    if is_image_hash(reference):
        return find_by_hash(reference, settings, store)
    parsed = parse_reference(reference)
    if pull_policy != POLICY_UPDATE:
        found = find_in_store(parsed, settings, store)
        if found is not None:
            what = "url" if parsed.name is None else "image name"
            diagnose(settings, "image", f"using image from local store for {what} {reference}")
            return found
    if fetcher is not None:
        return fetcher.image(reference, signature)
    from rkt.fetch.fetch import fetch_image

    return fetch_image(reference, settings, signature=signature, pull_policy=pull_policy)


def find_by_hash(text: str, settings: Settings, store: Store) -> ImageRecord:
    """The image a hash stands for, in the store or in that of a member of the group ``rkt``.

    Raises:
        NotFound, Ambiguous: there is none, or more than one.
        RktError: what a member fetched cannot be used.
    """
    try:
        key = store.resolve_id(text)
    except NotFound:
        from rkt.fetch.spool import take_by_hash

        taken = take_by_hash(text, settings)
        if taken is None:
            raise
        return taken
    diagnose(settings, "image", f"using image from the store with hash {key}")
    return store.get(key)


def expect(
    references: list[tuple[str, str | None]], settings: Settings, *, pull_policy: str, store: Store
) -> Fetcher | None:
    """Let several images be fetched at once; the caller closes what is returned.

    Args:
        references: of one command, each with the file of its signature or None.
        settings: of the running command.
        pull_policy: for all.
        store: what is there already is looked up in.
    Returns:
        for ``find_image`` and ``compose``; None when not more than one image has to be fetched.
    """
    missing = [pair for pair in references if not _in_store(pair[0], pull_policy, settings, store)]
    if len(missing) < 2 or pull_policy == POLICY_NEVER:
        return None
    from rkt.fetch.dependencies import Fetcher

    fetcher = Fetcher(settings, pull_policy=pull_policy)
    for reference, signature in missing:
        fetcher.expect(reference, signature)
    return fetcher


def _in_store(reference: str, pull_policy: str, settings: Settings, store: Store) -> bool:
    """Whether ``find_image`` fetches nothing."""
    if is_image_hash(reference):
        return True
    return (
        pull_policy != POLICY_UPDATE
        and find_in_store(parse_reference(reference), settings, store) is not None
    )


def find_in_store(parsed: Reference, settings: Settings, store: Store) -> ImageRecord | None:
    """What the store has of a name, or what came of a URL or of a registry's image before."""
    if parsed.name is not None:
        found = store.find_by_name(AppcReference(parsed.name.name, {**host_labels(), **parsed.name.labels}))
        return None if found is None else store.get(found)
    key = parsed.remote_key(settings.platform)
    row = store.remote_row(key) if key else None
    if row is None:
        return None
    try:
        record = store.get(row.key)
    except (NotFound, StoreError):
        return None  # removed or damaged: fetch it again
    # Fetched since by another name, whose rules may ask for less: it is judged anew.
    return record if settings.insecure.image or is_about(record.verdict, key) else None


class Composed(Record):
    """What a root file system is made of.

    Attributes:
        layers: keys of the layers, the topmost first; or the ID of the one tree rendered of them.
        parts: as ``rkt.image.render.flatten`` lists them; empty when the image stands alone.
        dependencies: the other images.
    """

    layers: list[ImageKey | TreeID]
    parts: list[Part] = []
    dependencies: list[ImageRecord] = []


def compose(
    image: ImageRecord,
    manifest: ImageManifest,
    settings: Settings,
    store: Store,
    *,
    pull_policy: str = POLICY_NEW,
    single: bool = False,
    fetcher: Fetcher | None = None,
) -> Composed:
    """Find an image's dependencies, fetching those that the policy allows to, and render a tree where layers will not do.

    Args:
        image: in the store.
        manifest: its manifest.
        settings: of the running command.
        store: where it is.
        pull_policy: for its dependencies.
        single: whether one directory must hold the whole.
        fetcher: from ``expect``.
    Raises:
        NotFound, NotVerified, FetchError, ImageError: a dependency cannot be had, or may not be used.
    """
    if not manifest.dependencies and not manifest.path_whitelist and not (single and image.oci):
        return Composed(layers=list(image.layers))
    from rkt.image.render import is_filtered
    from rkt.store.composition import resolve
    from rkt.trust.policy import check_verdict

    if manifest.dependencies and pull_policy == POLICY_UPDATE:
        _fetch_dependencies(image, settings, pull_policy, fetcher)
    try:
        parts = resolve(store, image.key)
    except NotFound:
        # Never from a server where that is the policy, but perhaps a member of the group rkt has it.
        _fetch_dependencies(image, settings, pull_policy, fetcher)
        parts = resolve(store, image.key)
    keys = list(dict.fromkeys(part.key for part in parts))
    dependencies = [store.get(key) for key in keys if key != image.key]
    for dependency in dependencies:
        # Each by itself: a signature says nothing of what its image asks for.
        check_verdict(dependency.verdict, settings, opted_out=settings.insecure.image)
        store.touch(dependency.key)
    layers: list[ImageKey | TreeID] = list(dict.fromkeys(part.layer_key for part in parts))
    if is_filtered(parts) or (single and layers != [image.key]):
        from rkt.store.locks import prepare_lock
        from rkt.store.trees import ensure_tree

        # Else image gc could take the tree that somebody else is making at the moment we find it made.
        with prepare_lock(settings.data_dir):
            layers = [ensure_tree(store, parts)]
    return Composed(layers=layers, parts=parts, dependencies=dependencies)


def _fetch_dependencies(
    image: ImageRecord, settings: Settings, pull_policy: str, fetcher: Fetcher | None
) -> None:
    if fetcher is not None:
        fetcher.dependencies(image)
        return
    from rkt.fetch.dependencies import fetch_dependencies

    fetch_dependencies(image, settings, pull_policy=pull_policy)
