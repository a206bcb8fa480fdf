# SPDX-License-Identifier: Apache-2.0
"""From what the user typed to an image in the store (spec cli §5.1 and §5.3).

An image that is in the store under a hash or a name is found with the standard library alone. Everything else, files
and URLs included, is ``rkt.fetch``'s, which is imported only then. Whether the image may run is not decided here.
"""

from __future__ import annotations

from rkt.errors import NotFound
from rkt.fetch.reference import host_labels, parse_reference
from rkt.stage0.messages import diagnose
from rkt.store.cas import Store
from rkt.values import AppcReference, is_image_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.store.record import ImageRecord

POLICY_NEW = "new"
POLICY_UPDATE = "update"
POLICY_NEVER = "never"
POLICIES = (POLICY_NEW, POLICY_UPDATE, POLICY_NEVER)


def find_image(
    reference: str,
    settings: Settings,
    *,
    signature: str | None = None,
    pull_policy: str = POLICY_NEW,
    store: Store | None = None,
) -> ImageRecord:
    """The image ``reference`` stands for, fetched when the policy allows it and the store does not have it.

    Args:
        reference: hash, name, path or URL, as typed.
        settings: of the running command.
        signature: file to use instead of the signature that lies beside the image or is discovered.
        pull_policy: ``new``, ``update`` or ``never``.
        store: opened before, for speed.
    Raises:
        NotFound, NotVerified, FetchError, UsageError: the image cannot be had.
    """
    if store is None:
        store = Store(settings.data_dir)
    if is_image_hash(reference):
        key = store.resolve_id(reference)
        diagnose(settings, "image", f"using image from the store with hash {key}")
        return store.get(key)
    name = parse_reference(reference).name
    if name is not None:
        if pull_policy != POLICY_UPDATE:
            found = store.find_by_name(AppcReference(name.name, {**host_labels(), **name.labels}))
            if found is not None:
                diagnose(settings, "image", f"using image from local store for image name {reference}")
                return store.get(found)
        if pull_policy == POLICY_NEVER:
            raise NotFound(
                f'unable to fetch image from image name "{reference}": '
                "it is not in the store, and fetching is disabled",
                hint=f"rkt fetch {reference}",
            )
    from rkt.fetch.fetch import fetch_image

    return fetch_image(reference, settings, signature=signature, pull_policy=pull_policy)
