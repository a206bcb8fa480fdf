# SPDX-License-Identifier: Apache-2.0
"""Standard streams of apps and ``rkt attach`` (spec runtime §3.9, rows E7 to E9 of §6.9; spec cli §2.26, rows X7 to X9)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.idmap import needs_idmapped_mounts
from tests.lib.images import fetch
from tests.lib.inspect import INSECURE, manifest_app, write_pod_manifest
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for
from tests.lib.terminal import Operator

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [pytest.mark.root, pods("streams")]

TTY = ("--stdin=tty", "--stdout=tty", "--stderr=tty")
STREAMS = ("--stdin=stream", "--stdout=stream", "--stderr=stream")
EXPERIMENT = "coreos.com/rkt/experiment"
#: What row E8 runs: says what its input is, and repeats what it reads.
ASK = (
    "while read word; do test -t 0 && echo stdin is a terminal || echo stdin is not a terminal; "
    "echo got-$word; done"
)


@pytest.fixture(scope="module")
def engine(module_rkt: Rkt, images: Images) -> Engine:
    """An engine for this file, with busybox in its store."""
    return Engine(module_rkt, fetch(module_rkt, images.busybox()))


class Engine:
    """An engine and an image in its store."""

    def __init__(self, rkt: Rkt, image: str) -> None:
        self.rkt = rkt
        self.image = image

    def run(self, script: str, *flags: str, before: tuple[str, ...] = ()) -> Pod:
        """A running pod of one app."""
        known = set(self.rkt.pods("run"))
        words = (*before, self.image, "--name=app", *flags, "--exec=/bin/sh", "--", "-c", script)
        process = self.rkt.popen("run", INSECURE, *words)
        return Pod(self.rkt, process, self.new(known, process))

    def sandbox(self, script: str, *flags: str, before: tuple[str, ...] = ()) -> Pod:
        """A sandbox with one app that runs."""
        known = set(self.rkt.pods("run"))
        process = self.rkt.popen("app", "sandbox", INSECURE, *before)
        pod = Pod(self.rkt, process, self.new(known, process))
        words = ("--name=app", *flags, "--exec=/bin/sh", "--", "-c", script)
        self.rkt.run("app", "add", INSECURE, pod.uuid, self.image, *words, check=0)
        self.rkt.run("app", "start", pod.uuid, "--app=app", check=0)
        return pod

    def start(self, way: str, script: str, *flags: str, before: tuple[str, ...] = ()) -> Pod:
        """Either."""
        return (self.run if way == "run" else self.sandbox)(script, *flags, before=before)

    def new(self, known: set[str], process: Running) -> str:
        """UUID of the pod that a process has made and runs."""

        def ready() -> str | None:
            assert process.poll() is None, process.texts()
            for uuid in set(self.rkt.pods("run")) - known:
                if os.path.exists(f"{self.rkt.pod_path(uuid)}/pid"):
                    return uuid
            return None

        return wait_for(ready, "a running pod")


class Pod:
    """A running pod."""

    def __init__(self, rkt: Rkt, process: Running, uuid: str) -> None:
        self.rkt = rkt
        self.process = process
        self.uuid = uuid

    @property
    def directory(self) -> str:
        """Of the app's endpoints."""
        return f"{self.rkt.pod_path(self.uuid)}/iottymux/app"

    def first_process(self) -> str:
        """Of the pod, as its directory says; empty while it does not."""
        try:
            with open(f"{self.rkt.pod_path(self.uuid)}/pid", encoding="ascii") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""

    def attach(self, *flags: str) -> Operator:
        """Somebody at a terminal of 30 lines and 100 columns who has attached."""
        operator = Operator(self.rkt, "attach", *flags, self.uuid, size=(30, 100))
        wait_for(operator.is_raw, "attached terminal")
        return operator

    def pipe(self, *flags: str, text: str | None = None) -> Running:
        """A client without a terminal that has attached."""
        process = self.rkt.popen("attach", *flags, self.uuid, stdin_text=text)
        wait_for(lambda: process.poll() is not None or _sockets(process.pid) > 1, "client")
        return process

    @staticmethod
    def wait_said(client: Running, text: str) -> None:
        """Wait until a client has got a text on its standard output."""
        wait_for(lambda: text in client.stdout_text, f"{text!r}")

    def listed(self) -> list[str]:
        """Names of the endpoints."""
        text = self.rkt.run("attach", "--mode=list", self.uuid, check=0).stdout
        return [target["name"] for target in json.loads(text)["targets"]]

    def logged(self) -> list[str]:
        """Lines of the app's log."""
        return self.rkt.run("logs", self.uuid, check=0).stdout.replace("\r", "").splitlines()

    def has_said(self, line: str, times: int) -> bool:
        """Whether a line stands that often in the log."""
        return self.logged().count(line) == times

    def kill(self) -> None:
        """Kill the supervisor; the pod counts as running until the last of its processes is gone."""
        self.process.kill()
        self.process.wait(10)
        wait_for(lambda: "state=exited" in self.rkt.run("status", self.uuid).lines, "the end of the pod")

    def stop(self) -> None:
        """It is still running, and stop ends it with status 0."""
        assert self.process.poll() is None, self.process.texts()
        self.rkt.run("stop", self.uuid, check=0)
        assert self.process.wait(20) == 0, self.process.texts()


