# SPDX-License-Identifier: Apache-2.0
"""The life of pods by command line: spec runtime §6.8 and spec cli §10.7, with the stub stage1 where isolation is no matter."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.pods import APP, FLAGS, StubPods, put_app
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

UNKNOWN = "01234567-89ab-4cde-8f01-23456789abcd"


@pytest.fixture
def pods(rkt: Rkt) -> StubPods:
    """An engine with the stub stage1 and one app image."""
    return StubPods(rkt)


def clock(text: str) -> float:
    """Seconds since the epoch of a long time."""
    day, hour, *_ = text.split()
    return time.mktime(time.strptime(f"{day} {hour.partition('.')[0]}", "%Y-%m-%d %H:%M:%S"))


def status(pods: StubPods, pod: str) -> dict[str, str]:
    """``rkt status`` as a dictionary."""
    lines = pods.rkt.run("status", pod, check=0).lines
    return dict(line.split("=", 1) for line in lines)


def test_a_prepared_pod_is_run_later(pods: StubPods) -> None:
    """Prepare prints the UUID and nothing else, run-prepared runs that pod once, a second time is refused."""
    result = pods.rkt.run("prepare", *FLAGS, APP, check=0)
    uuid = result.stdout.removesuffix("\n")
    assert pods.rkt.pods() == {uuid: "prepared"}
    assert status(pods, uuid)["state"] == "prepared"
    pods.rkt.run("run-prepared", "--hostname=exit-5", uuid[:8], check=5)
    assert pods.rkt.pods() == {uuid: "run"}
    again = pods.rkt.run("run-prepared", uuid, check=254)
    assert f'pod "{uuid}" is not prepared' in again.stderr


def test_flags_of_the_other_command_are_named(pods: StubPods) -> None:
    """Whoever gives prepare a flag of run-prepared, or the other way round, is told where it goes; the pod stays prepared."""
    refused = pods.rkt.run("prepare", *FLAGS, "--net=host", APP, check=254)
    assert "unknown flag: --net\n" in refused.stderr
    assert "hint: that is for rkt run-prepared" in refused.stderr
    uuid = pods.prepared()
    refused = pods.rkt.run("run-prepared", "--volume=a,kind=empty", uuid, check=254)
    assert "hint: that is for rkt prepare" in refused.stderr
    assert pods.rkt.pods() == {uuid: "prepared"}


def test_two_run_prepared_at_once_give_one_pod(pods: StubPods) -> None:
    """Of several concurrent run-prepared exactly one runs the pod, the others say that it is not prepared."""
    uuid = pods.prepared()
    processes = [pods.rkt.popen("run-prepared", "--hostname=exit-0", uuid) for _ in range(5)]
    statuses = sorted(process.wait(30) for process in processes)
    assert statuses == [0, 254, 254, 254, 254]
    assert all("is not prepared" in p.stderr_text for p in processes if p.returncode)


def test_prepared_pods_outlive_their_images(pods: StubPods) -> None:
    """After image rm of app and stage1, run-prepared still runs the pod, and list still names the image (cli P4, R31)."""
    uuid = pods.prepared()
    for key in (pods.app.key, pods.stage1.key):
        pods.rkt.run("image", "rm", key, check=0)
    pods.rkt.run("gc", check=0)
    pods.rkt.run("run-prepared", "--hostname=exit-4", uuid, check=4)
    table = pods.rkt.run("list", "--full", check=0).lines
    assert table[1].split("\t")[0] == uuid
    assert f"{APP}:1.0" in table[1]
    assert pods.app.key[:19] in table[1]


def test_times_are_those_of_prepare_and_run(pods: StubPods) -> None:
    """CREATED is when prepare ran and STARTED when run-prepared did, to the second (runtime L11, cli P6)."""
    created = int(time.time())
    uuid = pods.prepared()
    prepared = time.time()
    time.sleep(1.1)
    started = int(time.time())
    pods.rkt.run("run-prepared", "--hostname=exit-0", uuid, check=0)
    exited = time.time()
    (row,) = pods.rkt.run("list", "--full", "--no-legend", check=0).lines
    cells = [cell for cell in row.split("\t") if cell]
    assert created <= clock(cells[5]) <= prepared
    assert started <= clock(cells[6]) <= exited
    shown = status(pods, uuid)
    assert (shown["created"], shown["started"]) == (cells[5], cells[6])


def test_exit_statuses_are_shown_per_app(pods: StubPods) -> None:
    """Status shows app-NAME=N of an exited pod, and JSON the same with times (runtime R1, cli P21)."""
    for code in (0, 1, 2):
        uuid = pods.exited(status=code)
        shown = status(pods, uuid)
        assert shown["state"] == "exited"
        assert shown["exited"] == "true"
        assert shown["app-app"] == str(code)
        assert int(shown["pid"]) > 0
        document = json.loads(pods.rkt.run("status", "--format=json", uuid, check=0).stdout)
        (app,) = document["apps"]
        assert (document["name"], document["state"]) == (uuid, "exited")
        assert (app["name"], app["state"], app["exit_code"]) == ("app", "exited", code)
        assert app["image_id"] == pods.app.image_id
        assert abs(document["created_at"] - time.time()) < 60
        assert abs(app["finished_at"] - time.time_ns()) < 60 * 10**9


def test_a_running_pod_has_no_exit_status(pods: StubPods) -> None:
    """While it runs, status says running, gives the pid, exited=false, and no app line."""
    process, uuid = pods.running()
    shown = status(pods, uuid)
    assert shown["state"] == "running"
    assert shown["pid"] == str(process.pid)
    assert shown["exited"] == "false"
    assert not any(key.startswith("app-") for key in shown)
    assert "name" not in shown
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def test_list_of_nothing(rkt: Rkt) -> None:
    """Without pods, list prints the column names, and an empty JSON array."""
    assert rkt.run("list", check=0).stdout.split() == [
        "UUID",
        "APP",
        "IMAGE",
        "NAME",
        "STATE",
        "CREATED",
        "STARTED",
        "NETWORKS",
    ]
    assert rkt.run("list", "--no-legend", check=0).stdout == ""
    assert rkt.run("list", "--format=json", check=0).stdout == "[]\n"


def test_list_fits_a_terminal(pods: StubPods) -> None:
    """On a terminal no line of the list is wider than it is, and what names contain moves no cursor."""
    put_app(pods.rkt.data, "example.com/a/name/that/is/longer/than/half/of/a/terminal/other", version="2.0")
    pods.run("--hostname=exit-0", "example.com/a/name/that/is/longer/than/half/of/a/terminal/other")
    master, slave = pty.openpty()
    with open(master, "rb") as reader:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = pods.rkt.command("list")
        subprocess.run(command, env=pods.rkt.environment(), stdout=slave, check=True)
        os.close(slave)
        lines = reader.read1().decode().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "\t" not in "".join(lines)
    assert "terminal/other:2.0  exited" in lines[1]


def test_list_has_a_line_for_each_app(pods: StubPods) -> None:
    """The pod's columns stand on the line of its first app only; pods are sorted by UUID."""
    put_app(pods.rkt.data, "example.com/other", version="2.0")
    pods.run("--hostname=exit-0", APP, "example.com/other", "--name=second")
    pods.exited()
    rows = [line.split("\t") for line in pods.rkt.run("list", "--no-legend", check=0).lines]
    assert len(rows) == 3
    heads = [row[0] for row in rows if row[0]]
    assert heads == sorted(uuid[:8] for uuid in pods.rkt.pods("run"))
    (continued,) = [row for row in rows if not row[0]]
    assert [cell for cell in continued if cell] == ["second", "example.com/other:2.0"]


