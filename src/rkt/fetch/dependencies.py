# SPDX-License-Identifier: Apache-2.0
"""The images of a command and everything they depend on, each verified by itself (spec cli §5.9).

Dependencies are gone through breadth first, one after the other; what the walk will ask for is on its way before, as far
as it can be foreseen (``fetch.crew``). So the order of messages and which failure is reported do not depend on speed.
"""

from __future__ import annotations

from collections import deque

from rkt.errors import ImageError, NotFound, RktError, UsageError, quoted
from rkt.fetch import reference as references
from rkt.fetch.crew import Crew
from rkt.fetch.report import Reporter
from rkt.image.render import MAX_DEPTH, MAX_PARTS
from rkt.schema.appc import parse_image_manifest
from rkt.store.composition import check_dependency, find_dependency, resolve
from rkt.store.member import open_store
from rkt.values import AppcReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rkt.config.settings import Settings
    from rkt.schema.appc import Dependency
    from rkt.store.record import ImageRecord
    from rkt.values import ImageKey


class Fetcher:
    """Gets the images of one command; ended on ``close`` or at the end of ``with``."""

    def __init__(self, settings: Settings, *, pull_policy: str, progress: Reporter | None = None) -> None:
        """``pull_policy`` is as for ``fetch_image``; what is pinned by its ID is never asked for again."""
        self._settings = settings
        self._pull_policy = pull_policy
        self._report = progress or Reporter(settings)
        self._crew = Crew(settings, pull_policy=pull_policy, report=self._report, foresee=self._foresee)
        self._foreseen: set[ImageKey] = set()

    def expect(self, reference: str, signature: str | None = None) -> None:
        """``image`` will be asked for this; it may be fetched beside others until then."""
        self._crew.expect(reference, signature)

    def image(self, reference: str, signature: str | None = None) -> ImageRecord:
        """As ``fetch_image``."""
        return self._crew.fetch(reference, signature)

    def dependencies(self, top: ImageRecord) -> None:
        """Bring all dependencies of an image into the store.

        Args:
            top: an image of the store.
        Raises:
            NotFound, FetchError, NotVerified: a dependency cannot be had.
            ImageError: one is not what its dependent says, or they form a cycle, or there are too many.
        """
        store = open_store(self._settings)
        if not parse_image_manifest(store.manifest_bytes(top.key)).dependencies:
            return
        self._crew.foresee(top)
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
                    asked[question] = self._have(dependency, wanted)
                found = asked[question]
                check_dependency(found, dependency)
                if found.key in expanded:
                    continue
                if depth > MAX_DEPTH:
                    raise ImageError(f"image {found.name} is more than {MAX_DEPTH} dependencies deep")
                expanded.add(found.key)
                waiting.append((found, depth + 1))
        # Cycles end above without a word; they are found here, before anything is run.
        resolve(open_store(self._settings), top.key)

    def close(self) -> None:
        """Give up what nobody waits for."""
        self._crew.close()

    def _in_store(self, dependency: Dependency) -> ImageRecord | None:
        if self._pull_policy == references.POLICY_UPDATE and not dependency.image_id:
            return None
        try:
            return find_dependency(open_store(self._settings), dependency)
        except NotFound:
            if self._pull_policy == references.POLICY_NEVER:
                raise
            return None

    def _have(self, dependency: Dependency, wanted: AppcReference) -> ImageRecord:
        # What came for the sake of this very question is in the store too by now, but was not found there.
        record = None if self._crew.is_expected(_text(wanted)) else self._had(dependency, wanted)
        if record is None:
            return self._crew.fetch(_question(wanted))
        self._report.debug(f"using image from local store for image name {wanted}")
        open_store(self._settings).touch(record.key)
        return record

    def _had(self, dependency: Dependency, wanted: AppcReference) -> ImageRecord | None:
        """What is in the store; or pinned, or no server may be asked, and a member of the group ``rkt`` has it."""
        try:
            record = self._in_store(dependency)
        except NotFound:
            from rkt.fetch.spool import take_dependency

            record = take_dependency(dependency.image_id, wanted, self._settings, self._report)
            if record is None:
                raise
        if record is None and dependency.image_id:
            from rkt.fetch.spool import take_dependency

            record = take_dependency(dependency.image_id, wanted, self._settings, self._report)
        return record

    def _foresee(self, image: ImageRecord) -> list[str]:
        """What the walk will ask for below an image; what cannot be had it will say itself, in its order."""
        store = open_store(self._settings)
        found: list[str] = []
        waiting = deque([image])
        while waiting and len(self._foreseen) < MAX_PARTS:
            parent = waiting.popleft()
            if parent.key in self._foreseen:
                continue
            self._foreseen.add(parent.key)
            try:
                for dependency in parse_image_manifest(store.manifest_bytes(parent.key)).dependencies:
                    record = self._in_store(dependency)
                    if record is None:
                        found.append(_question(AppcReference(dependency.image_name, dependency.labels)))
                    else:
                        waiting.append(record)
            except RktError:
                continue
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fetch_dependencies(
    top: ImageRecord, settings: Settings, *, pull_policy: str, progress: Reporter | None = None
) -> None:
    """``Fetcher.dependencies`` of one image."""
    with Fetcher(settings, pull_policy=pull_policy, progress=progress) as fetcher:
        fetcher.dependencies(top)


def _question(wanted: AppcReference) -> str:
    """The text by which a dependency is asked for.

    Raises:
        ImageError: there is none that means only this.
    """
    text = str(wanted)
    # An image must not choose a file of this host, nor smuggle labels in by commas.
    try:
        parsed = references.parse_reference(text)
    except UsageError as e:
        raise ImageError(f"dependency {quoted(text)} cannot be asked for: {e.message}") from e
    if parsed.kind != references.NAME or parsed.name != wanted:
        raise ImageError(
            f"dependency {quoted(text)} cannot be asked for by its name", hint=f"rkt fetch {text}"
        )
    return _text(wanted)


def _text(wanted: AppcReference) -> str:
    # An image must not choose one of a registry either: with a label it is no short name, and means the same.
    label = f",os={references.host_labels()['os']}" if references.is_short(wanted) else ""
    return f"{wanted}{label}"