def _sockets(pid: int) -> int:
    """How many sockets a process has open."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            count += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return count


@pytest.mark.parametrize("way", ["run", "sandbox"])
def test_a_terminal(engine: Engine, way: str) -> None:
    """What is typed reaches an app whose streams are a terminal, what it says is shown and logged; detaching leaves it alone (runtime E8, cli X8)."""
    pod = engine.start(way, ASK, *TTY)
    operator = pod.attach()
    operator.type("Saluton\r")
    operator.until("stdin is a terminal\r\ngot-Saluton\r\n")
    operator.type("\x10\x11")
    assert operator.status() == 0
    assert b"detached from app 'app', which goes on" in operator.shown
    wait_for(lambda: "got-Saluton" in pod.logged(), "log")
    assert "Saluton" not in pod.process.texts()[0]
    again = pod.attach()
    again.type("denove\r")
    again.until("got-denove")
    pod.stop()
    assert again.status() == 0


@pytest.mark.parametrize("way", ["run", "sandbox"])
def test_streams(engine: Engine, way: str) -> None:
    """Lines reach an app whose streams are streams and come back, on the client's own stdout and stderr (runtime E8, cli X8)."""
    pod = engine.start(way, f"exec 3>&2; {ASK.replace('echo got', 'echo err >&2; echo got')}", *STREAMS)
    client = pod.pipe(text="Saluton\nsen fino")
    pod.wait_said(client, "got-sen fino\n")
    wait_for(lambda: client.texts()[1].count("\n") == 2, "two lines on the other stream")
    assert client.texts() == (
        "stdin is not a terminal\ngot-Saluton\nstdin is not a terminal\ngot-sen fino\n",
        "err\nerr\n",
    )
    assert client.poll() is None
    client.send_signal(signal.SIGINT)
    assert client.wait(10) == 130
    assert "Saluton" not in pod.process.texts()[0]
    client = pod.pipe()
    pod.stop()
    assert client.wait(10) == 0
    assert pod.logged()[:2] == ["stdin is not a terminal", "got-Saluton"]


def test_states_of_an_app_with_streams(engine: Engine) -> None:
    """An app is started, attached to, stopped, started and stopped again: its states follow, and attaching ends with it (runtime E9, cli X9)."""
    pod = engine.sandbox(ASK, *STREAMS)

    def states() -> str:
        return pod.rkt.run("app", "list", "--no-legend", pod.uuid, check=0).stdout

    for turn in range(2):
        assert states() == "app\trunning\n"
        client = pod.pipe(text=f"{turn}\n")
        pod.wait_said(client, f"got-{turn}\n")
        pod.rkt.run("app", "stop", pod.uuid, "--app=app", check=0)
        assert client.wait(10) == 0
        assert states() == "app\texited\n"
        assert not os.path.exists(pod.directory)
        refused = pod.rkt.run("attach", pod.uuid, check=254)
        assert "app 'app' is not running" in refused.stderr
        if turn == 0:
            pod.rkt.run("app", "start", pod.uuid, "--app=app", check=0)
    pod.stop()


def plain_manifest(engine: Engine, directory: str, script: str, annotations: dict[str, str]) -> str:
    """Path of a pod manifest of one app, with plain logs in a directory."""
    image_id = json.loads(engine.rkt.run("image", "list", "--format=json", check=0).stdout)[0]["id"]
    entry = {"annotations": [{"name": name, "value": value} for name, value in annotations.items()]}
    mode = {f"{EXPERIMENT}/logmode": "k8s-plain", f"{EXPERIMENT}/kubernetes-log-dir": directory}
    return write_pod_manifest(
        f"{directory}.json",
        [manifest_app(image_id, "app", script, entry=entry)],
        annotations=[{"name": name, "value": value} for name, value in mode.items()],
    )


