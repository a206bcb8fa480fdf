# SPDX-License-Identifier: Apache-2.0
"""``rkt lock``: write down what a pod would be made of, for ``--locked``."""

from __future__ import annotations

from rkt.cli.app_args import ALL_APP_FLAGS
from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.pod_flags import PREPARE_FLAGS, RUN_FLAGS, pod_request, run_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation
    from rkt.stage0.lock import Lock, LockedImage

_HEADINGS = ["APP", "IMAGE", "ID", "SIGNED BY"]


def run(invocation: Invocation) -> int:
    """Find, verify, write, and show what was written."""
    from rkt.cli.output import message, print_table
    from rkt.stage0.lock import make_lock, write_lock
    from rkt.stage0.prepare import plan_pod
    from rkt.stage0.stage1 import choose
    from rkt.store.cas import Store

    settings = invocation.settings
    request = pod_request(invocation)
    options = run_options(invocation)
    plan = plan_pod(request, choose(invocation.values), settings, Store(settings.data_dir), options=options)
    lock = make_lock(invocation.values["output"], plan, request)
    write_lock(lock)
    if not invocation.values["quiet"]:
        print_table([_HEADINGS, *_rows(lock)])
        unsigned = sorted({str(image.app) for image in (*lock.apps, *lock.volumes) if not image.signers})
        message(settings, f"wrote {lock.path}")
        if unsigned:
            message(
                settings,
                f"nobody vouches for {', '.join(unsigned)}: the file fixes what it is, and running it needs "
                "--insecure-options=image each time",
            )
    return 0


def _rows(lock: Lock) -> list[list[str]]:
    return [
        *(_row(str(app.app), app) for app in lock.apps),
        *(_row(f"volume {volume.app}", volume) for volume in lock.volumes),
        _row("(stage1)", lock.stage1),
    ]


def _row(what: str, image: LockedImage) -> list[str]:
    return [what, image.name, image.image_id.key.medium, ", ".join(image.signers) or "nobody"]


COMMAND = Command(
    name="lock",
    summary="write down a pod's images and signers, for --locked",
    usage="[--output=FILE] IMAGE [--name=APP…] [-- ARG… [---]]…",
    description=(
        "Takes the words of run, finds and verifies the images as run does, and writes to a file what the pod would be made "
        "of: the digest of each image, of what it depends on and of stage1, and who vouches for them. There is no pod "
        "afterwards; an image that had to be fetched stays in the store.\n\n"
        "run, prepare, explain and app sandbox with --locked refuse everything else, and say what differs: a tag that was moved, another stage1, an "
        "app that was added or left out, other signers. An image that is not in the store is fetched by its digest then, "
        "whatever the tag stands for by now. app add with --locked takes only apps that the file has.\n\n"
        "The file holds no options of apps, and no trust: signatures are asked for and held against today's keys and rules "
        "as always. docs/lock.md describes it."
    ),
    run=run,
    flags=(
        Flag(
            name="output",
            default="rkt.lock",
            help="the file; one that is there is replaced, if it is a lock file",
            metavar="FILE",
            completes="file",
        ),
        Flag(name="quiet", kind=BOOL, default=False, help="print nothing"),
        *(flag for flag in PREPARE_FLAGS if flag.name != "locked"),
        *RUN_FLAGS,
    ),
    app_flags=ALL_APP_FLAGS,
    needs_root=True,
    completes="image",
    examples=(
        ("rkt lock example.com/web:1.0 example.com/db:2", "write rkt.lock"),
        (
            "rkt run --locked example.com/web:1.0 example.com/db:2",
            "run these two, if they are what they were, and nothing else",
        ),
    ),
)