def test_insecure_options_stay_visible(pods: StubPods) -> None:
    """What was switched off for a pod is recorded in it and shown by status and JSON (SG16)."""
    uuid = pods.prepared("--insecure-options=image,paths")
    assert status(pods, uuid)["insecure-options"] == "image,paths"
    pods.rkt.run("--insecure-options=seccomp", "run-prepared", "--hostname=exit-0", uuid, check=0)
    assert status(pods, uuid)["insecure-options"] == "image,paths,seccomp"
    (document,) = json.loads(pods.rkt.run("list", "--format=json", check=0).stdout)
    assert document["insecure_options"] == ["image", "paths", "seccomp"]
    assert "--disable-paths" in pods.report(uuid)["arg"]
    assert "--disable-seccomp" in pods.report(uuid)["arg"]


def test_an_opt_out_is_for_one_pod_only(pods: StubPods) -> None:
    """An image that was never verified runs with the opt-out and is refused without; no pod is made of it then."""
    pods.exited()
    before = pods.rkt.pods()
    result = pods.rkt.run("run", "--stage1-name=example.com/stage1-stub", APP, check=254)
    assert "was never verified" in result.stderr
    assert pods.rkt.pods() == before


@pytest.mark.parametrize("command", ["rm", "status", "stop", "cat-manifest", "logs", "wait"])
def test_unknown_pods(rkt: Rkt, command: str) -> None:
    """A pod that nobody knows is 'no matches found', by argument and by file; an empty one is refused (runtime L6, L7, L14, cli P12, P13, P19)."""
    path = f"{rkt.base}/uuid"
    with open(path, "w", encoding="ascii") as stream:
        stream.write(f"{UNKNOWN}\n")
    for words in ([UNKNOWN], [f"--uuid-file={path}"]):
        assert f'no matches found for "{UNKNOWN}"' in rkt.run(command, *words, check=254).stderr
    assert "UUID cannot be empty" in rkt.run(command, "", check=254).stderr
    assert rkt.run(command, check=254).stderr
    assert rkt.run(command, f"--uuid-file={path}", UNKNOWN, check=254).stderr
    assert "unable to read UUID" in rkt.run(command, f"--uuid-file={rkt.base}/none", check=254).stderr