@pytest.mark.parametrize("way", ["run", "sandbox"])
def test_plain_logs(engine: Engine, way: str) -> None:
    """With the log mode's annotations each line stands in the named file, after time and stream; a new start empties it (runtime E7, cli X7)."""
    directory = os.path.join(engine.rkt.base, f"plain-{way}")
    os.mkdir(directory)
    mode = {f"{EXPERIMENT}/logmode": "k8s-plain", f"{EXPERIMENT}/kubernetes-log-dir": directory}
    path = f"--annotation={EXPERIMENT}/kubernetes-log-path=hello_0.log"
    script = "echo HelloFromAppInSandbox; echo oj >&2; exec sleep 100"
    if way == "sandbox":
        before = tuple(f"--annotation={name}={value}" for name, value in mode.items())
        pod = engine.sandbox(script, *STREAMS, path, before=before)
    else:
        annotations = {f"{EXPERIMENT}/kubernetes-log-path": "hello_0.log"}
        annotations |= {f"coreos.com/rkt/stage2/{name}": "stream" for name in ("stdin", "stdout", "stderr")}
        manifest = plain_manifest(engine, directory, script, annotations)
        known = set(engine.rkt.pods("run"))
        process = engine.rkt.popen("run", INSECURE, f"--pod-manifest={manifest}")
        pod = Pod(engine.rkt, process, engine.new(known, process))

    def lines() -> list[str]:
        with open(f"{directory}/hello_0.log", encoding="ascii") as stream:
            return [line.split(" ", 1)[1] for line in stream]

    wait_for(lambda: len(lines()) == 2, "log")
    assert sorted(lines()) == ["stderr oj\n", "stdout HelloFromAppInSandbox\n"]
    with open(f"{directory}/hello_0.log", encoding="ascii") as stream:
        stamp = stream.readline().split(" ")[0]
    assert len(stamp) == len("2026-01-31T12:00:00.123456789Z")
    assert stamp.endswith("Z")
    if way == "sandbox":
        pod.rkt.run("app", "stop", pod.uuid, "--app=app", check=0)
        pod.rkt.run("app", "start", pod.uuid, "--app=app", check=0)
        wait_for(lambda: len(lines()) == 2, "log of the second start")
    pod.stop()


@pytest.mark.parametrize("path", ["../out.log", "/etc/passwd", "a/b", "..", "a/../../b"])
def test_a_log_path_is_one_component(engine: Engine, path: str) -> None:
    """A log path that leads anywhere but into the log directory is refused before there is a pod (runtime E7, §7.3)."""
    before = set(engine.rkt.pods())
    annotation = f"--annotation=coreos.com/rkt/experiment/kubernetes-log-path={path}"
    refused = engine.rkt.run("prepare", INSECURE, engine.image, annotation, check=254)
    assert "log path is not inside /rkt/kubernetes/log, refusing path traversal" in refused.stderr
    assert set(engine.rkt.pods()) == before


@pytest.mark.parametrize("way", ["run", "sandbox"])
def test_two_clients_and_a_resize(engine: Engine, way: str) -> None:
    """Of two terminals attached to one app each sees everything, and the app's has the size that was set last by one that is still there."""
    script = "trap 'stty size' WINCH; stty size; while :; do read word && echo got-$word; done"
    pod = engine.start(way, script, *TTY)
    one = pod.attach()
    one.until("30 100\r\n")
    two = pod.attach()
    # Told of the new size the app stops reading for a moment.
    two.until("30 100\r\n")
    one.type("Saluton\r")
    for operator in (one, two):
        operator.until("got-Saluton\r\n")
    two.resize(50, 132)
    for operator in (one, two):
        operator.until("50 132\r\n")
    one.resize(20, 60)
    two.until("20 60\r\n")
    two.resize(40, 90)
    one.until("40 90\r\n")
    one.shown = b""
    two.type("\x10\x11")
    assert two.status() == 0
    one.until("20 60\r\n")
    one.type("sola\r")
    one.until("got-sola")
    pod.stop()
    assert one.status() == 0


@pytest.mark.representative
def test_a_terminal_of_the_same_size_makes_the_app_draw_anew(engine: Engine) -> None:
    """Attaching is told to the app even when the size stays the same, so that programs with a screen draw it."""
    pod = engine.run("trap 'echo drawn' WINCH; while :; do read word; done", *TTY)
    for _ in range(2):
        operator = pod.attach()
        operator.until("drawn")
        operator.type("\x10\x11")
        assert operator.status() == 0
    pod.stop()


@pytest.mark.parametrize(
    ("flags", "keys", "passed", "left"),
    [
        ((), "\x10x\x10\x10\x11", "\x10x\x10", "\x11"),
        (("--detach-keys=ctrl-a,ctrl-a,d",), "\x01b\x01\x01\x01d", "\x01b\x01", "d"),
        (("--detach-keys=~,.",), "a~b~~.", "a~b~", "."),
    ],
)
def test_detach_keys(engine: Engine, flags: tuple[str, ...], keys: str, passed: str, left: str) -> None:
    """The detach keys end attaching and do not reach the app; what only looks like their beginning does."""
    pod = engine.run("stty raw -echo; echo ready; exec cat", *TTY)
    wait_for(pod.logged, "raw terminal")
    operator = pod.attach(*flags)
    # What is held back until the next key has decided about it comes last.
    operator.type(keys[: -len(left)])
    operator.until(passed)
    operator.type(left)
    assert operator.status() == 0
    assert operator.shown.partition(b"\r\nattach: detached")[0] == passed.encode()
    pod.stop()


def test_no_detach_keys(engine: Engine) -> None:
    """Without detach keys every key is the app's."""
    pod = engine.run("stty raw -echo; echo ready; exec head -c 2", *TTY)
    wait_for(pod.logged, "raw terminal")
    operator = pod.attach("--detach-keys=")
    operator.type("\x10\x11")
    assert operator.status() == 0
    assert operator.shown == b"\x10\x11"
    assert pod.process.wait(10) == 0


