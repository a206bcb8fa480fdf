# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import host
from tests.lib.aci import write_aci
from tests.lib.store import listing, refer

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"


def fetch(rkt: Rkt, name: str, content: bytes = b"x", **manifest: Any) -> str:
    """Fetch an image made for the occasion; returns its key."""
    path = f"{rkt.base}/{name.replace('/', '_')}-{len(os.listdir(rkt.base))}.aci"
    write_aci(path, ["/bin/app"], name=name, files={"bin/app": (content, 0o755)}, **manifest)
    return rkt.run(INSECURE, "fetch", "--full", path, check=0).stdout.strip()


def names(rkt: Rkt, *flags: str) -> list[str]:
    """Names as ``image list`` orders them."""
    return rkt.run("image", "list", "--no-legend", "--fields=name", *flags, check=0).lines


def age(rkt: Rkt, key: str, seconds: int) -> None:
    """Pretend that the image was last used so long ago."""
    then = time.time() - seconds
    os.utime(f"{rkt.data}/cas/used/{key}", (then, then))


def test_i1_to_i6_list(rkt: Rkt) -> None:
    """Headings, fields, digits and formats are those of the specification."""
    assert rkt.run("image", "list", "--format=json", check=0).stdout == "[]\n"
    assert rkt.run("image", "list", "--no-legend", check=0).stdout == ""
    key = fetch(rkt, "example.com/app")
    lines = rkt.run("image", "list", check=0).lines
    assert [cell for cell in lines[0].split("\t") if cell] == [
        *("ID", "NAME", "SIZE", "IMPORT TIME", "LAST USED", "VERDICT"),
    ]
    assert "ID" not in rkt.run("image", "list", "--no-legend", check=0).stdout
    assert rkt.run("image", "list", "--fields=id", check=0).lines == ["ID", key[: 7 + 12]]
    assert names(rkt) == ["example.com/app"]
    assert rkt.run("image", "list", "--fields=id", "--full", "--no-legend", check=0).lines == [key]
    text = rkt.run("image", "list", "--format=json", check=0).stdout
    assert text.startswith("[{")
    (image,) = json.loads(text)
    assert set(image) == {"id", "name", "import_time", "last_used_time", "size", "verdict"}
    assert image["id"] == key
    assert image["verdict"]["kind"] == "insecure"
    assert abs(image["import_time"] / 1e9 - time.time()) < 60
    assert '"id": "' in rkt.run("image", "list", "--format=json-pretty", check=0).stdout


def test_list_order(rkt: Rkt) -> None:
    """Sorted by import time unless told otherwise, ascending unless told otherwise."""
    b = fetch(rkt, "example.com/b", b"x" * 9000)
    a = fetch(rkt, "example.com/a", b"x" * 90000)
    c = fetch(rkt, "example.com/c")
    age(rkt, a, 10)
    age(rkt, b, 20)
    age(rkt, c, 30)
    assert names(rkt) == ["example.com/b", "example.com/a", "example.com/c"]
    assert names(rkt, "--order=desc") == ["example.com/c", "example.com/a", "example.com/b"]
    assert names(rkt, "--sort=name") == ["example.com/a", "example.com/b", "example.com/c"]
    assert names(rkt, "--sort=size") == ["example.com/c", "example.com/b", "example.com/a"]
    assert names(rkt, "--sort=lastused") == ["example.com/c", "example.com/b", "example.com/a"]
    for flags in (("--order=up",), ("--sort=id",), ("--fields=latest",), ("--fields=",), ("--format=xml",)):
        rkt.run("image", "list", *flags, check=254)


def test_version_label_is_shown_and_escaped(rkt: Rkt) -> None:
    """The name carries the version; what could move the cursor is escaped."""
    fetch(rkt, "example.com/app", labels={"version": "1.0\x1b[2J"})
    assert names(rkt) == ["example.com/app:1.0\\x1b[2J"]


def test_i9_to_i12_prefixes(rkt: Rkt) -> None:
    """Unknown, too short and ambiguous IDs are told apart."""
    seen: dict[str, str] = {}
    for i in range(64):
        key = fetch(rkt, f"example.com/i{i}", str(i).encode())
        other = seen.setdefault(key[:9], key)
        if other != key:
            break
    else:
        pytest.fail("64 images without two that share two digits")
    assert "ambiguous image ID" in rkt.run("image", "rm", key[:9], check=254).stderr
    assert "image ID too short" in rkt.run("image", "rm", "sha512-1", check=254).stderr
    unknown = "sha512-12341234"
    assert "no image IDs found" in rkt.run("image", "rm", unknown, check=254).stderr
    rkt.run("image", "rm", key[: 7 + 12], check=0)


