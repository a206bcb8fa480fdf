# SPDX-License-Identifier: Apache-2.0
"""What stage0 promises stage1 (spec runtime §1.4 to §1.6), seen by a stage1 that is a shell script."""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import image_manifest
from tests.lib.pods import APP, FLAGS, STUB, StubPods, put_app, put_stub, put_tree
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root


@pytest.fixture
def pods(rkt: Rkt) -> StubPods:
    """An engine with the stub stage1 and one app image."""
    return StubPods(rkt)


def test_the_process_becomes_stage1(pods: StubPods) -> None:
    """The pid that was started is stage1's, and its exit status is the command's."""
    process, uuid = pods.running()
    assert pods.rkt.pid(uuid) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143


def test_arguments_come_in_the_order_of_the_contract(pods: StubPods) -> None:
    """Everything the run flags say arrives, in the order stage1 images expect, the UUID last."""
    pods.run(
        "--debug",
        "--net=host",
        "--interactive",
        "--hostname=exit-0",
        "--dns=192.0.2.1",
        "--ipc=private",
        "--insecure-options=image,paths,capabilities,seccomp",
        APP,
    )
    (uuid,) = pods.rkt.pods("run")
    assert pods.report(uuid)["arg"] == [
        "--debug",
        "--net=host",
        "--interactive",
        f"--local-config={pods.rkt.local}",
        "--hostname=exit-0",
        "--dns-conf-mode=resolv=stage0,hosts=default",
        "--disable-capabilities-restriction",
        "--disable-paths",
        "--disable-seccomp",
        "--ipc=private",
        uuid,
    ]


def test_an_old_stage1_gets_only_flags_it_knows(rkt: Rkt) -> None:
    """With interface version 1 newer flags are left out, those that loosen nothing with a warning."""
    put_stub(rkt.data, interface_version=None)
    put_app(rkt.data)
    result = rkt.run(
        "run",
        "--insecure-options=image,paths",
        f"--stage1-name={STUB}",
        "--hostname=exit-3",
        "--ipc=private",
        "--dns=none",
        APP,
        check=0,
    )
    (uuid,) = rkt.pods("run")
    with open(f"{rkt.pod_path(uuid)}/report", encoding="utf-8") as stream:
        arguments = [line[4:-1] for line in stream if line.startswith("arg ")]
    assert arguments == ["--net=none", f"--local-config={rkt.local}", uuid]
    for flag in ("--hostname", "--ipc", "--dns-conf-mode"):
        assert f"warning: {flag} option is not supported by stage1" in result.stderr
    assert "--disable-paths" not in result.stderr


def test_the_lock_is_inherited_and_means_alive(pods: StubPods) -> None:
    """RKT_LOCK_FD is the locked pod directory; the pod is running as long as it is open, exited after."""
    process, uuid = pods.running()
    (lock,) = pods.report(uuid)["lock"]
    assert lock == pods.rkt.pod_path(uuid)
    assert "state=running\n" in pods.rkt.run("status", uuid, check=0).stdout
    process.kill()
    process.wait(10)
    # A helper of the killed script may hold the descriptor a moment longer.
    wait_for(lambda: "state=exited\n" in pods.rkt.run("status", uuid).stdout, "exited pod")


def test_stage1_gets_no_other_descriptor(pods: StubPods) -> None:
    """Besides standard streams and the lock nothing of stage0 is open, also when the caller left something open."""
    read_end, write_end = os.pipe()
    try:
        process = pods.rkt.popen("run", *FLAGS, "--hostname=sleep", APP, pass_fds=())
        pods.rkt.wait_for_pod()
        links = {}
        for fd in os.listdir(f"/proc/{process.pid}/fd"):
            links[int(fd)] = os.readlink(f"/proc/{process.pid}/fd/{fd}")
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    finally:
        os.close(read_end)
        os.close(write_end)
    ours = {fd: link for fd, link in links.items() if fd > 2 and pods.rkt.base in link}
    script = [fd for fd, link in ours.items() if link.endswith("/stage1/rootfs/run")]
    assert len(ours) - len(script) == 1, links


def test_stage1_starts_clean(pods: StubPods) -> None:
    """Umask 022, no ignored signals, the pod directory as working directory, no variable that steers loaders."""
    os.umask(0o077)
    try:
        result = pods.rkt.run(
            "run",
            *FLAGS,
            "--hostname=exit-0",
            APP,
            env={
                "LD_LIBRARY_PATH": "/nowhere",
                "PYTHONPATH": "/nowhere",
                "NOTIFY_SOCKET": "@x",
                "TERM": "vt52",
            },
            check=0,
        )
    finally:
        os.umask(0o022)
    assert result.status == 0
    (uuid,) = pods.rkt.pods("run")
    report = pods.report(uuid)
    assert report["umask"] == ["0022"]
    # Signals 32 and 33 are the C library's own: posix_spawn leaves them ignored, and make(1) starts us by it.
    assert int(report["ignored"][0], 16) & ~(3 << 31) == 0
    assert report["cwd"] == [pods.rkt.pod_path(uuid)]
    names = {line.partition("=")[0] for line in report["env"]}
    assert {"NOTIFY_SOCKET", "TERM", "RKT_LOCK_FD"} <= names
    assert not names & {"LD_LIBRARY_PATH", "PYTHONPATH"}


