# SPDX-License-Identifier: Apache-2.0
"""Readiness and liveness probes, and what the service manager that started the pod is told."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroupfs
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt, Running

pytestmark = [pytest.mark.root, pods("probes")]

INSECURE = "--insecure-options=image"
QUICK = ("--readiness-interval=200ms", "--readiness-retries=1")
SLEEP = "sleep 1000"
#: Answers HTTP on port 80, with what stands in /answer.
SERVE = "while :; do nc -l -p 80 -e cat /answer; done"
OK = r"printf 'HTTP/1.1 204 No Content\r\n\r\n' >/answer"
BROKEN = r"printf 'HTTP/1.1 503 No\r\n\r\n' >/answer"


class Manager:
    """The socket of a service manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(20 * SLOWNESS)

    def wait(self) -> bytes:
        """The next message."""
        return self._socket.recv(4096)

    def heard(self) -> bool:
        """Whether there is one."""
        self._socket.setblocking(False)
        try:
            return bool(self._socket.recv(4096, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(20 * SLOWNESS)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A service manager that listens."""
    each = Manager(str(tmp_path_factory.mktemp("m") / "s"))
    yield each
    each.close()


@pytest.fixture(scope="module")
def image(images: Images) -> str:
    """An image with a shell."""
    return images.busybox("example.com/probed")


def start(
    rkt: Rkt, image: str, script: str, *flags: str, manager: Manager | None = None, **more: str
) -> Running:
    """Run a shell script with probes."""
    env = {} if manager is None else {"NOTIFY_SOCKET": manager.path}
    words = ("run", INSECURE, image, "--name=app", *flags, "--exec=/bin/sh", "--", "-c", script)
    return rkt.popen(*words, env={**env, **more})


def app_of(rkt: Rkt, uuid: str) -> dict[str, object]:
    """The JSON of the only app."""
    app: dict[str, object] = json.loads(rkt.run("status", "--format=json", uuid, check=0).stdout)["apps"][0]
    return app


def in_app(rkt: Rkt, uuid: str, script: str) -> str:
    """What a command says that enters the app."""
    return rkt.run("enter", uuid, "/bin/sh", "-c", script, check=0).stdout


def test_readiness_by_a_command(rkt: Rkt, image: str, manager: Manager) -> None:
    """Until the probe succeeds the app is unready for status, list, wait and the service manager, and it is so again when the probe fails."""
    process = start(rkt, image, SLEEP, "--readiness=exec:/bin/test -e /ready", *QUICK, manager=manager)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: app_of(rkt, uuid).get("health_message"), "the first failure")
    app = app_of(rkt, uuid)
    assert (app["readiness"], app["health_message"]) == ("unready", "readiness: status 1")
    assert "liveness" not in app
    listed = json.loads(rkt.run("list", "--format=json", check=0).stdout)[0]
    assert listed["ready"] is False
    assert {"ready=false", "app-app-readiness=unready"} <= set(rkt.run("status", uuid, check=0).lines)
    assert "readiness=unready" in rkt.run("app", "status", uuid, "--app=app", check=0).lines
    assert "was not ready within" in rkt.run("wait", "--ready", "--timeout=300ms", uuid, check=254).stderr
    assert not manager.heard()
    in_app(rkt, uuid, ">/ready")
    assert rkt.run("wait", "--ready", "--timeout=20s", uuid, check=0).lines == [uuid]
    assert manager.wait() == b"READY=1"
    assert rkt.run("status", "--wait-ready=20s", uuid, check=0).lines.count("ready=true") == 1
    assert app_of(rkt, uuid)["readiness"] == "ready"
    in_app(rkt, uuid, "rm /ready")
    wait_for(lambda: app_of(rkt, uuid)["readiness"] == "unready", "the app to be unready")
    assert "app 'app' is not ready any more: readiness: status 1" in process.stderr_text
    kinds = [json.loads(line)["event"] for line in rkt.run("events", "--format=json", check=0).lines]
    assert kinds == ["created", "started", "ready", "unready"]
    rkt.run("stop", uuid, check=0)
    assert process.wait(20) == 0
    assert not manager.heard()
    assert "readiness" not in app_of(rkt, uuid)


@pytest.mark.parametrize(
    ("probe", "before", "after", "message"),
    [
        ("tcp:80", "true", SERVE, "port 80: Connection refused"),
        ("http:80/health", f"{BROKEN}; ({SERVE}) &", OK, "port 80 answers with status 503"),
        ("http:80", f"echo nonsense >/answer; ({SERVE}) &", OK, "port 80 does not speak HTTP"),
        (
            'exec:["/bin/sh", "-c", "echo no, not yet >&2; test -e /ready"]',
            "true",
            ">/ready",
            "status 1: no, not yet",
        ),
        (
            "exec:/bin/missing",
            "true",
            r"printf '#!/bin/sh\n' >/bin/new; chmod +x /bin/new; mv /bin/new /bin/missing",
            'status 203: Error: Unable to open "/bin/missing"',
        ),
    ],
)
def test_ways_of_asking(rkt: Rkt, image: str, probe: str, before: str, after: str, message: str) -> None:
    """An app is asked by a command, a connection or a request, as its user, and status says why it is not ready."""
    script = f"chmod 777 / /bin; {before.replace(') &', ') & true')}; while ! test -e /go; do sleep 0.1; done; {after}; {SLEEP}"
    start(rkt, image, script, f"--readiness={probe}", *QUICK)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: message in str(app_of(rkt, uuid).get("health_message")), message)
    in_app(rkt, uuid, ">/go")
    rkt.run("wait", "--ready", "--timeout=20s", uuid, check=0)
    rkt.run("stop", "--force", uuid, check=0)


def test_an_app_that_speaks_for_itself(rkt: Rkt, image: str, manager: Manager) -> None:
    """With notify the app has a socket of its own, and what it says about being ready is passed on, no more."""
    script = "echo $NOTIFY_SOCKET; test -S $NOTIFY_SOCKET && echo there; sleep 1000"
    process = start(rkt, image, script, "--readiness=notify", "--user=1000", manager=manager)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: "there" in process.stdout_text, "the app's words")
    assert process.stdout_text.splitlines() == ["/run/rkt-notify", "there"]
    assert not manager.heard()
    with open(f"{rkt.pod_path(uuid)}/appsinfo/app/pid", encoding="ascii") as stream:
        pid = int(stream.read().split()[0])
    # The path of an app's own socket, through its root: busybox has nothing that speaks to one.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as app:
        app.connect(f"/proc/{pid}/root/run/rkt-notify")
        for message in (b"\xff\xfe", b"STATUS=warming up\nMAINPID=1", b"x" * 60000):
            app.send(message)
        wait_for(lambda: app_of(rkt, uuid).get("health_message") == "warming up", "the app's words")
        assert app_of(rkt, uuid)["readiness"] == "unready"
        # Descriptors are not kept.
        read_fd, write_fd = os.pipe()
        socket.send_fds(app, [b"FDSTORE=1\nREADY=1"], [write_fd])
        os.close(write_fd)
        assert manager.wait() == b"READY=1"
        assert os.read(read_fd, 1) == b""
        os.close(read_fd)
        assert app_of(rkt, uuid)["readiness"] == "ready"
        app.send(b"STOPPING=1")
        wait_for(lambda: app_of(rkt, uuid)["readiness"] == "unready", "unready")
        # One that cannot make up its mind is heard once a second.
        for _ in range(300):
            app.send(b"READY=1")
            app.send(b"STOPPING=1\nSTATUS=so and so")
        app.send(b"READY=1\nSTATUS=at last")
        wait_for(lambda: app_of(rkt, uuid).get("health_message") == "at last", "the last word")
        assert app_of(rkt, uuid)["readiness"] == "ready"
    assert process.stderr_text.count("is not ready any more") < 10 * SLOWNESS
    assert not manager.heard()
    rkt.run("stop", "--force", uuid, check=0)


def test_an_app_that_does_not_live(rkt: Rkt, image: str) -> None:
    """After as many failures in a row as were asked for, and not before its start period is over, the app is killed, which is an event."""
    flags = ("--liveness=exec:/bin/test -e /alive", "--liveness-interval=100ms", "--liveness-retries=2")
    process = start(rkt, image, f">/alive; {SLEEP}", *flags)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: app_of(rkt, uuid).get("liveness") == "healthy", "health")
    in_app(rkt, uuid, "rm /alive")
    assert process.wait(20) == 137
    assert "app 'app' is killed, its liveness probe failed: status 1" in process.stderr_text
    events = [json.loads(line) for line in rkt.run("events", "--format=json", check=0).lines]
    assert [event["event"] for event in events] == ["created", "started", "unhealthy", "app-exited", "exited"]
    assert events[2]["app"] == "app"


def test_an_app_that_is_started_again(rkt: Rkt, image: str, manager: Manager) -> None:
    """An app with a restart policy is started again when it does not live, is probed anew, and the service manager is told once."""
    flags = ("--liveness=exec:/bin/test -e /alive", "--liveness-interval=100ms", "--liveness-retries=1")
    more = ("--readiness=exec:/bin/test -e /alive", *QUICK, "--restart=on-failure")
    start(
        rkt,
        image,
        f"test -e /second; echo $? >>/runs; >/alive; >/second; {SLEEP}",
        *flags,
        *more,
        manager=manager,
    )
    uuid = rkt.wait_for_pod()
    assert manager.wait() == b"READY=1"
    in_app(rkt, uuid, "rm /alive")
    wait_for(lambda: app_of(rkt, uuid).get("restarts") == 1, "a second run")
    wait_for(lambda: app_of(rkt, uuid).get("readiness") == "ready", "the app to be ready again")
    wait_for(lambda: app_of(rkt, uuid).get("liveness") == "healthy", "health")
    assert in_app(rkt, uuid, "cat /runs").split() == ["1", "0"]
    assert not manager.heard()
    rkt.run("stop", "--force", uuid, check=0)


def test_the_start_period(rkt: Rkt, image: str) -> None:
    """Failures count once the start period is over, or once the app has been alive."""
    flags = ("--liveness=exec:/bin/false", "--liveness-interval=100ms", "--liveness-retries=1")
    begin = time.monotonic()
    process = start(rkt, image, SLEEP, *flags, "--liveness-start-period=1500ms")
    assert process.wait(20) == 137
    assert time.monotonic() - begin > 1.5


def test_a_probe_that_hangs(rkt: Rkt, image: str) -> None:
    """A probe that takes too long is killed with what it started, counts as failed, and keeps the supervisor from nothing."""
    probe = 'exec:["/bin/sh", "-c", "sleep 3333 & sleep 3333"]'
    process = start(
        *(
            rkt,
            image,
            SLEEP,
            f"--readiness={probe}",
            "--readiness-timeout=300ms",
            "--readiness-interval=100ms",
        ),
    )
    uuid = rkt.wait_for_pod()
    wait_for(
        lambda: "no answer within 0.3 s" in str(app_of(rkt, uuid).get("health_message")),
        "the time to be over",
    )
    rkt.run("app", "status", uuid, "--app=app", check=0)
    assert in_app(rkt, uuid, "ps | grep -c '[s]leep 3333'; true") in {"0\n", "2\n"}
    rkt.run("stop", uuid, check=0)
    assert process.wait(20) == 0


def test_probes_are_as_confined_as_the_app(rkt: Rkt, image: str) -> None:
    """A probe has the app's user, capabilities, filter, cgroup and namespaces, in a pod with ids of its own too."""
    probe = 'exec:["/bin/sh", "-c", "grep -E \'^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):\' /proc/self/status; cat /proc/self/cgroup; ls /proc/self/fd; false"]'
    report = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/self/cgroup; ls /proc/self/fd"
    write = (
        probe.replace("; false", " >/tmp/probe; exit 0")
        .replace("grep -E", "exec >/tmp/probe.new; grep -E")
        .replace(" >/tmp/probe; exit 0", "; mv /tmp/probe.new /tmp/probe")
    )
    for flags in ((), ("--private-users",)):
        words = (
            "run",
            INSECURE,
            *flags,
            image,
            "--name=app",
            "--user=1000",
            "--group=100",
            f"--readiness={write}",
        )
        process = rkt.popen(*words, "--exec=/bin/sh", "--", "-c", f"({report}) >/tmp/app; {SLEEP}")
        uuid = rkt.wait_for_pod()
        rkt.run("wait", "--ready", "--timeout=20s", uuid, check=0)
        app, seen = in_app(rkt, uuid, "cat /tmp/app"), in_app(rkt, uuid, "cat /tmp/probe")
        assert "Uid:\t1000\t1000" in app
        assert "Seccomp:\t2" in app
        assert seen == app
        rkt.run("stop", uuid, check=0)
        assert process.wait(20) == 0
        rkt.run("rm", uuid, check=0)


def test_a_paused_pod_is_not_judged(rkt: Rkt, image: str) -> None:
    """While a pod is paused its probes neither fail nor kill, and they go on afterwards."""
    if cgroupfs.detect().unified is None:
        pytest.skip("the host has no cgroup hierarchy of version 2")
    flags = (
        "--liveness=exec:/bin/true",
        "--liveness-interval=100ms",
        "--liveness-timeout=200ms",
        "--liveness-retries=1",
    )
    process = start(rkt, image, SLEEP, *flags)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: app_of(rkt, uuid).get("liveness") == "healthy", "health")
    rkt.run("pause", uuid, check=0)
    time.sleep(0.8)
    assert process.poll() is None
    rkt.run("unpause", uuid, check=0)
    time.sleep(0.5)
    assert process.poll() is None
    rkt.run("stop", uuid, check=0)
    assert process.wait(20) == 0


def test_apps_of_live_pods(rkt: Rkt, image: str) -> None:
    """An app that is added to a live pod is probed when it has been started, and no more when it is over."""
    key = fetch(rkt, image)
    rkt.popen("app", "sandbox", INSECURE)
    uuid = rkt.wait_for_pod()
    flags = ("--name=app", "--readiness=exec:/bin/test -e /ready", *QUICK)
    script = "test -e /again && >/ready; sleep 1000"
    rkt.run("app", "add", INSECURE, uuid, key, *flags, "--exec=/bin/sh", "--", "-c", script, check=0)
    rkt.run("wait", "--ready", "--timeout=20s", uuid, check=0)
    rkt.run("app", "start", uuid, "--app=app", check=0)
    wait_for(lambda: app_of(rkt, uuid).get("health_message"), "the first failure")
    assert app_of(rkt, uuid)["readiness"] == "unready"
    in_app(rkt, uuid, ">/ready")
    rkt.run("wait", "--ready", "--timeout=20s", uuid, check=0)
    in_app(rkt, uuid, "rm /ready; >/again")
    rkt.run("app", "stop", uuid, "--app=app", check=0)
    assert "readiness" not in app_of(rkt, uuid)
    rkt.run("app", "start", uuid, "--app=app", check=0)
    wait_for(lambda: app_of(rkt, uuid).get("readiness") == "ready", "the app to be ready again")
    rkt.run("app", "rm", uuid, "--app=app", check=0)
    words = ("--name=speaks", "--readiness=notify", "--exec=/bin/sleep", "--", "1000")
    rkt.run("app", "add", INSECURE, uuid, key, *words, check=0)
    rkt.run("app", "start", uuid, "--app=speaks", check=0)
    assert app_of(rkt, uuid)["readiness"] == "unready"
    rkt.run("app", "rm", uuid, "--app=speaks", check=0)
    for parent, directories, files in os.walk(rkt.pod_path(uuid)):
        assert not [name for name in (*directories, *files) if "speaks" in name], parent
    rkt.run("stop", uuid, check=0)


def test_two_apps_and_a_handler(rkt: Rkt, images: Images, image: str, manager: Manager) -> None:
    """The service manager hears of a pod once, when all apps that can tell are ready, one with a pre-start handler too; the others count as ready."""
    handler = {"name": "pre-start", "exec": ["/bin/sleep", "0.5"]}
    slow = images.busybox("example.com/handled", file="handled", app={"eventHandlers": [handler]})
    sleep = ("--exec=/bin/sleep", "--", "1000", "---")
    rkt.popen(
        *("run", INSECURE, slow, "--name=slow", "--readiness=exec:/bin/test -e /ready", *QUICK, *sleep),
        *(
            image,
            "--name=quick",
            "--readiness=exec:/bin/true",
            *QUICK,
            *sleep,
            image,
            "--name=silent",
            *sleep[:-1],
        ),
        env={"NOTIFY_SOCKET": manager.path},
    )
    uuid = rkt.wait_for_pod()

    def states() -> dict[str, object]:
        apps = json.loads(rkt.run("status", "--format=json", uuid, check=0).stdout)["apps"]
        return {app["name"]: app.get("readiness") for app in apps}

    wait_for(lambda: states() == {"slow": "unready", "quick": "ready", "silent": None}, "one app to be ready")
    assert not manager.heard()
    wait_for(
        lambda: rkt.run("enter", "--app=slow", uuid, "/bin/touch", "/ready").status == 0, "the handler's end"
    )
    assert manager.wait() == b"READY=1"
    assert states()["slow"] == "ready"
    rkt.run("stop", "--force", uuid, check=0)


def test_the_watchdog_is_answered(rkt: Rkt, image: str, manager: Manager) -> None:
    """A service manager that watches hears of the supervisor twice in the time it gives, and only if it asks this process."""
    start(rkt, image, SLEEP, manager=manager, WATCHDOG_USEC="300000")
    assert manager.wait() == b"READY=1"
    begin = time.monotonic()
    for _ in range(4):
        assert manager.wait() == b"WATCHDOG=1"
    assert 0.4 < time.monotonic() - begin < 2.0 * SLOWNESS
    rkt.run("stop", "--force", rkt.wait_for_pod(), check=0)
    process = start(rkt, image, SLEEP, manager=manager, WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    while manager.wait() != b"READY=1":
        continue
    time.sleep(0.3)
    assert not manager.heard()
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--readiness=ping",), '"ping" is none of exec:PROGRAM, tcp:PORT, http:PORT/PATH or notify'),
        (("--liveness=notify",), "is none of"),
        (("--readiness=tcp:0",), '"0" is not a port'),
        (("--readiness=exec:",), "exec names no program"),
        (("--readiness=http:80/a b",), "without spaces"),
        (("--liveness-interval=10s",), "liveness-interval without liveness"),
        (("--liveness=tcp:1", "--liveness-interval=0s"), "is not between 0.1s and 24h"),
        (("--liveness=tcp:1", "--liveness-retries=0"), "is not a number from 1 to 1000"),
        (("--liveness=tcp:1", "--liveness-timeout=5"), '"5" is no duration'),
        (("--readiness=tcp:1", "--readiness=tcp:2"), "specified multiple times"),
        (("--annotation=coreos.com/rkt/readiness=x",), "is none of"),
    ],
)
def test_refusals(module_rkt: Rkt, image: str, flags: tuple[str, ...], words: str) -> None:
    """What cannot be a probe is refused before there is a pod."""
    result = module_rkt.run("run", INSECURE, image, *flags, check=254)
    assert words in result.stderr, result
    assert module_rkt.pods() == {}


def test_annotations_of_a_pod_manifest(
    rkt: Rkt, image: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A pod manifest asks for probes by annotations, and the flags become such."""
    prepared = rkt.run(
        "prepare", INSECURE, image, "--readiness=tcp:80", "--readiness-interval=1m30s", check=0
    )
    uuid = prepared.lines[-1]
    manifest = json.loads(rkt.run("cat-manifest", uuid, check=0).stdout)
    assert manifest["apps"][0]["annotations"] == [
        {"name": "coreos.com/rkt/readiness", "value": "tcp:80"},
        {"name": "coreos.com/rkt/readiness-interval", "value": "1m30s"},
    ]
    manifest["apps"][0]["annotations"][0]["value"] = "tcp:none"
    path = tmp_path_factory.mktemp("pod") / "manifest"
    path.write_text(json.dumps(manifest))
    refused = rkt.run("prepare", INSECURE, f"--pod-manifest={path}", check=254)
    assert '"none" is not a port' in refused.stderr
