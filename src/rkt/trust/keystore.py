# SPDX-License-Identifier: Apache-2.0
"""The store of trusted keys: which key counts for which image name.

Below the system and the local configuration directory::

    trustedkeys
    ├── root.d
    │   └── FINGERPRINT              counts for every name
    └── prefix.d
        └── example.com
            ├── FINGERPRINT          counts for example.com and names below it
            └── app
                └── FINGERPRINT      counts for example.com/app and names below it, not for example.com/apple

Names of Docker and OCI images are ``REGISTRY/REPOSITORY``, with the registry's port where it has one
(``prefix.d/registry.example:5000/team``). The names of Docker Hub are one: what is below any of them counts for all.

A file is named by the fingerprint of the primary key it holds; an empty file removes that key from what was found so
far. The order is: system root, local root, system prefixes from the shortest to the longest, local prefixes likewise
(spec cli §6.2). Names are compared component by component (invariant SG2).

``Keystore.listing`` looks at names and sizes of files only and is on the path of every ``run``; ``Keystore.load`` reads
keys, when an image is verified. Anything unexpected in these directories is an error, never a reason to go on with
fewer or more keys (invariant SG6). Files whose name starts with a dot are ignored: an interrupted write leaves one.
"""

from __future__ import annotations

import errno
import os

from rkt.errors import ConfigError, HostError, InvalidManifest, quoted
from rkt.schema.record import Record
from rkt.values import DOCKER_HUB, DOCKER_HUB_NAMES, ACIdentifier, is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.trust.keys import PublicKey

#: Lengths of fingerprints in hex digits: version 4; versions 5 and 6.
FINGERPRINT_LENGTHS = (40, 64)
#: What ``KeyFile.rule`` says of a key that counts for every name.
RULE_ROOT = "root"

_HEX = frozenset("0123456789abcdef")
_S_IFMT, _S_IFREG = 0o170000, 0o100000
_WRITABLE_BY_OTHERS = 0o002
_MAX_PORT_DIGITS = 5
#: Of an IPv6 address.
_ADDRESS = frozenset("0123456789abcdef:.")


class KeyFile(Record):
    """A key that counts for a name.

    Attributes:
        rule: ``root`` or ``prefix example.com/app``.
    """

    fingerprint: str
    path: str
    rule: str


class Listing(Record):
    """What the key store says about one name, from file names alone.

    Attributes:
        keys: by fingerprint.
        masks: fingerprint of a key that is masked -> the empty file that does it.
    """

    keys: dict[str, KeyFile]
    masks: dict[str, str]


class Entry(Record):
    """A file of the key store.

    Attributes:
        prefix: empty for every name.
        local: below the local directory; the vendor's otherwise.
        empty: it masks a key instead of holding one.
        masked_by: the empty file that keeps this key from counting for its own prefix; empty when none does.
    """

    fingerprint: str
    prefix: str
    path: str
    local: bool
    empty: bool
    masked_by: str = ""


class TrustedKey(Record):
    """A key that counts for a name, with the key itself."""

    key: PublicKey
    path: str
    rule: str


def name_components(name: str) -> list[str]:
    """The components of an image name or prefix; the first one may be a registry, with its port, and is one for Docker Hub.

    A registry is the name of a host, an IPv4 address or, in brackets, an IPv6 address.

    Raises:
        InvalidManifest: not an AC Identifier, or a component is empty or consists of dots (such a name could lead out
            of ``prefix.d``; the grammar alone lets ``a/../b`` pass).
    """
    first, slash, rest = name.partition("/")
    if first.startswith("["):
        address, bracket, end = first[1:].partition("]")
        between, colon, port = end.partition(":")
        if between or not bracket or ":" not in address or not _ADDRESS.issuperset(address):
            raise InvalidManifest(f"invalid image name {quoted(name)}: {quoted(first)} is no address")
        host = "address"
    else:
        host, colon, port = first.partition(":")
    if colon and not is_number(port, most_digits=_MAX_PORT_DIGITS):
        raise InvalidManifest(f"invalid image name {quoted(name)}: {quoted(port)} is no port")
    # The grammar of appc names has neither ports nor addresses.
    components = ACIdentifier.parse(f"{host}{slash}{rest}", what="image name").split("/")
    components[0] = DOCKER_HUB if first in DOCKER_HUB_NAMES else first
    for component in components:
        if not component.strip("."):
            raise InvalidManifest(
                f"invalid image name {quoted(name)}: component {quoted(component)} is not a name"
            )
    return components