def test_the_terminal_gets_its_modes_back(engine: Engine) -> None:
    """However attaching ends, by the keys, by a signal or by the app, the operator's terminal is as it was."""
    pod = engine.run(ASK, *TTY)
    for way in ("keys", "signal", "app"):
        script = '"$@"; echo status $?; stty -a | grep -q " icanon" && echo cooked'
        operator = Operator.of(
            engine.rkt, "/bin/sh", "-c", script, "sh", *engine.rkt.command("attach", pod.uuid)
        )
        wait_for(operator.is_raw, "attached terminal")
        if way == "keys":
            operator.type("\x10\x11")
            operator.until("status 0")
        elif way == "signal":
            (client,) = _children(operator.pid)
            os.kill(client, signal.SIGTERM)
            operator.until("status 143")
        else:
            operator.type("\x04")
            operator.until("status 0")
        operator.until("cooked")
        operator.status()
    assert pod.process.wait(10) == 0


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]


def test_a_client_of_a_stream_that_does_not_read(engine: Engine) -> None:
    """It is hung up on and told so; the app, the log and another client go on as if it were not there."""
    count, bulk = 10_000, "x" * 400
    pod = engine.run(
        f"read go; awk 'BEGIN {{ for (i = 0; i < {count}; i++) print i, \"{bulk}\" }}'; exec sleep 100",
        *STREAMS,
    )
    good = pod.pipe("--mode=stdout")
    bad = pod.pipe("--mode=stdout")
    os.kill(bad.pid, signal.SIGSTOP)
    pod.pipe("--mode=stdin", text="go\n")
    wait_for(lambda: good.texts()[0].count("\n") == count or None, "all lines")
    assert [line.split(" ")[0] for line in good.texts()[0].splitlines()] == [str(i) for i in range(count)]
    os.kill(bad.pid, signal.SIGCONT)
    assert bad.wait(20) == 254
    assert "app 'app' wrote faster than this was read, so it was detached" in bad.texts()[1]
    assert len(pod.logged()) == count
    pod.stop()
    assert good.wait(10) == 0


def test_a_client_of_a_terminal_that_does_not_read(engine: Engine) -> None:
    """It misses what is old and stays attached; the app goes on as if it were not there."""
    script = (
        "trap 'echo drawn' WINCH; stty -echo; until read go; do :; done; seq 1 100000; echo end; "
        "while :; do read word && echo got-$word; done"
    )
    pod = engine.run(script, *TTY)
    operator = pod.attach()
    operator.until("drawn")
    operator.type("go\r")
    wait_for(lambda: "end\r\n" in pod.rkt.run("logs", "--tail=3", pod.uuid).stdout, "end of the output")
    operator.shown = b""
    operator.until("end\r\n")
    operator.until("drawn\r\n")
    assert operator.shown.count(b"\n") < 100_000
    operator.type("Saluton\r")
    operator.until("got-Saluton")
    pod.stop()


def test_a_client_that_dies(engine: Engine) -> None:
    """SIGKILL of a client is nothing to the app or to the other client."""
    pod = engine.run(ASK, *TTY)
    one, two = pod.attach(), pod.attach()
    os.kill(one.pid, signal.SIGKILL)
    assert one.status() == -signal.SIGKILL
    two.type("Saluton\r")
    two.until("got-Saluton")
    pod.stop()


def test_a_client_whose_terminal_takes_nothing(engine: Engine) -> None:
    """A signal ends a client also while it waits for its own terminal."""
    pod = engine.run("read go; yes 0123456789", *TTY)
    operator = pod.attach()
    operator.type("go\r")
    wait_for(lambda: _is_asleep_writing(operator.pid), "full terminal")
    os.kill(operator.pid, signal.SIGTERM)
    wait_for(lambda: not operator.is_raw(), "modes")
    assert operator.status() == 143
    pod.stop()


