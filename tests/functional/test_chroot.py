# SPDX-License-Identifier: Apache-2.0
"""The engine below a plain chroot(2), whose root is no mount point: no propagation can be set there and no pivot made."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.lib import flavors
from tests.lib.flavors import pods
from tests.lib.host import missing
from tests.lib.images import fetch
from tests.lib.nethost import PLUGINS, NetHost
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

#: Everything of the host bound below a directory; mounts are shared, as systemd has them, so that leaks would show. Not
#: with the host's own: those were shared already where systemd runs, and the binds would arrive there.
_WRAPPER = r"""#!/bin/sh
exec unshare --mount --propagation=private sh -c '
    mount --make-rshared / || exit 99
    root=$1 program=$2
    shift 2
    for path in /*; do
        if [ -L "$path" ] || ! [ -d "$path" ]; then continue; fi
        mkdir -p "$root$path" && mount --rbind "$path" "$root$path" || exit 99
    done
    chroot "$root" "$program" "$@"
    status=$?
    if grep /data/pods/ /proc/self/mountinfo; then exit 98; fi
    exit $status
' sh {root} {program} "$@"
"""


def put_below_a_chroot(rkt: Rkt, wrapper_text: str = _WRAPPER) -> None:
    """Have each command of an engine run below a chroot."""
    root = f"{rkt.base}/chroot"
    os.mkdir(root)
    for entry in os.scandir("/"):
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), f"{root}/{entry.name}")
    wrapper = f"{rkt.base}/rkt"
    with open(wrapper, "w", encoding="utf-8") as stream:
        stream.write(wrapper_text.replace("{root}", root).replace("{program}", rkt.binary))
    os.chmod(wrapper, 0o755)
    rkt.binary = wrapper


@pytest.fixture
def chrooted(rkt: Rkt) -> Rkt:
    """An engine each of whose commands runs below a chroot."""
    put_below_a_chroot(rkt)
    return rkt


def test_pods_below_a_chroot(chrooted: Rkt, images: Images) -> None:
    """Fetch, run with and without overlay, enter, export and gc work there, and no mount of a pod gets out."""
    image = fetch(chrooted, images.busybox())
    own_users = (
        ((), ("--private-users",)) if flavors.has_promised(chrooted.flavor, "user namespaces") else ((),)
    )
    for flags in ((*users, *trees) for users in own_users for trees in ((), ("--no-overlay",))):
        words = ("--exec=/bin/sh", "--", "-c", "echo kept >/kept; cat /kept; ls -d /home /srv 2>/dev/null")
        run = ("run", "--insecure-options=image", *flags, image, *words)
        assert chrooted.run(*run, check=1).stdout == "kept\n"
    for number, uuid in enumerate(chrooted.pods("run")):
        chrooted.run("export", uuid, f"{chrooted.base}/{number}.aci", check=0)
    for uuid in chrooted.pods("run"):
        chrooted.run("rm", uuid, check=0)
    process = chrooted.popen(
        "run", "--insecure-options=image", "--name=long", image, "--exec=/bin/sleep", "--", "60"
    )
    wait_for(lambda: chrooted.run("status", "--wait-ready=1s", "long").status == 0, "pod")
    assert chrooted.run("enter", "long", "/bin/echo", "inside", check=0).stdout == "inside\n"
    (uuid,) = chrooted.pods("run")
    with open(f"{chrooted.pod_path(uuid)}/appsinfo/busybox/pid", encoding="ascii") as stream:
        pid = int(stream.read().split()[0])
    # The namespace begins at the app's root: whoever joins it gets nowhere above the chroot.
    joined = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "/bin/ls", "/"]
    seen = set(subprocess.run(joined, capture_output=True, text=True, check=True).stdout.split())
    assert {"bin", "dev", "etc", "proc", "sys"} <= seen
    assert not {"boot", "home", "opt", "srv"} & seen
    assert seen == set(chrooted.run("enter", "long", "/bin/ls", "/", check=0).stdout.split())
    chrooted.run("stop", "--force", "long", check=0)
    process.wait(20)
    chrooted.run("gc", "--grace-period=0", check=0)
    assert chrooted.pods() == {}


@pods("networks")
def test_networks_below_a_chroot(images: Images, flavor: str) -> None:
    """Plugins are those of the chroot, not those of whatever is above it, and afterwards the supervisor is below it again."""
    if absent := missing("nsenter", "unshare", "ip"):
        pytest.skip(absent)
    if not os.path.exists(f"{PLUGINS}/bridge"):
        pytest.skip(f"no CNI plugins in {PLUGINS}")
    hidden = f"mount --make-rprivate / && mount -t tmpfs none {PLUGINS} || exit 99\n    chroot "
    with tempfile.TemporaryDirectory(prefix="rkt-test-") as base, NetHost(f"{base}/host", flavor) as host:
        rkt = host.rkt()
        rkt.use_the_usual_network()
        put_below_a_chroot(rkt, _WRAPPER.replace("chroot ", hidden, 1))
        image = fetch(rkt, images.busybox())
        words = ("--exec=/bin/sh", "--", "-c", "ls /sys/class/net")
        ran = rkt.run("run", "--insecure-options=image", image, *words, check=0)
        assert ran.lines == ["eth0", "lo"]
        assert host.leaks(but=("rkt0",)) == []
