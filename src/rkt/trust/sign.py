# SPDX-License-Identifier: Apache-2.0
"""Signs an image file with the caller's own GnuPG, and accepts only what ``rkt fetch`` would accept.

Unlike verification, this uses the caller's home directory and agent: the secret key is theirs. The image goes in by
standard input and the signature comes out by standard output, so no file name reaches a command line.
"""

from __future__ import annotations

import os
import subprocess

from rkt.errors import CannotVerify, HostError, NotFound, UsageError
from rkt.linux.files import replace_file
from rkt.schema.record import Record
from rkt.trust import packets
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import TrustedKey
from rkt.trust.openpgp import parse_signature_file, verify_detached
from rkt.trust.program import find_program

#: What the caller's GnuPG and its agent need to find the key and to ask for a passphrase.
_KEPT_ENVIRONMENT = (
    "HOME",
    "GNUPGHOME",
    "GPG_TTY",
    "TERM",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "PINENTRY_USER_DATA",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
)


class SignedImage(Record):
    """What was signed, and with which key."""

    signature_path: str
    size_bytes: int
    fingerprint: str
    signing_fingerprint: str
    identities: list[str]
    hash_algorithm: str
    signed_at: int


def sign_image(
    image_path: str, key: str, *, signature_path: str = "", gpg_home: str = "", overwrite: bool = False
) -> SignedImage:
    """Write a detached, armoured OpenPGP signature of an image file.

    Args:
        image_path: the file as it will be transferred.
        key: what the caller's GnuPG calls the secret key: fingerprint, key ID or mail address.
        signature_path: where the signature goes; by default ``image_path`` with ``.asc`` appended.
        gpg_home: home directory of GnuPG; by default the caller's.
        overwrite: whether an existing signature may be replaced.

    Raises:
        UsageError: the signature exists already, or ``key`` cannot name a key.
        NotFound: the image or the key is missing.
        CannotVerify: the signature would be refused by ``rkt fetch``, for a weak or expired key, say.
        HostError: GnuPG is missing or failed.
    """
    signature_path = signature_path or f"{image_path}.asc"
    if not key or key.startswith("-"):
        raise UsageError(f"{key!r} does not name a key", hint="gpg --list-secret-keys shows yours")
    if os.path.lexists(signature_path) and not overwrite:
        raise UsageError(f"signature {signature_path!r} exists already", hint="--overwrite replaces it")
    gpg = [find_program("gpg", package="gnupg"), "--batch", "--quiet"]
    if gpg_home:
        gpg.append(f"--homedir={os.path.abspath(gpg_home)}")
    try:
        image_fd = os.open(image_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise NotFound(f"cannot read the image {image_path!r}: {e.strerror}") from e
    try:
        size_bytes = os.fstat(image_fd).st_size
        armoured = _run(
            [*gpg, "--armor", "--digest-algo=SHA512", f"--local-user={key}", "--output=-", "--detach-sign"],
            image_fd,
            f"sign with key {key!r}",
        )
        signatures = parse_signature_file(armoured)
        issuer = signatures[0].issuer
        exported = _run([*gpg, "--armor", "--export", "--", f"0x{issuer}"], None, f"export key {issuer}")
        # The same checks that everybody else will make: better to fail here than on their hosts.
        trusted = [TrustedKey(key=k, path="", rule="") for k in parse_keys(exported, what=f"key {issuer}")]
        verified = verify_detached(image_fd, armoured, trusted)
    except CannotVerify as e:
        raise CannotVerify(
            f"key {key!r} makes no signature that rkt accepts",
            hint="sign with an Ed25519 key or RSA of 2048 bits or more",
        ) from e
    finally:
        os.close(image_fd)
    try:
        replace_file(signature_path, armoured, 0o644)
    except OSError as e:
        raise HostError(f"cannot write the signature {signature_path!r}: {e.strerror}") from e
    return SignedImage(
        signature_path=signature_path,
        size_bytes=size_bytes,
        fingerprint=verified.fingerprint,
        signing_fingerprint=verified.signing_fingerprint,
        identities=verified.identities,
        hash_algorithm=packets.STRONG_HASHES[signatures[0].hash_algorithm],
        signed_at=verified.signed_at,
    )


def _run(argv: list[str], stdin: int | None, action: str) -> bytes:
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment["PATH"] = "/usr/bin:/bin"
    if "GPG_TTY" not in environment and os.isatty(2):
        # The agent's passphrase dialog needs a terminal by name, because standard input is the image.
        environment["GPG_TTY"] = os.ttyname(2)
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2] or "it says nothing"
        raise HostError(
            f"gpg cannot {action}: {said}", hint="gpg --list-secret-keys shows the keys to sign with"
        )
    return done.stdout
