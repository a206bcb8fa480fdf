# SPDX-License-Identifier: Apache-2.0
"""``rkt image push``: an image into a registry."""

from __future__ import annotations

from rkt.cli.command import Command, Flag, Invocation
from rkt.cli.output import message, write
from rkt.cli.progress_flag import PROGRESS_FLAG
from rkt.errors import UsageError, quoted

#: ``rkt.image.oci_write.COMPRESSIONS``, which completion and help should not import.
_COMPRESSIONS = ("none", "gzip", "zstd")


def _run(invocation: Invocation) -> int:
    from rkt.privsep import libraries

    # zstd is looked for when what compresses is imported.
    libraries.enable(invocation.settings.installation)
    from rkt.fetch.oci_reference import parse_docker
    from rkt.fetch.push import Push, parse_source
    from rkt.fetch.report import Reporter
    from rkt.schema.oci import Platform
    from rkt.store.cas import Store

    if len(invocation.words) != 2:
        raise UsageError("an image and where to push it are expected", hint=f"rkt image push {COMMAND.usage}")
    source, target = invocation.words
    values, settings = invocation.values, invocation.settings
    scheme, colon, rest = target.partition(":")
    if scheme != "docker" or not colon:
        raise UsageError(
            f"images are pushed to registries, {quoted(target)} is none",
            hint="docker://HOST[:PORT]/NAME:TAG; rkt image export writes files",
        )
    reference = parse_docker(rest.removeprefix("//"))
    report = Reporter(settings, values["progress"], upload=True)
    push = Push(
        settings,
        reference,
        compression=values["compression"],
        message=lambda text: message(settings, text),
        progress=lambda digest, done, total: report.progress(
            "blob", done, total, str(reference), of=digest[:19]
        ),
    )
    local = parse_source(source)
    try:
        if local is not None:
            platform = Platform.parse(settings.platform) if settings.platform else Platform.of_host()
            pushed = push.from_files(local, platform)
        else:
            store = Store(settings.data_dir)
            pushed = push.from_store(store, store.resolve(source))
    finally:
        report.end()
    if pushed.is_new:
        message(settings, "the manifest is a new one: layers are compressed anew")
    message(settings, f"{pushed.uploaded} of {pushed.blobs} blobs had to be uploaded")
    write(f"{pushed.digest}\n")
    return 0


COMMAND = Command(
    name="image push",
    summary="push an image to a registry",
    usage="[--compression=KIND] IMAGE|oci:DIR[:NAME]|oci-archive:FILE|docker-archive:FILE docker://HOST/NAME:TAG",
    description=(
        "Uploads an image of the store, or one of a layout or an archive, and prints the digest of its manifest. Layers "
        "that the registry has are not uploaded, nor are those that another repository of it has from which the image was "
        "fetched. Of an image of the store the others are rebuilt and, unless they came without, compressed by gzip: the "
        "manifest then names them anew, and its digest changes. Layouts and archives are pushed as they are. An ACI becomes "
        "an image of one layer, as with `rkt image export --format=oci`.\n"
        "\n"
        "Credentials are found as for fetching. Nothing is signed."
    ),
    flags=(
        Flag(
            name="compression",
            default="",
            help="of layers of the store, which are then all written anew: none, gzip or zstd",
            metavar="KIND",
            choices=_COMPRESSIONS,
        ),
        Flag(
            name="platform",
            default="",
            help="which image of a layout with several, the host's by default",
            metavar="OS/ARCH[/VARIANT]",
        ),
        PROGRESS_FLAG,
    ),
    run=_run,
    needs_root=True,
    completes="image",
    examples=(
        ("rkt image push example.com/hello docker://registry.example.com/hello:1", "push a stored image"),
        ("rkt image push oci:layout docker://registry.example.com/hello:1", "push what another program made"),
    ),
)
