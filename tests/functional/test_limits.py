# SPDX-License-Identifier: Apache-2.0
"""What isolators limit, as the kernel has it: read from the host's side, and felt from inside (spec runtime §3.6, §6.3, §6.7).

One pod of several apps shows several rows at once: each app has its own cgroups.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.linux import cgroup
from tests.lib.images import fetch
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
SLEEP = ("--exec=/bin/sleep", "--", "100", "---")
#: A kilobyte at first, doubled until something gives way.
HOG = "x=0123456789abcdef; while true; do x=$x$x; done"
MEBIBYTE = 1 << 20


class Kernel:
    """What the kernel has written down for the apps of a running pod."""

    def __init__(self, rkt: Rkt, uuid: str) -> None:
        self._place = rkt.pod_path(uuid)

    def pid(self, app: str) -> int:
        """Number of an app's first process."""
        with open(f"{self._place}/appsinfo/{app}/pid", encoding="ascii") as file:
            return int(file.read().split()[0])

    def directory(self, app: str, controller: str) -> tuple[int, str]:
        """Version and directory of the cgroup that bounds an app, or skips where the host has none."""
        with open(f"/proc/{self.pid(app)}/cgroup", "rb") as file:
            found = cgroup.Cgroups.detect(membership=file.read())
        for hierarchy in found.hierarchies:
            directory = hierarchy.directory(hierarchy.own_path) or ""
            if hierarchy.version == 1 and hierarchy.offers(controller):
                return 1, directory
            if hierarchy.version == 2:
                with open(f"{directory}/cgroup.controllers", encoding="ascii") as file:
                    if controller in file.read().split():
                        return 2, directory
        pytest.skip(f"the host has no cgroup controller {controller}")

    def read(self, app: str, controller: str, *, v1: str, v2: str, above: int = 0) -> str:
        """A file of an app's cgroup, or of one so many levels above, by its name in each version."""
        version, directory = self.directory(app, controller)
        for _ in range(above):
            directory = os.path.dirname(directory)
        with open(f"{directory}/{v1 if version == 1 else v2}", encoding="ascii") as file:
            return file.read().strip()

    def memory_limit(self, app: str, above: int = 0) -> int:
        """Bytes."""
        text = self.read(app, "memory", v1="memory.limit_in_bytes", v2="memory.max", above=above)
        return int(text)

    def millicores(self, app: str, above: int = 0) -> int:
        """Thousandths of a CPU."""
        quota = self.read(app, "cpu", v1="cpu.cfs_quota_us", v2="cpu.max", above=above).split()
        period = (
            quota[1]
            if len(quota) == 2
            else self.read(app, "cpu", v1="cpu.cfs_period_us", v2="cpu.max", above=above)
        )
        return int(quota[0]) * 1000 // int(period)

    def shares(self, app: str) -> int:
        """Shares of version 1, or the weight of version 2."""
        return int(self.read(app, "cpu", v1="cpu.shares", v2="cpu.weight"))

    def max_pids(self, app: str, above: int = 0) -> int:
        """Processes."""
        return int(self.read(app, "pids", v1="pids.max", v2="pids.max", above=above))


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
        expected = {1: (512, 12345), 2: (cgroup.weight_of_shares(512), cgroup.weight_of_shares(12345))}[
            version
        ]
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
        own = 500 if kernel.directory("app", "cpu")[0] == 1 else 1000
        assert (kernel.millicores("app"), kernel.millicores("app", above=1)) == (own, 500)
        assert (kernel.max_pids("app"), kernel.max_pids("app", above=1)) == (20, 50)


def test_requests(rkt: Rkt, image: str) -> None:
    """A request below the limit is a weight of cpu and memory that is reclaimed last; one that equals it changes nothing."""
    limits = [
        isolator("resource/memory", {"limit": "64Mi", "request": "16Mi"}),
        isolator("resource/cpu", {"limit": "2", "request": "500m"}),
    ]
    with started(rkt, "run", INSECURE, write_manifest(rkt, manifest(image, limits))) as kernel:
        version = kernel.directory("app", "cpu")[0]
        assert kernel.shares("app") == (512 if version == 1 else cgroup.weight_of_shares(512))
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


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "pod", "message"),
    [
        ([isolator("resource/memory", {"limit": "16m"})], [], "memory limit of 1 bytes too low"),
        ([isolator("resource/cpu", {"limit": "0"})], [], "limit of resource/cpu of 0 too low"),
        ([isolator("resource/pids", {"limit": "0"})], [], "limit of resource/pids of 0 too low"),
        ([isolator("resource/network-bandwidth", {"default": True, "limit": "1M"})], [], "is not enforced"),
        ([], [isolator("resource/network-bandwidth", {"default": True, "limit": "1M"})], "is not enforced"),
        ([], [isolator("os/linux/cpu-shares", 100)], "belongs on an app"),
        ([], [isolator("example.com/unheard-of", 1)], "is not known"),
        ([isolator("os/unix/sysctl", {"net.core.somaxconn": "1"})], [], "belongs on a pod"),
        ([isolator("resource/memory", {"default": True, "limit": "1G"})], [], "default of"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    rkt: Rkt, image: str, app: list[dict[str, Any]], pod: list[dict[str, Any]], message: str
) -> None:
    """An operator's isolator that means nothing here is an error before there is a pod."""
    result = rkt.run("prepare", INSECURE, write_manifest(rkt, manifest(image, app, pod=pod)), check=254)
    assert message in result.stderr
    assert rkt.pods() == {}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--memory=16m", "memory limit of 1 bytes too low. Try a reasonable value, such as --memory=16M"),
        ("--memory=lots", "invalid"),
        ("--cpu=0", "cpu limit of 0 too low"),
    ],
)
def test_flags_are_checked_before_there_is_a_pod(rkt: Rkt, image: str, flag: str, message: str) -> None:
    """A limit that cannot be meant is refused, and no pod exists (cli §1.7)."""
    assert message in rkt.run("run", INSECURE, image, flag, check=254).stderr
    assert rkt.pods() == {}
