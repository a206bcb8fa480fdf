# SPDX-License-Identifier: Apache-2.0
"""What isolators limit, as the kernel has it: read from the host's side, and felt from inside (spec runtime §3.6, §6.3, §6.7).

One pod of several apps shows several rows at once: each app has its own cgroups.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rkt.linux import cgroup_limits, cgroupfs
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.kernel import Kernel
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt

pytestmark = [pytest.mark.root, pods("cgroups")]

INSECURE = "--insecure-options=image"
SLEEP = ("--exec=/bin/sleep", "--", "100", "---")
#: A kilobyte at first, doubled until something gives way.
HOG = "x=0123456789abcdef; while true; do x=$x$x; done"
MEBIBYTE = 1 << 20


@contextlib.contextmanager
def running(rkt: Rkt, *words: str) -> Iterator[Kernel]:
    """A pod that waits to be looked at."""
    with started(rkt, "run", INSECURE, *words) as kernel:
        yield kernel


@contextlib.contextmanager
def started(rkt: Rkt, *words: str) -> Iterator[Kernel]:
    """Likewise, by a command of choice."""
    before = rkt.pods("run")
    process = rkt.popen(*words)

    def pod() -> str | None:
        assert process.poll() is None, process.stderr_text
        new = [uuid for uuid in rkt.pods("run") if uuid not in before]
        return next((uuid for uuid in new if os.path.exists(f"{rkt.data}/pods/run/{uuid}/pid")), None)

    uuid = wait_for(pod, "a pod with a pid file")
    try:
        yield Kernel(rkt, uuid)
    finally:
        rkt.run("stop", "--force", uuid, check=0)
        process.wait(20)


def isolator(name: str, value: Any) -> dict[str, Any]:
    """An isolator as manifests write it."""
    return {"name": name, "value": value}


def image_with(images: Images, *isolators: dict[str, Any], name: str) -> str:
    """Path of an image whose app asks for isolators."""
    return images.busybox(f"example.com/{name}", ("/bin/sleep", "100"), app={"isolators": list(isolators)})


def sh(
    rkt: Rkt, image: str, script: str, *flags: str, check: int | None = 0, pod: Sequence[str] = ()
) -> Result:
    """Run one app that is a shell script; ``flags`` are the app's."""
    return rkt.run("run", INSECURE, *pod, image, *flags, "--exec=/bin/sh", "--", "-c", script, check=check)


@pytest.fixture
def image(rkt: Rkt, images: Images) -> str:
    """A busybox image in the engine's store, by hash."""
    return fetch(rkt, images.busybox())


def manifest(
    image: str, isolators: list[dict[str, Any]], *, pod: Sequence[dict[str, Any]] = (), **app: Any
) -> dict[str, Any]:
    """A pod manifest of one app."""
    section = {"exec": ["/bin/sleep", "100"], "user": "0", "group": "0", "isolators": isolators, **app}
    apps = [{"name": "app", "image": {"id": image}, "app": section}]
    return {"acKind": "PodManifest", "acVersion": "0.8.11", "apps": apps, "isolators": list(pod)}


def write_manifest(rkt: Rkt, text: dict[str, Any]) -> str:
    """The flag that runs a manifest."""
    path = f"{rkt.base}/pod-manifest"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(text, file)
    return f"--pod-manifest={path}"


# Limits of images and of flags ----------------------------------------------------------------------------------------


def test_limits_of_image_and_flag(rkt: Rkt, images: Images) -> None:
    """Memory, cpu and shares of the image arrive, and a flag wins over them (runtime I1, I2, I3; cli R24)."""
    image = fetch(
        rkt,
        image_with(
            images,
            isolator("resource/memory", {"limit": "25Mi"}),
            isolator("resource/cpu", {"limit": "800m"}),
            isolator("os/linux/cpu-shares", 512),
            name="limited",
        ),
    )
    flags = ("--memory=42Mi", "--cpu=900m", "--cpu-shares=12345")
    with running(rkt, image, "--name=image", *SLEEP, image, "--name=flag", *flags, *SLEEP) as kernel:
        assert kernel.memory_limit("image") == 26214400
        assert kernel.memory_limit("flag") == 44040192
        assert kernel.millicores("image") == 800
        assert kernel.millicores("flag") == 900
        version = kernel.directory("flag", "cpu")[0]
        expected = {
            1: (512, 12345),
            2: (cgroup_limits.weight_of_shares(512), cgroup_limits.weight_of_shares(12345)),
        }[version]
        assert (kernel.shares("image"), kernel.shares("flag")) == expected


