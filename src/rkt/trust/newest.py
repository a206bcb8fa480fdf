# SPDX-License-Identifier: Apache-2.0
"""Which signed image of a name was the newest that was seen, so that an older one is not taken for an update (SG11).

Below the data directory, one record for each name, tag or version, and platform, that an image was asked for by::

    trust/newest/SHA256     of the JSON list of the three

A record stays when its image is removed: what was signed and seen once does not become new again. It is written before
layers are fetched, by whoever holds the lock on the directory, and only of images that somebody signed. When an image
was made is what the signers' evidence says, or else its configuration, which the signature covers. Whoever asks for a
digest asks for that very image, and goes nowhere.
"""

from __future__ import annotations

import fcntl
import os
import time

from rkt.errors import DamagedRecord, HostError, NotVerified, StoreError
from rkt.linux.files import read_bounded, replace_file
from rkt.schema import jsontext
from rkt.schema.envelope import MAX_RECORD_BYTES, open_sealed, seal, sha256_hex
from rkt.schema.record import Record
from rkt.trust.compiled import DIRECTORY, make_directory
from rkt.trust.rules import ROLLBACK_ALLOW, ROLLBACK_REFUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = "rkt.newest"
VERSION = 1


class Version(Record):
    """One signed image, as that of a name.

    Attributes:
        name: by which rules are found.
        label: tag, or version; empty for whichever is the latest.
        platform: for which it was asked.
        digest: of the manifest, or the image ID.
        signed_at: seconds since the epoch; 0 when nobody who is trusted says.
        created: of the configuration, likewise.
    """

    name: str
    label: str
    platform: str
    digest: str
    signed_at: int = 0
    created: int = 0

    @property
    def full_name(self) -> str:
        """Name and label, for people."""
        return f"{self.name}:{self.label}" if self.label else self.name

    @property
    def when(self) -> str:
        """When it was made, for people."""
        for word, seconds in (("signed", self.signed_at), ("made", self.created)):
            if seconds:
                return f"{word} {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(seconds))}"
        return "of an unknown time"

    def age_beside(self, other: Version) -> int | None:
        """Seconds by which this one is newer than another; None where that cannot be told."""
        if self.signed_at and other.signed_at:
            return self.signed_at - other.signed_at
        if self.created and other.created:
            return self.created - other.created
        return None


def check_newest(found: Version, rollback: str, data_dir: str, *, remember: bool = True) -> str:
    """Compare an image that was just verified with the newest one of its name, and remember it if it is that.

    Args:
        found: the image.
        rollback: ``refuse``: it must be newer, or the same. ``warn``: an older one is told. ``allow``: nothing.
        data_dir: where the memory is.
        remember: otherwise it is only compared.
    Returns:
        what to tell people; empty for nothing.
    Raises:
        NotVerified: it is not newer, and that is refused.
        HostError: it cannot be remembered.
    """
    directory = f"{data_dir}/{DIRECTORY}/newest"
    identity = jsontext.dump([found.name, found.label, found.platform])
    path = f"{directory}/{sha256_hex(identity.encode())}"
    try:
        make_directory(data_dir)
        os.makedirs(directory, 0o2750, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise HostError(f"cannot use {directory}: {e.strerror}") from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read(path, rollback)
        if known is None:
            if remember:
                _write(path, found)
            return ""
        if known.digest == found.digest:
            # With one signature less than before it is not older than it was.
            again = found.replace(
                signed_at=max(found.signed_at, known.signed_at), created=max(found.created, known.created)
            )
            if again != known and remember:
                _write(path, again)
            return ""
        age = found.age_beside(known)
        text = _told(found, known, age, rollback)
        if remember and (age is None or age >= 0):
            _write(path, found)
        return text
    finally:
        os.close(lock)


def _told(found: Version, known: Version, age: int | None, rollback: str) -> str:
    if rollback == ROLLBACK_ALLOW or (age is not None and age > 0):
        return ""
    what = f"{found.digest}, {found.when}, while {known.digest}, {known.when}, was seen before"
    if rollback == ROLLBACK_REFUSE:
        is_older = "is older than what was seen" if age else "cannot be told to be newer than what was seen"
        raise NotVerified(
            f'image "{found.full_name}" {is_older}: {what}',
            hint=f'if it is wanted all the same, ask for it by digest: {found.name}@{found.digest}; or say rollback = "warn" in its rule',
        )
    return f'warning: image "{found.full_name}" went back: {what}' if age else ""


def _read(path: str, rollback: str) -> Version | None:
    try:
        data = read_bounded(path, MAX_RECORD_BYTES)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise HostError(f"cannot read {path}: {e.strerror}") from e
    try:
        version, body = open_sealed(data, FORMAT, path)
        if version != VERSION:
            raise StoreError(f"record {path} has version {version}, this rkt reads version {VERSION}")
        return _from_json(body, path)
    except StoreError as e:
        if rollback != ROLLBACK_REFUSE:
            return None
        raise NotVerified(f"{e.message}, so an older image could not be told", hint=f"rm {path}") from e


def _from_json(body: dict[str, Any], path: str) -> Version:
    kinds = {**dict.fromkeys(("name", "label", "platform", "digest"), str), "signedAt": int, "created": int}
    if body.keys() != kinds.keys() or any(type(body[member]) is not kind for member, kind in kinds.items()):
        raise DamagedRecord(f"record {path} is damaged: it has not the members of a version")
    signed_at = body.pop("signedAt")
    return Version(signed_at=signed_at, **body)


def _write(path: str, version: Version) -> None:
    body = version.as_dict()
    body["signedAt"] = body.pop("signed_at")
    try:
        replace_file(path, seal(FORMAT, VERSION, body), 0o640)
    except OSError as e:
        raise HostError(f"cannot write {path}: {e.strerror}") from e


def seconds_of(text: str) -> int:
    """Seconds since the epoch of a time as an image's configuration has it; 0 when it is none."""
    from datetime import UTC, datetime

    try:
        when = datetime.fromisoformat(text)
        return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0
