# SPDX-License-Identifier: Apache-2.0
"""What is known of a host, as plain values: what was tried, how it ended, what was seen. Judging it is ``judge``'s."""

from __future__ import annotations

from rkt.schema.record import Record

#: What the flavours need is looked at for these, in this order.
FLAVORS = ("ns", "nspawn", "fly", "kvm")


class Trial(Record):
    """How an attempt ended.

    Attributes:
        done: whether it worked.
        was_tried: false when the caller may not try it, so that nothing is known.
        errno: of the kernel's refusal, 0 when something else went wrong.
        text: what was learnt, or what was said against it.
    """

    done: bool = False
    was_tried: bool = True
    errno: int = 0
    text: str = ""


#: Nothing is known: only root, or somebody with more rights, can try it.
UNSEEN = Trial(was_tried=False)


class Facts(Record):
    """A host, as one caller sees it.

    Attributes:
        release: the kernel's.
        machine: as ``uname -m`` says.
        euid: the caller's.
        missing_capabilities: names of those that the kernel has and the caller has not.
        is_confined: the caller is in a user namespace, or below a chroot: ``user namespace``, ``chroot`` or empty.
        trials: name to how it ended; names are those of the table in ``judge``.
        layout: of cgroups: ``version 1``, ``hybrid``, ``version 2``, or empty for none.
        controllers: name to whether the caller can use it for a pod.
        data_dir: the data directory; ``nearest`` is what there is of its path.
        file_system: type of the one that the data directory is on.
        free_bytes, free_inodes: on it, for root; -1 inodes where it does not count them.
        init: name of process 1.
        time_seconds: since the epoch, and ``installed_seconds``, when this program was made.
        plugins: CNI plugins and where they are; those that are needed and missing have an empty path.
        default_flavor: of pods without a ``--stage1-…`` flag; empty for a stage1 image of somebody else.
        flavors: those that the installation has.
    """

    release: str
    machine: str
    euid: int = 0
    missing_capabilities: list[str] = []
    is_confined: str = ""
    trials: dict[str, Trial] = {}
    layout: str = ""
    controllers: dict[str, Trial] = {}
    data_dir: str = "/var/lib/rkt"
    nearest: str = "/var/lib/rkt"
    file_system: str = ""
    free_bytes: int = 0
    free_inodes: int = -1
    init: str = ""
    time_seconds: float = 0
    installed_seconds: float = 0
    plugins: dict[str, str] = {}
    default_flavor: str = "ns"
    flavors: list[str] = ["ns"]