def test_i14_to_i16_rm(rkt: Rkt) -> None:
    """By name, by ID, and by both at once, which counts once."""
    for words in ("name",), ("id",), ("name", "id"), ("id", "name"):
        key = fetch(rkt, "example.com/app")
        by = {"name": "example.com/app", "id": key}
        result = rkt.run("image", "rm", *(by[word] for word in words), check=0)
        assert result.stdout == f'successfully removed aci for image: "{key}"\n'
        assert result.stderr == "rm: 1 image(s) successfully removed\n"
    assert not any("sha512-" in path for path in listing(f"{rkt.data}/cas"))


def test_i25_rm_of_what_is_not_there(rkt: Rkt) -> None:
    """The others are removed, the status is 254."""
    key = fetch(rkt, "example.com/app")
    for word in ("sha512-not-existed", "some~random~aci~name", "/no/path.aci", "UPPER"):
        rkt.run("image", "rm", word, check=254)
    result = rkt.run("image", "rm", "some~random~aci~name", key, check=254)
    assert "1 image(s) successfully removed" in result.stderr
    assert names(rkt) == []
    rkt.run("image", "rm", check=254)


def test_rm_of_an_image_in_use(rkt: Rkt) -> None:
    """The image goes, its files stay for the pod and go with the next collection after it."""
    key = fetch(rkt, "example.com/app")
    refer(rkt.data, "exited-garbage", "a-pod", key)
    result = rkt.run("image", "rm", key, check=0)
    assert "stay as long as pods use them" in result.stderr
    assert names(rkt) == []
    assert os.path.isdir(f"{rkt.data}/cas/layer/{key}")
    rkt.run("image", "gc", check=0)
    assert os.path.isdir(f"{rkt.data}/cas/layer/{key}")
    for directory, _, files in os.walk(f"{rkt.data}/pods", topdown=False):
        for name in files:
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    result = rkt.run("image", "gc", check=0)
    assert f'removed treestore "{key}"' in result.stderr
    assert not os.path.exists(f"{rkt.data}/cas/layer/{key}")


def test_gc_by_age(rkt: Rkt) -> None:
    """Images not used within the grace period go; 24 hours unless told otherwise."""
    fresh = fetch(rkt, "example.com/fresh")
    old = fetch(rkt, "example.com/old")
    age(rkt, old, 25 * 3600)
    result = rkt.run("image", "gc", check=0)
    assert result.stdout == f'successfully removed aci for image: "{old}"\n'
    assert names(rkt) == ["example.com/fresh"]
    rkt.run("image", "gc", "--grace-period=1h", check=0)
    assert names(rkt) == ["example.com/fresh"]
    result = rkt.run("image", "gc", "--grace-period=0", check=0)
    assert fresh in result.stdout
    assert not any("sha512-" in path for path in listing(f"{rkt.data}/cas"))


def test_a_damaged_record(rkt: Rkt) -> None:
    """It is named, hides nothing, and can be removed or mended by another fetch."""
    good, bad = fetch(rkt, "example.com/good"), fetch(rkt, "example.com/bad")
    path = f"{rkt.data}/cas/record/{bad}"
    for content in (b"", b'{"format":'):
        with open(path, "wb") as file:
            file.write(content)
        result = rkt.run("image", "list", "--no-legend", "--fields=name", check=0)
        assert result.lines == ["example.com/good"]
        assert path in result.stderr
        assert "rkt image rm" in result.stderr
        assert fetch(rkt, "example.com/bad") == bad
        assert len(names(rkt)) == 2
    with open(path, "wb"):
        pass
    rkt.run("image", "rm", bad, check=0)
    assert names(rkt) == ["example.com/good"]
    assert os.path.isdir(f"{rkt.data}/cas/layer/{good}")


def test_an_empty_machine(rkt: Rkt) -> None:
    """Before the first image, every command works and list makes nothing."""
    assert rkt.run("image", "list", "--no-legend", check=0).stdout == ""
    assert os.listdir(rkt.data) == []
    rkt.run("image", "gc", check=0)
    rkt.run("image", "rm", "sha512-abcd", check=254)


def test_unprivileged_users(rkt: Rkt) -> None:
    """What needs root says so before anything else."""
    if not host.is_open_to_others(rkt.binary):
        pytest.skip("the checkout is closed to other users")
    os.chmod(rkt.base, 0o755)
    # C9: the configuration is shown to anybody.
    for words, expected in (
        (("fetch", "x.aci"), 254),
        (("image", "gc"), 254),
        (("image", "rm", "x"), 254),
        (("config",), 0),
    ):
        process = rkt.command(*words)
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(65534, 65534, 65534)
                null = os.open("/dev/null", os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                os.execv(process[0], process)
            finally:
                os._exit(99)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == expected, words
