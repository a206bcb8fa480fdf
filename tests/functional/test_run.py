# SPDX-License-Identifier: Apache-2.0
"""Pods of the built-in stage1, as people run them (spec runtime §6.1, spec cli §10.8)."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import has_promised, pods
from tests.lib.images import fetch
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt

pytestmark = [pytest.mark.root, pods(), pytest.mark.representative]

INSECURE = "--insecure-options=image"


def sh(rkt: Rkt, image: str, script: str, *flags: str, check: int | None = 0) -> Result:
    """Run one app that is a shell script."""
    return rkt.run("run", INSECURE, *flags, image, "--exec=/bin/sh", "--", "-c", script, check=check)


@pytest.fixture
def image(rkt: Rkt, images: Images) -> str:
    """A busybox image in the engine's store, by hash."""
    return fetch(rkt, images.busybox())


@pytest.mark.parametrize("status", [0, 1, 2, 7, 255])
def test_the_apps_status_is_the_commands(rkt: Rkt, image: str, status: int) -> None:
    """Run ends with the app's exit status, and status shows it (runtime R1, cli P21)."""
    sh(rkt, image, f"exit {status}", check=status)
    if not has_promised(rkt.flavor, "supervision"):
        return
    (uuid,) = rkt.pods("run")
    assert f"app-busybox={status}\n" in rkt.run("status", uuid, check=0).stdout
    assert rkt.run("wait", uuid, check=status).stdout == f"{status}\n"


@pods("several apps")
def test_the_first_failure_ends_the_pod(rkt: Rkt, image: str) -> None:
    """Of three apps ending 0, 5 and 6 the pod has 5, and the one that was still running was stopped (runtime R2, cli P22)."""
    words: list[str] = []
    for name, script in (("a", "sleep 0.2; exit 0"), ("b", "sleep 0.6; exit 5"), ("c", "sleep 30; exit 6")):
        words += [image, f"--name={name}", "--exec=/bin/sh", "--", "-c", script, "---"]
    rkt.run("run", INSECURE, *words, check=5)
    (uuid,) = rkt.pods("run")
    shown = dict(line.split("=", 1) for line in rkt.run("status", uuid, check=0).lines)
    assert shown["app-a"] == "0"
    assert shown["app-b"] == "5"
    assert rkt.run("wait", uuid).stdout == "5\n"


def test_arguments_reach_the_app_verbatim(rkt: Rkt, images: Images) -> None:
    """Flags, empty words, blanks, quotes and line feeds arrive as they were written (design §9.8, cli R3)."""
    image = fetch(rkt, images.script("example.com/args", 'for word in "$@"; do echo "<$word>"; done\n'))
    words = ["--net=host", "", "two words", "quo\"te'", "$HOME", "a\nb", "--", "%n"]
    result = rkt.run("run", INSECURE, image, "--", *words, check=0)
    assert result.stdout == "".join(f"<{word}>\n" for word in words)


@pods("supervision")
def test_output_goes_through_and_into_the_log(rkt: Rkt, image: str) -> None:
    """What the app writes appears on both streams of run, and again by rkt logs."""
    result = sh(rkt, image, "echo out; echo err >&2; printf last")
    assert result.stdout == "out\nlast"
    assert "err\n" in result.stderr
    (uuid,) = rkt.pods("run")
    logs = rkt.run("logs", uuid, check=0)
    assert logs.stdout.splitlines() == ["out", "last"]
    assert logs.stderr == "err\n"