def test_uuid_files(pods: StubPods) -> None:
    """--uuid-file-save writes the bare UUID, and every command that takes a pod can read it (runtime L8, L12, L13, cli P7, P10, P18)."""
    path = f"{pods.rkt.base}/uuid"
    process = pods.rkt.popen("run", *FLAGS, "--hostname=sleep", f"--uuid-file-save={path}", APP)
    uuid = pods.rkt.wait_for_pod()
    with open(path, encoding="ascii") as stream:
        assert stream.read() == uuid
    word = f"--uuid-file={path}"
    assert "state=running\n" in pods.rkt.run("status", word, check=0).stdout
    manifest = json.loads(pods.rkt.run("cat-manifest", "--pretty-print=false", word, check=0).stdout)
    assert manifest["apps"][0]["image"]["id"] == pods.app.image_id
    assert manifest["apps"][0]["image"]["name"] == APP
    assert pods.rkt.run("cat-manifest", uuid, check=0).stdout.startswith("{\n\t")
    assert pods.rkt.run("stop", word, check=0).stdout == f'"{uuid}"\n'
    assert process.wait(15) == 143
    assert pods.rkt.run("wait", word, check=143).stdout == "143\n"
    assert "out of app" in pods.rkt.run("logs", word, check=0).stdout
    assert pods.rkt.run("rm", word, check=0).stdout == f'"{uuid}"\n'


def test_prefixes_name_pods(pods: StubPods) -> None:
    """Any unambiguous beginning of a UUID names a pod, in any case; an ambiguous one is refused."""
    uuids = sorted(pods.prepared() for _ in range(17))
    first = next(a for a, b in itertools.pairwise(uuids) if a[0] == b[0])
    assert "ambiguous uuid, " in pods.rkt.run("status", first[0], check=254).stderr
    assert "state=prepared" in pods.rkt.run("status", first[:13].upper(), check=0).stdout


