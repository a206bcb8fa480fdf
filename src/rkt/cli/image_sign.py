# SPDX-License-Identifier: Apache-2.0
"""``rkt image sign``: write the signature that ``rkt fetch`` asks for, of an ACI, or of a Docker or OCI image."""

from __future__ import annotations

import contextlib
import os

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.output import message, write
from rkt.errors import ConfigError, HostError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation

_EXAMPLE = "rkt image sign --key=me@example.com app.aci"
_COSIGN_EXAMPLE = "rkt image sign --cosign-key=team.key docker://registry.example/team/app:1.0"
#: As cosign has it.
_VARIABLE = "COSIGN_PASSWORD"
_MAX_KEY_BYTES = 1 << 20
#: ``fetch.oci_reference``'s words, which help should not import.
_SCHEMES = ("docker", "oci", "oci-archive", "docker-archive")
_ACI_FLAGS = ("signature", "gpg-homedir", "overwrite")


def run(invocation: Invocation) -> int:
    """Sign one image and print where the signature is; or make a key."""
    values = invocation.values
    ways = [f"--{name}" for name in ("key", "cosign-key", "generate-key") if values[name]]
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} exclude each other", hint=_COSIGN_EXAMPLE)
    if not ways:
        raise UsageError(
            "--key, an OpenPGP key, or --cosign-key, a key file, is needed: which of your keys signs",
            hint="gpg --list-secret-keys shows yours; rkt image sign --generate-key=PREFIX makes a key file",
        )
    if values["generate-key"]:
        return _generate(invocation)
    if len(invocation.words) != 1:
        raise UsageError("one image is expected", hint=_EXAMPLE if values["key"] else _COSIGN_EXAMPLE)
    return _sign_oci(invocation) if values["cosign-key"] else _sign_aci(invocation)


def _sign_aci(invocation: Invocation) -> int:
    from rkt.trust.keys import group_fingerprint
    from rkt.trust.sign import sign_image

    values = invocation.values
    image_path = invocation.words[0]
    if image_path.partition(":")[0] in _SCHEMES and not os.path.exists(image_path):
        raise UsageError(
            f'--key signs image files, "{image_path}" is a Docker or OCI image',
            hint=f"rkt image sign --cosign-key=FILE {image_path}; rkt trust also takes OpenPGP signatures by skopeo --sign-by",
        )
    signed = sign_image(
        image_path,
        values["key"],
        signature_path=values["signature"],
        gpg_home=values["gpg-homedir"],
        overwrite=values["overwrite"],
    )
    lines = [
        f'signed "{image_path}" ({signed.size_bytes} bytes, {signed.hash_algorithm})',
        f"key {group_fingerprint(signed.fingerprint)}",
        *(f"\t{identity}" for identity in signed.identities),
    ]
    if signed.signing_fingerprint != signed.fingerprint:
        lines.insert(2, f"sub-key {group_fingerprint(signed.signing_fingerprint)}")
    message(invocation.settings, "\n".join(lines))
    write(f"{signed.signature_path}\n")
    return 0


def _sign_oci(invocation: Invocation) -> int:
    values, settings = invocation.values, invocation.settings
    for name in _ACI_FLAGS:
        if values[name]:
            raise UsageError(
                f"--{name} is for image files and --key, not for --cosign-key", hint=_COSIGN_EXAMPLE
            )
    from rkt.fetch import oci_reference
    from rkt.privsep import libraries

    text = invocation.words[0]
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _SCHEMES:
        raise UsageError(
            f'--cosign-key signs Docker and OCI images of registries and layouts, "{text}" is none',
            hint="docker://HOST/NAME:TAG or oci:DIRECTORY[:NAME]",
        )
    libraries.enable(settings.installation)
    from rkt.fetch.sign_image import sign_in_layout, sign_in_registry
    from rkt.trust.private_keys import load_private_key

    path = values["cosign-key"]
    key = load_private_key(_read(path, "key"), _password(values), path)
    if scheme == oci_reference.DOCKER:
        target = oci_reference.parse_docker(rest.removeprefix("//"))
        signed = sign_in_registry(target, key, settings, lambda line: message(settings, line))
        where = f"{target.name}@{signed.artifact}"
    else:
        local = oci_reference.parse_local(scheme, rest)
        signed = sign_in_layout(local, key)
        where = f"{local.path}/blobs/sha256/{signed.artifact.removeprefix('sha256:')}"
    message(
        settings,
        f'signed "{text}", which is {signed.image}\nkey {key.public.fingerprint} ({key.public.kind})',
    )
    write(f"{where}\n")
    return 0


