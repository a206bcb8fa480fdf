# SPDX-License-Identifier: Apache-2.0
"""``rkt start``: a pod that is over runs again as the same pod; how it meets gc, rm, and other starts."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, inspect_image, shell_app, stored
from tests.lib.pace import rounds
from tests.lib.pods import APP, FLAGS, StubPods, put_app
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

#: Counts its runs in a file of its own and one in each volume.
COUNT = "for f in /count /kept/count /gone/count; do echo run >> $f; done; wc -l < /count; wc -l < /kept/count; wc -l < /gone/count"
VOLUMES = (
    "--volume=kept,kind=empty",
    "--volume=gone,kind=tmpfs",
    "--mount=volume=kept,target=/kept",
    "--mount=volume=gone,target=/gone",
)


@pods("supervision", "namespaces")
@pytest.mark.parametrize(
    "flags", [(), ("--no-overlay",), ("--private-users",)], ids=lambda f: "".join(f) or "plain"
)
def test_the_same_pod_runs_again(rkt: Rkt, images: Images, flags: tuple[str, ...]) -> None:
    """UUID, name, manifest, host name, changed files and logs stay; memory is fresh; start time and statuses are of the new run."""
    image = stored(rkt, inspect_image(images))
    script = f"{COUNT}; hostname; grep -c 10.1.2.3 /etc/resolv.conf; exit $(wc -l < /count)"
    words = shell_app(image, "app", script)
    options = ("--name=again", "--hostname=box", "--dns=10.1.2.3", *VOLUMES, *flags)
    rkt.run("run", INSECURE, *options, *words, check=1)
    (uuid,) = rkt.pods("run")
    before = json.loads(rkt.run("status", "--format=json", uuid, check=0).stdout)
    manifest = rkt.run("cat-manifest", uuid, check=0).stdout
    assert rkt.run("start", "again", check=2).lines == ["2", "2", "1", "box", "1"]
    rkt.run("gc", "--mark-only", check=0)
    assert rkt.pods() == {uuid: "exited-garbage"}
    assert rkt.run("start", uuid[:9], check=3).lines == ["3", "3", "1", "box", "1"]
    assert rkt.pods() == {uuid: "run"}
    after = json.loads(rkt.run("status", "--format=json", "again", check=0).stdout)
    assert after["apps"][0]["exit_code"] == 3
    assert after["created_at"] == before["created_at"]
    assert after["apps"][0]["started_at"] > before["apps"][0]["finished_at"]
    assert rkt.run("cat-manifest", uuid, check=0).stdout == manifest
    numbers = rkt.run("logs", uuid, check=0).lines
    assert numbers == [str(n) for run in (1, 2, 3) for n in (run, run, 1, "box", 1)]


def test_states_that_are_refused(rkt: Rkt) -> None:
    """What runs, was only prepared, or not even that, is not started; the message says what to type instead."""
    pods = StubPods(rkt)
    process, running = pods.running()
    prepared = pods.prepared()
    aborted = pods.prepared()
    os.rename(rkt.pod_path(aborted), f"{rkt.data}/pods/prepare/{aborted}")
    for uuid, reason, command in (
        (running, "is running already", "rkt status"),
        (prepared, "has not run yet", "rkt run-prepared"),
        (aborted, "was not prepared to the end", "rkt rm"),
    ):
        refused = rkt.run("start", uuid, check=254)
        assert refused.stderr == f'start: pod "{uuid}" {reason}\nhint: {command} {uuid[:8]}\n'
    assert rkt.pods() == {running: "run", prepared: "prepared", aborted: "prepare"}
    rkt.run("stop", running, check=0)
    process.wait(20)


def test_today_s_policy_decides(rkt: Rkt, images: Images) -> None:
    """When the key is gone by which an image was trusted, its pod is not started, and stays as it was."""
    path = images.busybox("example.com/again", ("/bin/echo", "ran"), file="again-signed")
    images.sign(path)
    rkt.run("trust", "--prefix=example.com/again", "--skip-fingerprint-review", images.key_file, check=0)
    rkt.run("run", path, check=0)
    (uuid,) = rkt.pods("run")
    rkt.run("start", uuid, check=0)
    keys = f"{rkt.local}/trustedkeys/prefix.d/example.com/again"
    for name in os.listdir(keys):
        os.unlink(f"{keys}/{name}")
    shown = rkt.run("status", uuid, check=0).stdout
    assert "rkt trust --prefix=example.com/again" in rkt.run("start", uuid, check=254).stderr
    assert rkt.run("status", uuid, check=0).stdout == shown


def test_images_may_be_gone(rkt: Rkt) -> None:
    """A pod that is over keeps what it is made of: after image rm of app and stage1 it still starts."""
    pods = StubPods(rkt)
    uuid = pods.exited(status=4)
    rkt.run("gc", "--mark-only", check=0)
    for key in (pods.app.key, pods.stage1.key):
        rkt.run("image", "rm", key, check=0)
    rkt.run("image", "gc", check=0)
    rkt.run("start", uuid, check=4)


def test_a_name_belongs_to_one_live_pod(rkt: Rkt) -> None:
    """A pod whose name another live pod has now is not started; when that is over the name comes back."""
    pods = StubPods(rkt)
    old = pods.exited("--name=shop")
    process = rkt.popen("run", *FLAGS, "--hostname=sleep", "--name=shop", APP)
    (new,) = wait_for(
        lambda: {u for u in rkt.pods("run") if u != old and os.path.exists(f"{rkt.pod_path(u)}/pid")},
        "the new pod",
    )
    refused = rkt.run("start", old, check=254)
    assert f'pod name "shop" is in use by pod "{new}"' in refused.stderr
    rkt.run("stop", "shop", check=0)
    process.wait(20)
    assert f'"name":"{new}"' in rkt.run("status", "--format=json", "shop", check=0).stdout
    rkt.run("start", old, check=0)
    assert f'"name":"{old}"' in rkt.run("status", "--format=json", "shop", check=0).stdout


def test_one_of_several_starts(rkt: Rkt) -> None:
    """Of several concurrent starts exactly one becomes the pod, the others say that it runs."""
    pods = StubPods(rkt)
    process, uuid = pods.running()
    rkt.run("stop", uuid, check=0)
    process.wait(20)
    processes = [rkt.popen("start", uuid) for _ in range(5)]
    wait_for(lambda: sum(p.poll() is not None for p in processes) == 4, "four refusals")
    losers = [p for p in processes if p.poll() is not None]
    assert [p.returncode for p in losers] == [254] * 4
    assert all("is running already" in p.stderr_text for p in losers), [p.stderr_text for p in losers]
    rkt.run("status", "--wait-ready", uuid, check=0)
    rkt.run("stop", uuid, check=0)
    for each in processes:
        each.wait(20)


@pytest.mark.timeout(120)
def test_start_meets_gc_and_rm(rkt: Rkt) -> None:
    """However start, gc and rm of one pod fall together: it ran, or it was removed, and each command says what is true."""
    pods = StubPods(rkt)
    ran = removed = 0
    for number in range(rounds(16)):
        uuid = pods.exited(status=7)
        if number % 2:
            rkt.run("gc", "--mark-only", check=0)
        rivals = [
            rkt.popen("start", uuid),
            rkt.popen("gc", "--grace-period=0") if number % 4 < 2 else rkt.popen("rm", uuid),
        ]
        start, other = (rival.wait(30) for rival in rivals)
        texts = [rival.stderr_text for rival in rivals]
        assert "Traceback" not in "".join(texts), texts
        assert "internal error" not in "".join(texts), texts
        if start == 7:
            ran += 1
        else:
            assert start == 254, texts
            assert any(
                word in texts[0]
                for word in ("is being deleted", "was removed", "is in use", "no matches found")
            ), texts
            removed += 1
            wait_for(lambda u=uuid: u not in rkt.pods(), "the removal")  # type: ignore[misc]
        if number % 4 >= 2 and other:
            assert any(word in texts[1] for word in ("is in use", "is currently running", "was moved")), texts
        rkt.run("gc", "--grace-period=0", check=0)
        assert rkt.pods() == {}
    assert ran + removed == rounds(16)


@pods("supervision")
@pytest.mark.timeout(120)
def test_start_killed(rkt: Rkt, images: Images) -> None:
    """Start killed at any moment leaves a pod that is over, of which every command tells, and which starts again as if nothing had been."""
    image = stored(rkt, inspect_image(images))
    rkt.run(
        "run", INSECURE, "--name=crash", *shell_app(image, "app", "echo run >> /count; sleep 0.1"), check=0
    )
    (uuid,) = rkt.pods("run")
    begun = time.monotonic()
    rkt.run("start", "crash", check=0)
    whole = time.monotonic() - begun
    for number in range(rounds(12)):
        if number % 3 == 0:
            rkt.run("gc", "--mark-only", check=0)
        process = rkt.popen("start", "crash")
        time.sleep(whole * (number + 0.5) / 12)
        process.kill()
        process.wait(20)
        assert len(rkt.pods()) == 1
        listed = rkt.run("list", "--full", check=0)
        assert uuid in listed.stdout
        assert listed.stderr == ""
        rkt.run("status", "--format=json", "crash", check=0)
        wait_for(lambda: "state=exited" in rkt.run("status", "crash").stdout, "its end")
    before = rkt.run("logs", "crash", check=0).stdout
    rkt.run("start", "crash", check=0)
    assert rkt.run("logs", "crash", check=0).stdout == before
    assert "app-app=0\n" in rkt.run("status", "crash", check=0).stdout
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.leaks() == []


def test_a_started_pod_is_always_in_the_list(rkt: Rkt) -> None:
    """While a pod goes to and fro between marked and running, list and status never miss it."""
    pods = StubPods(rkt)
    uuid = pods.exited()
    done = threading.Event()
    missed: list[str] = []

    def look() -> None:
        while not done.is_set():
            for words in (("list", "--full", "--no-legend"), ("status", uuid)):
                result = rkt.run(*words)
                if result.status or (words[0] == "list" and uuid not in result.stdout):
                    missed.append(str(result))

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(rounds(8)):
        rkt.run("gc", "--mark-only", check=0)
        rkt.run("start", uuid, check=0)
    done.set()
    thread.join()
    assert missed == []


def test_interactive_is_of_this_start(rkt: Rkt, images: Images) -> None:
    """Apps read what the caller of start gives them only with --interactive, which is for pods of one app."""
    image = stored(rkt, inspect_image(images))
    rkt.run(
        "run", INSECURE, "--interactive", *shell_app(image, "cat", "cat; echo end"), input="one\n", check=0
    )
    (uuid,) = rkt.pods("run")
    assert rkt.run("start", uuid, input="two\n", check=0).lines == ["end"]
    assert rkt.run("start", "--interactive", uuid, input="three\n", check=0).lines == ["three", "end"]
    pods = StubPods(rkt)
    put_app(rkt.data, "example.com/other")
    pods.run("--hostname=exit-0", APP, "example.com/other", "--name=second")
    (both,) = set(rkt.pods("run")) - {uuid}
    refused = rkt.run("start", "--interactive", both, check=254)
    assert "interactive option only supports pods with one app" in refused.stderr


@pods("apps that come and go")
def test_a_sandbox_comes_back(rkt: Rkt, images: Images) -> None:
    """The apps of a sandbox that is started again are there with their files and manifest, and start when they are told to."""
    image = stored(rkt, inspect_image(images))
    process = rkt.popen("app", "sandbox", INSECURE, "--name=box")
    uuid = rkt.wait_for_pod()
    words = ("--name=one", "--exec=/bin/sh", "--", "-c", "echo run >> /count; wc -l < /count")
    rkt.run("app", "add", INSECURE, uuid, image, *words, check=0)

    def run_app(count: int) -> None:
        rkt.run("app", "start", "box", "--app=one", check=0)
        wait_for(lambda: rkt.log(uuid, "one").endswith(f"stdout F {count}\n"), f"run {count}")
        wait_for(lambda: "one\texited" in rkt.run("app", "list", "box").stdout, "its end")

    run_app(1)
    rkt.run("stop", "box", check=0)
    process.wait(20)
    again = rkt.popen("start", "box")
    wait_for(lambda: rkt.run("app", "list", "box").lines == ["NAME\tSTATE", "one\tcreated"], "the app")
    rkt.run("wait", "--ready", "box", check=0)
    run_app(2)
    rkt.run("app", "rm", "box", "--app=one", check=0)
    assert rkt.run("app", "list", "--no-legend", "box", check=0).stdout == "\n"
    rkt.run("stop", "box", check=0)
    assert again.wait(20) == 0


def test_events_of_each_run(rkt: Rkt) -> None:
    """Following tells start and end of every run of a pod."""
    pods = StubPods(rkt)
    with rkt.popen("events", "--follow", "--format=json") as following:

        def told(kind: str) -> int:
            return following.stdout_text.count(f'"event":"{kind}"')

        uuid = pods.exited(status=5)
        wait_for(lambda: told("exited") == 1, "the first end")
        for number in (2, 3):
            rkt.run("start", uuid, check=5)
            wait_for(lambda n=number: told("exited") == n, f"end {number}")  # type: ignore[misc]
        assert told("started") == 3
        assert told("created") == 1
        following.terminate()


@pytest.mark.parametrize("content", [b"{}", b'{"version":9}', b"nonsense"])
def test_a_damaged_record_is_named(rkt: Rkt, content: bytes) -> None:
    """A pod whose record of how it was run cannot be read is refused by name and left alone."""
    uuid = StubPods(rkt).exited()
    with open(f"{rkt.pod_path(uuid)}/run-options", "wb") as stream:
        stream.write(content)
    refused = rkt.run("start", uuid, check=254)
    assert f'run-options of pod "{uuid}"' in refused.stderr
    assert "internal error" not in refused.stderr
    assert "app-app=0" in rkt.run("status", uuid, check=0).stdout
