# SPDX-License-Identifier: Apache-2.0
"""Which variables an app sees (spec runtime §1.6, §3.7, §6.1 R11-R21, spec cli §2.5, §10.8 R14)."""

from __future__ import annotations

import os
import pty
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, inspect_image, run_apps, shell_app, stored
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

FILE = "{file}"


@dataclass(frozen=True)
class Row:
    """Flags and the caller's variables, and what the app and a command that enters it must see; ``None`` for nothing."""

    flags: tuple[str, ...]
    host: dict[str, str]
    expected: dict[str, str | None]


OTHER, OWN = "VAR_OTHER", "VAR_FROM_MANIFEST"
#: The rows of spec runtime §6.1; every row is also R21: entering does nothing to the pod.
ROWS = {
    "R11": Row((), {}, {OWN: "manifest", OTHER: None}),
    "R12": Row((f"--set-env={OTHER}=setenv",), {}, {OTHER: "setenv"}),
    "R13": Row((f"--set-env={OWN}=setenv",), {}, {OWN: "setenv"}),
    "R14": Row(("--inherit-env=true",), {OTHER: "host"}, {OTHER: "host"}),
    "R15": Row(("--inherit-env=true",), {OWN: "host"}, {OWN: "manifest"}),
    "R16": Row(("--inherit-env=true", f"--set-env={OTHER}=setenv"), {OTHER: "host"}, {OTHER: "setenv"}),
    "R17": Row((f"--set-env={OTHER}=setenv", f"--set-env-file={FILE}"), {}, {OTHER: "setenv"}),
    "R18-R19": Row((f"--set-env-file={FILE}",), {}, {OTHER: "file", "PATH": "/bin", OWN: "manifest"}),
}


@pytest.mark.parametrize("row", ROWS)
def test_where_a_variable_comes_from(module_rkt: Rkt, images: Images, row: str) -> None:
    """The app and a command that enters it see what was asked for, in the order of precedence (runtime R11-R19, R21, cli R14)."""
    rkt, wish = module_rkt, ROWS[row]
    path = f"{rkt.base}/variables"
    with open(path, "w", encoding="ascii") as stream:
        stream.write("VAR_OTHER=file\n")
    flags = [flag.format(file=path) for flag in wish.flags]
    image = stored(rkt, inspect_image(images))
    file = f"{rkt.base}/uuid"
    process = rkt.popen(
        *("run", INSECURE, f"--uuid-file-save={file}", *flags, image),
        *("--", "-c", "env; echo end; exec sleep 1000"),
        env=wish.host,
    )
    wait_for(lambda: "end\n" in process.stdout_text, "environment")
    with open(file, encoding="ascii") as stream:
        uuid = stream.read()
    # TERM is the entering side's own (R20).
    entered = rkt.run("enter", uuid, "env", env={"TERM": "dumb"}, check=0)
    for seen in (process.stdout_text.removesuffix("end\n"), entered.stdout):
        variables = dict(line.split("=", 1) for line in seen.splitlines())
        assert {name: variables.get(name) for name in wish.expected} == wish.expected
        assert rkt.base not in seen or "--inherit-env=true" in wish.flags
    assert "state=running\n" in rkt.run("status", uuid, check=0).stdout
    rkt.run("stop", "--force", uuid, check=0)
    process.wait(10)


def test_the_terminal_type(module_rkt: Rkt, images: Images) -> None:
    """An app has TERM only when it is set for it or it has a terminal; a command that enters has that of whoever enters (runtime R20)."""
    rkt = module_rkt
    image = stored(rkt, inspect_image(images))
    show = ("--", "-c", "echo TERM=$TERM; exec sleep 1000")
    for flags, expected in (((), ""), (("--set-env=TERM=dumb",), "dumb")):
        file = f"{rkt.base}/uuid-term"
        process = rkt.popen(
            "run", INSECURE, *flags, f"--uuid-file-save={file}", image, *show, env={"TERM": "vt52"}
        )
        wait_for(lambda p=process: "TERM" in p.stdout_text, "app")  # type: ignore[misc]
        assert process.stdout_text == f"TERM={expected}\n"
        with open(file, encoding="ascii") as stream:
            uuid = stream.read()
        for terminal in ("dumb", "xterm-256color"):
            seen = rkt.run("enter", uuid, "/bin/sh", "-c", "echo $TERM", env={"TERM": terminal}, check=0)
            assert seen.lines == [terminal]
        assert rkt.run("enter", uuid, "/bin/sh", "-c", "echo $TERM", check=0).lines == ["vt100"]
        rkt.run("stop", "--force", uuid, check=0)
        process.wait(10)


@pytest.mark.parametrize(("flags", "expected"), [((), b"vt52"), (("--set-env=TERM=dumb",), b"dumb")])
def test_an_app_at_a_terminal_knows_its_type(
    module_rkt: Rkt, images: Images, flags: tuple[str, ...], expected: bytes
) -> None:
    """With --interactive the app has the operator's TERM, unless it was given another."""
    rkt = module_rkt
    image = stored(rkt, inspect_image(images))
    words = rkt.command("run", INSECURE, "--interactive", *flags, image, "--", "-c", "echo TERM=$TERM.")
    pid, master = pty.fork()
    if pid == 0:
        os.execve(words[0], words, rkt.environment({"TERM": "vt52"}))
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:
        pass
    os.close(master)
    os.waitpid(pid, 0)
    assert b"TERM=" + expected + b"." in shown


