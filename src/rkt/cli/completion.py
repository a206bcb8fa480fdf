# SPDX-License-Identifier: Apache-2.0
"""``rkt completion SHELL``: the script that completes command lines (spec cli §2.29).

The scripts are made from the command tables when rkt is built, and installed where each shell looks for them.
"""

from __future__ import annotations

from rkt.cli.command import Command
from rkt.errors import HostError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation

#: Shell to the places of its script, beside the man pages: of an installation, of a checkout.
SCRIPTS = {
    "bash": ("bash-completion/completions/rkt", "completion/rkt.bash"),
    "zsh": ("zsh/site-functions/_rkt", "zsh/vendor-completions/_rkt", "completion/_rkt"),
    "fish": ("fish/vendor_completions.d/rkt.fish", "completion/rkt.fish"),
}


def run(invocation: Invocation) -> int:
    """Print the script."""
    import os

    from rkt.cli.output import write

    words = invocation.words
    if not words:
        raise UsageError("shell type is not specified", hint=f"use one of {', '.join(SCRIPTS)}")
    if len(words) > 1:
        raise UsageError("too many arguments, only shell type is expected")
    if words[0] not in SCRIPTS:
        raise UsageError(f"'{words[0]}' shell is not supported", hint=f"use one of {', '.join(SCRIPTS)}")
    directory = os.path.dirname(invocation.settings.installation.man_path)
    for place in SCRIPTS[words[0]]:
        try:
            with open(os.path.join(directory, place), encoding="utf-8") as stream:
                write(stream.read())
        except FileNotFoundError:
            continue
        return 0
    raise HostError("the completion scripts are not part of this installation", hint="make completion")


COMMAND = Command(
    name="completion",
    summary="print the completion script of a shell",
    usage="bash|zsh|fish",
    description="""\
The script completes commands, flags, image names and pod UUIDs. For bash put it where bash-completion looks, or read it
into the running shell.""",
    run=run,
    completes="shell",
    examples=(
        ("source <(rkt completion bash)", "complete in this shell"),
        ("rkt completion fish > ~/.config/fish/completions/rkt.fish", "complete in every fish from now on"),
    ),
)
