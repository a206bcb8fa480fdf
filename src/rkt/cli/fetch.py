# SPDX-License-Identifier: Apache-2.0
"""``rkt fetch``: bring images into the store, verified (spec cli §2.6)."""

from __future__ import annotations

from rkt.cli.app_args import FETCH_APP_FLAGS
from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.output import write
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Fetch all images, then print their hashes; at the first failure nothing is printed."""
    from rkt.fetch.dependencies import fetch_with_dependencies
    from rkt.fetch.report import Reporter

    if not invocation.apps:
        raise UsageError("must provide at least one image")
    if any(app.args is not None for app in invocation.apps):
        raise UsageError("app arguments unsupported")
    policy = _pull_policy(invocation)
    keys = []
    for app in invocation.apps:
        report = Reporter(invocation.settings, invocation.values["progress"])
        record = fetch_with_dependencies(
            app.reference,
            invocation.settings,
            signature=app.signature,
            pull_policy=policy,
            progress=report,
        )
        report.result(app.reference, record)
        keys.append(record.key)
    write("".join(f"{key if invocation.values['full'] else key.medium}\n" for key in keys))
    return 0


def _pull_policy(invocation: Invocation) -> str:
    """``--pull-policy``, or what the deprecated flags mean."""
    store_only, no_store = invocation.values["store-only"], invocation.values["no-store"]
    if store_only and no_store:
        raise UsageError("both --store-only and --no-store specified")
    if store_only:
        return "never"
    if no_store:
        return "update"
    policy: str = invocation.values["pull-policy"]
    return policy


COMMAND = Command(
    name="fetch",
    summary="fetch images into the store and verify them",
    usage="IMAGE [--signature=FILE] [IMAGE…]",
    description=(
        "IMAGE is a file that ends by .aci, or an http or https URL that does. Its detached OpenPGP signature is looked "
        "for beside it, as IMAGE.aci.asc, and must be by a key that is trusted for the image's name (rkt trust).\n\n"
        "Prints one hash per image. A download that broke off is gone on with by the next fetch of the same URL.\n\n"
        "--progress=auto draws a bar on a terminal and prints a line per second elsewhere, as --progress=plain always "
        'does. With --progress=json each line on standard error is one JSON object: {"event": "download", "url", '
        '"done_bytes", "total_bytes"}, {"event": "message", "text"} or {"event": "image", '
        '"reference", "name", "id"}; if the command fails, words for people follow.'
    ),
    flags=(
        Flag(name="full", kind=BOOL, default=False, help="print the whole hashes"),
        Flag(
            name="pull-policy",
            default="update",
            choices=("new", "update", "never"),
            help="when to contact servers: new, update, never",
            metavar="WORD",
        ),
        Flag(
            name="progress",
            default="auto",
            choices=("auto", "plain", "json", "none"),
            help="how to show progress: auto, plain, json, none",
            metavar="WORD",
        ),
        Flag(name="store-only", kind=BOOL, default=False, deprecated="pull-policy=never"),
        Flag(name="no-store", kind=BOOL, default=False, deprecated="pull-policy=update"),
    ),
    app_flags=FETCH_APP_FLAGS,
    needs_root=True,
    completes="file",
    examples=(
        ("rkt fetch ./app.aci", "verify a local image by ./app.aci.asc and import it"),
        (
            "rkt fetch https://example.com/app.aci --signature=app.asc",
            "download, and use a signature at hand",
        ),
    ),
    run=run,
)
