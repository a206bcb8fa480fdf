# SPDX-License-Identifier: Apache-2.0
"""What each thing that is tried is needed for: tables of what ``judge`` says when it is there and when it is not."""

from __future__ import annotations

import errno

from rkt.linux import inotify
from rkt.schema.record import Record

#: As it should be.
OK = "ok"
#: Something does without it.
LIMITED = "limited"
#: A flavour cannot run without it.
MISSING = "missing"
#: Not there, and nothing that is missed unless it is asked for.
NONE = "none"
#: This caller cannot tell.
UNKNOWN = "unknown"

ISOLATING = ("ns", "nspawn")
EVERY = ("ns", "nspawn", "fly")


class Thing(Record):
    """A trial and what its ending means.

    Attributes:
        name: of the finding; ``trials`` are the names of those that all have to work, itself when there are none.
        good: said when it works; what was learnt when empty.
        bad: said when not, followed by the reason.
        hints: by errno, 0 for all others.
        absent: the state without it.
    """

    area: str
    name: str
    bad: str
    trials: tuple[str, ...] = ()
    good: str = ""
    hints: dict[int, str] = {}
    stops: tuple[str, ...] = ()
    lacks: str = ""
    affects: tuple[str, ...] = ()
    absent: str = ""


IN_A_CONTAINER = "run it on the host, or in a container with CAP_SYS_ADMIN and its own seccomp filter off"
_KINDS = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
_FILE_SYSTEMS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue")
_NEW_KERNEL = "a kernel from 5.12 on"

