# SPDX-License-Identifier: Apache-2.0
"""Real OpenPGP keys and signatures, made by GnuPG in a private home directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: A time in the past, as GnuPG writes it, at which expired things are made.
LONG_AGO = "20200101T000000"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a ring: what GnuPG calls it and its fingerprint in lower case."""

    address: str
    fingerprint: str


class KeyRing:
    """A GnuPG home directory for one test or module; ``close`` stops its agent and removes it."""

    def __init__(self) -> None:
        # Short, because the agent's socket is in it and socket paths are at most 107 bytes.
        self.home = tempfile.mkdtemp(prefix="rktgpg-", dir="/tmp")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the agent, remove everything."""
        subprocess.run(
            ["/usr/bin/gpgconf", "--homedir", self.home, "--kill", "all"], check=False, capture_output=True
        )
        shutil.rmtree(self.home, ignore_errors=True)

    def gpg(self, *words: str, stdin: bytes = b"", when: str = "") -> bytes:
        """Run gpg on this ring; ``when`` is the time it believes it is."""
        done = subprocess.run(
            [
                "/usr/bin/gpg",
                "--homedir",
                self.home,
                "--batch",
                "--quiet",
                "--no-tty",
                "--yes",
                "--no-auto-check-trustdb",
                "--pinentry-mode=loopback",
                "--passphrase=",
                *([f"--faked-system-time={when}!"] if when else []),
                *words,
            ],
            input=stdin,
            capture_output=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": self.home},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make(
        self,
        address: str,
        algorithm: str = "ed25519",
        *,
        usage: str = "sign",
        lifetime: str = "never",
        when: str = "",
        certify_hash: str = "SHA512",
    ) -> Key:
        """A new key without a passphrase."""
        self.gpg(
            f"--cert-digest-algo={certify_hash}",
            "--quick-generate-key",
            address,
            algorithm,
            usage,
            lifetime,
            when=when,
        )
        listing = self.gpg("--with-colons", "--list-keys", "--", address).decode()
        fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        return Key(address, fingerprint.lower())

    def make_expired(self, address: str) -> Key:
        """A key that was valid in 2020 only; it can still sign with ``when=LONG_AGO``."""
        return self.make(address, lifetime="1y", when=LONG_AGO)

    def add_subkey(self, key: Key, algorithm: str = "rsa2048", usage: str = "sign") -> None:
        """One more sub-key."""
        self.gpg("--quick-add-key", key.fingerprint, algorithm, usage, "never")

    def revoke(self, key: Key) -> None:
        """Import the revocation certificate that GnuPG made with the key."""
        path = os.path.join(self.home, "openpgp-revocs.d", f"{key.fingerprint.upper()}.rev")
        with open(path, "rb") as stream:
            # A colon before the armour keeps people from importing it by accident.
            self.gpg("--import", stdin=stream.read().replace(b":-----BEGIN", b"-----BEGIN"))

    def export(self, *keys: Key, armour: bool = True, secret: bool = False) -> bytes:
        """Public (or secret) keys as a file's content."""
        return b"".join(
            self.gpg(
                *(["--armor"] if armour else []),
                "--export-secret-keys" if secret else "--export",
                "--",
                key.fingerprint,
            )
            for key in keys
        )

    def sign(
        self,
        key: Key,
        data: bytes,
        *,
        armour: bool = True,
        digest: str = "SHA512",
        when: str = "",
        mode: str = "",
    ) -> bytes:
        """A signature of ``data``; ``mode`` is ``--detach-sign`` unless given."""
        return self.gpg(
            *(["--armor"] if armour else []),
            f"--digest-algo={digest}",
            f"--local-user={key.fingerprint}",
            mode or "--detach-sign",
            stdin=data,
            when=when,
        )