def _is_asleep_writing(pid: int) -> bool:
    """Whether a process waits in write(2)."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as stream:
        return stream.read().startswith("1 ")


def test_an_app_that_does_not_read(engine: Engine) -> None:
    """What is typed into an app that reads nothing waits, within bounds, and disturbs nobody."""
    pod = engine.run("exec sleep 100", *STREAMS)
    client = engine.rkt.popen("attach", "--mode=stdin", pod.uuid, stdin_text="x" * 79 + "\n" * 20_000)
    time.sleep(0.2)
    assert pod.listed() == ["stdin", "stdout", "stderr"]
    pod.stop()
    assert client.wait(10) in {0, 254}


def test_the_creator_is_gone(engine: Engine) -> None:
    """A pod whose creator and console are gone can be attached to like any other."""
    words = (engine.image, "--name=app", *TTY, "--exec=/bin/sh", "--", "-c", ASK)
    command = engine.rkt.command("run", INSECURE, *words)
    script = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    null = subprocess.DEVNULL
    known = set(engine.rkt.pods("run"))
    subprocess.run(
        [sys.executable, "-c", script, *command], check=True, stdin=null, stdout=null, stderr=null, timeout=20
    )
    uuid = wait_for(lambda: next(iter(set(engine.rkt.pods("run")) - known), None), "a pod")
    operator = Operator(engine.rkt, "attach", uuid)
    wait_for(operator.is_raw, "attached terminal")
    operator.type("Saluton\r")
    operator.until("got-Saluton")
    engine.rkt.run("stop", uuid, check=0)
    assert operator.status() == 0


def test_an_app_that_lets_go_of_its_terminal(engine: Engine) -> None:
    """An app that closes its terminal goes on, and what it says when it opens it again is heard."""
    pod = engine.run(
        "exec < /dev/null > /dev/null 2>&1; sleep 0.3; echo again > /dev/tty; exec sleep 100", *TTY
    )
    operator = pod.attach()
    wait_for(partial(pod.has_said, "again", 1), "the line")
    pod.stop()
    assert operator.status() == 0


def test_the_log_of_a_terminal_at_a_terminal(engine: Engine) -> None:
    """Rkt logs shows lines of an app's terminal as lines at the operator's, and their bytes as they were elsewhere."""
    pod = engine.run("echo one; printf 'two\\033[1m\\r\\r\\n'; exec sleep 100", *TTY)
    wait_for(lambda: "two" in pod.rkt.run("logs", pod.uuid).stdout, "two lines")
    assert pod.rkt.run("logs", pod.uuid).stdout == "one\r\ntwo\x1b[1m\r\r\r\n"
    operator = Operator(engine.rkt, "logs", pod.uuid)
    assert operator.status() == 0
    assert operator.shown == b"one\r\ntwo\\x1b[1m\\x0d\\x0d\r\n"
    pod.stop()


def test_an_app_that_is_started_again(engine: Engine) -> None:
    """When a restart policy starts an app again, attaching to the first one has ended, and the next can be attached to."""
    pod = engine.run("echo ready; read word; echo got-$word; exit 3", *TTY, "--restart=on-failure:1")
    for count, word in enumerate(("unu", "du"), 1):
        wait_for(partial(pod.has_said, "ready", count), "start")
        operator = pod.attach()
        operator.type(f"{word}\r")
        assert operator.status() == 0
        assert f"got-{word}\r\n".encode() in operator.shown
    assert pod.process.wait(20) == 3


def test_clients_leave_nothing_behind(engine: Engine) -> None:
    """Clients that come, set a size and go leave no descriptor in the supervisor (invariant AP2)."""
    pod = engine.run("exec sleep 100", *TTY)
    table = f"/proc/{pod.process.pid}/fd"
    before = sorted(os.readlink(f"{table}/{name}").partition(":")[0] for name in os.listdir(table))
    for _ in range(40):
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link,
            socket.socket(socket.AF_UNIX) as client,
        ):
            for connection, path in ((link, "../../control"), (client, "sock-tty")):
                connection.settimeout(10 * SLOWNESS)
                connection.connect(f"{pod.directory}/{path}")
            client.sendall(b"x")
            link.sendall(b'{"op":"attach-size","app":"app","rows":10,"columns":20}')
            assert json.loads(link.recv(4096)) == {"ok": True}
            link.sendall(b'{"op":"attach-size","app":"app","rows":-1,"columns":"x"}')
            assert json.loads(link.recv(4096))["ok"] is False
    # It may have had more while the pod started.
    wait_for(lambda: len(os.listdir(table)) <= len(before), f"end of all clients, as before: {before}")
    pod.stop()


def test_keys_are_not_lost(engine: Engine) -> None:
    """Much more than a terminal holds, typed at once, reaches an app that reads slowly, byte for byte."""
    text = "".join(f"{number}\n" for number in range(30_000))
    script = f"stty raw -echo; echo ready; sleep 0.3; head -c {len(text)} | md5sum"
    pod = engine.run(script, *TTY)
    wait_for(pod.logged, "raw terminal")
    client = engine.rkt.popen("attach", "--mode=tty-in", pod.uuid, stdin_text=text)
    assert pod.process.wait(20) == 0
    assert client.wait(10) == 0
    assert pod.logged()[1].split()[0] == hashlib.md5(text.encode()).hexdigest()


def test_a_supervisor_that_was_killed(engine: Engine) -> None:
    """With SIGKILL of the supervisor attaching ends and there is nothing to attach to, until the pod is started once more."""
    pod = engine.run(ASK, *STREAMS)
    client = pod.pipe(text="Bonan\n")
    pod.wait_said(client, "got-Bonan\n")
    pod.kill()
    assert client.wait(10) == 0
    assert f'pod "{pod.uuid}" isn\'t currently running' in pod.rkt.run("attach", pod.uuid, check=254).stderr
    assert os.path.exists(f"{pod.directory}/sock-stdin")
    refused = engine.rkt.run("start", "--interactive", pod.uuid, check=254)
    assert "--interactive gives an app the caller's terminal" in refused.stderr
    old = pod.first_process()
    assert old
    pod.process = engine.rkt.popen("start", pod.uuid)
    wait_for(lambda: pod.first_process() not in {"", old}, "a running pod")
    client = pod.pipe(text="Saluton\n")
    pod.wait_said(client, "got-Saluton\n")
    pod.kill()
    engine.rkt.run("rm", pod.uuid, check=0)
    assert pod.uuid not in engine.rkt.pods()


def test_names_and_several_apps(engine: Engine) -> None:
    """A pod is attached to by its name, and of several apps one has to be named; names may be longer than a socket's can be."""
    long = "a" * 120
    words = (engine.image, f"--name={long}", "--stdout=stream", "--exec=/bin/sleep", "--", "100", "---")
    more = (engine.image, "--name=b", "--exec=/bin/sleep", "--", "100")
    known = set(engine.rkt.pods("run"))
    process = engine.rkt.popen("run", INSECURE, "--name=shop", *words, *more)
    pod = Pod(engine.rkt, process, engine.new(known, process))
    refused = engine.rkt.run("attach", "shop", check=254)
    assert f"pod contains multiple apps: {long}, b" in refused.stderr
    assert 'specify app using "rkt attach --app= ..."' in refused.stderr
    assert 'no app "c"' in engine.rkt.run("attach", "--app=c", "shop", check=254).stderr
    client = pod.pipe(f"--app={long}")
    pod.stop()
    assert client.wait(10) == 0