def _generate(invocation: Invocation) -> int:
    if invocation.words:
        raise UsageError("--generate-key signs nothing: it makes a key", hint=_COSIGN_EXAMPLE)
    from rkt.linux.files import write_new
    from rkt.privsep import libraries

    libraries.enable(invocation.settings.installation)
    from rkt.trust.private_keys import generate_key
    from rkt.trust.public_keys import load_public_key

    prefix = invocation.values["generate-key"]
    private, public = f"{prefix}.key", f"{prefix}.pub"
    for path in (private, public):
        if os.path.lexists(path):
            raise UsageError(f"{path} exists already", hint="choose another PREFIX, or move it away")
    password = _password(invocation.values)
    private_pem, public_pem = generate_key(password)
    written: list[str] = []
    for path, data, mode in ((private, private_pem, 0o600), (public, public_pem, 0o644)):
        try:
            write_new(path, data, mode)
        except OSError as e:
            # Half a pair is none, and would be in the way of the next attempt.
            for own in written if isinstance(e, FileExistsError) else [*written, path]:
                with contextlib.suppress(OSError):
                    os.unlink(own)
            raise HostError(f"cannot write the key {path}: {e.strerror}") from e
        written.append(path)
    lines = [
        f"{private} signs: {'encrypted by the password' if password else 'not encrypted, keep it secret'}",
        f"key {load_public_key(public_pem).fingerprint}",
    ]
    message(invocation.settings, "\n".join(lines))
    write(f"{public}\n")
    return 0


def _password(values: dict[str, Any]) -> bytes:
    """Empty for none; of a file the first line."""
    if values["password-file"]:
        return _read(values["password-file"], "password file").partition(b"\n")[0].rstrip(b"\r")
    return os.environb.get(_VARIABLE.encode(), b"")


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as e:
        raise ConfigError(f"cannot read the {what} {path}: {e.strerror}") from e


COMMAND = Command(
    name="image sign",
    summary="sign an image: a file with your OpenPGP key, a Docker or OCI image with a key file",
    usage="--key=ID [--signature=FILE] IMAGE.aci | --cosign-key=FILE docker://HOST/NAME:TAG|oci:DIR[:NAME] | --generate-key=PREFIX",
    description=(
        "With `--key`, writes a detached OpenPGP signature beside an image file, where fetch looks for it: IMAGE.aci.asc. "
        "The signature is made by your own GnuPG with your secret key, and then checked as every rkt will check it. The "
        "path of the signature is printed. Sign the file as it will be transferred: compressing it afterwards makes the "
        "signature useless.\n\n"
        "With `--cosign-key`, signs a Docker or OCI image as cosign 3 does: a bundle of version 0.3, in an artifact that "
        "refers to the image, pushed beside it or added to the layout. What is signed is the digest that the tag stands "
        "for at this moment, of an image for several machines that of the index. The name of the artifact is printed. "
        "Credentials are found as for pushing. No transparency log is told.\n\n"
        "The key file is PEM: PKCS 8, EC or RSA, or what cosign generate-key-pair makes. `--generate-key` makes one, "
        "PREFIX.key, and PREFIX.pub for those who verify: `rkt trust --prefix=HOST/NAME --cosign-key=PREFIX.pub`. A "
        "password, from `--password-file` or the environment variable COSIGN_PASSWORD, encrypts it, or opens it."
    ),
    flags=(
        Flag(name="key", metavar="ID", help="your OpenPGP key: fingerprint, key ID or mail address"),
        Flag(name="signature", metavar="FILE", help="write the OpenPGP signature here", completes="file"),
        Flag(
            name="gpg-homedir",
            metavar="DIR",
            help="GnuPG home directory of the OpenPGP key",
            completes="directory",
        ),
        Flag(name="overwrite", kind=BOOL, default=False, help="replace an existing OpenPGP signature"),
        Flag(
            name="cosign-key",
            metavar="FILE",
            help="your key file, for Docker and OCI images",
            completes="file",
        ),
        Flag(
            name="password-file",
            metavar="FILE",
            help="has the password of the key file on its first line",
            completes="file",
        ),
        Flag(
            name="generate-key",
            metavar="PREFIX",
            help="make a key: PREFIX.key to sign, PREFIX.pub to verify",
            completes="file",
        ),
    ),
    run=run,
    completes="file",
    examples=(
        (_EXAMPLE, "write app.aci.asc"),
        ("rkt image sign --generate-key=team", "make team.key and team.pub"),
        (_COSIGN_EXAMPLE, "sign what the tag stands for now"),
    ),
)