KERNEL = (
    Thing(
        area="kernel",
        name="mount namespace",
        trials=("mnt namespace",),
        good="a pod's mounts are its own",
        bad="no process can have mounts of its own",
        hints={errno.EPERM: IN_A_CONTAINER, 0: "a kernel with namespaces"},
        stops=EVERY,
    ),
    Thing(
        area="kernel",
        name="namespaces",
        trials=tuple(f"{kind} namespace" for kind in _KINDS[1:]),
        good="pid, network, IPC, UTS, cgroup",
        bad="pods cannot be told apart",
        hints={
            errno.EPERM: IN_A_CONTAINER,
            errno.ENOSPC: "raise what is 0 in: sysctl -a --pattern '^user.max_.*_namespaces'",
            0: "a kernel with CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_IPC_NS, CONFIG_UTS_NS, CONFIG_CGROUPS",
        },
        stops=ISOLATING,
    ),
    Thing(
        area="kernel",
        name="user namespaces",
        trials=("user namespace",),
        bad="--private-users cannot be used",
        hints={
            errno.ENOSPC: "sysctl -w user.max_user_namespaces=15000",
            errno.EPERM: "sysctl -w kernel.unprivileged_userns_clone=1; not below a chroot",
            errno.EINVAL: "a kernel with CONFIG_USER_NS",
            0: "a kernel with CONFIG_USER_NS",
        },
        lacks="--private-users",
        affects=ISOLATING,
    ),
    Thing(
        area="kernel",
        name="mounts",
        good="fsopen, open_tree, move_mount, mount_setattr",
        bad="root file systems cannot be put together safely",
        hints={errno.EPERM: IN_A_CONTAINER, 0: _NEW_KERNEL},
        stops=EVERY,
    ),
    Thing(
        area="kernel",
        name="paths",
        good="openat2",
        bad="paths of images cannot be followed safely",
        hints={0: "a kernel from 5.6 on, and no filter of a container in the way"},
        stops=EVERY,
    ),
    Thing(
        area="kernel",
        name="processes",
        good="clone3, pidfd, close_range",
        bad="pods cannot be supervised",
        hints={0: "a kernel from 5.9 on, and no filter of a container in the way"},
        stops=EVERY,
    ),
    Thing(
        area="kernel",
        name="file systems",
        trials=_FILE_SYSTEMS,
        good="proc, sysfs, tmpfs, devpts, mqueue",
        bad="apps cannot have them",
        hints={errno.EPERM: IN_A_CONTAINER, 0: "a kernel with CONFIG_POSIX_MQUEUE and CONFIG_UNIX98_PTYS"},
        stops=ISOLATING,
    ),
    Thing(
        area="kernel",
        name="device nodes",
        good="made for each app",
        bad="apps cannot have a /dev",
        hints={0: "CAP_MKNOD"},
        stops=ISOLATING,
    ),
    Thing(
        area="kernel",
        name="interpreter",
        trials=("read-only interpreter",),
        good="no pod can write to the engine's",
        bad="the engine's interpreter would be open to pods (CVE-2019-5736)",
        hints={errno.EPERM: IN_A_CONTAINER},
        stops=EVERY,
    ),
)
NETWORK = (
    Thing(
        area="network",
        name="veth and bridge",
        trials=("veth", "bridge"),
        good="links of the default network",
        bad="the default network cannot be made",
        hints={
            errno.EOPNOTSUPP: "modprobe -a veth bridge",
            errno.EPERM: "CAP_NET_ADMIN",
            0: "rkt run --net=host",
        },
        lacks="the default network (use --net=host or --net=none)",
        affects=ISOLATING,
    ),
    Thing(
        area="network",
        name="nftables",
        bad="no ports, no masquerading, no egress rules",
        hints={
            errno.EPERM: "CAP_NET_ADMIN",
            0: "apt install nftables; a kernel with CONFIG_NF_TABLES_INET and CONFIG_NF_TABLES_BRIDGE, "
            "CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_FIB_INET",
        },
        lacks="ports, masquerading and egress rules",
        affects=ISOLATING,
    ),
    Thing(
        area="network",
        name="iptables",
        bad="no networks whose plugins masquerade or forward ports by it",
        hints={0: "apt install iptables, or rktMasquerade in the configuration (docs/networking.md)"},
        absent=NONE,
    ),
    Thing(area="network", name="IPv6", good="pods can have it", bad="pods have IPv4 alone", absent=NONE),
    *(
        Thing(
            area="network",
            name=kind,
            good=f"networks of type {kind}",
            bad=f"no networks of type {kind}",
            hints={errno.EOPNOTSUPP: f"modprobe {module}"},
            absent=NONE,
        )
        for kind, module in (("macvlan", "macvlan"), ("ipvlan", "ipvlan"), ("vlan", "8021q"))
    ),
    Thing(
        area="network",
        name="tap",
        good="/dev/net/tun works",
        bad="apps that are given /dev/net/tun cannot use it",
        hints={0: "modprobe tun"},
        absent=NONE,
    ),
)
PROGRAMS = (
    Thing(
        area="programs",
        name="gpgv",
        bad="OpenPGP signatures cannot be checked, so no signed image can be fetched or imported",
        hints={0: "apt install gpgv"},
        lacks="images signed by OpenPGP",
        affects=EVERY,
    ),
    Thing(
        area="programs",
        name="util-linux",
        good="unshare, setpriv, prlimit confine gpgv",
        bad="gpgv cannot be confined, and is not run otherwise",
        hints={0: "apt install util-linux"},
        lacks="images signed by OpenPGP",
        affects=EVERY,
    ),
    Thing(
        area="programs",
        name="libseccomp",
        good="filters of what fetches and unpacks",
        bad="images cannot be fetched",
        hints={0: "apt install libseccomp2"},
        lacks="fetching of images",
        affects=EVERY,
    ),
    Thing(
        area="programs",
        name="libraries",
        good="urllib3, isal, cryptography, rich",
        bad="images cannot be fetched from the network",
        hints={0: "make setup, or install rkt again"},
        lacks="fetching of images",
        affects=EVERY,
    ),
    Thing(
        area="programs",
        name="stage1 images",
        bad="no pod can be made",
        hints={0: "install rkt completely (in a checkout: make setup)"},
        stops=EVERY,
    ),
    Thing(
        area="programs",
        name="first process",
        trials=("reaper",),
        good="catatonit, in the stage1 image",
        bad="the stage1 image is not whole",
        hints={0: "apt install catatonit, then build the stage1 images again (make setup)"},
        stops=("ns",),
    ),
)
NSPAWN = (
    Thing(
        area="programs",
        name="systemd-nspawn",
        bad="pods cannot be started by it",
        hints={errno.ENOENT: "apt install systemd-container", errno.EPERM: IN_A_CONTAINER},
        stops=("nspawn",),
    ),
    Thing(
        area="programs",
        name="systemd",
        good="/usr/lib/systemd/systemd",
        bad="a pod has nothing that runs its units",
        hints={0: "apt install systemd"},
        stops=("nspawn",),
    ),
    Thing(
        area="programs",
        name="inotify",
        bad="the systemd of one more pod would not start",
        hints={errno.EMFILE: f"sysctl -w {inotify.LIMIT}=1024"},
        lacks="inotify instances for the systemd of one more pod",
        affects=("nspawn",),
    ),
)
