# SPDX-License-Identifier: Apache-2.0
"""Everything an image depends on, fetched breadth first, each image verified by itself (spec cli §5.9)."""

from __future__ import annotations

from collections import deque

from rkt.errors import ImageError, NotFound, UsageError
from rkt.fetch import fetch
from rkt.fetch import reference as references
from rkt.fetch.report import Reporter
from rkt.image.render import MAX_DEPTH, MAX_PARTS
from rkt.schema.appc import parse_image_manifest
from rkt.store.cas import Store
from rkt.store.composition import check_dependency, find_dependency, resolve
from rkt.values import AppcReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.schema.appc import Dependency
    from rkt.store.record import ImageRecord
    from rkt.values import ImageKey


def fetch_with_dependencies(
    reference: str,
    settings: Settings,
    *,
    signature: str | None = None,
    pull_policy: str = fetch.NEW,
    progress: Reporter | None = None,
) -> ImageRecord:
    """``fetch_image``, then its dependencies; arguments and errors are those of the two."""
    report = progress or Reporter(settings)
    record = fetch.fetch_image(
        reference, settings, signature=signature, pull_policy=pull_policy, progress=report
    )
    fetch_dependencies(record, settings, pull_policy=pull_policy, progress=report)
    return record


def fetch_dependencies(
    top: ImageRecord, settings: Settings, *, pull_policy: str, progress: Reporter | None = None
) -> None:
    """Bring all dependencies of an image into the store.

    Args:
        top: an image of the store.
        settings: of the running command.
        pull_policy: as for ``fetch_image``. What is pinned by its ID is never asked for again.
        progress: what people are told by.
    Raises:
        NotFound, FetchError, NotVerified: a dependency cannot be had.
        ImageError: one is not what its dependent says, or they form a cycle, or there are too many.
    """
    store = Store(settings.data_dir)
    if not parse_image_manifest(store.manifest_bytes(top.key)).dependencies:
        return
    report = progress or Reporter(settings)
    asked: dict[tuple[AppcReference, str], ImageRecord] = {}
    expanded: set[ImageKey] = {top.key}
    waiting: deque[tuple[ImageRecord, int]] = deque([(top, 1)])
    while waiting:
        image, depth = waiting.popleft()
        for dependency in parse_image_manifest(store.manifest_bytes(image.key)).dependencies:
            wanted = AppcReference(dependency.image_name, dependency.labels)
            question = (wanted, dependency.image_id)
            if question not in asked:
                if len(asked) == MAX_PARTS:
                    raise ImageError(f"image {top.full_name} has more than {MAX_PARTS} dependencies")
                asked[question] = _have(dependency, wanted, settings, pull_policy, report)
            found = asked[question]
            check_dependency(found, dependency)
            if found.key in expanded:
                continue
            if depth > MAX_DEPTH:
                raise ImageError(f"image {found.name} is more than {MAX_DEPTH} dependencies deep")
            expanded.add(found.key)
            waiting.append((found, depth + 1))
    # Cycles end above without a word; they are found here, before anything is run.
    resolve(Store(settings.data_dir), top.key)


def _have(
    dependency: Dependency, wanted: AppcReference, settings: Settings, pull_policy: str, report: Reporter
) -> ImageRecord:
    store = Store(settings.data_dir)
    if pull_policy != fetch.UPDATE or dependency.image_id:
        try:
            record = find_dependency(store, dependency)
        except NotFound:
            if pull_policy == fetch.NEVER:
                raise
        else:
            report.debug(f"using image from local store for image name {wanted}")
            store.touch(record.key)
            return record
    text = str(wanted)
    # An image must not choose a file of this host, nor smuggle labels in by commas.
    try:
        parsed = references.parse_reference(text)
    except UsageError as e:
        raise ImageError(f"dependency {text!r} cannot be asked for: {e.message}") from e
    if parsed.kind != references.NAME or parsed.name != wanted:
        raise ImageError(f"dependency {text!r} cannot be asked for by its name", hint=f"rkt fetch {text}")
    return fetch.fetch_image(text, settings, pull_policy=pull_policy, progress=report)