@pytest.mark.parametrize("way", ["run", "run-prepared"])
def test_limits_of_a_pod_manifest(rkt: Rkt, image: str, way: str) -> None:
    """A cpu limit of 100m and a memory limit of 4194304 in the manifest are the kernel's (runtime P13, P14)."""
    limits = [isolator("resource/cpu", {"limit": "100m"}), isolator("resource/memory", {"limit": "4194304"})]
    flag = write_manifest(rkt, manifest(image, limits))
    words = ["run", INSECURE, flag]
    if way == "run-prepared":
        words = ["run-prepared", rkt.run("prepare", INSECURE, flag, check=0).stdout.strip()]
    with started(rkt, *words) as kernel:
        assert kernel.millicores("app") == 100
        assert kernel.memory_limit("app") == 4194304


def test_the_last_of_several_counts(rkt: Rkt, image: str) -> None:
    """Of several isolators of one name the last one holds, whatever way the number is written (cli §9.7)."""
    limits = [
        isolator("resource/memory", {"limit": "1G"}),
        isolator("resource/memory", {"limit": "0.03125Gi"}),
        isolator("resource/cpu", {"limit": "2"}),
        isolator("resource/cpu", {"limit": "35e-2"}),
    ]
    with started(rkt, "run", INSECURE, write_manifest(rkt, manifest(image, limits))) as kernel:
        assert kernel.memory_limit("app") == 32 * MEBIBYTE
        assert kernel.millicores("app") == 350


def test_a_manifests_app_replaces_the_images(rkt: Rkt, images: Images) -> None:
    """The app section of a pod manifest counts as a whole: limits of the image are gone (as runtime P16)."""
    image = fetch(rkt, image_with(images, isolator("resource/pids", {"limit": "7"}), name="seven"))
    with started(rkt, "run", INSECURE, write_manifest(rkt, manifest(image, []))) as kernel:
        assert kernel.max_pids("app") == 4096


def test_pod_isolators_bound_the_apps_together(rkt: Rkt, image: str) -> None:
    """Memory, cpu and processes on the pod are limits of the group above all apps."""
    pod = [
        isolator("resource/memory", {"limit": "64Mi"}),
        isolator("resource/cpu", {"limit": "500m"}),
        isolator("resource/pids", {"limit": 50}),
    ]
    limits = [
        isolator(one["name"], {"limit": "1"} if "cpu" in one["name"] else {"limit": "40Mi"})
        for one in pod[:2]
    ]
    limits.append(isolator("resource/pids", {"limit": 20}))
    with started(rkt, "run", INSECURE, write_manifest(rkt, manifest(image, limits, pod=pod))) as kernel:
        assert (kernel.memory_limit("app"), kernel.memory_limit("app", above=1)) == (
            40 * MEBIBYTE,
            64 * MEBIBYTE,
        )
        # Version 1 does not let a group have more than the one above it.
        assert (kernel.millicores("app"), kernel.millicores("app", above=1)) == (500, 500)
        assert (kernel.max_pids("app"), kernel.max_pids("app", above=1)) == (20, 50)


def test_requests(rkt: Rkt, image: str) -> None:
    """A request below the limit is a weight of cpu and memory that is reclaimed last; one that equals it changes nothing."""
    limits = [
        isolator("resource/memory", {"limit": "64Mi", "request": "16Mi"}),
        isolator("resource/cpu", {"limit": "2", "request": "500m"}),
    ]
    with started(rkt, "run", INSECURE, write_manifest(rkt, manifest(image, limits))) as kernel:
        version = kernel.directory("app", "cpu")[0]
        assert kernel.shares("app") == (512 if version == 1 else cgroup_limits.weight_of_shares(512))
        for above in (0, 1):
            low = kernel.read("app", "memory", v1="memory.soft_limit_in_bytes", v2="memory.low", above=above)
            assert int(low) == 16 * MEBIBYTE
    with running(rkt, image, "--name=plain", "--cpu=500m", "--memory=64Mi", *SLEEP) as kernel:
        assert kernel.shares("plain") == (1024 if version == 1 else 100)


def test_an_image_gets_no_guarantee(rkt: Rkt, images: Images) -> None:
    """An image's request of memory, or of more than a cpu, is left out with a word; its limits hold (design §9.4)."""
    image = fetch(
        rkt,
        image_with(
            images,
            isolator("resource/memory", {"limit": "64Mi", "request": "16Mi"}),
            isolator("resource/cpu", {"request": "4"}),
            isolator("os/linux/cpu-shares", 4096),
            isolator("resource/network-bandwidth", {"default": True, "limit": "1M"}),
            isolator("resource/pids", {"limit": "100000"}),
            name="greedy",
        ),
    )
    result = sh(rkt, image, "true")
    for words in (
        "resource/memory request",
        "resource/cpu request",
        "cpu shares",
        "network bandwidth",
        "4096 processes",
    ):
        assert words in result.stderr
    with running(rkt, image, "--name=app", *SLEEP) as kernel:
        assert kernel.memory_limit("app") == 64 * MEBIBYTE
        assert kernel.max_pids("app") == 4096
        low = kernel.read("app", "memory", v1="memory.soft_limit_in_bytes", v2="memory.low")
        assert int(low) != 16 * MEBIBYTE