def test_endpoints_for_other_programs(engine: Engine) -> None:
    """--mode=list and the file ``endpoints`` name sockets of root's, for 32 clients each, with nothing but the app's bytes on them."""
    pod = engine.run(ASK, *STREAMS)
    listed = pod.rkt.run("attach", "--mode=list", pod.uuid, check=0).stdout
    with open(f"{pod.directory}/endpoints", encoding="ascii") as stream:
        assert json.load(stream) == json.loads(listed)
    assert listed.startswith('{\n\t"version": 1,\n')
    addresses = {target["name"]: target["address"] for target in json.loads(listed)["targets"]}
    assert list(addresses) == ["stdin", "stdout", "stderr"]
    assert os.stat(pod.directory).st_mode & 0o777 == 0o700
    assert os.stat(os.path.dirname(pod.directory)).st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as stdin, socket.socket(socket.AF_UNIX) as stdout:
        for connection, name in ((stdin, "stdin"), (stdout, "stdout")):
            assert os.stat(addresses[name]).st_mode & 0o777 == 0o600
            connection.settimeout(10 * SLOWNESS)
            connection.connect(addresses[name])
        stdin.sendall(b"Saluton\n")
        received = b""
        while b"got-Saluton\n" not in received:
            received += stdout.recv(4096)
        assert received == b"stdin is not a terminal\ngot-Saluton\n"
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(32)]
            for other in others:
                other.settimeout(10 * SLOWNESS)
                other.connect(addresses["stdout"])
            assert others[-1].recv(4096) == b"", "a client too many was not hung up on"
            refused = engine.rkt.run("attach", "--mode=stdout", pod.uuid, check=254)
            assert "app 'app' has too many clients already" in refused.stderr
        pod.stop()
        assert stdout.recv(4096) == b""


def test_lines_of_several_clients_stay_whole(engine: Engine) -> None:
    """A client's line reaches the app in one piece, whatever others send meanwhile; one who comes in the middle of a line gets all of it."""
    pod = engine.run("printf prompt-; while read word; do echo got-$word; done", *STREAMS)
    addresses = {n: f"{pod.directory}/sock-{n}" for n in ("stdin", "stdout")}
    wait_for(lambda: os.path.getsize(f"{pod.rkt.pod_path(pod.uuid)}/logs/app.log") == 0, "start")
    one, two, out = (socket.socket(socket.AF_UNIX) for _ in range(3))
    with one, two, out:
        for connection, name in ((one, "stdin"), (two, "stdin"), (out, "stdout")):
            connection.settimeout(10 * SLOWNESS)
            connection.connect(addresses[name])
        assert out.recv(4096) == b"prompt-"
        one.sendall(b"first ")
        two.sendall(b"second\n")
        assert out.recv(4096) == b"got-second\n"
        one.sendall(b"line\n")
        assert out.recv(4096) == b"got-first line\n"
    pod.stop()


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("foo", 'invalid attach mode: unknown endpoint "foo"'),
        ("stdin,\x1b[2J", 'invalid attach mode: unknown endpoint "\\x1b[2J"'),
        ("", "invalid attach mode: mode must specify at least one endpoint to attach"),
        (
            "stdin,tty-out",
            'invalid attach mode: incompatible endpoints "stdin,tty-out", cannot simultaneously attach TTY and streams',
        ),
    ],
)
def test_modes_that_are_none(engine: Engine, mode: str, text: str) -> None:
    """A mode that cannot be is refused with rkt's words (runtime §3.9)."""
    assert text in engine.rkt.run("attach", f"--mode={mode}", "00000000", check=254).stderr