def test_environment(rkt: Rkt, images: Images) -> None:
    """Image, --inherit-env, file, --set-env and --environment override each other in that order, and nothing else leaks."""
    image = fetch(
        rkt,
        images.busybox(
            "example.com/env",
            ("/bin/env",),
            app={"environment": [{"name": name, "value": "image"} for name in ("A", "B", "C", "D")]},
        ),
    )
    path = f"{rkt.base}/env"
    with open(path, "w", encoding="ascii") as stream:
        stream.write("# comment\n\n; comment\nB=file\nC=file\nD=file\n")
    flags = ("--inherit-env", f"--set-env-file={path}", "--set-env=C=set", "--set-env=D=set")
    host = {"A": "host", "E": "host"}
    result = rkt.run("run", INSECURE, *flags, image, "--environment=D=app", env=host, check=0)
    variables = dict(line.split("=", 1) for line in result.lines)
    assert [variables[name] for name in "ABCDE"] == ["image", "file", "set", "app", "host"]
    bare = dict(line.split("=", 1) for line in rkt.run("run", INSECURE, image, env=host, check=0).lines)
    assert bare["A"] == "image"
    assert "E" not in bare
    assert rkt.base not in " ".join(bare.values())


@pods("supervision")
def test_sigterm_gives_the_app_its_stop_time(rkt: Rkt, image: str) -> None:
    """TERM to the rkt process reaches the app, which may clean up; the pod is then exited with its status."""
    script = (
        "trap 'echo cleaning; sleep 0.3; echo done; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    )
    process = rkt.popen("run", INSECURE, image, "--exec=/bin/sh", "--", "-c", script)
    wait_for(lambda: "ready\n" in process.stdout_text, "app")
    uuid = rkt.wait_for_pod()
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert process.stdout_text == "ready\ncleaning\ndone\n"
    shown = rkt.run("status", uuid, check=0).stdout
    assert "state=exited\n" in shown
    assert "app-busybox=3\n" in shown


def test_stop_and_stop_force(rkt: Rkt, image: str) -> None:
    """Stop lets the app end within fifteen seconds; --force ends even one that ignores every signal (cli P8, P9)."""
    polite = rkt.popen(
        "run",
        INSECURE,
        image,
        "--exec=/bin/sh",
        "--",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    )
    uuid = rkt.wait_for_pod()
    rkt.run("status", "--wait-ready=10s", uuid, check=0)
    time.sleep(0.2)
    assert rkt.run("stop", uuid, check=0).stdout == f'"{uuid}"\n'
    polite.wait(15)
    assert "state=exited\n" in rkt.run("status", "--wait=15s", uuid, check=0).stdout
    rkt.run("rm", uuid, check=0)
    stubborn = rkt.popen(
        "run", INSECURE, image, "--exec=/bin/sh", "--", "-c", "trap '' TERM INT; while :; do sleep 0.1; done"
    )
    uuid = rkt.wait_for_pod()
    rkt.run("stop", "--force", uuid, check=0)
    assert stubborn.wait(15) != 0
    assert "state=exited\n" in rkt.run("status", "--wait=15s", uuid, check=0).stdout


def _succeeds(rkt: Rkt, words: tuple[str, ...]) -> bool:
    return rkt.run(*words).status == 0


@pods("confinement")
@pytest.mark.parametrize("verb", [("enter",), ("app", "exec")], ids=" ".join)
def test_enter(rkt: Rkt, image: str, verb: tuple[str, ...]) -> None:
    """Enter runs a command in the app's root with its status; of several apps one must be named (runtime §5.1)."""
    command = " ".join(verb)
    words: list[str] = []
    for name in ("a", "b"):
        words += [
            image,
            f"--name={name}",
            "--exec=/bin/sh",
            "--",
            "-c",
            f"touch /i-am-{name}; sleep 60",
            "---",
        ]
    process = rkt.popen("run", INSECURE, "--name=two", *words)
    rkt.wait_for_pod()
    refused = rkt.run(*verb, "two", "/bin/true", check=254)
    assert "pod contains multiple apps: a, b" in refused.stderr
    assert f'specify app using "rkt {command} --app= ..."' in refused.stderr
    assert "no app" in rkt.run(*verb, "--app=c", "two", "/bin/true", check=254).stderr
    for name in ("a", "b"):
        see = (*verb, f"--app={name}", "two", "/bin/cat", f"/i-am-{name}")
        wait_for(partial(_succeeds, rkt, see), f"file of app {name}")
        assert rkt.run(*verb, f"--app={name}", "two", "/bin/sh", "-c", "exit 42").status == 42
    shell = rkt.run(*verb, "--app=a", "two", input="echo $((6*7))\n", check=0)
    assert shell.stdout == "42\n"
    assert 'assuming "/bin/sh"' in shell.stderr
    rkt.run("stop", "--force", "two", check=0)
    process.wait(15)


def test_trust_is_checked_at_every_start(rkt: Rkt, images: Images) -> None:
    """A signed image runs while its key is trusted, not after the key is gone; a prepared pod neither (SG12)."""
    path = images.busybox("example.com/signed")
    images.sign(path)
    refused = rkt.run("run", path, "--exec=/bin/true", check=254)
    assert "verification failed" in refused.stderr
    assert "hint: " in refused.stderr
    assert rkt.pods() == {}
    rkt.run("trust", "--prefix=example.com/signed", "--skip-fingerprint-review", images.key_file, check=0)
    rkt.run("run", path, "--exec=/bin/true", check=0)
    rkt.run("run", "example.com/signed", "--exec=/bin/true", check=0)
    uuid = rkt.run("prepare", "example.com/signed", "--exec=/bin/true", check=0).stdout.strip()
    assert "insecure" not in rkt.run("status", uuid, check=0).stdout
    directory = f"{rkt.local}/trustedkeys/prefix.d/example.com/signed"
    (key,) = os.listdir(directory)
    os.unlink(f"{directory}/{key}")
    before = rkt.pods()
    for words in (("run", "example.com/signed", "--exec=/bin/true"), ("run-prepared", uuid)):
        result = rkt.run(*words, check=254)
        assert "is no longer trusted" in result.stderr
        assert "hint: " in result.stderr
    assert rkt.pods() == before


def test_a_key_for_a_neighbour_does_not_count(rkt: Rkt, images: Images) -> None:
    """A key trusted for example.com/ap does not vouch for example.com/app (SG2)."""
    path = images.busybox("example.com/app", file="neighbour")
    images.sign(path)
    rkt.run("trust", "--prefix=example.com/ap", "--skip-fingerprint-review", images.key_file, check=0)
    assert "verification failed" in rkt.run("run", path, "--exec=/bin/true", check=254).stderr
    assert "example.com" not in rkt.run("image", "list", "--no-legend", check=0).stdout


def test_export_keeps_what_the_app_wrote(rkt: Rkt, image: str) -> None:
    """An exported app, run as an image, has the file that the first run wrote (runtime L15, cli P20)."""
    for number, flags in enumerate(((), ("--no-overlay",))):
        sh(rkt, image, "echo kept > /kept; rm /bin/wget", *flags)
        (uuid,) = rkt.pods("run")
        output = f"{rkt.base}/out{number}.aci"
        rkt.run("export", uuid, output, check=0)
        assert sh(rkt, output, "cat /kept; ls /bin/wget", check=1).stdout == "kept\n"
        for uuid in rkt.pods("run"):
            rkt.run("rm", uuid, check=0)


@pods("several apps")
def test_two_apps_with_a_volume(rkt: Rkt, image: str) -> None:
    """Apps of one pod share an empty volume, and JSON shows where it is mounted."""
    words = [
        *("--volume=data,kind=empty", "--mount=volume=data,target=/data"),
        *(image, "--name=writer", "--exec=/bin/sh", "--", "-c", "echo hello > /data/x; sleep 1", "---"),
        *(image, "--name=reader", "--exec=/bin/sh", "--"),
        *("-c", "until [ -s /data/x ]; do sleep 0.05; done; cat /data/x"),
    ]
    assert "hello\n" in rkt.run("run", INSECURE, *words, check=0).stdout
    (pod,) = json.loads(rkt.run("list", "--format=json", check=0).stdout)
    assert [app["mounts"][0]["container_path"] for app in pod["apps"]] == ["/data", "/data"]