# Ceilings (invariant RN24) --------------------------------------------------------------------------------------------


def test_a_memory_hog_is_killed_and_it_is_said(rkt: Rkt, image: str) -> None:
    """An app over its limit is killed, the pod ends with 137, and stderr names app and limit (RN24)."""
    result = sh(rkt, image, HOG, "--name=hog", "--memory=25Mi", check=137)
    assert "app 'hog' was killed: out of memory (limit 25Mi)" in result.stderr


def test_a_child_that_is_killed_for_memory_is_said(rkt: Rkt, image: str) -> None:
    """When the kernel kills a child of the app, stderr says that memory was the reason (RN24)."""
    result = sh(rkt, image, f"sh -c '{HOG}'; exit 3", "--name=app", "--memory=25Mi", check=None)
    assert result.status in {3, 137}  # version 2 kills the app as a whole
    assert "out of memory (limit 25Mi)" in result.stderr


def test_memory_of_the_pod_is_the_end_of_it(rkt: Rkt, image: str) -> None:
    """A hog without a limit of its own meets the pod's (RN24)."""
    pod = [isolator("resource/memory", {"limit": "25Mi"})]
    text = manifest(image, [], pod=pod, exec=["/bin/sh", "-c", HOG])
    result = rkt.run("run", INSECURE, write_manifest(rkt, text), check=137)
    assert "app 'app' was killed: out of memory (limit of the pod)" in result.stderr


@pods("streams")
def test_what_an_app_without_output_forks_at_once_is_limited(rkt: Rkt, image: str) -> None:
    """Limits hold for every process of an app whose output nobody waits for, however early it was born (RN24)."""
    script = "(sleep 100 &); sleep 100 & exec sleep 100"
    words = (
        "--name=app",
        "--pids-limit=30",
        "--stdout=null",
        "--stderr=null",
        "--exec=/bin/sh",
        "--",
        "-c",
        script,
    )
    with running(rkt, image, *words) as kernel:
        place = kernel.directory("app", "pids")[1]
        assert kernel.max_pids("app") == 30

        def members() -> int:
            with open(f"{place}/cgroup.procs", encoding="ascii") as file:
                return len(file.read().split())

        wait_for(lambda: members() == 3, "all processes in the app's cgroup")


def test_another_kill_is_not_blamed_on_memory(rkt: Rkt, image: str) -> None:
    """An app that was killed otherwise is not said to be out of memory."""
    result = sh(rkt, image, "kill -9 $$", "--memory=25Mi", check=137)
    assert "memory" not in result.stderr


def test_default_ceilings(rkt: Rkt, image: str) -> None:
    """A pod that asks for nothing has at most 4096 processes and nine tenths of the memory (RN24)."""
    with running(rkt, image, "--name=app", *SLEEP) as kernel:
        assert kernel.max_pids("app") == 4096
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        version, directory = kernel.directory("app", "memory")
        del version
        assert os.path.basename(directory).startswith("rkt-")
        assert kernel.memory_limit("app") <= total * 9 // 10


def test_memory_of_a_pod_counts_its_apps(rkt: Rkt, image: str) -> None:
    """A hog in an app whose own limit is larger than the pod's meets the pod's: limits nest."""
    pod = [isolator("resource/memory", {"limit": "25Mi"})]
    limits = [isolator("resource/memory", {"limit": "1G"})]
    text = manifest(image, limits, pod=pod, exec=["/bin/sh", "-c", HOG])
    assert "out of memory" in rkt.run("run", INSECURE, write_manifest(rkt, text), check=137).stderr


def test_a_limit_is_not_evaded_by_swap(rkt: Rkt, image: str) -> None:
    """Memory and swap together are no more than the memory limit."""
    with running(rkt, image, "--name=app", "--memory=64Mi", *SLEEP) as kernel:
        version, directory = kernel.directory("app", "memory")
        name = f"{directory}/{'memory.memsw.limit_in_bytes' if version == 1 else 'memory.swap.max'}"
        if not os.path.exists(name):
            pytest.skip("the kernel does not count swap")
        with open(name, encoding="ascii") as file:
            assert int(file.read()) == (64 * MEBIBYTE if version == 1 else 0)


# Scores ---------------------------------------------------------------------------------------------------------------


def may_lower() -> bool:
    """Whether root may lower the score of a process, or raise a hard limit."""
    from rkt.linux import libc

    return bool(libc.capget()[0] & 1 << 24)  # CAP_SYS_RESOURCE