def test_rm_takes_every_state_but_the_living(pods: StubPods) -> None:
    """Exited, prepared, aborted and marked pods go at once; what cannot be removed does not keep the rest (runtime L5, cli P11)."""
    exited, prepared, aborted = pods.exited(), pods.prepared(), pods.prepared()
    marked = pods.exited()
    pods.rkt.run("gc", "--mark-only", check=0)
    assert pods.rkt.pods("exited-garbage").keys() == {exited, marked}
    os.rename(f"{pods.rkt.data}/pods/prepared/{aborted}", f"{pods.rkt.data}/pods/prepare/{aborted}")
    assert "state=aborted prepare\n" in pods.rkt.run("status", aborted, check=0).stdout
    last = pods.exited()
    result = pods.rkt.run("rm", exited, UNKNOWN, prepared, aborted, marked, last, check=254)
    assert result.lines == [f'"{uuid}"' for uuid in (exited, prepared, aborted, marked, last)]
    assert "failed to remove one or more pods" in result.stderr
    assert pods.rkt.pods() == {}


def test_gc_marks_then_deletes(pods: StubPods) -> None:
    """--mark-only keeps every directory; zero periods then leave nothing (runtime L1, L2, cli P15, P16)."""
    exited, prepared, aborted = pods.exited(), pods.prepared(), pods.prepared()
    os.rename(f"{pods.rkt.data}/pods/prepared/{aborted}", f"{pods.rkt.data}/pods/prepare/{aborted}")
    zero = ("--expire-prepared=0", "--grace-period=0")
    result = pods.rkt.run("gc", "--mark-only", *zero, check=0)
    assert pods.rkt.pods() == {exited: "exited-garbage", prepared: "prepared", aborted: "garbage"}
    assert f'moving failed prepare "{aborted}" to garbage' in result.stderr
    result = pods.rkt.run("gc", *zero, check=0)
    assert f'moving expired prepared pod "{prepared}" to garbage' in result.stderr
    assert pods.rkt.pods() == {}


def test_gc_waits_for_the_grace_period(pods: StubPods) -> None:
    """A pod marked a moment ago stays with the default grace period, and gc says so."""
    uuid = pods.exited()
    result = pods.rkt.run("gc", check=0)
    assert f'pod "{uuid}" not removed: still within grace period (30m0s)' in result.stderr
    assert pods.rkt.pods() == {uuid: "exited-garbage"}
    assert status(pods, uuid)["state"] == "exited garbage"
    assert "app-app=0\n" in pods.rkt.run("status", uuid, check=0).stdout


def test_gc_after_mounts_vanished(pods: StubPods) -> None:
    """After a reboot, when nothing is mounted any more, gc deletes the pod without an error line (runtime L3, cli P17)."""
    uuid = pods.exited()
    result = pods.rkt.run("gc", "--debug", "--grace-period=0", check=0)
    assert all(uuid in line for line in result.stderr.splitlines()), result
    assert pods.rkt.pods() == {}


def test_gc_takes_down_mounts_that_a_stage1_left(pods: StubPods) -> None:
    """A mount below an exited pod's directory on the host is taken down, not deleted through."""
    uuid = pods.exited()
    kept = f"{pods.rkt.base}/kept"
    os.mkdir(kept)
    with open(f"{kept}/file", "w", encoding="ascii"):
        pass
    point = f"{pods.rkt.pod_path(uuid)}/stage1/rootfs"
    subprocess.run(["mount", "--bind", kept, point], check=True)
    pods.rkt.run("gc", "--grace-period=0", check=0)
    assert pods.rkt.pods() == {}
    assert os.listdir(kept) == ["file"]