def test_what_every_app_has(module_rkt: Rkt, images: Images) -> None:
    """The default set, the app's name, and nothing else; image and flags change the defaults, not the name (spec cli §9.8, RN25)."""
    bare = images.busybox("example.com/bare", ("/bin/env",))
    own = images.busybox(
        "example.com/own",
        ("/bin/env",),
        app={
            "environment": [
                {"name": name, "value": "image"}
                for name in ("HOME", "USER", "SHELL", "AC_APP_NAME", "container")
            ]
        },
    )
    wanted = ([bare, "--name=bare", "---"], [own, "--name=own", "--environment=USER=flag"])
    apps = {
        name: dict(line.split("=", 1) for line in text.splitlines())
        for name, text in run_apps(module_rkt, wanted, env={"LEAK": "x"}).items()
    }
    standard = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL": "/bin/sh",
        "USER": "root",
        "LOGNAME": "root",
        "HOME": "/root",
        "AC_APP_NAME": "bare",
        "container": "rkt",
    }
    assert apps["bare"] == standard
    changed = {"HOME": "image", "SHELL": "image", "USER": "flag", "AC_APP_NAME": "own"}
    assert apps["own"] == {**standard, **changed}


@pods("any word")
def test_a_variable_with_an_odd_name(module_rkt: Rkt, images: Images) -> None:
    """An app gets also those variables that no shell could set."""
    odd = {"name": "odd.name-1", "value": "image"}
    image = images.busybox("example.com/odd", ("/bin/env",), file="odd", app={"environment": [odd]})
    assert "odd.name-1=image" in module_rkt.run("run", INSECURE, image, check=0).lines


def test_precedence_from_one_end_to_the_other(module_rkt: Rkt, images: Images) -> None:
    """Caller, image, file, --set-env, --environment: each beats those before it, and --environment is for one app (design §9.8)."""
    rkt = module_rkt
    path = f"{rkt.base}/precedence"
    with open(path, "w", encoding="utf-8") as stream:
        stream.write('\n# c\n; c\nC=file\nD=file\nE=file\nQUOTED="a b" \nEMPTY=\nEQUALS=a=b\n')
    image = stored(
        rkt,
        inspect_image(
            images,
            "precedence",
            app={"environment": [{"name": name, "value": "image"} for name in "BCDE"]},
        ),
    )
    script = 'echo "$A $B $C $D $E"; echo "[$QUOTED][$EMPTY][$EQUALS]"'
    apps = (
        shell_app(image, "one", script, "--environment=E=app", "--environment=EQUALS=c=d"),
        shell_app(image, "two", script),
    )
    flags = ("--inherit-env", f"--set-env-file={path}", "--set-env=D=set", "--set-env=E=set")
    said = run_apps(rkt, apps, *flags, env=dict.fromkeys("ABCDE", "host"))
    assert said["one"] == 'host image file set app\n["a b" ][][c=d]\n'
    assert said["two"] == 'host image file set set\n["a b" ][][a=b]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nB", 'environment variable must be specified as name=value (file "{}")'),
        ("=1", 'invalid environment variable name "" (file "{}")'),
        ("A B=1", 'invalid environment variable name "A B" (file "{}")'),
        ("A=1\nA=2", 'environment variable "A" already set (file "{}")'),
        (" A=1", 'invalid environment variable name " A" (file "{}")'),
        ("A=\0", 'environment variable "A" contains a NUL character (file "{}")'),
    ],
)
def test_environment_files_that_make_no_sense(
    module_rkt: Rkt, images: Images, text: str, message: str
) -> None:
    """A bad line is named with its file, for run and for prepare, and no pod is made (spec cli §2.1)."""
    rkt = module_rkt
    path = f"{rkt.base}/bad"
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)
    before = rkt.pods()
    for command in ("run", "prepare"):
        result = rkt.run(command, INSECURE, f"--set-env-file={path}", inspect_image(images), check=254)
        assert message.format(path) in result.stderr
    assert rkt.pods() == before


def test_flags_for_variables_that_make_no_sense(module_rkt: Rkt, images: Images) -> None:
    """A flag without ``=``, with a bad name, given twice, or a file twice over: refused before a pod exists (spec cli §2.1)."""
    rkt = module_rkt
    image = inspect_image(images)
    first, second = f"{rkt.base}/first", f"{rkt.base}/second"
    for path in (first, second):
        with open(path, "w", encoding="ascii") as stream:
            stream.write("A=1\n")
    before = rkt.pods()
    for flags, message in (
        (("--set-env=A",), "must be specified as key=value"),
        (("--set-env==1",), "must be specified as key=value"),
        (("--set-env=A B=1",), 'invalid environment variable name "A B"'),
        (("--set-env=A=1", "--set-env=A=1"), 'key "A" already set'),
        (("--set-env-file=/nowhere",), 'cannot read environment file "/nowhere"'),
        (("--set-env-file=/",), 'cannot read environment file "/"'),
        (
            (f"--set-env-file={first}", f"--set-env-file={second}"),
            f'environment variable "A" already set (file "{second}")',
        ),
        ((image, "--environment=A"), "must be specified as key=value"),
        ((image, "--environment=1A=x"), 'invalid environment variable name "1A"'),
        ((image, "--environment=A=1", "--environment=A=2"), 'key "A" already set'),
    ):
        words = flags if image in flags else (*flags, image)
        assert message in rkt.run("run", INSECURE, *words, check=254).stderr, flags
    assert rkt.pods() == before
