# SPDX-License-Identifier: Apache-2.0
"""What every command needs to know about the installation and the global flags (spec cli §3)."""

from __future__ import annotations

from rkt.errors import UsageError, quoted
from rkt.schema.record import Record

#: Words of ``--insecure-options`` and their bits (spec cli §3.1).
_WORDS = {
    "none": 0,
    "image": 1,
    "tls": 2,
    "ondisk": 4,
    "http": 8,
    "pubkey": 16,
    "capabilities": 32,
    "paths": 64,
    "seccomp": 128,
    "all-fetch": 27,
    "all-run": 224,
    "all": 251,
}
_SINGLE_WORDS = ("image", "tls", "ondisk", "http", "pubkey", "capabilities", "paths", "seccomp")


class InsecureOptions:
    """The protections an operator switched off for one command."""

    __slots__ = ("bits",)

    def __init__(self, bits: int = 0) -> None:
        self.bits = bits

    @classmethod
    def parse(cls, text: str) -> InsecureOptions:
        """Parse a comma list, case-insensitively.

        Raises:
            UsageError: an unknown or repeated word.
        """
        seen: set[str] = set()
        bits = 0
        for raw in text.split(","):
            word = raw.strip().lower()
            if word not in _WORDS:
                raise UsageError(
                    f"unknown option {quoted(raw)} in --insecure-options, allowed: {', '.join(_WORDS)}"
                )
            if word in seen:
                raise UsageError(f"duplicated option {quoted(raw)} in --insecure-options")
            seen.add(word)
            bits |= _WORDS[word]
        return cls(bits)

    def _has(self, word: str) -> bool:
        return bool(self.bits & _WORDS[word])

    @property
    def image(self) -> bool:
        """No signature is asked for."""
        return self._has("image")

    @property
    def tls(self) -> bool:
        """Certificates are not checked."""
        return self._has("tls")

    @property
    def http(self) -> bool:
        """Plain http for discovery, registries and keys."""
        return self._has("http")

    @property
    def pubkey(self) -> bool:
        """Keys may be fetched over what ``http`` and ``tls`` allow."""
        return self._has("pubkey")

    @property
    def capabilities(self) -> bool:
        """No capability is dropped."""
        return self._has("capabilities")

    @property
    def paths(self) -> bool:
        """Sensitive paths are neither hidden nor read-only."""
        return self._has("paths")

    @property
    def seccomp(self) -> bool:
        """No system call filter."""
        return self._has("seccomp")

    def words(self) -> list[str]:
        """The single words that are set, in a fixed order."""
        return [word for word in _SINGLE_WORDS if self.bits & _WORDS[word]]

    def __str__(self) -> str:
        return ",".join(self.words()) or "none"

    def __repr__(self) -> str:
        return f"InsecureOptions({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InsecureOptions) and self.bits == other.bits

    def __hash__(self) -> int:
        return hash(self.bits)


class Installation(Record):
    """Where the program's own parts are; the launcher says so.

    Attributes:
        package_path: directory that holds the ``rkt`` package.
        library_paths: directories of third-party libraries, put on ``sys.path`` only when one is needed.
        stage1_images_path: built-in stage1 images directory with ``stage1.json``.
        man_path: directory of the man pages, for ``rkt help``.
    """

    package_path: str
    library_paths: list[str]
    stage1_images_path: str
    man_path: str = ""


class Settings(Record):
    """The installation and the global flags, as every function below ``cli`` gets them.

    Attributes:
        data_dir: absolute data directory, symbolic links resolved (``--dir``).
        shared_dir: root's, when a member of the group ``rkt`` works in a store of their own; else empty.
        system_config_dir, local_config_dir: absolute; ``user_config_dir`` may be empty.
        insecure: what ``--insecure-options`` switched off.
        debug: diagnostics and error trees.
        authfile: absolute path of a file with credentials for registries (``--authfile``); may be empty.
        trust_keys_from_https: accept keys discovered by https without asking.
        platform: ``os/architecture[/variant]`` of the Docker and OCI images that are wanted; empty for this host's.
        command: name of the running command, the prefix of messages.
    """

    installation: Installation
    data_dir: str = "/var/lib/rkt"
    shared_dir: str = ""
    system_config_dir: str = "/usr/lib/rkt"
    local_config_dir: str = "/etc/rkt"
    user_config_dir: str = ""
    insecure: InsecureOptions = InsecureOptions()
    debug: bool = False
    authfile: str = ""
    trust_keys_from_https: bool = False
    platform: str = ""
    command: str = "rkt"

    @property
    def pods_dir(self) -> str:
        """``$DATA/pods``."""
        return f"{self.data_dir}/pods"

    @property
    def config_dirs(self) -> list[str]:
        """Configuration directories, later ones override."""
        return [d for d in (self.system_config_dir, self.local_config_dir, self.user_config_dir) if d]