def test_concurrent_gcs_and_lists_agree(pods: StubPods) -> None:
    """Several gc and list at once: none fails, everything is collected, list never reports a moving pod as broken."""
    for _ in range(6):
        pods.exited()
    processes = [pods.rkt.popen("gc", "--grace-period=0") for _ in range(3)]
    processes += [pods.rkt.popen("list") for _ in range(6)]
    for process in processes:
        assert process.wait(60) == 0
        assert "error(s) encountered" not in process.stderr_text
    pods.rkt.run("gc", "--grace-period=0", check=0)
    assert pods.rkt.pods() == {}


def test_names(pods: StubPods) -> None:
    """A name is shown, works wherever a UUID does, is refused to a second live pod, and free again afterwards."""
    process, uuid = pods.running("--name=web")
    assert status(pods, "web")["name"] == "web"
    table = [line.split("\t") for line in pods.rkt.run("list", check=0).lines]
    assert (table[0][-1], table[1][-1]) == ("NAME", "web")
    clash = pods.run("--name=web", APP, check=254)
    assert f'pod name "web" is in use by pod "{uuid}"' in clash.stderr
    assert pods.rkt.pods() == {uuid: "run"}
    assert pods.rkt.run("stop", "web", check=0).stdout == f'"{uuid}"\n'
    process.wait(10)
    assert pods.rkt.run("logs", "web", check=0).stdout == "out of app\n"
    other = pods.exited("--name=web")
    assert status(pods, "web")["created"] == status(pods, other)["created"]
    pods.rkt.run("rm", uuid, check=0)
    assert os.readlink(f"{pods.rkt.data}/pods/names/web") == other
    pods.rkt.run("rm", "web", check=0)
    assert os.listdir(f"{pods.rkt.data}/pods/names") == []


@pytest.mark.parametrize("name", ["Web", "a b", "../x", "-web", UNKNOWN, "x" * 64, "a/b"])
def test_bad_names_are_refused_before_a_pod_exists(pods: StubPods, name: str) -> None:
    """A name follows a strict grammar and cannot be taken for a UUID or a path (HH3)."""
    assert "invalid pod name" in pods.run(f"--name={name}", APP, check=254).stderr
    assert pods.rkt.pods() == {}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dns=host", "--dns-search=x"], "Cannot call --dns-opt"),
        (["--dns=nonsense"], "Invalid IP passed to --dns: nonsense"),
        (["--dns-search=a\nnameserver 192.0.2.1"], "invalid value"),
        (["--hosts-entry=1.2.3=x"], "Invalid IP passed to --hosts-entry"),
        (["--net=nowhere"], "stage1: failed to setup network"),
        (["--net=none,none"], 'found duplicate netname "none"'),
        (["--ipc=nonsense"], "--ipc"),
        (["--hostname=a\nb"], "invalid host name"),
        (["--port=web:80", "--net=none"], "--port flag does not work with 'none' networking"),
        (["--set-env=A=1", "--set-env=A=2"], 'key "A" already set'),
        (["--store-only", "--no-store"], "both --store-only and --no-store specified"),
        (["--stage1-path=a", "--stage1-url=b"], "mutually exclusive"),
        (["--stage1-path=a", "--stage1-path=b"], "--stage1-path already used"),
        (["--pull-policy=sometimes"], "--pull-policy"),
    ],
)
def test_bad_flags_are_noticed_before_a_pod_exists(pods: StubPods, flags: list[str], message: str) -> None:
    """A flag that cannot be used ends the command with 254 and no pod."""
    result = pods.rkt.run("run", "--insecure-options=image", *flags, APP, check=254)
    assert message in result.stderr
    assert pods.rkt.pods() == {}


def test_nothing_to_run(pods: StubPods) -> None:
    """Run and prepare without an image say what is missing; an image that is twice the same name of app is refused."""
    for command in ("run", "prepare"):
        result = pods.rkt.run(command, check=254)
        assert "must provide at least one image or specify the pod manifest" in result.stderr
        twice = pods.rkt.run(command, *FLAGS, APP, APP, check=254)
        assert "error: multiple apps with name app" in twice.stderr
    result = pods.run("--interactive", APP, APP, "--name=b", check=254)
    assert "interactive option only supports one image" in result.stderr
    assert pods.rkt.pods() == {}