def test_mounts_are_the_pods_own(pods: StubPods) -> None:
    """Overlays of stage1 and app are mounted nosuid and nodev, in a mount namespace that the host does not see."""
    process, uuid = pods.running()
    path = pods.rkt.pod_path(uuid)
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        assert uuid not in stream.read()
    mounts = [line.split() for line in pods.report(uuid)["mount"] if uuid in line]
    points = {fields[4]: fields for fields in mounts}
    assert set(points) == {f"{path}/stage1/rootfs", f"{path}/stage1/rootfs/opt/stage2/app/rootfs"}
    for fields in points.values():
        assert {"rw", "nosuid", "nodev"} <= set(fields[5].split(","))
        assert "shared:" not in " ".join(fields)
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def test_the_pod_directory_holds_what_the_contract_names(pods: StubPods) -> None:
    """Manifests, tree IDs, markers and the directories stage1 writes to are there before stage1 runs."""
    uuid = pods.exited()
    files = set(pods.report(uuid)["file"])
    assert {
        "./pod",
        "./pod-created",
        "./pod.lck",
        "./summary",
        "./insecure-options",
        "./overlay-prepared",
        "./stage1TreeStoreID",
        "./stage1/manifest",
        "./stage1/verdict",
        "./appsinfo/app/manifest",
        "./appsinfo/app/treeStoreID",
        "./appsinfo/app/verdict",
        "./stage1/rootfs/rkt/status",
        "./stage1/rootfs/opt/stage2/app/manifest",
        "./stage1/rootfs/opt/stage2/app/rootfs/bin/app",
        "./stage1/rootfs/opt/stage2/app/rootfs/etc/mtab",
    } <= files
    assert "./pid" not in files
    path = pods.rkt.pod_path(uuid)
    assert stat.S_IMODE(os.stat(f"{path}/pod").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(f"{path}/overlay").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(f"{path}/overlay/{pods.app.key}").st_mode) == 0o700
    assert os.readlink(f"{path}/overlay/{pods.app.key}/upper/app/etc/mtab") == "../proc/self/mounts"


def test_without_overlay_the_trees_are_copied(pods: StubPods) -> None:
    """--no-overlay gives the same pod from copies, and the store's layer stays as it was."""
    uuid = pods.exited("--no-overlay")
    path = pods.rkt.pod_path(uuid)
    assert not os.path.exists(f"{path}/overlay")
    assert not os.path.exists(f"{path}/overlay-prepared")
    root = f"{path}/stage1/rootfs/opt/stage2/app/rootfs"
    assert os.path.exists(f"{root}/bin/app")
    assert os.path.exists(f"{root}/written")
    layer = f"{pods.rkt.data}/cas/layer/{pods.app.key}/rootfs"
    assert not os.path.exists(f"{layer}/written")
    assert "app-app=0\n" in pods.rkt.run("status", uuid, check=0).stdout


def test_resolver_files_are_written_when_asked_for(pods: StubPods) -> None:
    """--dns and --hosts-entry make the two files in stage1's /etc, in the order of lines the specification gives."""
    pods.run(
        "--hostname=exit-0",
        "--dns=192.0.2.1,2001:db8::1",
        "--dns-search=foo.example",
        "--dns-search=bar.example",
        "--dns-opt=rotate",
        "--dns-domain=example.net",
        "--hosts-entry=192.0.2.9=one,192.0.2.9=two",
        APP,
    )
    (uuid,) = pods.rkt.pods("run")
    etc = f"{pods.rkt.pod_path(uuid)}/overlay/{pods.stage1.key}/upper/etc"
    with open(f"{etc}/rkt-resolv.conf", encoding="utf-8") as stream:
        assert stream.read() == (
            "# Generated by rkt run\n\nsearch foo.example bar.example\nnameserver 192.0.2.1\n"
            "nameserver 2001:db8::1\noptions rotate\ndomain example.net\n"
        )
    with open(f"{etc}/rkt-hosts", encoding="utf-8") as stream:
        hosts = stream.read()
    assert "localhost4.localdomain4 exit-0\n" in hosts
    assert hosts.endswith("# Added by rkt run --hosts-entry\n192.0.2.9 one two\n")


def test_an_image_cannot_lead_stage0_out_of_its_root(pods: StubPods) -> None:
    """An image whose /etc points to a host directory gets no link there (RN6)."""
    victim = f"{pods.rkt.base}/victim"
    os.mkdir(victim)
    put_tree(
        pods.rkt.data,
        image_manifest("example.com/evil"),
        {"bin/app": (b"", 0o755)},
        links={"etc": victim},
    )
    pods.run("--hostname=exit-0", "example.com/evil")
    assert os.listdir(victim) == []


