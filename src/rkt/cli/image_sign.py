# SPDX-License-Identifier: Apache-2.0
"""``rkt image sign``: write the detached signature that ``rkt fetch`` asks for."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.output import message, write
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Sign one image file and print where the signature is."""
    values = invocation.values
    if len(invocation.words) != 1:
        raise UsageError("one image file is expected", hint="rkt image sign --key=me@example.com app.aci")
    if not values["key"]:
        raise UsageError(
            "--key is needed: which of your keys signs", hint="gpg --list-secret-keys shows yours"
        )
    from rkt.trust.keys import group_fingerprint
    from rkt.trust.sign import sign_image

    image_path = invocation.words[0]
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


COMMAND = Command(
    name="image sign",
    summary="sign an image file with your OpenPGP key",
    usage="--key=ID [--signature=FILE] IMAGE.aci",
    description=(
        "Writes a detached OpenPGP signature beside an image, where fetch looks for it: IMAGE.aci.asc. The signature "
        "is made by your own GnuPG with your secret key, and then checked as every rkt will check it. The path of the "
        "signature is printed.\n\n"
        "Sign the file as it will be transferred: compressing it afterwards makes the signature useless."
    ),
    flags=(
        Flag(name="key", metavar="ID", help="your key: fingerprint, key ID or mail address"),
        Flag(name="signature", metavar="FILE", help="write the signature here", completes="file"),
        Flag(
            name="gpg-homedir", metavar="DIR", help="GnuPG home directory of the key", completes="directory"
        ),
        Flag(name="overwrite", kind=BOOL, default=False, help="replace an existing signature"),
    ),
    run=run,
    completes="file",
    examples=(("rkt image sign --key=me@example.com app.aci", "write app.aci.asc"),),
)