def test_pod_manifests(pods: StubPods) -> None:
    """A pod manifest is kept byte for byte and conflicts with images and flags that would change it (R1, R25)."""
    path = f"{pods.rkt.base}/manifest.json"
    manifest = {
        "acVersion": "0.8.11",
        "acKind": "PodManifest",
        "apps": [{"name": "mine", "image": {"id": pods.app.key[:30]}}],
    }
    text = json.dumps(manifest, indent=3)
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)
    flag = f"--pod-manifest={path}"
    pods.run("--hostname=exit-6", flag, check=6)
    (uuid,) = pods.rkt.pods("run")
    with open(f"{pods.rkt.pod_path(uuid)}/pod", encoding="ascii") as stream:
        assert stream.read() == text
    assert status(pods, uuid)["app-mine"] == "6"
    for extra in (
        [APP],
        ["--volume=a,kind=empty"],
        ["--port=web:80"],
        ["--inherit-env"],
        ["--set-env=A=1"],
        ["--set-env-file=/dev/null"],
        ["--pull-policy=never"],
        ["--store-only"],
        ["--no-store"],
        ["--mount=volume=a,target=/a"],
    ):
        for command in ("run", "prepare"):
            result = pods.rkt.run(command, *FLAGS, flag, *extra, check=254)
            assert "conflicting flags set with --pod-manifest (see --help)" in result.stderr, extra
    manifest["apps"] = []
    with open(path, "w", encoding="ascii") as stream:
        json.dump(manifest, stream)
    assert "pod must contain at least one application" in pods.run(flag, check=254).stderr
    assert pods.rkt.pods() == {uuid: "run"}


def test_logs(pods: StubPods) -> None:
    """Logs prints each stream where it belongs, of one app or all, the last lines, and with times."""
    put_app(pods.rkt.data, "example.com/other")
    pods.run("--hostname=exit-0", APP, "example.com/other")
    (uuid,) = pods.rkt.pods("run")
    result = pods.rkt.run("logs", uuid, check=0)
    assert sorted(result.lines) == ["[app] out of app", "[other] out of other"]
    assert sorted(result.stderr.splitlines()) == ["[app] err of app", "[other] err of other"]
    one = pods.rkt.run("logs", "--app=other", uuid, check=0)
    assert (one.stdout, one.stderr) == ("out of other\n", "err of other\n")
    last = pods.rkt.run("logs", "--app=app", "--tail=1", "--timestamps", uuid, check=0)
    assert (last.stdout, last.stderr) == ("", "2026-01-02T03:04:05.000000002Z err of app\n")
    assert "no app" in pods.rkt.run("logs", "--app=none", uuid, check=254).stderr


def test_export(pods: StubPods) -> None:
    """Export writes what the pod changed, with the image's manifest, from overlays and from copies (runtime L15, cli P20)."""
    for number, flags in enumerate(([], ["--no-overlay"])):
        uuid = pods.exited(*flags)
        output = f"{pods.rkt.base}/out-{number}.aci"
        pods.rkt.run("export", uuid, output, check=0)
        listed = subprocess.run(
            ["tar", "tzf", output], check=True, capture_output=True, text=True
        ).stdout.split()
        assert listed[0] == "manifest"
        assert "rootfs/written" in listed
        assert "rootfs/bin/app" in listed
        text = subprocess.run(
            ["tar", "xzOf", output, "manifest"], check=True, capture_output=True, text=True
        ).stdout
        assert json.loads(text)["name"] == APP
        assert "target file exists" in pods.rkt.run("export", uuid, output, check=254).stderr
        pods.rkt.run("export", "--overwrite", uuid, output, check=0)
    assert (
        "extension must be .aci" in pods.rkt.run("export", uuid, f"{pods.rkt.base}/x.tar", check=254).stderr
    )
    prepared = pods.prepared()
    refused = pods.rkt.run("export", prepared, f"{pods.rkt.base}/y.aci", check=254)
    assert "pod is not exited. Only exited pods can be exported" in refused.stderr
    assert not os.path.exists(f"{pods.rkt.base}/y.aci")


