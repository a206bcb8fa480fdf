# SPDX-License-Identifier: Apache-2.0
"""What a fetch would find, up to the verdict and no further: nothing is stored, nobody is asked, no key is added.

It goes the ways of ``fetch.fetch`` and ``fetch.oci``, in a directory of its own that is gone afterwards, so that what it
says is what a fetch does.
"""

from __future__ import annotations

import os
import tempfile

from rkt.fetch import reference as references
from rkt.fetch.fetch import Fetch, open_image
from rkt.fetch.report import NONE, Reporter
from rkt.privsep import libraries
from rkt.schema.record import Record
from rkt.store.cas import Store
from rkt.values import ACIdentifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rkt.config.settings import Settings
    from rkt.fetch.oci_reference import DockerReference, LocalReference
    from rkt.fetch.reference import Reference
    from rkt.trust.verdict import Verdict


class Looked(Record):
    """What was found.

    Attributes:
        verdict: None where the image would have to be downloaded for one.
        size_bytes: of what a fetch would download; 0 where that is not known.
    """

    verdict: Verdict | None
    size_bytes: int = 0


class Notes(Reporter):
    """Keeps what a fetch says.

    Attributes:
        lines: in their order.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, NONE)
        self.lines: list[str] = []

    def message(self, text: str, *, source: str = "image") -> None:
        """Keep words for people."""
        del source
        self.lines.append(" ".join(line.strip() for line in text.splitlines()))

    def debug(self, text: str) -> None:
        """Keep these too."""
        self.message(text)


def look_at(parsed: Reference, settings: Settings, notes: Notes) -> Looked:
    """Look at an image as a fetch would.

    Args:
        parsed: what it is called; a name is looked for by discovery.
        settings: of the running command.
        notes: is told what is found on the way.
    Raises:
        RktError: as the fetch would.
    """
    if parsed.kind == references.DOCKER:
        from rkt.fetch.oci_reference import parse_docker

        return look_at_image(parse_docker(parsed.location), parsed.text, settings, notes)
    if parsed.kind in references.LOCAL_KINDS:
        from rkt.fetch.oci_reference import parse_local

        return look_at_image(parse_local(parsed.kind, parsed.location), parsed.text, settings, notes)
    look = _Look(parsed, settings, Store(settings.data_dir), notes, None)
    if parsed.kind == references.FILE:
        return Looked(verdict=look.file())
    try:
        if parsed.kind == references.NAME:
            look.from_name()
        else:
            look.from_url(parsed.location)
    except _EnoughError:
        pass
    return Looked(verdict=None)


def look_at_image(
    target: DockerReference | LocalReference, text: str, settings: Settings, notes: Notes
) -> Looked:
    """Look at a Docker or OCI image."""
    from rkt.fetch.oci import look_at_oci

    with tempfile.TemporaryDirectory(prefix="rkt-look-") as scratch:
        os.makedirs(f"{scratch}/cas/tmp", mode=0o700)
        verdict, size_bytes = look_at_oci(target, text, settings, scratch, notes)
    return Looked(verdict=verdict, size_bytes=size_bytes)


class _EnoughError(Exception):
    """All that can be seen without a download has been seen."""


class _Look(Fetch):
    """An ACI, without what a fetch leaves."""

    def file(self) -> Verdict:
        """The verdict on a local file."""
        from rkt.trust.policy import judge

        path = self._reference.location
        source_fd = open_image(path)
        try:
            signature = self._local_signature(f"{path}.asc")
            with tempfile.TemporaryFile(prefix="rkt-look-") as copy:
                answer = self._run({"op": "copy"}, {"source": source_fd, "blob": copy.fileno()})
                libraries.enable(self._settings.installation)
                name = ACIdentifier.parse(str(answer.get("name")), what="image name")
                self._report.debug(f"{path} is an image named {name}")
                return judge(name, copy.fileno(), signature, self._settings)
        finally:
            os.close(source_fd)

    def from_url(self, url: str, signature_url: str = "") -> NoReturn:
        """Look at the signature, which a fetch asks for before the image where the name is known."""
        if not self._settings.insecure.image:
            signature_url = signature_url or references.signature_url(url)
            self._report.debug(f"the image is at {url}, its signature at {signature_url}")
            if self._wanted is not None:
                self._early_signature(signature_url)
            else:
                self._late_signature(signature_url)
        raise _EnoughError

    def _offer_keys(self, name: str) -> None:
        self._report.debug(f"a fetch would offer the keys that the pages of {name} speak of, if none counts")
