# SPDX-License-Identifier: Apache-2.0
"""Sockets of the host's service manager, handed to the app that declares their port (spec runtime §2.8, §3.10)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.activator import activator
from tests.lib.flavors import pods
from tests.lib.inspect import by_app, inspect_image, manifest_app, stored, write_pod_manifest
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("socket activation")]

SAY = (
    'echo "fds=$LISTEN_FDS names=$LISTEN_FDNAMES"; [ "$LISTEN_PID" = $$ ] && echo "pid is mine";'
    " for fd in 3 4 5 6 7; do readlink /proc/$$/fd/$fd; done; true;"
)
#: The host's Python in a pod of busybox: answers one connection on the first socket.
SERVE = (
    "import os, socket; assert os.environ['LISTEN_PID'] == str(os.getpid());"
    "connection, _ = socket.socket(fileno=3).accept();"
    "connection.sendall(os.environ['LISTEN_FDNAMES'].encode())"
)


def activate(
    rkt: Rkt, sockets: Sequence[socket.socket], names: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with sockets, to its end."""
    return subprocess.run(
        [*activator(sockets, names), *rkt.command(*words)],
        env=rkt.environment(),
        pass_fds=[each.fileno() for each in sockets],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SLOWNESS,
    )


def inode(handle: socket.socket) -> str:
    """How /proc names a socket."""
    return f"socket:[{os.fstat(handle.fileno()).st_ino}]"


def port(name: str, number: int, protocol: str = "tcp") -> dict[str, object]:
    """A port of an app that wants a socket."""
    return {"name": name, "protocol": protocol, "port": number, "socketActivated": True}


@pytest.mark.representative
def test_each_app_gets_the_sockets_that_it_declares(rkt: Rkt, images: Images) -> None:
    """By protocol and number on the host, in order, at 3 and on, with the process's own number; the first time and when started again; nothing else is open there, and others get none."""
    image = stored(rkt, inspect_image(images))
    restart = {"annotations": [{"name": "coreos.com/rkt/restart-policy", "value": "on-failure:1"}]}
    with (
        socket.create_server(("127.0.0.1", 0)) as http,
        socket.create_server(("127.0.0.1", 0)) as admin,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns,
    ):
        dns.bind(("127.0.0.1", 0))
        manifest = write_pod_manifest(
            f"{rkt.base}/pod",
            [
                manifest_app(
                    image,
                    "web",
                    f"{SAY} [ -e /again ] || {{ touch /again; exit 1; }}",
                    ports=[port("http", 80), port("dns", dns.getsockname()[1], "udp")],
                    entry=restart,
                ),
                manifest_app(image, "admin", SAY, ports=[port("admin", admin.getsockname()[1])]),
                manifest_app(image, "other", SAY, ports=[{**port("x", 80), "socketActivated": False}]),
            ],
            ports=[{"name": "http", "hostPort": http.getsockname()[1], "hostIP": "127.0.0.1"}],
        )
        done = activate(
            rkt, [http, admin, dns], "web:adm:names", "run", "--insecure-options=image", f"--pod-manifest={manifest}"
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = by_app(done.stdout)
        assert said["web"] == 2 * f"fds=2 names=web:names\npid is mine\n{inode(http)}\n{inode(dns)}\n"
        assert said["admin"] == f"fds=1 names=adm\npid is mine\n{inode(admin)}\n"
        assert said["other"] == "fds= names=\n"


def test_an_app_that_comes_later_gets_its_sockets(rkt: Rkt, images: Images) -> None:
    """A sandbox keeps what was passed for apps that will declare it, with user ids of its own too; an app that declares nothing has nothing."""
    with socket.create_server(("127.0.0.1", 0)) as http:
        inode_text = inode(http)
        ports = {"ports": [port("http", http.getsockname()[1])]}
        declared = inspect_image(images, "later", name="example.com/later", app=ports)
        for image in (declared, inspect_image(images)):
            stored(rkt, image)
        command = rkt.command("app", "sandbox", "--private-users")
        with subprocess.Popen(
            [*activator([http], "web"), *command],
            env=rkt.environment(),
            pass_fds=[http.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        ) as sandbox:
            uuid = rkt.wait_for_pod()
            for name in ("later", "inspect"):
                words = [
                    "app",
                    "add",
                    "--insecure-options=image",
                    uuid,
                    f"example.com/{name}",
                    "--exec=/bin/sh",
                ]
                rkt.run(*words, "--", "-c", SAY, check=0)
                rkt.run("app", "start", uuid, f"--app={name}", check=0)
                wait_for(lambda n=name: "fds=" in rkt.log(uuid, n), "output")  # type: ignore[misc]
            rkt.run("stop", uuid, check=0)
            assert sandbox.stdout is not None
            said = by_app(sandbox.stdout.read())
            assert sandbox.wait(20) == 0
    assert said["later"] == f"fds=1 names=web\npid is mine\n{inode_text}\n"
    assert said["inspect"] == "fds= names=\n"


def test_sockets_that_nobody_declares_are_refused(rkt: Rkt, images: Images) -> None:
    """Before there is a pod, with the socket and what is declared: another number, another address than --port says."""
    image = stored(rkt, inspect_image(images, "activated", app={"ports": [port("http", 8080)]}))
    with socket.create_server(("127.0.0.1", 0)) as http:
        number = http.getsockname()[1]
        run = ("run", "--insecure-options=image", image)
        done = activate(rkt, [http], "web", *run)
        assert done.returncode == 254
        assert (
            f"no app declares the socket that was passed as descriptor 3 (web) tcp 127.0.0.1:{number}"
            in done.stderr
        )
        assert "inspect: http tcp 8080" in done.stderr
        done = activate(rkt, [http], "web", *run, f"--port=http:127.0.0.2:{number}")
        assert done.returncode == 254
        assert 'another address than port "http": 127.0.0.2' in done.stderr
        done = activate(rkt, [http], "a:b", *run)
        assert "LISTEN_FDNAMES has 2 names for 1 sockets" in done.stderr
        assert not rkt.pods()


@pytest.mark.representative
@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate")
def test_a_server_is_started_by_its_first_client(rkt: Rkt, images: Images) -> None:
    """systemd-socket-activate starts a prepared pod without a network, and its app answers the client on the host's socket."""
    ports = {"ports": [port("http", 80)]}
    path = inspect_image(images, "server", app=ports, links={"lib": "usr/lib", "lib64": "usr/lib64"})
    volume = ("--volume=usr,kind=host,source=/usr,readOnly=true", "--mount=volume=usr,target=/usr")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    prepared = rkt.run(
        "prepare", "--insecure-options=image", *volume, f"--port=http:{address[1]}", stored(rkt, path),
        "--memory=200M", "--exec=/usr/bin/python3", "--", "-c", SERVE, check=0,
    )  # fmt: skip
    listen = ["systemd-socket-activate", f"--listen=127.0.0.1:{address[1]}", "--fdname=from-systemd"]
    command = [*listen, *rkt.command("run-prepared", "--net=none", prepared.stdout.strip())]
    with subprocess.Popen(command, env=rkt.environment(), stderr=subprocess.PIPE, text=True) as activator:

        def connect() -> socket.socket | None:
            try:
                return socket.create_connection(address, timeout=60 * SLOWNESS)
            except ConnectionRefusedError:
                return None

        with wait_for(connect, "listening socket") as client:
            assert client.recv(100) == b"from-systemd"
        assert activator.wait(60 * SLOWNESS) == 0, activator.stderr and activator.stderr.read()
