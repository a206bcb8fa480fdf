# SPDX-License-Identifier: Apache-2.0
"""nftables: one transaction at a time, by the program ``nft``; the kernel takes all of it or nothing."""

from __future__ import annotations

from rkt.errors import HostError
from rkt.net import program
from rkt.schema import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What ``nft`` says of an object that is not there (errno's words).
ABSENT = "No such file or directory"
#: Opened by name, so that it is read from its beginning: ``nft`` looks whether it is JSON first.
_INPUT = "/proc/self/fd/0"


class NftError(HostError):
    """The kernel, or ``nft`` itself, refused a transaction; nothing was changed."""


def run(script: str, *, netns_fd: int = -1) -> list[dict[str, Any]]:
    """Run commands in one transaction.

    Args:
        script: commands, one on each line. Lists are made before anything is changed.
        netns_fd: network namespace; -1 for the caller's.
    Returns:
        the objects that ``list`` commands named, each under its kind, without the program's word on itself.
    Raises:
        NftError: it was refused, with the first complaint.
        HostError: there is no such program.
    """
    ended = program.run([find(), "-j", "-f", _INPUT], script, netns_fd=netns_fd)
    if ended.status:
        lines = [line for line in ended.errors.splitlines() if line.strip()]
        complaint = lines[0].partition("Error: ")[2] or lines[0] if lines else f"status {ended.status}"
        raise NftError(f"nft refused rules for the pod's network: {complaint}")
    objects = []
    for line in ended.output.splitlines():
        document = jsontext.parse(line, what="answer of nft", limit_bytes=len(line.encode()))
        objects += [entry for entry in document["nftables"] if "metainfo" not in entry]
    return objects


def find() -> str:
    """Path of the program.

    Raises:
        HostError: the host lacks it.
    """
    path = program.find("nft")
    if not path:
        raise HostError(
            "the host has no nft program, which sets up ports, masquerading and egress rules of pods",
            hint="apt install nftables, or --net=none",
        )
    return path


def try_run(script: str) -> list[dict[str, Any]] | None:
    """As ``run``, but ``None`` when something that is named is not there."""
    try:
        return run(script)
    except NftError as e:
        if ABSENT in e.message:
            return None
        raise