@pytest.mark.parametrize(
    ("wish", "flags", "score"),
    [
        pytest.param(99, (), 99, id="I4-image-99"),
        pytest.param(None, (), 0, id="I4-none"),
        pytest.param(99, ("--oom-score-adj=42",), 42, id="I4-flag-42"),
        pytest.param(-50, (), 0, id="I4-image-minus-50-is-loosening"),
        pytest.param(None, ("--oom-score-adj=-50",), -50, id="I4-flag-minus-50"),
    ],
)
def test_oom_score(rkt: Rkt, images: Images, wish: int | None, flags: tuple[str, ...], score: int) -> None:
    """The image's score, the flag's over it, or 0 (runtime I4, cli R24); an image does not protect itself (design §9.4)."""
    if score < 0 and not may_lower():
        pytest.skip("root has no CAP_SYS_RESOURCE here: see test_oom_score_without_the_capability")
    isolators = [] if wish is None else [isolator("os/linux/oom-score-adj", wish)]
    path = image_with(images, *isolators, name=f"score{'' if wish is None else wish}")
    result = sh(rkt, fetch(rkt, path), "cat /proc/self/oom_score_adj", *flags)
    assert result.stdout == f"{score}\n"


def test_oom_score_without_the_capability(rkt: Rkt, image: str) -> None:
    """A score that may not be given is an error that says why (runtime I4)."""
    if may_lower():
        pytest.skip("root has CAP_SYS_RESOURCE here")
    result = sh(rkt, image, "true", "--oom-score-adj=-50", check=254)
    assert "oom-score-adj -50: " in result.stderr
    assert "CAP_SYS_RESOURCE" in result.stderr


# Views ----------------------------------------------------------------------------------------------------------------


def test_the_app_cannot_change_its_cgroups(rkt: Rkt, image: str) -> None:
    """Nothing below /sys can be written, no cgroup file system mounted, no release agent set (runtime I5, RN8)."""
    script = """
    for file in /sys/fs/cgroup/*.max /sys/fs/cgroup/*/* /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control; do
        [ -e "$file" ] && [ ! -d "$file" ] || continue
        if echo 1 2>/dev/null > "$file"; then echo "written $file"; fi
    done
    mkdir /sys/fs/cgroup/mine 2>/dev/null && echo made
    for kind in cgroup cgroup2; do mount -t $kind none /tmp 2>/dev/null && echo "mounted $kind"; done
    mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted
    unshare -U -C true 2>/dev/null && echo unshared
    unshare -C true 2>/dev/null && echo unshared
    cat /proc/self/cgroup
    """
    result = sh(rkt, image, script, "--memory=64Mi")
    assert all(line.count(":") >= 2 for line in result.lines), result
    # The app's own groups are the roots that it sees.
    assert all(line.rsplit(":", 1)[1] in {"/", "/.."} or "rkt-" not in line for line in result.lines), result


def test_enter_is_under_the_same_limits(rkt: Rkt, image: str) -> None:
    """A command that enters an app is in its cgroups, with its score, and is killed as the app would be (EN1)."""
    with running(rkt, image, "--name=app", "--memory=25Mi", "--oom-score-adj=77", *SLEEP) as kernel:
        uuid = next(iter(rkt.pods("run")))
        shown = rkt.run("enter", uuid, "/bin/cat", "/proc/self/oom_score_adj", check=0)
        assert shown.stdout == "77\n"
        with open(f"/proc/{kernel.pid('app')}/cgroup", encoding="ascii") as file:
            groups = file.read()
        entering = rkt.popen("enter", uuid, "/bin/sh", "-c", "echo here; sleep 30")
        wait_for(lambda: "here" in entering.stdout_text, "command")
        directory = kernel.directory("app", "memory")[1]
        with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
            pids = [int(word) for word in file.read().split()]
        assert len(pids) > 1
        for pid in pids:
            with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
                assert file.read() == groups
        rkt.run("enter", uuid, "/bin/sh", "-c", HOG, check=137)


