# SPDX-License-Identifier: Apache-2.0
"""``rkt trust``: show the keys of a file, ask, and add them to the key store (spec cli §2.7, §6.4)."""

from __future__ import annotations

import os
import sys

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.output import prefixed, printable, write
from rkt.errors import ConfigError, FetchError, InvalidManifest, NotVerified, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.trust.keys import PublicKey

#: What lines about keys start with on stderr.
_PREFIX = "pubkey"


def run(invocation: Invocation) -> int:
    """Trust every key of the files named, for a prefix or for every name."""
    from rkt.trust.keystore import Keystore

    prefix = _scope(invocation)
    if invocation.settings.insecure.image:
        raise ConfigError(
            "could not get the keystore: --insecure-options=image switches verification off",
            hint="leave that option out",
        )
    if not invocation.words:
        if prefix is None:
            raise UsageError(
                "empty prefix: with --root a PUBKEY is needed", hint="rkt trust --root ./pubkey.asc"
            )
        raise FetchError(
            f'no PUBKEY given, and discovery of the keys of prefix "{prefix}" is not available yet',
            hint=f"get the public key from its owner, then: rkt trust --prefix={prefix} ./pubkey.asc",
        )
    store = Keystore(invocation.settings)
    # All files are read before the first key is trusted: a bad one stops the command before it has done half.
    files = [(location, _keys(invocation, location)) for location in invocation.words]
    for location, keys in files:
        _show(prefix, location, keys)
        skip_review = invocation.values["skip-fingerprint-review"]
        if not skip_review and not _accepted(len(keys)):
            prefixed(_PREFIX, f'not trusting "{location}"')
            continue
        review = "without fingerprint review" if skip_review else "after fingerprint review"
        prefixed(_PREFIX, f'Trusting "{location}" for prefix "{prefix or ""}" {review}.')
        for key in keys:
            path = store.store(key, prefix)
            what = "Added root key" if prefix is None else f'Added key for prefix "{prefix}"'
            prefixed(_PREFIX, f'{what} at "{path}"')
    return 0


def _scope(invocation: Invocation) -> str | None:
    """The prefix, or ``None`` for ``--root``."""
    prefix, root = invocation.values["prefix"], invocation.values["root"]
    if prefix and root:
        raise UsageError("--root and --prefix usage mutually exclusive")
    if root:
        return None
    if not prefix:
        if invocation.words:
            raise UsageError(
                "aborting due to implicit unbounded trust (root domain): say for which names the key is trusted",
                hint="rkt trust --prefix=example.com/app PUBKEY, or --root for every name",
            )
        raise UsageError(
            "--prefix or --root is needed", hint="rkt trust --prefix=example.com/app ./pubkey.asc"
        )
    if "://" in prefix:
        raise UsageError("--prefix must not contain a URL scheme, omit https://")
    from rkt.trust.keystore import name_components

    try:
        return "/".join(name_components(prefix))
    except InvalidManifest as e:
        hint = f"names below a prefix are included: --prefix={prefix[:-2]}" if prefix.endswith("/*") else ""
        raise UsageError(f"invalid --prefix: {e.message}", hint=hint) from None


def _keys(invocation: Invocation, location: str) -> list[PublicKey]:
    """The keys of one PUBKEY, all of them suitable."""
    import time

    from rkt.trust.keys import group_fingerprint, load_keys

    scheme, separator, _ = location.partition("://")
    if separator:
        if scheme not in {"http", "https"}:
            raise UsageError(
                f"cannot get key {location!r}: only local files and http or https URLs supported"
            )
        if scheme == "http" and not invocation.values["insecure-allow-http"]:
            raise UsageError("--insecure-allow-http required for http URLs")
        raise FetchError(
            f"cannot get key {location!r}: keys are not downloaded yet",
            hint="download it, compare its fingerprint with what its owner says, and name the file",
        )
    keys = load_keys(location)
    now = int(time.time())
    for key in keys:
        if problem := key.problem(now):
            raise NotVerified(
                f'not trusting "{location}": key {group_fingerprint(key.fingerprint)} {problem}',
                hint="ask the owner for a current key of theirs: Ed25519, or RSA of 2048 bits or more",
            )
    return keys


def _show(prefix: str | None, location: str, keys: list[PublicKey]) -> None:
    from rkt.trust.keys import group_fingerprint

    scope = '"" (root: every image name)' if prefix is None else f'"{prefix}"'
    prefixed(_PREFIX, f'prefix: {scope}\nkey: "{location}"')
    for key in keys:
        write(f"gpg key fingerprint is: {group_fingerprint(key.fingerprint)}\n")
        for subkey in key.subkeys:
            write(f"    Subkey fingerprint: {group_fingerprint(subkey.fingerprint)}\n")
        for identity in key.identities:
            # An identity is foreign text: it stays on its line.
            write("\t" + printable(identity).replace("\n", "\\n").replace("\t", "\\t") + "\n")
    sys.stdout.flush()


def _accepted(count: int) -> bool:
    """Ask on the terminal."""
    if not (os.isatty(0) and os.isatty(2)):
        raise NotVerified(
            "error reviewing key: unable to ask user to review fingerprint due to lack of tty",
            hint="run it on a terminal, or compare the fingerprints yourself and add --skip-fingerprint-review",
        )
    keys = "this key" if count == 1 else f"these {count} keys"
    while True:
        sys.stderr.write(f"Are you sure you want to trust {keys} (yes/no)? ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if answer.strip() == "yes":
            return True
        if answer.strip() == "no" or not answer:
            return False
        sys.stderr.write("Please enter 'yes' or 'no'\n")


COMMAND = Command(
    name="trust",
    summary="trust a key for image names",
    usage="[--prefix=PREFIX | --root] PUBKEY…",
    description=(
        "Adds OpenPGP public keys to the key store, so that images signed with them may be used. A key counts for the "
        "prefix itself and for names below it: one for example.com/app counts for example.com/app/web, but not for "
        "example.com/apple.\n\n"
        "Every key of each file is shown with its fingerprint. Compare it with what the owner says over another "
        "channel before you answer yes. Weak, expired and revoked keys are refused."
    ),
    flags=(
        Flag(name="prefix", metavar="PREFIX", help="trust the keys for names equal to or below this prefix"),
        Flag(name="root", kind=BOOL, default=False, help="trust the keys for every image name"),
        Flag(
            name="skip-fingerprint-review",
            kind=BOOL,
            default=False,
            help="do not ask; for scripts that know the file",
        ),
        Flag(
            name="insecure-allow-http", kind=BOOL, default=False, help="allow http for the download of keys"
        ),
    ),
    run=run,
    completes="file",
    examples=(
        ("rkt trust --prefix=example.com/app ./pubkey.asc", "show the keys of the file, ask, and trust them"),
        ("rkt trust --root ./pubkey.asc", "trust a key for every image, such as your own"),
    ),
)