@pytest.mark.parametrize("path", ["relative", "/../../bin/true", "/a//b", "/", "/./run"])
def test_entrypoints_are_plain_absolute_paths(rkt: Rkt, path: str) -> None:
    """A stage1 whose run entrypoint is not a plain absolute path is refused before a pod exists."""
    put_stub(rkt.data, run=path)
    put_app(rkt.data)
    result = rkt.run("run", *FLAGS, APP, check=254)
    assert "not a plain absolute path" in result.stderr
    assert rkt.pods() == {}


def test_enter_gets_pid_and_app(pods: StubPods) -> None:
    """The enter entrypoint runs in the pod directory with the pid, the app, and the words verbatim; its status is ours."""
    process, uuid = pods.running()
    result = pods.rkt.run("enter", uuid, "/bin/x", "--flag", "", "two words", env={"TERM": "vt220"})
    assert result.status == 9
    assert result.lines == [
        f"enter in {pods.rkt.pod_path(uuid)} with TERM=vt220:",
        f"arg --pid={process.pid}",
        "arg --appname=app",
        "arg --",
        "arg /bin/x",
        "arg --flag",
        "arg ",
        "arg two words",
    ]
    shell = pods.rkt.run("enter", uuid)
    assert shell.lines[-1] == "arg /bin/sh"
    assert 'enter: no command specified, assuming "/bin/sh"' in shell.stderr
    assert "with TERM=vt100:" in shell.stdout
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert "isn't currently running" in pods.rkt.run("enter", uuid, check=254).stderr


def test_stop_runs_the_stop_entrypoint(pods: StubPods) -> None:
    """Without a flag the pod may end by itself, with --force it is killed; the UUID is printed quoted."""
    process, uuid = pods.running()
    result = pods.rkt.run("stop", uuid, env=pods.environment, check=0)
    assert result.stdout == f'"{uuid}"\n'
    assert process.wait(10) == 143
    with open(pods.trace, encoding="utf-8") as stream:
        assert stream.read() == f"stop {uuid}\n"
    again = pods.rkt.run("stop", uuid, check=0)
    assert again.stdout == f'pod "{uuid}" is already stopped\n'
    pods.rkt.run("rm", uuid, check=0)
    process, uuid = pods.running()
    pods.rkt.run("stop", "--force", uuid, env=pods.environment, check=0)
    assert process.wait(10) == -signal.SIGKILL


def test_stop_needs_the_entrypoint(rkt: Rkt) -> None:
    """A stage1 without a stop entrypoint gives rkt's message."""
    put_stub(rkt.data, stop=None)
    put_app(rkt.data)
    process = rkt.popen("run", *FLAGS, "--hostname=sleep", APP)
    uuid = rkt.wait_for_pod()
    result = rkt.run("stop", uuid, check=254)
    assert "rkt stop not implemented for pod's stage1" in result.stderr
    assert "failed to stop 1 pod(s)" in result.stderr
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def test_gc_runs_with_stage1s_root_mounted(pods: StubPods) -> None:
    """The gc entrypoint runs in the marked pod's directory, sees stage1's root as the pod left it, and then all is gone."""
    uuid = pods.exited()
    result = pods.rkt.run("gc", "--grace-period=0", env=pods.environment, check=0)
    assert f'gc: moving pod "{uuid}" to garbage' in result.stderr
    assert f'gc: Garbage collecting pod "{uuid}"' in result.stderr
    with open(pods.trace, encoding="utf-8") as stream:
        assert stream.read() == (
            f"gc --local-config={pods.rkt.local} {uuid} "
            f"in {pods.rkt.data}/pods/exited-garbage/{uuid} root app\n"
        )
    assert pods.rkt.pods() == {}


def test_a_failing_gc_entrypoint_does_not_keep_the_pod(rkt: Rkt) -> None:
    """Its failure is reported, the pod is deleted all the same."""
    put_stub(rkt.data, gc="/missing")
    put_app(rkt.data)
    rkt.run("run", *FLAGS, "--hostname=exit-0", APP, check=0)
    result = rkt.run("gc", "--grace-period=0", check=0)
    assert "failed with status 254" in result.stderr
    assert rkt.pods() == {}


def test_running_pods_survive_gc_and_rm(pods: StubPods) -> None:
    """Neither gc nor rm touches a running pod, and neither waits for it."""
    process, uuid = pods.running()
    pods.rkt.run("gc", "--grace-period=0", "--expire-prepared=0", check=0, timeout=20)
    assert f'pod "{uuid}" is currently running' in pods.rkt.run("rm", uuid, check=254).stderr
    assert pods.rkt.pods() == {uuid: "run"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143


def test_wait_ready_and_wait(pods: StubPods) -> None:
    """Status --wait-ready returns once stage1 is up, rkt wait once the pod is over, with its status."""
    process = pods.rkt.popen("run", *FLAGS, "--hostname=sleep", APP)
    uuid = pods.rkt.wait_for_pod()
    pods.rkt.run("status", "--wait-ready=10s", uuid, check=0)
    late = pods.rkt.run("status", "--wait=200ms", uuid, check=254)
    assert "did not end within 200ms" in late.stderr
    waiting = pods.rkt.popen("wait", uuid)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    wait_for(lambda: waiting.poll() is not None, "end of rkt wait")
    assert waiting.returncode == 143
    assert waiting.stdout_text == "143\n"
