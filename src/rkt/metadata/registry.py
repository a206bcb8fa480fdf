# SPDX-License-Identifier: Apache-2.0
"""Which pods the metadata service knows, and its key: files for root alone, so that a restart forgets nothing.

::

    $DATA/metadata/            0700
        key                    64 bytes: what pods sign by
        pods/UUID              a registration, JSON

A token is not kept, only its SHA-256: what the files say does not let anybody ask as a pod.
"""

from __future__ import annotations

import hashlib
import os

from rkt.errors import InvalidManifest, RktError
from rkt.linux.files import read_bounded, replace_file
from rkt.schema import appc, jsontext
from rkt.schema.record import Record
from rkt.values import PodUUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = 1
_KEY_BYTES = 64
#: As many digits as 128 bits have, which appc asks for at least; and more than anybody makes.
_TOKEN_DIGITS = range(32, 257)
_HEX = frozenset("0123456789abcdefABCDEF")
#: Largest registration on disk: a pod manifest and the manifests of its images, each bounded by what is accepted.
_MAX_FILE_BYTES = 256 << 20


class Registration(Record):
    """A pod that may ask.

    Attributes:
        uuid: of the pod.
        token: SHA-256 of its token, hexadecimal.
        manifest: its manifest, JSON as it came.
        apps: image manifest by app, as it came.
        addresses: those of this host by which it reaches the service.
    """

    uuid: str
    token: str
    manifest: str
    apps: dict[str, str] = {}
    addresses: list[str] = []


def is_token(text: str) -> bool:
    """Whether it may be one: hexadecimal, of at least 128 bits."""
    return len(text) in _TOKEN_DIGITS and _HEX.issuperset(text)


def token_digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Registry:
    """The registrations below one directory; one process at a time."""

    def __init__(self, data_dir: str) -> None:
        self._directory = f"{data_dir}/metadata"
        self._pods = f"{self._directory}/pods"
        for path in (self._directory, self._pods):
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, 0o700)
        self.known: dict[str, Registration] = {}

    def key(self) -> bytes:
        """The key, made when there is none.

        Raises:
            RktError: the file is damaged.
        """
        path = f"{self._directory}/key"
        try:
            key = read_bounded(path, _KEY_BYTES)
        except FileNotFoundError:
            key = os.urandom(_KEY_BYTES)
            replace_file(path, key, 0o600)
        if len(key) != _KEY_BYTES:
            raise RktError(
                f"{path} is damaged", hint=f"rm {path}, which makes every signature of a pod invalid"
            )
        return key

    def load(self, report: Callable[[str], None]) -> None:
        """Read what an earlier process wrote; what cannot be read is reported and left out."""
        for name in sorted(os.listdir(self._pods)):
            path = f"{self._pods}/{name}"
            if not PodUUID.is_uuid(name):
                if name.startswith("."):
                    os.unlink(path)  # half written when the service was killed
                continue
            try:
                members = jsontext.parse(
                    read_bounded(path, _MAX_FILE_BYTES), what=path, limit_bytes=_MAX_FILE_BYTES
                )
                if members.pop("version") != _VERSION:
                    raise InvalidManifest(f"{path} has another version than {_VERSION}")
                self.known[name] = Registration(uuid=name, **members)
            except (OSError, RktError, AttributeError, KeyError, TypeError) as e:
                report(f"registration {path} cannot be used: {e}")

    def put(self, registration: Registration) -> None:
        """Remember a pod, or what is new of it."""
        members = registration.as_dict()
        uuid = members.pop("uuid")
        data = jsontext.dump({"version": _VERSION, **members}).encode()
        replace_file(f"{self._pods}/{uuid}", data, 0o600, sync=False)
        self.known[uuid] = registration

    def remove(self, uuid: str) -> None:
        """Forget a pod."""
        self.known.pop(uuid, None)
        try:
            os.unlink(f"{self._pods}/{uuid}")
        except FileNotFoundError:
            pass

    def addresses(self) -> set[str]:
        """Every address by which a pod reaches the service."""
        return {address for each in self.known.values() for address in each.addresses}


def answers(registration: Registration) -> dict[str, tuple[str, str]]:
    """Everything that a pod can look up: path below ``acMetadata/v1`` -> (``json`` or ``text``, what it says).

    Raises:
        InvalidManifest: a manifest is none.
    """
    pod = appc.parse_pod_manifest(registration.manifest.encode())
    found = {
        "pod/uuid": ("text", registration.uuid),
        "pod/manifest": ("json", registration.manifest),
        **_annotations("pod", pod.annotations),
    }
    for runtime in pod.apps:
        name = str(runtime.name)
        manifest = registration.apps.get(name)
        if manifest is None:
            continue
        image = appc.parse_image_manifest(manifest.encode())
        found[f"apps/{name}/image/manifest"] = ("json", manifest)
        found[f"apps/{name}/image/id"] = ("text", str(runtime.image_id))
        # The operator's word counts before the image's.
        found.update(_annotations(f"apps/{name}", {**image.annotations, **runtime.annotations}))
    return found


def _annotations(where: str, annotations: dict[str, str]) -> dict[str, tuple[str, str]]:
    pairs = [{"name": name, "value": value} for name, value in annotations.items()]
    return {
        f"{where}/annotations": ("json", jsontext.dump(pairs)),
        **{f"{where}/annotations/{name}": ("text", value) for name, value in annotations.items()},
    }
