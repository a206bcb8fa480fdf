# SPDX-License-Identifier: Apache-2.0
"""Words that stand for an image of one of the registries that the operator listed: ``search`` of kind ``registry``.

A short name is one whose first part is no host, for it has no dot and is not ``localhost``, and which has no label but
perhaps a version, the tag. It is the name of an ACI before all: one of the store, or one that its host tells of. What a
registry has counts only then, and the next registry is asked only where the one before says that it has no such image:
one that does not answer, or wants a password, must not decide that another one's image runs.
"""

from __future__ import annotations

from rkt.config.registries import load_search
from rkt.errors import FetchError, NotFound, UsageError
from rkt.fetch.oci import fetch_oci
from rkt.fetch.oci_reference import absent, parse_docker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.fetch.oci_reference import DockerReference
    from rkt.fetch.report import Reporter
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord
    from rkt.values import AppcReference


def candidates(wanted: AppcReference, settings: Settings) -> list[DockerReference]:
    """What a short name may stand for, in the order of the setting; nothing for what registries cannot have."""
    version = wanted.labels.get("version")
    tag = f":{version}" if version else ""
    try:
        return [parse_docker(f"{place}/{wanted.name}{tag}") for place in load_search(settings)]
    except UsageError:
        return []


def search(
    text: str, wanted: list[DockerReference], settings: Settings, store: Store, report: Reporter
) -> ImageRecord:
    """Fetch the image from the first registry that has it.

    Args:
        text: the short name as typed.
        wanted: of ``candidates``.
        settings: of the running command.
        store: where to.
        report: what people are told by.
    Raises:
        NotFound: no registry has it.
        RktError: the image of one that may have it cannot be had.
    """
    for number, reference in enumerate(wanted):
        report.debug(f'"{text}" may be {reference}')
        try:
            record = fetch_oci(reference, str(reference), settings, store, report)
        except NotFound as e:
            if not e.message.startswith(absent(reference.registry, f"{reference.repository}:")):
                raise
        except FetchError as e:
            left = wanted[number + 1 :]
            if left:
                e.add_note(
                    f"{left[0]} is not asked for instead: {reference.registry} did not say that it has no such image"
                )
            raise
        else:
            report.message(f'"{text}" is {reference}')
            return record
    tried = ", ".join(map(str, wanted))
    raise NotFound(
        f'image "{text}" was found neither by discovery nor in the registries to search: tried {tried}',
        hint="rkt config shows what is searched; docker://HOST/NAME names an image of any registry",
    )