def test_a_controller_that_is_missing(rkt: Rkt, images: Images, image: str) -> None:
    """Without a controller a flag's limit is refused, an image's wish is left out with a word, and defaults go on."""
    roots = [item.mount_point for item in cgroupfs.detect() if item.offers("cpu") or item.offers("pids")]
    if len(roots) != 2:
        pytest.skip("controllers of version 2 cannot be taken away, or are mounted together")
    wish = fetch(rkt, image_with(images, isolator("resource/cpu", {"limit": "800m"}), name="wishful"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        script = f'umount {" ".join(roots)} && exec "$@"'
        command = ["unshare", "--mount", "/bin/sh", "-c", script, "sh", *rkt.command("run", INSECURE, *words)]
        return subprocess.run(command, env=rkt.environment(), capture_output=True, text=True, check=False)

    true = ("--exec=/bin/true", "--name=app")
    for flag, name in (("--cpu=500m", "cpu"), ("--cpu-shares=100", "cpu"), ("--pids-limit=10", "pids")):
        refused = run(image, flag, *true)
        assert refused.returncode == 254
        assert f"cgroup controller {name} is not available on this host" in refused.stderr
    assert run(wish, "--cpu=800m", *true).returncode == 254
    done = run(wish, *true)
    assert done.returncode == 0, done.stderr
    assert 'app "app": resource/cpu: cgroup controller cpu is not available' in done.stderr
    assert "the image's wish is left out" in done.stderr


# Refusals -------------------------------------------------------------------------------------------------------------


#: Isolators of the app, of the pod, and what is said of them.
MEANINGLESS: list[tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = [
    ([isolator("resource/memory", {"limit": "16m"})], [], "memory limit of 1 bytes too low"),
    ([isolator("resource/cpu", {"limit": "0"})], [], "limit of resource/cpu of 0 too low"),
    ([isolator("resource/pids", {"limit": "0"})], [], "limit of resource/pids of 0 too low"),
    ([isolator("resource/network-bandwidth", {"default": True, "limit": "1M"})], [], "is not enforced"),
    ([], [isolator("resource/network-bandwidth", {"default": True, "limit": "1M"})], "is not enforced"),
    ([], [isolator("os/linux/cpu-shares", 100)], "belongs on an app"),
    ([], [isolator("example.com/unheard-of", 1)], "is not known"),
    ([isolator("os/unix/sysctl", {"net.core.somaxconn": "1"})], [], "belongs on a pod"),
    ([isolator("resource/memory", {"default": True, "limit": "1G"})], [], "default of"),
]


def test_what_cannot_be_honoured_is_refused(rkt: Rkt, image: str) -> None:
    """An operator's isolator that means nothing here is an error before there is a pod."""
    for app, pod, message in MEANINGLESS:
        flag = write_manifest(rkt, manifest(image, app, pod=pod))
        assert message in rkt.run("prepare", INSECURE, flag, check=254).stderr, message
    assert rkt.pods() == {}


#: Flag of the app, and what is said of it.
BAD_FLAGS = [
    ("--memory=16m", "memory limit of 1 bytes too low. Try a reasonable value, such as --memory=16M"),
    ("--memory=lots", "invalid"),
    ("--cpu=0", "cpu limit of 0 too low"),
]


def test_flags_are_checked_before_there_is_a_pod(rkt: Rkt, image: str) -> None:
    """A limit that cannot be meant is refused, and no pod exists (cli §1.7)."""
    for flag, message in BAD_FLAGS:
        assert message in rkt.run("run", INSECURE, image, flag, check=254).stderr, flag
    assert rkt.pods() == {}


# Processes and their limits -------------------------------------------------------------------------------------------


def test_a_fork_bomb_is_bounded(rkt: Rkt, image: str) -> None:
    """Of forty processes that an app starts, those above its limit are refused, and a neighbour has its own (RN24)."""
    bomb = "(n=0; while [ $n -lt 40 ]; do sleep 5 & n=$((n+1)); done; echo all); sleep 1"
    words = ["--exec=/bin/sh", "--", "-c"]
    result = rkt.run(
        *("run", INSECURE, image, "--name=bomb", "--pids-limit=20", *words, bomb, "---"),
        *(image, "--name=calm", *words, "sleep 0.5; for n in 1 2 3; do true | cat; done; echo calm"),
    )
    assert "can't fork" in result.stderr
    assert "all" not in result.stdout
    assert "calm" in result.stdout


def test_pids_of_flags(rkt: Rkt, image: str) -> None:
    """A flag limits one app; apps that may have more than usual lift the pod's own ceiling."""
    flags = (
        image,
        "--name=few",
        "--pids-limit=25",
        *SLEEP,
        image,
        "--name=many",
        "--pids-limit=9000",
        *SLEEP,
    )
    with running(rkt, *flags) as kernel:
        assert (kernel.max_pids("few"), kernel.max_pids("many")) == (25, 9000)
        assert kernel.max_pids("few", above=1) == 9025


#: What a shell says of its own limits.
SHOW = "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -f"


def test_ulimits(rkt: Rkt, images: Images) -> None:
    """Limits of the flag hold for the app, for its handlers and for who enters, over those of the image."""
    asked = isolator("os/linux/rlimits", {"nofile": {"soft": 50, "hard": 60}, "fsize": {"hard": 1 << 20}})
    path = images.busybox("example.com/rlimits", ("/bin/sleep", "100"), app={"isolators": [asked]})
    image = fetch(rkt, path)
    with running(rkt, image, "--name=app", "--ulimit=nofile=100:200", "--ulimit=core=0", *SLEEP) as kernel:
        shown = rkt.run("enter", next(iter(rkt.pods("run"))), "/bin/sh", "-c", SHOW, check=0)
        with open(f"/proc/{kernel.pid('app')}/limits", encoding="ascii") as file:
            limits = {line[:25].strip(): line[25:].split()[:2] for line in file}
    assert limits["Max open files"] == ["100", "200"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == ["1048576", "1048576"]
    assert shown.lines[:3] == ["100", "200", "0"]
    assert sh(rkt, image, SHOW).lines[:2] == ["50", "60"]


def test_ulimits_of_a_pod_manifest(rkt: Rkt, image: str) -> None:
    """An isolator of the manifest does the same, and a limit that is felt is the kernel's: the file stays small."""
    limits = [isolator("os/linux/rlimits", {"fsize": {"soft": 1024, "hard": 2048}})]
    script = "trap '' XFSZ; dd if=/dev/zero of=/tmp/big bs=512 count=10 2>/dev/null; wc -c < /tmp/big"
    text = manifest(image, limits, exec=["/bin/sh", "-c", script])
    assert rkt.run("run", INSECURE, write_manifest(rkt, text)).stdout.strip() == "1024"


def test_an_image_is_given_no_more_than_there_is(rkt: Rkt, images: Images) -> None:
    """A limit in an image above the caller's is cut to it: an image only tightens (design §9.4)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    asked = isolator("os/linux/rlimits", {"nofile": {"soft": hard + 5, "hard": hard + 10}})
    path = images.busybox("example.com/rlimits-high", app={"isolators": [asked]})
    assert sh(rkt, fetch(rkt, path), SHOW).lines[:2] == [str(hard), str(hard)]


def test_raising_a_hard_limit(rkt: Rkt, image: str) -> None:
    """A limit above the caller's is given with CAP_SYS_RESOURCE, else refused naming limit, wish and what is allowed."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    wish = f"--ulimit=nproc={hard + 1}"
    result = sh(rkt, image, "ulimit -Hu 2>/dev/null || true; cat /proc/self/limits", wish, check=None)
    if may_lower():
        assert result.status == 0
        assert f" {hard + 1} " in result.stdout
    else:
        assert result.status == 254
        message = f"limit nproc of {hard + 1} is more than the {hard} that can be given here"
        assert message in result.stderr
        assert "CAP_SYS_RESOURCE" in result.stderr
        assert f"hint: --ulimit=nproc={hard}" in result.stderr


@pytest.mark.parametrize(
    "words",
    ["umask 0", "umask 077", "ulimit -Sn 12", "ulimit -Sf 0", "ulimit -n 64; ulimit -l 0; ulimit -s 256"],
)
def test_odd_limits_of_the_caller(rkt: Rkt, image: str, words: str) -> None:
    """The caller's umask and limits do not break a pod or the modes of its files (HH8)."""
    command = rkt.command(
        "run", INSECURE, image, "--exec=/bin/sh", "--", "-c", "umask; > /tmp/x; stat -c %a /tmp/x"
    )
    script = f'{words}; exec "$@"'
    result = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command],
        env=rkt.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["0022", "644"]
    for uuid in rkt.pods("run"):
        for directory, _, files in os.walk(rkt.pod_path(uuid)):
            if "/overlay" not in directory:
                modes = [os.lstat(f"{directory}/{name}") for name in files]
                assert not [one for one in modes if stat.S_ISREG(one.st_mode) and one.st_mode & 0o022]


# Sysctls --------------------------------------------------------------------------------------------------------------


def sysctl(name: str) -> str:
    """The host's value."""
    with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
        return file.read().split("\n")[0]


def test_sysctls(rkt: Rkt, image: str) -> None:
    """Parameters of the pod's own network, IPC and UTS namespaces are set before the app starts; the host keeps its own."""
    wanted = {
        "net.core.somaxconn": "2345",
        "net.ipv4.ping_group_range": "0\t1000",
        "kernel.shmmni": "123",
        "kernel.sem": "250\t32000\t100\t99",
        "fs.mqueue.msg_max": "9",
        "kernel.domainname": "pods.example.com",
    }
    before = {name: sysctl(name) for name in wanted}
    flags = [f"--sysctl={name}={value}" for name, value in wanted.items()]
    show = "; ".join(f"cat /proc/sys/{name.replace('.', '/')}" for name in wanted)
    assert sh(rkt, image, show, pod=flags).lines == list(wanted.values())
    assert {name: sysctl(name) for name in wanted} == before
    uuid = rkt.run(
        "prepare", INSECURE, *flags, image, "--exec=/bin/sh", "--", "-c", show, check=0
    ).stdout.strip()
    assert rkt.run("run-prepared", uuid, check=0).lines == list(wanted.values())


def test_limits_with_a_user_namespace(rkt: Rkt, image: str) -> None:
    """Sysctls, limits of processes and scores are the same for a pod with users of its own."""
    # Older kernels, such as 6.1, show such a pod no net.core.*.
    flags = [
        "--private-users",
        "--sysctl=kernel.shmmni=123",
        "--sysctl=net.ipv4.ip_default_ttl=77",
        "--sysctl=kernel.domainname=x",
    ]
    script = "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/domainname /proc/self/oom_score_adj; ulimit -n"
    app = ("--ulimit=nofile=99", "--oom-score-adj=5", "--memory=64Mi")
    assert sh(rkt, image, script, *app, pod=flags).lines == ["123", "77", "x", "5", "99"]


#: Flags of the pod, and what is said of them.
BAD_SYSCTLS = [
    (["--sysctl=kernel.core_pattern=|/bin/sh"], "core_pattern"),
    (["--sysctl=kernel.shm_rmid_forced=1+kernel.core_pattern=x"], "invalid value"),
    (["--sysctl=kernel.shmmni+kernel.core_pattern=1"], "invalid sysctl name"),
    (["--sysctl=net.core/../../kernel.core_pattern=1"], "invalid sysctl name"),
    (["--sysctl=net..core=1"], "invalid sysctl name"),
    (["--sysctl=vm.overcommit_memory=1"], "may not be set for a pod: it is the host's"),
    (["--sysctl=kernel.hostname=x"], "may not be set for a pod"),
    (["--sysctl=fs.file-max=1"], "may not be set for a pod"),
    (["--sysctl=net.core.somaxconn"], "--sysctl=NAME=VALUE"),
    (["--sysctl=net.core.somaxconn=1\n2"], "invalid value"),
    (["--net=host", "--sysctl=net.core.somaxconn=1"], "would be the host's with --net=host"),
    (["--ipc=parent", "--sysctl=kernel.shmmni=1"], "would be the host's with --ipc=parent"),
]


def test_sysctls_that_are_refused(rkt: Rkt, image: str) -> None:
    """What is the host's, what is malformed, and what two readers could read differently, makes no pod (CVE-2022-0811)."""
    for flags, message in BAD_SYSCTLS:
        assert message in sh(rkt, image, "true", pod=flags, check=254).stderr, flags
    assert rkt.pods() == {}


def test_sysctls_are_checked_again_by_stage1(rkt: Rkt, image: str) -> None:
    """A prepared pod with sysctls of the network does not start in the host's; one the kernel lacks is named."""
    flags = (INSECURE, "--sysctl=net.core.somaxconn=1", image, "--exec=/bin/true")
    uuid = rkt.run("prepare", *flags, check=0).stdout.strip()
    result = rkt.run("run-prepared", "--net=host", uuid, check=254)
    assert "sysctl net.core.somaxconn would be the host's with --net=host" in result.stderr
    result = sh(rkt, image, "true", pod=["--sysctl=net.core.no_such_thing=1"], check=254)
    assert "cannot set sysctl net.core.no_such_thing" in result.stderr


def test_an_image_sets_no_sysctl(rkt: Rkt, images: Images) -> None:
    """An image with a sysctl isolator is refused (RN20)."""
    path = images.busybox(
        "example.com/sysctl", app={"isolators": [isolator("os/unix/sysctl", {"net.core.somaxconn": "1"})]}
    )
    assert "belongs on a pod" in rkt.run(INSECURE, "fetch", path, check=254).stderr


# Disks and CPUs -------------------------------------------------------------------------------------------------------


def disk_of(directory: str) -> tuple[str, str]:
    """Node and number of the disk that holds a directory, or skips."""
    device = os.stat(directory).st_dev
    place = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if not os.path.exists(place):
        pytest.skip(f"{directory} is not on a block device of its own")
    if os.path.exists(f"{place}/partition"):
        place = os.path.dirname(os.path.realpath(place))
    with open(f"{place}/dev", encoding="ascii") as file:
        number = file.read().strip()
    return f"/dev/{os.path.basename(os.path.realpath(place))}", number


def io_max(kernel: Kernel, app: str, number: str) -> dict[str, int]:
    """Limits of a disk: rbps, wbps, riops, wiops."""
    version, directory = kernel.directory(app, "io")
    found = {}
    files = {"rbps": "read_bps", "wbps": "write_bps", "riops": "read_iops", "wiops": "write_iops"}
    if version == 2:
        with open(f"{directory}/io.max", encoding="ascii") as file:
            words = next((line.split()[1:] for line in file if line.startswith(f"{number} ")), [])
        found = dict(word.split("=") for word in words)
    else:
        for key, name in files.items():
            with open(f"{directory}/blkio.throttle.{name}_device", encoding="ascii") as file:
                found[key] = next((line.split()[1] for line in file if line.startswith(f"{number} ")), "max")
    return {key: int(value) for key, value in found.items() if value != "max"}


def test_limits_of_a_disk(rkt: Rkt, images: Images) -> None:
    """Rates of flags, of an image and of the pod arrive for the disk that is meant; the lowest counts."""
    node, number = disk_of(rkt.base)
    bandwidth = isolator("resource/block-bandwidth", {"default": True, "limit": "8M"})
    iops = isolator("resource/block-iops", {"default": True, "limit": "300"})
    image = fetch(rkt, image_with(images, bandwidth, iops, name="slow"))
    flags = (f"--device-read-bps={node}:2M", f"--device-write-iops={node}:500")
    with running(rkt, image, "--name=image", *SLEEP, image, "--name=flag", *flags, *SLEEP) as kernel:
        assert io_max(kernel, "image", number) == {
            "rbps": 8000000,
            "wbps": 8000000,
            "riops": 300,
            "wiops": 300,
        }
        assert io_max(kernel, "flag", number) == {
            "rbps": 2000000,
            "wbps": 8000000,
            "riops": 300,
            "wiops": 300,
        }
    pod = [isolator("resource/block-iops", {"default": True, "limit": 50})]
    text = manifest(image, [iops], pod=pod)
    with started(rkt, "run", INSECURE, write_manifest(rkt, text)) as kernel:
        assert io_max(kernel, "app", number) == {"riops": 50, "wiops": 50}


def test_a_limited_disk_is_slow(rkt: Rkt, image: str) -> None:
    """Writing one and a half times what a second allows takes more than half a second."""
    node, _ = disk_of(rkt.base)
    write = "dd if=/dev/zero of=/tmp/x bs=64k count=24 oflag=direct 2>/dev/null || echo refused"
    script = f"cat /proc/uptime; {write}; cat /proc/uptime"
    result = sh(rkt, image, script, f"--device-write-bps={node}:1M")
    if "refused" in result.stdout:
        pytest.skip("busybox has no dd with oflag=direct, or the file system no direct I/O")
    began, ended = (float(line.split()[0]) for line in result.lines)
    assert ended - began > 0.5, result


def test_io_weight(rkt: Rkt, image: str) -> None:
    """A weight arrives in the form this kernel has, or is refused."""
    result = sh(rkt, image, "true", "--io-weight=5050", check=None)
    if result.status == 254:
        assert "resource" not in result.stderr
        assert "this kernel has no io weights" in result.stderr or "controller io is not" in result.stderr
        return
    with running(rkt, image, "--name=app", "--io-weight=5050", *SLEEP) as kernel:
        version, directory = kernel.directory("app", "io")
        names = ("io.weight", "io.bfq.weight") if version == 2 else ("blkio.bfq.weight",)
        found = [f"{directory}/{name}" for name in names if os.path.exists(f"{directory}/{name}")]
        assert found
        for path in found:
            with open(path, encoding="ascii") as file:
                assert file.read().split()[-1] == ("550" if "bfq" in path else "5050")


def test_cpus(rkt: Rkt, image: str) -> None:
    """An app runs on the CPUs it was given; one that is not there is refused."""
    last = max(os.sched_getaffinity(0))
    result = sh(rkt, image, "grep Cpus_allowed_list /proc/self/status", f"--cpuset-cpus={last}")
    assert result.stdout.split() == ["Cpus_allowed_list:", str(last)]
    result = sh(rkt, image, "true", "--cpuset-cpus=0,8000", check=254)
    assert "no CPU 8000 among" in result.stderr


#: Likewise.
BAD_LIMITS = [
    ("--pids-limit=0", "a number from 1 to"),
    ("--ulimit=files=1", "unknown limit"),
    ("--ulimit=nofile=20:10", "soft limit 20 of nofile is more than hard limit 10"),
    ("--ulimit=nofile=many", "a whole number or unlimited is expected"),
    ("--cpuset-cpus=3-1", "runs backwards"),
    ("--cpuset-cpus=a", "a list of CPUs is written as 0-3,6"),
    ("--io-weight=0", "a number from 1 to 10000"),
    ("--device-read-bps=/dev/null:1M", "/dev/null is no block device"),
    ("--device-read-bps=/dev/nothing-there:1M", "No such file or directory"),
    ("--device-write-iops=disk:10", "absolute path of a block device"),
    ("--device-read-iops=/dev/sda:0", "is 0"),
]


def test_flags_of_limits_are_checked(rkt: Rkt, image: str) -> None:
    """A malformed limit is refused before there is a pod, with a word on what is expected."""
    for flag, message in BAD_LIMITS:
        assert message in rkt.run("run", INSECURE, image, flag, check=254).stderr, flag
    assert rkt.pods() == {}