def test_what_an_app_does_not_offer(engine: Engine) -> None:
    """Attaching to nothing, to what an app lacks, or to a pod that is over is refused, saying what there is instead."""
    pod = engine.run("exec sleep 100")
    assert pod.listed() == []
    refused = pod.rkt.run("attach", pod.uuid, check=254)
    assert "app 'app' has nothing to attach to" in refused.stderr
    assert "hint: rkt run IMAGE --stdin=tty" in refused.stderr
    pod.stop()
    assert f'pod "{pod.uuid}" isn\'t currently running' in pod.rkt.run("attach", pod.uuid, check=254).stderr
    pod = engine.run("exec sleep 100", "--stdout=stream")
    refused = pod.rkt.run("attach", "--mode=stdin", pod.uuid, check=254)
    assert "app 'app' does not offer stdin" in refused.stderr
    assert "hint: --mode=stdout" in refused.stderr
    pod.stop()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--stdin=log",), 'invalid value "log" for --stdin: null, stream or tty is expected'),
        (("--stdout=foo",), 'invalid value "foo" for --stdout: log, null, stream or tty is expected'),
        (("--stdin=tty", "--stdout=stream"), "cannot have a terminal and streams at the same time"),
        (
            ("--annotation=coreos.com/rkt/stage2/stdin=x",),
            'invalid mode "x": null, stream or tty is expected',
        ),
    ],
)
def test_modes_of_streams_that_are_none(engine: Engine, flags: tuple[str, ...], text: str) -> None:
    """What cannot be is refused before there is a pod."""
    before = set(engine.rkt.pods())
    assert text in engine.rkt.run("prepare", INSECURE, engine.image, *flags, check=254).stderr
    assert set(engine.rkt.pods()) == before


def test_modes_are_recorded_as_annotations(engine: Engine) -> None:
    """The modes of a prepared app stand in the pod manifest under rkt's names, and count when the pod runs."""
    script = "test -t 0 && echo in; test -t 1 && echo out; test -t 2 || echo err >&2; read word; exit 3"
    flags = ("--name=app", "--stdin=tty", "--stdout=tty", "--exec=/bin/sh")
    words = (INSECURE, engine.image, *flags, "--", "-c", script)
    uuid = engine.rkt.run("prepare", *words, check=0).stdout.strip()
    manifest = json.loads(engine.rkt.run("cat-manifest", uuid, check=0).stdout)
    assert {each["name"]: each["value"] for each in manifest["apps"][0]["annotations"]} == {
        "coreos.com/rkt/stage2/stdin": "tty",
        "coreos.com/rkt/stage2/stdout": "tty",
    }
    process = engine.rkt.popen("run-prepared", uuid)
    wait_for(lambda: "err\n" in process.texts()[1] or None, "error stream")
    operator = Operator(engine.rkt, "attach", uuid)
    wait_for(operator.is_raw, "attached terminal")
    operator.type("end\r")
    assert operator.status() == 0
    assert process.wait(10) == 3
    assert engine.rkt.run("logs", uuid, check=0).stdout.replace("\r", "").splitlines()[:2] == ["in", "out"]


def test_output_that_goes_nowhere(engine: Engine) -> None:
    """--stdout=null: neither the console nor the log has it, and --stderr=log still does."""
    script = "echo lost; echo kept >&2; exec 3>&1; readlink /proc/$$/fd/3 >&2"
    result = engine.rkt.run(
        "run", INSECURE, engine.image, "--stdout=null", "--exec=/bin/sh", "--", "-c", script, check=0
    )
    assert result.stdout == ""
    assert "kept\n/dev/null\n" in result.stderr


@pytest.mark.parametrize("before", [(), pytest.param(("--private-users",), marks=needs_idmapped_mounts)])
@pytest.mark.parametrize("modes", [TTY, STREAMS])
def test_users_and_their_streams(engine: Engine, modes: tuple[str, ...], before: tuple[str, ...]) -> None:
    """An app of another user can open its own streams again by name, in a user namespace too."""
    script = "read a; exec < /dev/stdin; echo again > /dev/stdout; read b; echo $a-$b; id -u"
    pod = engine.run(script, *modes, "--user=1000", "--group=1000", before=before)
    client = pod.pipe(text="1\n2\n")
    assert pod.process.wait(10) == 0, pod.process.texts()
    assert client.wait(10) == 0
    assert [line for line in pod.logged() if line not in {"1", "2"}] == ["again", "1-2", "1000"]


def test_the_operators_terminal_and_another(engine: Engine) -> None:
    """Who attaches to an app of rkt run --interactive with a terminal sees and types what the operator does; the size is the last one's."""
    words = ("run", INSECURE, "--interactive", engine.image, "--name=app", *TTY, "--exec=/bin/sh")
    script = "trap 'stty size' WINCH; echo ready; while :; do read word && echo got-$word; done"
    known = set(engine.rkt.pods("run"))
    operator = Operator(engine.rkt, *words, "--", "-c", script, size=(24, 70))
    operator.until("ready")
    (uuid,) = set(engine.rkt.pods("run")) - known
    other = Operator(engine.rkt, "attach", uuid, size=(30, 100))
    wait_for(other.is_raw, "attached terminal")
    operator.until("30 100")
    other.type("Saluton\r")
    for each in (operator, other):
        each.until("got-Saluton")
    operator.type("denove\r")
    for each in (operator, other):
        each.until("got-denove")
    other.type("\x10\x11")
    assert other.status() == 0
    operator.until("24 70")
    operator.type("\x1d\x1d\x1d")
    assert operator.status() == 0


