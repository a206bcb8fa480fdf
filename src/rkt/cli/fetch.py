# SPDX-License-Identifier: Apache-2.0
"""``rkt fetch``: bring images into the store, verified (spec cli §2.6)."""

from __future__ import annotations

import os

from rkt.cli.app_args import FETCH_APP_FLAGS
from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.output import write
from rkt.cli.pod_flags import PLATFORM_FLAG
from rkt.cli.progress_flag import PROGRESS_FLAG
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.config.settings import Settings


def run(invocation: Invocation) -> int:
    """Fetch all images, then print their hashes; at the first failure nothing is printed."""
    from rkt.fetch.dependencies import Fetcher
    from rkt.fetch.report import Reporter

    if not invocation.apps:
        raise UsageError("must provide at least one image")
    if any(app.args is not None for app in invocation.apps):
        raise UsageError("app arguments unsupported")
    policy = _pull_policy(invocation)
    settings = invocation.settings
    if os.geteuid() != 0:
        from rkt.fetch.spool import settings_of_member

        settings = settings_of_member(settings)
    keys = []
    report = Reporter(settings, invocation.values["progress"])
    with Fetcher(settings, pull_policy=policy, progress=report) as fetcher:
        for app in invocation.apps:
            fetcher.expect(app.reference, app.signature)
        for app in invocation.apps:
            record = fetcher.image(app.reference, app.signature)
            fetcher.dependencies(record)
            report.result(app.reference, record)
            keys.append(record.key)
    if os.geteuid() == 0:
        _honour_members(settings)
    write("".join(f"{key if invocation.values['full'] else key.medium}\n" for key in keys))
    return 0


def _honour_members(settings: Settings) -> None:
    """Remove what members asked to be removed, now that it is known what is wanted again."""
    from rkt.stage0.keep import honour_removals
    from rkt.store.cas import Store

    honour_removals(settings, Store(settings.data_dir))


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
        "IMAGE is a file that ends by .aci, an http or https URL that does, a name with labels: "
        "NAME[:VERSION][,LABEL=VALUE…], or a Docker or OCI image: docker://[HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST] of a "
        "registry, oci:DIR[:IMAGE] of an image layout, oci-archive:FILE[:IMAGE], docker-archive:FILE[:IMAGE].\n\n"
        "The detached OpenPGP signature of a file or URL is looked for beside it, as "
        "IMAGE.aci.asc; it must be by a key that is trusted for the image's name (rkt trust).\n\n"
        "Where the image of a name is, and its signature, is asked of https://NAME?ac-discovery=1 and of the pages above "
        "it, whose meta elements ac-discovery say so; without such a page https://NAME-VERSION-OS-ARCH.aci is tried. "
        "What came must have the name and the labels that were asked for. When no key is trusted for the name, the keys "
        "that its pages speak of are offered first.\n\n"
        "Docker and OCI images are kept as they are, and everything in them that has a digest is held against it. Somebody who "
        "is trusted for their REGISTRY/REPOSITORY must have signed them: a rule of the trust policy says who and how (rkt "
        "trust), or a key of the key store. Of several platforms this host's is taken, or "
        "--platform's; layers that the store has are not fetched again.\n\n"
        "With the policy update servers are asked again, unless they said for how long that is not needed (max-age); "
        "new looks into the store first, never looks nowhere else. Credentials, proxies and private root certificates "
        "are configured, see rkt help config; proxy variables and SSL_CERT_FILE are not read.\n\n"
        "Members of the group rkt fetch into a small store of their own, where the image stays as it came, verified by the same keys, and pending: the next "
        "command of root that names it, by name, hash or URL, verifies it again and takes it, unless verification is switched "
        "off. A hash stands for an image that is there, or pending.\n\n"
        "Prints one hash per image. A download that broke off is gone on with by the next fetch of the same URL, or of the same layer.\n\n"
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
        PLATFORM_FLAG,
        PROGRESS_FLAG,
        Flag(name="store-only", kind=BOOL, default=False, deprecated="pull-policy=never"),
        Flag(name="no-store", kind=BOOL, default=False, deprecated="pull-policy=update"),
    ),
    app_flags=FETCH_APP_FLAGS,
    needs_root=True,
    for_members=True,
    completes="file",
    examples=(
        ("rkt fetch example.com/app:1.0", "find the image of a name, verify and import it"),
        (
            "rkt fetch --insecure-options=image docker://busybox",
            "an image of Docker Hub that nobody signed, this time",
        ),
        ("rkt fetch ./app.aci", "verify a local image by ./app.aci.asc and import it"),
        (
            "rkt fetch https://example.com/app.aci --signature=app.asc",
            "download, and use a signature at hand",
        ),
    ),
    run=run,
)