def name_prefixes(name: str) -> list[str]:
    """The prefixes that a name is below, itself included, from the shortest to the longest; of Docker Hub by each of its names.

    Raises:
        InvalidManifest: as ``name_components``.
    """
    components = name_components(name)
    # A directory that somebody made by hand counts by whatever name.
    registries = DOCKER_HUB_NAMES if components[0] in DOCKER_HUB_NAMES else (components[0],)
    return [
        "/".join((registry, *components[1:count]))
        for count in range(1, len(components) + 1)
        for registry in registries
    ]


class Keystore:
    """The trusted keys of an installation."""

    __slots__ = ("_local", "_system")

    def __init__(self, settings: Settings) -> None:
        self._system = f"{settings.system_config_dir}/trustedkeys"
        self._local = f"{settings.local_config_dir}/trustedkeys"

    def listing(self, name: str) -> Listing:
        """Which keys count for an image name; reads no key.

        Raises:
            ConfigError: a directory of the key store holds something unexpected, or cannot be read.
            InvalidManifest: ``name`` is no image name.
        """
        prefixes = name_prefixes(name)
        found = Listing(keys={}, masks={})
        for base in (self._system, self._local):
            _scan(f"{base}/root.d", RULE_ROOT, found)
        for base in (self._system, self._local):
            for prefix in prefixes:
                _scan(f"{base}/prefix.d/{prefix}", f"prefix {prefix}", found)
        return found

    def load(self, name: str) -> list[TrustedKey]:
        """The keys that count for an image name; unsuitable ones included (``PublicKey.problem``).

        Raises:
            ConfigError: as ``listing``, or a file is not the key its name says.
        """
        from rkt.trust.keys import load_keys

        loaded = []
        for file in self.listing(name).keys.values():
            # Only the first key of a file counts, and its fingerprint is the file's name (spec cli §6.1).
            key = load_keys(file.path)[0]
            if key.fingerprint != file.fingerprint:
                raise ConfigError(
                    f'fingerprint mismatch: "{file.path}":"{key.fingerprint}"',
                    hint=f"rm {file.path}, then trust the key again with rkt trust",
                )
            loaded.append(TrustedKey(key=key, path=file.path, rule=file.rule))
        return loaded

    def entries(self) -> list[Entry]:
        """Every file of the key store: root keys first, then by prefix, the vendor's before the local ones.

        Raises:
            ConfigError: a directory of the key store holds something unexpected, or cannot be read.
        """
        found = []
        for base in (self._system, self._local):
            found += self._files(f"{base}/root.d", "", local=base == self._local)
            parent = f"{base}/prefix.d"
            for directory, directories, _ in os.walk(parent, onerror=_cannot_read):
                directories.sort()
                if directory != parent:
                    prefix = directory[len(parent) + 1 :]
                    found += self._files(directory, prefix, local=base == self._local)
        return sorted(found, key=lambda entry: (entry.prefix, entry.local, entry.fingerprint))

    def _files(self, directory: str, prefix: str, *, local: bool) -> list[Entry]:
        here = Listing(keys={}, masks={})
        _scan(directory, prefix, here)
        if prefix:
            masks = self.listing(prefix).masks
        else:
            roots = Listing(keys={}, masks={})
            for base in (self._system, self._local):
                _scan(f"{base}/root.d", RULE_ROOT, roots)
            masks = roots.masks
        keys = [
            Entry(
                fingerprint=key.fingerprint,
                prefix=prefix,
                path=key.path,
                local=local,
                empty=False,
                masked_by=masks.get(key.fingerprint, ""),
            )
            for key in here.keys.values()
        ]
        return keys + [
            Entry(fingerprint=fingerprint, prefix=prefix, path=path, local=local, empty=True)
            for fingerprint, path in here.masks.items()
        ]

    def remove(self, entry: Entry) -> None:
        """Remove a local file.

        Raises:
            HostError: it cannot be removed.
        """
        from rkt.linux.files import sync_directory

        try:
            os.unlink(entry.path)
            sync_directory(os.path.dirname(entry.path))
        except OSError as e:
            raise _cannot_write(entry.path, e) from e

    def mask(self, fingerprint: str, prefix: str) -> str:
        """Keep a key from counting for a prefix, or as a root key with an empty one; returns the empty file's path.

        Raises:
            HostError: the directory cannot be written.
            InvalidManifest: ``prefix`` is no image name.
        """
        return self._write(fingerprint, prefix or None, b"")

    def store(self, key: PublicKey, prefix: str | None) -> str:
        """Trust a key for a prefix, or for every name with ``None``; returns the path written.

        Written whole or not at all, and only below the local configuration directory (invariant C10).

        Raises:
            HostError: the directory cannot be written.
            InvalidManifest: ``prefix`` is no image name.
        """
        return self._write(key.fingerprint, prefix, key.to_armour())

    def _write(self, fingerprint: str, prefix: str | None, content: bytes) -> str:
        parts = ["root.d"] if prefix is None else ["prefix.d", *name_components(prefix)]
        directory = self._local
        try:
            make_directory(os.path.dirname(directory))
            make_directory(directory)
            for part in parts:
                directory = f"{directory}/{part}"
                make_directory(directory)
            from rkt.linux.files import replace_file, sweep_unfinished

            sweep_unfinished(self._local)
            path = f"{directory}/{fingerprint}"
            replace_file(path, content, 0o644)
        except OSError as e:
            raise _cannot_write(directory, e) from e
        return path