def test_export_needs_the_app_of_several(pods: StubPods) -> None:
    """With several apps, export wants --app and exports that one."""
    put_app(pods.rkt.data, "example.com/other")
    pods.run("--hostname=exit-0", APP, "example.com/other")
    (uuid,) = pods.rkt.pods("run")
    output = f"{pods.rkt.base}/out.aci"
    assert "rkt export --app= ..." in pods.rkt.run("export", uuid, output, check=254).stderr
    pods.rkt.run("export", "--app=other", uuid, output, check=0)
    text = subprocess.run(
        ["tar", "xzOf", output, "manifest"], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(text)["name"] == "example.com/other"


def test_a_damaged_pod_does_not_hide_the_others(pods: StubPods) -> None:
    """List prints what it can, reports the broken pod on stderr, and ends with 0; gc removes it all the same."""
    good, bad = pods.exited(), pods.exited()
    path = pods.rkt.pod_path(bad)
    os.unlink(f"{path}/summary")
    with open(f"{path}/pod", "w", encoding="ascii") as stream:
        stream.write("{")
    for words in (["list", "--full"], ["list", "--format=json"]):
        result = pods.rkt.run(*words, check=0)
        assert good in result.stdout
        assert result.stderr.startswith("1 error(s) encountered when listing pods:\n")
        assert bad in result.stderr
    pods.rkt.run("gc", "--grace-period=0", check=0)
    assert pods.rkt.pods() == {}


def test_without_a_summary_the_manifests_tell(pods: StubPods) -> None:
    """A pod whose summary is missing or from another version is listed from its manifests, the same way."""
    uuid = pods.exited()
    before = pods.rkt.run("list", "--full", check=0).stdout
    summary = f"{pods.rkt.pod_path(uuid)}/summary"
    os.unlink(summary)
    with open(summary, "w", encoding="ascii") as stream:
        stream.write("rkt.summary\t99\tfuture\n")
    assert pods.rkt.run("list", "--full", check=0).stdout == before
    os.unlink(summary)
    assert pods.rkt.run("list", "--full", check=0).stdout == before


def test_a_name_can_be_taken_over_after_a_kill(pods: StubPods) -> None:
    """The name of a pod whose rkt was killed is free for the next one at once (C5)."""
    process, first = pods.running("--name=web")
    process.kill()
    process.wait(10)
    wait_for(lambda: "state=exited\n" in pods.rkt.run("status", first).stdout, "exited pod")
    second = pods.exited("--name=web")
    assert os.readlink(f"{pods.rkt.data}/pods/names/web") == second


def test_a_half_written_manifest_is_no_error(pods: StubPods) -> None:
    """A pod whose prepare was killed, or is under way, is listed without apps and without complaint."""
    uuid = pods.prepared()
    path = f"{pods.rkt.data}/pods/prepare/{uuid}"
    os.rename(f"{pods.rkt.data}/pods/prepared/{uuid}", path)
    os.unlink(f"{path}/summary")
    with open(f"{path}/pod", "w", encoding="ascii") as stream:
        stream.write('{"acKind"')
    result = pods.rkt.run("list", "--no-legend", check=0)
    assert [cell for cell in result.stdout.rstrip().split("\t") if cell][1:4] == ["-", "-", "aborted prepare"]
    assert result.stderr == ""
    (document,) = json.loads(pods.rkt.run("list", "--format=json", check=0).stdout)
    assert document["state"] == "aborted prepare"
    assert "state=aborted prepare\n" in pods.rkt.run("status", uuid, check=0).stdout
