# SPDX-License-Identifier: Apache-2.0
"""From the place of a key to a key that is trusted: get it, show it, ask, store it (spec cli §6.4, §6.6).

Used by ``rkt trust`` and by a fetch by name for which no key counts yet. Whether somebody must be asked is decided for
each place anew: one key by https never makes the next one accepted (spec cli §12.1).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from rkt.errors import FetchError, NotVerified, RktError, UsageError, printable
from rkt.schema.record import Record
from rkt.trust.keys import MAX_KEY_FILE_BYTES, group_fingerprint, load_keys, parse_keys
from rkt.trust.keystore import RULE_ROOT, Keystore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rkt.config.settings import Settings
    from rkt.trust.keys import PublicKey

#: What lines about keys start with on stderr.
_PREFIX = "pubkey"


class Conditions(Record):
    """How keys are got and accepted.

    Attributes:
        allow_http: keys may come by http.
        tls_insecure: certificates are not checked.
        skip_review: nobody is asked.
    """

    allow_http: bool = False
    tls_insecure: bool = False
    skip_review: bool = False


def key_urls(prefix: str, settings: Settings, conditions: Conditions) -> list[str]:
    """Where discovery says that the keys of a prefix are.

    Raises:
        FetchError: nowhere.
    """
    from rkt.fetch import remote
    from rkt.values import ACIdentifier, AppcReference

    found = remote.discover(
        AppcReference(ACIdentifier.parse(prefix, what="prefix"), {}),
        settings,
        what=remote.KEYS,
        allow_http=conditions.allow_http,
        tls_insecure=conditions.tls_insecure,
    )
    if not found.keys:
        error: FetchError | None = None
        for tried in reversed(found.tried):
            page = FetchError(f"{tried.page}: {tried.cause}")
            page.__cause__ = error
            error = page
        raise FetchError(
            f"meta discovery on {prefix} resulted in no keys",
            hint=f"get the public key from its owner, then: rkt trust --prefix={prefix} ./pubkey.asc",
        ) from error
    return found.keys


def get_keys(location: str, settings: Settings, conditions: Conditions) -> list[PublicKey]:
    """The keys of a file or URL, all of them suitable.

    Raises:
        UsageError: a scheme that is not supported, or http without leave.
        FetchError, ConfigError: there is no file of public keys.
        NotVerified: one of the keys is weak, expired or revoked.
    """
    scheme, separator, _ = location.partition("://")
    if not separator:
        keys = load_keys(location)
    else:
        if scheme not in {"http", "https"}:
            raise UsageError(
                f"cannot get key {location!r}: only local files and http or https URLs supported"
            )
        if scheme == "http" and not conditions.allow_http:
            raise UsageError("--insecure-allow-http required for http URLs")
        from rkt.fetch import remote

        data = remote.read_document(
            location,
            settings,
            limit_bytes=MAX_KEY_FILE_BYTES,
            tls_insecure=conditions.tls_insecure,
            credentials=False,
        )
        keys = parse_keys(data or b"", what=repr(location))
    now = int(time.time())
    for key in keys:
        if problem := key.problem(now):
            raise NotVerified(
                f'not trusting "{location}": key {group_fingerprint(key.fingerprint)} {problem}',
                hint="ask the owner for a current key of theirs: Ed25519, or RSA of 2048 bits or more",
            )
    return keys


def offer(
    prefix: str | None,
    location: str,
    keys: list[PublicKey],
    settings: Settings,
    conditions: Conditions,
    *,
    write: Callable[[str], object],
    tell: Callable[[str], object] | None = None,
) -> bool:
    """Show keys, ask unless that is not needed, and trust them all or none; returns which.

    Args:
        prefix: what they are to count for; None for every name.
        location: where they come from.
        keys: from ``get_keys``.
        settings: key store, and ``--trust-keys-from-https``.
        conditions: under which they were got.
        write: takes the fingerprints.
        tell: takes words for people, without their prefix; by default they go to stderr.
    Raises:
        NotVerified: somebody must be asked, and there is no terminal.
    """
    tell = tell or say
    _show(prefix, location, keys, write, tell)
    # A server that nobody vouched for is not what "https" promises.
    vouched = location.startswith("https://") and not conditions.tls_insecure
    skip_review = conditions.skip_review or (settings.trust_keys_from_https and vouched)
    if not skip_review and not _accepted(len(keys)):
        tell(f'not trusting "{location}"')
        return False
    review = "without fingerprint review" if skip_review else "after fingerprint review"
    tell(f'Trusting "{location}" for prefix "{prefix or ""}" {review}.')
    store = Keystore(settings)
    for key in keys:
        path = store.store(key, prefix)
        what = "Added root key" if prefix is None else f'Added key for prefix "{prefix}"'
        tell(f'{what} at "{path}"')
    return True


def discover_keys(
    name: str,
    settings: Settings,
    tell: Callable[[str], object] | None = None,
    turn: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> None:
    """Offer the keys that a name's pages speak of, when no key counts for the name by a prefix (spec cli §6.6).

    What fails is only told, by ``tell``: the check of the signature decides. ``turn`` is held while somebody may be asked.
    """
    tell = tell or say
    insecure = settings.insecure
    if insecure.tls and not insecure.pubkey:
        return
    conditions = Conditions(
        allow_http=insecure.pubkey and insecure.http, tls_insecure=insecure.pubkey and insecure.tls
    )

    def known() -> bool:
        if any(file.rule != RULE_ROOT for file in Keystore(settings).listing(name).keys.values()):
            tell(f'keys already exist for prefix "{name}", not fetching again')
            return True
        return False

    try:
        if known():
            return
        if insecure.pubkey:
            tell("signing keys may be downloaded from an insecure connection")
        locations = key_urls(name, settings, conditions)
        with turn():
            # Of several images that are fetched at once, one asks for all.
            if known():
                return
            for location in locations:
                keys = get_keys(location, settings, conditions)
                offer(name, location, keys, settings, conditions, write=tell, tell=tell)
    except RktError as e:
        tell(f"no key was added: {e.message}" + (f" (hint: {e.hint})" if e.hint else ""))


def say(text: str) -> None:
    """Lines about keys for people."""
    _write("".join(f"{_PREFIX}: {line}\n" for line in text.split("\n")))


def _write(text: str) -> None:
    # Identities and URLs are foreign: nothing in them moves the cursor (invariant LG3).
    sys.stderr.write(printable(text))
    sys.stderr.flush()


def _show(
    prefix: str | None,
    location: str,
    keys: list[PublicKey],
    write: Callable[[str], object],
    tell: Callable[[str], object],
) -> None:
    scope = '"" (root: every image name)' if prefix is None else f'"{prefix}"'
    tell(f'prefix: {scope}\nkey: "{location}"')
    lines = []
    for key in keys:
        lines.append(f"gpg key fingerprint is: {group_fingerprint(key.fingerprint)}\n")
        lines += [
            f"    Subkey fingerprint: {group_fingerprint(subkey.fingerprint)}\n" for subkey in key.subkeys
        ]
        # An identity is foreign text: it stays on its line.
        lines += [
            "\t" + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in identity) + "\n"
            for identity in key.identities
        ]
    write("".join(lines))


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
