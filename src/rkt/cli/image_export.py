# SPDX-License-Identifier: Apache-2.0
"""``rkt image export``: the ACI as it was fetched (spec cli §2.19), or an image for other programs."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag, Invocation
from rkt.cli.output import message, write
from rkt.cli.parse import FlagError
from rkt.errors import UsageError

#: ``rkt.image.oci_write.COMPRESSIONS`` and ``rkt.image.oci_output``, which completion and help should not import.
_COMPRESSIONS = ("none", "gzip", "zstd")
_FORMATS = ("aci", "oci", "docker-archive")


def _run(invocation: Invocation) -> int:
    from rkt.store.cas import Store

    if len(invocation.words) != 2:
        raise FlagError("an image and an output file are expected")
    image, output_path = invocation.words
    values = invocation.values
    store = Store(invocation.settings.data_dir)
    key = store.resolve(image)
    if values["format"] == "aci":
        for flag, default in (("compression", "none"), ("name", "")):
            if values[flag] != default:
                raise UsageError(f"--{flag} is for images of other formats", hint="--format=oci")
        if not key.is_oci:
            from rkt.image.export import export_image

            export_image(store, key, output_path, overwrite=values["overwrite"])
            return 0
        from rkt.image.oci_export import export_squashed

        exported = export_squashed(store, key, output_path, overwrite=values["overwrite"])
    else:
        from rkt.privsep import libraries

        libraries.enable(invocation.settings.installation)
        from rkt.image.oci_export import export_oci

        exported = export_oci(
            store,
            key,
            output_path,
            values["format"],
            overwrite=values["overwrite"],
            compression=values["compression"],
            name=values["name"],
        )
    for notice in exported.notices:
        message(invocation.settings, notice)
    write(f"{exported.image_id}\n")
    return 0


COMMAND = Command(
    name="image export",
    summary="write a stored image to a file or directory",
    usage="[--format=aci|oci|docker-archive] [--overwrite] IMAGE OUTPUT",
    description=(
        "Writes an ACI, uncompressed and byte for byte as it was fetched; the sha512 of the file is the image ID. It is "
        "rebuilt from the unpacked files, each of which is compared with what was fetched: a file that has changed "
        "since is named, and nothing is written. A Docker or OCI image becomes an ACI of one layer, whose image ID is "
        "printed.\n"
        "\n"
        "With --format=oci the output is an image layout: a directory, or a tar of one if the name ends in .tar. With "
        "--format=docker-archive it is a tar for `docker load`. Layers and configuration of a Docker or OCI image, and so "
        "Docker's image ID, are those that were fetched. Its manifest is too if its layers came without compression; else "
        "it names them anew, since compressed bytes are not kept. An ACI becomes an image of one layer, with all that it "
        "depends on. The digest of the manifest is printed, or Docker's image ID."
    ),
    flags=(
        Flag(
            name="format",
            default="aci",
            help="aci; oci, an image layout: a directory, or a tar if the output ends in .tar; docker-archive",
            metavar="FORMAT",
            choices=_FORMATS,
        ),
        Flag(
            name="compression",
            default="none",
            help="none, gzip or zstd, for layers",
            metavar="KIND",
            choices=_COMPRESSIONS,
        ),
        Flag(
            name="name", default="", help="name in the output, the image's own by default", metavar="NAME:TAG"
        ),
        Flag(name="overwrite", kind=BOOL, default=False, help="replace the output"),
    ),
    run=_run,
    completes="image",
    examples=(
        ("rkt image export example.com/hello hello.aci", "write the image to hello.aci"),
        ("rkt image export --format=docker-archive example.com/hello hello.tar", "for docker load"),
    ),
)