def test_interactive_and_streams_exclude_each_other(engine: Engine) -> None:
    """--interactive gives the app the caller's terminal: other modes are refused, before there is a pod."""
    before = set(engine.rkt.pods())
    words = ("run", INSECURE, "--interactive", engine.image)
    refused = engine.rkt.run(*words, "--stdout=stream", check=254)
    assert "--interactive gives an app the caller's terminal" in refused.stderr
    refused = engine.rkt.run(*words, *TTY, check=254)
    assert "is to have the caller's terminal, and standard input is none" in refused.stderr
    for flags in (STREAMS, ("--restart=always",)):
        uuid = engine.rkt.run("prepare", INSECURE, engine.image, *flags, check=0).stdout.strip()
        refused = engine.rkt.run("run-prepared", "--interactive", uuid, check=254)
        assert "--interactive" in refused.stderr
        assert engine.rkt.pods()[uuid] == "prepared"
        engine.rkt.run("rm", uuid, check=0)
    assert set(engine.rkt.pods()) == before


def test_interactive_with_a_plain_log(engine: Engine) -> None:
    """A plain log changes nothing of --interactive: what is piped in reaches the app, and the log has what it says."""
    directory = os.path.join(engine.rkt.base, "plain-interactive")
    os.mkdir(directory)
    manifest = plain_manifest(
        engine, directory, "echo ready; cat", {f"{EXPERIMENT}/kubernetes-log-path": "x.log"}
    )
    words = ("run", INSECURE, "--interactive", f"--pod-manifest={manifest}")
    assert engine.rkt.run(*words, input="typed\n", check=0).stdout == "ready\ntyped\n"
    with open(f"{directory}/x.log", encoding="ascii") as stream:
        assert stream.read().endswith("Z stdout typed\n")
    operator = Operator(engine.rkt, *words)
    operator.until("ready\r\n")
    operator.type("key\r")
    operator.until("key\r\nkey\r\n")
    operator.type("\x04")
    assert operator.status() == 0


@pytest.mark.parametrize("there", ["nothing", "link", "pipe", "second name"])
def test_what_stands_where_a_plain_log_should(engine: Engine, there: str) -> None:
    """A plain log is a file of its own: nothing is followed and nothing of somebody else's emptied (invariant LG1)."""
    directory = os.path.join(engine.rkt.base, f"plain-{there.replace(' ', '-')}")
    victim = f"{directory}.victim"
    with open(victim, "w", encoding="ascii") as stream:
        stream.write("kept")
    if there != "nothing":
        os.mkdir(directory)
    if there == "link":
        os.symlink(victim, f"{directory}/x.log")
    elif there == "pipe":
        os.mkfifo(f"{directory}/x.log")
    elif there == "second name":
        os.link(victim, f"{directory}/x.log")
    manifest = plain_manifest(engine, directory, "true", {f"{EXPERIMENT}/kubernetes-log-path": "x.log"})
    known = set(engine.rkt.pods())
    refused = engine.rkt.run("run", INSECURE, f"--pod-manifest={manifest}", check=254)
    if there == "nothing":
        assert f'log directory "{directory}" is not a directory' in refused.stderr
        assert set(engine.rkt.pods()) == known
    else:
        assert f"cannot log to {directory}/x.log" in refused.stderr
    with open(victim, encoding="ascii") as stream:
        assert stream.read() == "kept"


def test_raw_bytes_of_an_app_stay_off_terminals(engine: Engine) -> None:
    """list, status and app status show no byte at a terminal that moves the cursor, whatever annotations and labels say (invariant LG3)."""
    nasty = "\x1b[2J\x9b31m\x07\u202e\x7f\u2028"
    pod = engine.sandbox(
        f"printf '{nasty}'; exec sleep 100",
        *STREAMS,
        f"--user-annotation=a={nasty}",
        f"--user-label=l={nasty}",
        before=(f"--user-annotation=p={nasty}",),
    )
    commands = [("list",), ("list", "--full"), ("status", pod.uuid), ("app", "status", pod.uuid, "--app=app")]
    commands += [(*words, f"--format={f}") for words in commands for f in ("json", "json-pretty")]
    for words in (*commands, ("app", "list", pod.uuid), ("attach", "--mode=list", pod.uuid)):
        operator = Operator(engine.rkt, *words)
        assert operator.status() == 0
        shown = operator.shown.replace(b"\r\n", b"\n").decode()
        assert all(c.isprintable() or c in "\n\t" for c in shown), (words, shown)
    for words in (("list", "--format=json"), ("status", pod.uuid, "--format=json")):
        assert nasty in _values(json.loads(engine.rkt.run(*words, check=0).stdout))
    pod.stop()


def _values(value: object) -> set[str]:
    """Every text in JSON."""
    if isinstance(value, dict):
        return {text for each in value.values() for text in _values(each)}
    if isinstance(value, list):
        return {text for each in value for text in _values(each)}
    return {value} if isinstance(value, str) else set()
