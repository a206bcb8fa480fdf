# SPDX-License-Identifier: Apache-2.0
"""What single verbs refuse before they do anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.cli import image_sign
from rkt.cli.command import Invocation
from rkt.cli.main import load_command
from rkt.cli.parse import parse
from rkt.config.settings import Installation, Settings
from rkt.errors import HostError, UsageError
from rkt.linux import files

if TYPE_CHECKING:
    from pathlib import Path


def invocation(name: str, *words: str) -> Invocation:
    """A command line as the program reads it."""
    command = load_command(name)
    parsed = parse(list(words), command)
    settings = Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        data_dir="/nowhere",
    )
    return Invocation(
        command=command,
        settings=settings,
        values=parsed.values,
        given=parsed.given,
        words=parsed.words,
        apps=parsed.apps,
        mounts=parsed.mounts,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("app add",), "must provide the pod UUID"),
        (("app add", "5bc080ca"), "must give an app"),
        (("app add", "5bc080ca", "a", "b"), "must give only one app"),
        (("app rm", "5bc080ca"), "must provide the app to remove"),
        (("enter", "--pod", "--app=web", "5bc080ca"), "--pod and --app exclude each other"),
        (("app sandbox", "--user-label=a=1", "--user-label=a=2"), 'key "a" already set'),
        (("stage1 check", "--timeout=1000h", "ns"), "at most a day"),
        (("stage1 check", "--timeout=0", "ns"), "more than nothing"),
        (("metadata-service", "--listen-port=00008099999999"), "a number up to 65535"),
        (("metadata-service", "--listen-port=0"), "a number up to 65535"),
        (("metadata-service", "--listen-address=a"), "an IP address is expected"),
        (("logs", "--tail=-1", "5bc080ca"), "a number of lines"),
        (("logs", "--tail=٣", "5bc080ca"), "a number of lines"),
    ],
)
def test_command_lines_that_cannot_be_meant(words: tuple[str, ...], said: str) -> None:
    """What is wrong with the words is said before a pod is looked for."""
    found = invocation(*words)
    with pytest.raises(UsageError, match=said):
        found.command.run(found)


def test_half_a_pair_of_keys_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the public half cannot be written the private one goes too, and the next attempt is not refused."""
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)
    write_new = files.write_new

    def fail(path: str, data: bytes, mode: int) -> None:
        write_new(path, data, mode)
        if path.endswith(".pub"):
            raise OSError(28, "No space left on device", path)

    found = invocation("image sign", f"--generate-key={tmp_path}/team")
    with monkeypatch.context() as patched:
        patched.setattr(files, "write_new", fail)
        with pytest.raises(HostError, match=r"cannot write the key .*/team\.pub: No space"):
            image_sign.run(found)
    assert os.listdir(tmp_path) == []
    image_sign.run(found)
    assert sorted(os.listdir(tmp_path)) == ["team.key", "team.pub"]
