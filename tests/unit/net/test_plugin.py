# SPDX-License-Identifier: Apache-2.0
"""How a plugin is found and executed, and what becomes of its failures; plugins here are small shell programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import NetworkError
from rkt.net import plugin
from rkt.net.plugin import Attachment, PluginError

if TYPE_CHECKING:
    from pathlib import Path

ATTACHMENT = Attachment(
    container_id="0000-uuid", netns="/run/netns/x", interface="eth0", args="IP=10.0.0.1", search=["/a", "/b"]
)


def make(directory: Path, script: str, *, name: str = "test-plugin", mode: int = 0o755) -> str:
    """A program."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return os.fspath(path)


def run(path: str, configuration: bytes = b"{}", attachment: Attachment = ATTACHMENT) -> bytes:
    """Call it for ADD."""
    return plugin.run(path, plugin.ADD, configuration, attachment, version="1.0.0")


def test_a_plugin_gets_what_the_protocol_says_and_nothing_else(tmp_path: Path) -> None:
    """The environment is PATH and the protocol's variables; the configuration is on standard input, byte for byte."""
    path = make(tmp_path, "env | grep -v -e ^PWD -e ^OLDPWD -e ^_= -e ^SHLVL; cat; ls /proc/self/fd >&2")
    lines = run(path, b'{ "a":1 }').decode().splitlines()
    assert lines.pop() == '{ "a":1 }'
    variables = dict(line.split("=", 1) for line in lines)
    assert variables.pop("PATH").endswith("/sbin:/bin")
    assert variables == {
        "CNI_VERSION": "1.0.0",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "0000-uuid",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;IP=10.0.0.1",
        "CNI_PATH": "/a:/b",
    }


def test_a_plugin_inherits_no_descriptor_but_the_lock(tmp_path: Path) -> None:
    """Beside the standard streams there is at most the one descriptor that keeps the pod's lock."""
    # The shell's own redirections and that of ls take what is free from 3 on.
    path = make(tmp_path, "for fd in /proc/$$/fd/*; do readlink $fd; done; true")
    secret = os.open(make(tmp_path, "", name="secret"), os.O_RDONLY)
    held = os.open(make(tmp_path, "", name="held"), os.O_RDONLY)
    try:
        lines = run(path, attachment=ATTACHMENT.replace(hold_fd=held)).decode()
    finally:
        os.close(secret)
        os.close(held)
    assert "/held" in lines
    assert "/secret" not in lines


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            """echo '{"code": 7, "msg": "no address", "details": "all used"}'; exit 1""",
            "no address; all used",
        ),
        ("echo 'cannot do\n  that' >&2; exit 3", "cannot do that"),
        ("exit 1", "it says nothing"),
        ("kill -9 $$", "signal 9"),
        ("""printf '{"code": 7, "msg": "a\\\\u001b[2Jb"}'; exit 1""", r"\\x1b"),
    ],
)
def test_a_failure_is_told_in_the_plugins_own_words(tmp_path: Path, script: str, words: str) -> None:
    """What it answers, else what it wrote on standard error; nothing of it reaches the terminal raw."""
    with pytest.raises(PluginError, match=words) as caught:
        run(make(tmp_path, script))
    assert caught.value.message.startswith('plugin "test-plugin" failed (ADD): ')
    assert caught.value.number in {0, 7}


def test_a_plugin_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not end, or does not stop talking, is killed with its children."""
    monkeypatch.setattr(plugin, "TIMEOUT_SECONDS", 0.1)
    mark = tmp_path / "mark"
    with pytest.raises(PluginError, match="did not end within"):
        run(make(tmp_path, f"(sleep 1; touch {mark}) & wait"))
    monkeypatch.setattr(plugin, "TIMEOUT_SECONDS", 10)
    with pytest.raises(PluginError, match="printed more than"):
        run(make(tmp_path, "exec cat /dev/zero", name="noisy"))
    assert not mark.exists()


def test_a_child_that_stays_does_not_hold_up(tmp_path: Path) -> None:
    """A plugin has ended when its process has, even if something that it started keeps its output open."""
    assert run(make(tmp_path, "sleep 5 & echo done; kill $!; exit 0")) == b"done\n"


def test_the_first_directory_wins(tmp_path: Path) -> None:
    """A plugin is the first regular file of its name; directories of that name are passed over."""
    (tmp_path / "a" / "test-plugin").mkdir(parents=True)
    path = make(tmp_path / "b", "")
    make(tmp_path / "c", "")
    search = [os.fspath(tmp_path / name) for name in ("absent", "a", "b", "c")]
    assert plugin.find("test-plugin", search) == path
    with pytest.raises(NetworkError, match='could not find plugin "none-such"'):
        plugin.find("none-such", search)
    with pytest.raises(NetworkError, match="is not the name of a plugin"):
        plugin.find("../b/test-plugin", search)


@pytest.mark.parametrize(
    ("mode", "above", "words"),
    [
        (0o757, 0o755, "may be written by others than root"),
        (0o755, 0o775, "may be written by others than root"),
        (0o644, 0o755, "is not executable"),
    ],
)
def test_a_program_that_others_may_write_is_not_run(
    tmp_path: Path, mode: int, above: int, words: str
) -> None:
    """Owner and mode of a plugin and of its directory are looked at (security NT5); no other one is taken instead."""
    make(tmp_path / "a", "", mode=mode)
    make(tmp_path / "b", "")
    (tmp_path / "a").chmod(above)
    with pytest.raises(NetworkError, match=words):
        plugin.find("test-plugin", [os.fspath(tmp_path / "a"), os.fspath(tmp_path / "b")])
