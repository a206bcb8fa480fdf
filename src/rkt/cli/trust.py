# SPDX-License-Identifier: Apache-2.0
"""``rkt trust``: show the keys of a file, a URL or a name's pages, ask, and add them (spec cli §2.7, §6.4); or write a rule."""

from __future__ import annotations

import sys

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.output import write
from rkt.cli.trust_rule import RULE_FLAGS, asks_for_rule, write_rule
from rkt.errors import ConfigError, InvalidManifest, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Trust every key of the files named or discovered, for a prefix or for every name; or say what is asked for."""
    if asks_for_rule(invocation):
        return write_rule(invocation)
    from rkt.fetch.review import Conditions, get_keys, key_urls, offer

    prefix = _scope(invocation)
    settings = invocation.settings
    insecure = settings.insecure
    if insecure.image:
        raise ConfigError(
            "could not get the keystore: --insecure-options=image switches verification off",
            hint="leave that option out",
        )
    conditions = Conditions(
        allow_http=invocation.values["insecure-allow-http"],
        tls_insecure=insecure.tls and insecure.pubkey,
        skip_review=invocation.values["skip-fingerprint-review"],
    )
    locations = invocation.words
    if not locations:
        if prefix is None:
            raise UsageError(
                "empty prefix: with --root a PUBKEY is needed", hint="rkt trust --root ./pubkey.asc"
            )
        locations = key_urls(prefix, settings, conditions)
    # All are read before the first key is trusted: a bad one stops the command before it has done half.
    files = [(location, get_keys(location, settings, conditions)) for location in locations]
    for location, keys in files:
        offer(prefix, location, keys, settings, conditions, write=_write)
    return 0


def _write(text: str) -> None:
    """Fingerprints, at once: a question follows."""
    write(text)
    sys.stdout.flush()


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


COMMAND = Command(
    name="trust",
    summary="trust a key, or say which signatures images need",
    usage="[--prefix=PREFIX | --root] [PUBKEY…] | --prefix=PREFIX --cosign-key=FILE…",
    description=(
        "Adds OpenPGP public keys to the key store, so that images signed with them may be used. A key counts for the "
        "prefix itself and for names below it: one for example.com/app counts for example.com/app/web, but not for "
        "example.com/apple. For Docker and OCI images PREFIX is REGISTRY/REPOSITORY or the front part of it, the registry "
        "with its port if it has one; their OpenPGP signatures are those of podman and skopeo.\n\n"
        "PUBKEY is a file, or an http or https URL. Without one, the pages of the prefix are asked where its keys are "
        "(meta elements ac-discovery-pubkeys). Servers are reached, and their certificates checked, as rkt-fetch(1) says.\n\n"
        "Every key of each file is shown with its fingerprint. Compare it with what the owner says over another "
        "channel before you answer yes; with --trust-keys-from-https keys that come by https are accepted unasked. "
        "Weak, expired and revoked keys are refused.\n\n"
        "With --cosign-key and the flags like it, a rule for the prefix is written to trust.d in the local configuration "
        "directory, and the files that it names are copied beside it: images named so, or below, need what it asks for, and "
        "keys of the key store have no say there unless --keystore is given. PREFIX is then that of an ACI's name, or "
        "REGISTRY/REPOSITORY of a Docker or OCI image, whole or the front part; alpine is docker.io/library/alpine. The rules "
        "with the longest prefix decide. Nobody is asked: the file that is named is what counts. docs/trust.md says "
        "what each kind proves.\n\n"
        "rkt trust list shows what is trusted, rkt trust rm takes it back. A file called list or rm is ./list, ./rm."
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
            name="insecure-allow-http",
            kind=BOOL,
            default=False,
            help="allow http for discovery and for the download of keys",
        ),
        *RULE_FLAGS,
    ),
    run=run,
    completes="file",
    examples=(
        ("rkt trust --prefix=example.com/app ./pubkey.asc", "show the keys of the file, ask, and trust them"),
        ("rkt trust --prefix=example.com/app", "ask https://example.com/app where the keys are"),
        ("rkt trust --root ./pubkey.asc", "trust a key for every image, such as your own"),
        (
            "rkt trust --prefix=registry.example/team --cosign-key=team.pub",
            "a vendor's namespace: images of team need a cosign signature by that key",
        ),
        (
            "rkt trust --prefix=docker.io/library --unsigned",
            "images that nobody signs, told and recorded each time",
        ),
    ),
)