def _cannot_write(path: str, e: OSError) -> HostError:
    hint = ""
    if e.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        hint = "run this as root, as a member of group rkt-admin, or with another --local-config"
    return HostError(f"cannot write to the key store {path!r}: {e.strerror}", hint=hint)


def _cannot_read(e: OSError) -> None:
    if e.errno != errno.ENOENT:
        raise ConfigError(f"cannot read the key store {e.filename!r}: {e.strerror}") from e


def _scan(directory: str, rule: str, found: Listing) -> None:
    """Apply the files of one directory to what was found so far."""
    try:
        if os.stat(directory).st_mode & _WRITABLE_BY_OTHERS:
            raise ConfigError(
                f"everybody can write to {directory!r}, so its keys cannot be trusted",
                hint=f"chmod o-w {directory}",
            )
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=_by_name):
                if not entry.name.startswith("."):
                    _apply(entry, rule, found)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as e:
        raise ConfigError(f"cannot read the key store {directory!r}: {e.strerror}") from e


def _by_name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _apply(entry: os.DirEntry[str], rule: str, found: Listing) -> None:
    if entry.is_dir():
        return
    status = entry.stat(follow_symlinks=False)
    fingerprint = entry.name
    if len(fingerprint) not in FINGERPRINT_LENGTHS or not _HEX.issuperset(fingerprint):
        raise ConfigError(
            f"{entry.path!r} in the key store is not named by a fingerprint of 40 or 64 lower-case hex digits",
            hint=f"rm {entry.path}, then trust the key again with rkt trust",
        )
    if status.st_mode & _S_IFMT != _S_IFREG:
        raise ConfigError(f"{entry.path!r} in the key store is not a regular file")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise ConfigError(
            f"everybody can write to {entry.path!r}, so this key cannot be trusted",
            hint=f"compare its fingerprint, then chmod o-w {entry.path}",
        )
    if status.st_size == 0:
        found.keys.pop(fingerprint, None)
        found.masks[fingerprint] = entry.path
    else:
        found.keys[fingerprint] = KeyFile(fingerprint=fingerprint, path=entry.path, rule=rule)
        found.masks.pop(fingerprint, None)


def make_directory(path: str) -> None:
    """One directory with mode 0755 whatever the umask; a set-group-ID bit inherited from above stays."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    os.chmod(path, 0o755 | os.stat(path).st_mode & 0o2000)
    from rkt.linux.files import sync_directory

    sync_directory(os.path.dirname(path) or ".")
