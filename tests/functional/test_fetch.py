# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.keys import LONG_AGO, KeyRing
from tests.lib.server import Certificate, Page, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.keys import Key
    from tests.lib.rkt import Result, Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
NAME = "example.com/app"


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[KeyRing, Key]]:
    """A ring with one key."""
    with KeyRing() as ring:
        yield ring, ring.make("alice@example.com")


@pytest.fixture
def server() -> Iterator[Server]:
    """A plain server."""
    with Server() as running:
        yield running


def make(rkt: Rkt, name: str = NAME, file: str = "app.aci", content: bytes = b"hello") -> str:
    """Path of an unsigned image."""
    path = f"{rkt.base}/{file}"
    write_aci(path, ["/bin/app"], name=name, files={"bin/app": (content, 0o755)}, compression="gzip")
    return path


def read(path: str) -> bytes:
    """Content of a file."""
    with open(path, "rb") as file:
        return file.read()


def sign(keys: tuple[KeyRing, Key], path: str) -> str:
    """Put a signature beside an image."""
    ring, key = keys
    with open(f"{path}.asc", "wb") as file:
        file.write(ring.sign(key, read(path)))
    return f"{path}.asc"


def trust(rkt: Rkt, keys: tuple[KeyRing, Key], prefix: str = NAME) -> None:
    """Trust the key for a prefix."""
    ring, key = keys
    path = f"{rkt.base}/alice.asc"
    with open(path, "wb") as file:
        file.write(ring.export(key))
    rkt.run("trust", f"--prefix={prefix}", "--skip-fingerprint-review", path, check=0)


def assert_nothing_in_store(rkt: Rkt) -> None:
    """No image, no part of one, no staging."""
    assert rkt.run("image", "list", "--format=json", check=0).stdout == "[]\n"
    left = [
        os.path.join(parent, name)
        for parent, _, files in os.walk(f"{rkt.data}/cas")
        for name in files
        # What came of a transfer that broke is kept for the next attempt (test_resume).
        if "imagelocks" not in parent and not parent.endswith("/partial")
    ]
    assert left == []
    assert not os.path.isdir(f"{rkt.data}/cas/tmp") or os.listdir(f"{rkt.data}/cas/tmp") == []


def assert_refused(rkt: Rkt, result: Result, *words: str) -> None:
    """Status 254, a message with these words and a hint, no result, nothing in the store."""
    assert result.status == 254, result
    assert result.stdout == "", result
    for word in words:
        assert word in result.stderr, result
    assert "hint: " in result.stderr, result
    assert_nothing_in_store(rkt)


def test_f1_a_file_is_imported_each_time(rkt: Rkt) -> None:
    """Both fetches of a file say that they use the file, and leave one image."""
    path = make(rkt)
    for _ in range(2):
        result = rkt.run(INSECURE, "fetch", "--debug", path, check=0)
        assert f"image: using image from file {path}" in result.stderr
        assert "warning: image signature verification has been disabled" in result.stderr
    assert len(rkt.run("image", "list", "--no-legend", check=0).lines) == 1


def test_f2_deprecated_flags_change_nothing_for_files(rkt: Rkt) -> None:
    """--store-only and --no-store are synonyms of policies, which do not matter for files."""
    path = make(rkt)
    for flag, policy in (("--store-only", "never"), ("--no-store", "update")):
        result = rkt.run(INSECURE, "--debug", "fetch", flag, path, check=0)
        assert f"using image from file {path}" in result.stderr
        assert f"use --pull-policy={policy}" in result.stderr


@pytest.mark.parametrize(
    "row",
    [f"{words}{flag}" for words in ("F3 run", "F4 prepare") for flag in ("", " --store-only", " --no-store")],
)
def test_f3_f4_pods_of_files(rkt: Rkt, images: Images, row: str) -> None:
    """A pod of a file imports it each time, whatever the policy."""
    path = images.busybox("example.com/true", ("/bin/true",), file="f3-f4")
    for _ in range(2):
        result = rkt.run(INSECURE, "--debug", *row.split()[1:], path, check=0)
        assert f"using image from file {path}" in result.stderr


def test_f9_f10_pull_policies_of_urls(rkt: Rkt, server: Server) -> None:
    """New and never reuse what came from exactly this URL, update asks the server again."""
    url = server.put("/app.aci", read(make(rkt)))
    result = rkt.run(INSECURE, "--debug", "fetch", "--pull-policy=never", url, check=254)
    assert f'unable to fetch image from URL "{url}"' in result.stderr
    assert server.requests == []
    for policy, words, count in (
        ("new", f'remote fetching from URL "{url}"', 1),
        ("new", f"using image from local store for url {url}", 1),
        ("never", f"using image from local store for url {url}", 1),
        ("update", f"fetching image from {url}", 2),
    ):
        result = rkt.run(INSECURE, "--debug", "fetch", f"--pull-policy={policy}", url, check=0)
        assert words in result.stderr
        assert len(server.requests) == count
    rkt.run("image", "rm", NAME, check=0)
    rkt.run(INSECURE, "fetch", "--pull-policy=never", url, check=254)


def test_f9_names_in_the_store(rkt: Rkt) -> None:
    """A name that the store has is found there; one that it does not have is looked for at its host."""
    rkt.run(INSECURE, "fetch", make(rkt), check=0)
    for policy in ("new", "never"):
        result = rkt.run("--debug", "fetch", f"--pull-policy={policy}", NAME, check=0)
        assert f"using image from local store for image name {NAME}" in result.stderr
    result = rkt.run("fetch", "--pull-policy=never", "example.com/other", check=254)
    assert 'unable to fetch image from image name "example.com/other"' in result.stderr
    result = rkt.run("fetch", "127.1.1.1/other", check=254)
    assert 'discovery failed for "127.1.1.1/other"' in result.stderr
    assert "hint: " in result.stderr
    result = rkt.run("fetch", "docker://busybox", check=254)
    assert 'image "docker.io/library/busybox" verification failed' in result.stderr
    assert "hint: rkt trust --prefix=docker.io/library " in result.stderr


def test_f11_f12_hashes(rkt: Rkt) -> None:
    """One hash per image in order: 32 digits, with --full 64; they name the images."""
    one, two = make(rkt), make(rkt, "example.com/two", "two.aci")
    short = rkt.run(INSECURE, "fetch", one, two, check=0).lines
    full = rkt.run(INSECURE, "fetch", "--full", one, two, check=0).lines
    assert [re.fullmatch(r"sha512-[0-9a-f]{32}", line) is not None for line in short] == [True, True]
    assert [re.fullmatch(r"sha512-[0-9a-f]{64}", line) is not None for line in full] == [True, True]
    assert [line[:39] for line in full] == short
    names = rkt.run("image", "list", "--no-legend", "--full", "--fields=id,name", check=0).lines
    assert sorted(names) == sorted(
        f"{key}\t{name}" for key, name in zip(full, (NAME, "example.com/two"), strict=True)
    )


def test_the_first_failure_ends_it(rkt: Rkt) -> None:
    """When one image cannot be had, nothing is printed."""
    result = rkt.run(INSECURE, "fetch", make(rkt), f"{rkt.base}/none.aci", check=254)
    assert result.stdout == ""
    assert "none.aci: No such file or directory" in result.stderr


def test_usage(rkt: Rkt) -> None:
    """No image, arguments for an app, an unknown policy and other file types are refused."""
    assert "must provide at least one image" in rkt.run("fetch", check=254).stderr
    assert "app arguments unsupported" in rkt.run("fetch", "x.aci", "--", "y", check=254).stderr
    assert "pull-policy" in rkt.run("fetch", "--pull-policy=often", "x.aci", check=254).stderr
    os.rename(make(rkt), f"{rkt.base}/app.tar")
    assert "invalid image string" in rkt.run("fetch", f"{rkt.base}/app.tar", check=254).stderr


def test_a_signed_file(rkt: Rkt, keys: tuple[KeyRing, Key]) -> None:
    """With the key trusted for the name, the image is accepted and the verdict says by whom."""
    path = make(rkt)
    sign(keys, path)
    trust(rkt, keys)
    result = rkt.run("fetch", path, check=0)
    assert "image: signature verified:\nimage:   alice@example.com" in result.stderr
    listed = rkt.run("image", "list", "--full", "--no-legend", "--fields=verdict", check=0).stdout
    assert listed == f"openpgp {keys[1].fingerprint} (prefix {NAME})\n"


def test_an_unsigned_file_is_refused(rkt: Rkt) -> None:
    """No signature, no image."""
    result = rkt.run("fetch", make(rkt))
    assert_refused(rkt, result, "error opening signature file", "app.aci.asc")


def test_an_unknown_key_is_refused(rkt: Rkt, keys: tuple[KeyRing, Key]) -> None:
    """A good signature by a key that nobody trusts is refused."""
    path = make(rkt)
    sign(keys, path)
    assert_refused(rkt, rkt.run("fetch", path), "verification failed", f"rkt trust --prefix={NAME}")


def test_prefixes_are_compared_by_component(rkt: Rkt, keys: tuple[KeyRing, Key]) -> None:
    """A key trusted for example.com/ap does not count for example.com/app."""
    path = make(rkt)
    sign(keys, path)
    trust(rkt, keys, "example.com/ap")
    assert_refused(rkt, rkt.run("fetch", path), "verification failed")


@pytest.mark.parametrize("position", [40, -20])
def test_a_flipped_byte_is_refused(rkt: Rkt, keys: tuple[KeyRing, Key], position: int) -> None:
    """One changed byte of the image is enough."""
    path = make(rkt, content=os.urandom(5000))
    sign(keys, path)
    trust(rkt, keys)
    data = bytearray(read(path))
    data[position] ^= 1
    with open(path, "wb") as file:
        file.write(data)
    result = rkt.run("fetch", path)
    assert result.status == 254, result
    assert result.stdout == ""
    assert_nothing_in_store(rkt)


def test_another_images_signature_is_refused(rkt: Rkt, keys: tuple[KeyRing, Key]) -> None:
    """A signature by a trusted key over other bytes is refused."""
    path, other = make(rkt), make(rkt, file="other.aci", content=b"other")
    trust(rkt, keys)
    result = rkt.run("fetch", path, f"--signature={sign(keys, other)}")
    assert_refused(rkt, result, "verification failed")


def test_signature_flag(rkt: Rkt, keys: tuple[KeyRing, Key], server: Server) -> None:
    """--signature belongs to the image before it, for files and for URLs; nothing is looked for beside the image."""
    path = make(rkt)
    trust(rkt, keys)
    elsewhere = f"{rkt.base}/elsewhere.sig"
    os.rename(sign(keys, path), elsewhere)
    rkt.run("fetch", path, f"--signature={elsewhere}", check=0)
    rkt.run("image", "rm", NAME, check=0)
    rkt.run("fetch", server.put("/app.aci", read(path)), "--signature", elsewhere, check=0)
    assert server.paths() == ["/app.aci"]


def test_a_signed_url(rkt: Rkt, keys: tuple[KeyRing, Key], server: Server) -> None:
    """The signature is asked for first, beside the image, with the same query."""
    path = make(rkt)
    trust(rkt, keys)
    url = server.put("/app.aci?v=1", read(path))
    result = rkt.run("fetch", url)
    assert_refused(rkt, result, "error downloading the signature file", "404")
    assert server.paths() == ["/app.aci.asc?v=1"]
    server.put("/app.aci.asc?v=1", read(sign(keys, path)))
    result = rkt.run("--debug", "fetch", url, check=0)
    assert server.paths()[1:] == ["/app.aci.asc?v=1", "/app.aci?v=1"]
    assert f"downloading signature from {server.url}/app.aci.asc?v=1" in result.stderr
    assert server.requests[-1].headers["User-Agent"].startswith("rkt/")


def test_a_deferred_signature(rkt: Rkt, keys: tuple[KeyRing, Key], server: Server) -> None:
    """202 for the signature: the image first, then once more; twice 202 is an error."""
    path = make(rkt)
    trust(rkt, keys)
    url = server.put("/app.aci", read(path))
    signature = read(sign(keys, path))
    server.put("/app.aci.asc", Page(signature, first=[202, 202]))
    result = rkt.run("fetch", url)
    assert_refused(
        rkt, result, "server requested deferring the signature download", "defer the download again"
    )
    server.requests.clear()
    server.put("/app.aci.asc", Page(signature, first=[202]))
    rkt.run("fetch", url, check=0)
    assert server.paths() == ["/app.aci.asc", "/app.aci", "/app.aci.asc"]


def test_redirects(rkt: Rkt, server: Server) -> None:
    """A redirected URL is remembered as it was asked for."""
    server.put("/real", read(make(rkt)))
    url = server.put("/app.aci", Page(redirect="/real"))
    rkt.run(INSECURE, "fetch", url, check=0)
    result = rkt.run(INSECURE, "--debug", "fetch", "--pull-policy=new", url, check=0)
    assert f"using image from local store for url {url}" in result.stderr


@pytest.mark.parametrize(
    "page",
    [
        Page(b"x" * 100_000, truncate=50_000),
        Page(b"not an image" * 1000),
        Page(b""),
        Page(hang_up=True),
        Page(status=500),
    ],
    ids=["truncated", "garbage", "empty", "hang-up", "status 500"],
)
def test_bad_answers_leave_nothing(rkt: Rkt, server: Server, page: Page) -> None:
    """Whatever a server answers instead of an image, nothing is left."""
    result = rkt.run(INSECURE, "fetch", server.put("/app.aci", page))
    assert result.status == 254, result
    assert "Traceback" not in result.stderr
    assert_nothing_in_store(rkt)


def test_https(rkt: Rkt) -> None:
    """A certificate that nobody vouches for is refused, but not with --insecure-options=tls, which says so."""
    certificate = Certificate()
    try:
        with Server(certificate=certificate) as server:
            url = server.put("/app.aci", read(make(rkt)))
            result = rkt.run(INSECURE, "fetch", url)
            assert result.status == 254
            assert "certificate is not valid" in result.stderr
            assert_nothing_in_store(rkt)
            result = rkt.run("--insecure-options=image,tls", "fetch", url, check=0)
            assert "warning: TLS verification has been disabled" in result.stderr
    finally:
        certificate.close()


def test_a_later_insecure_fetch_keeps_the_verdict(rkt: Rkt, keys: tuple[KeyRing, Key]) -> None:
    """Insecure never replaces openpgp; openpgp replaces insecure."""
    path = make(rkt)
    rkt.run(INSECURE, "fetch", path, check=0)
    verdict = ("image", "list", "--no-legend", "--fields=verdict")
    assert rkt.run(*verdict).stdout == "NOT VERIFIED\n"
    sign(keys, path)
    trust(rkt, keys)
    rkt.run("fetch", path, check=0)
    assert rkt.run(*verdict).stdout == "openpgp\n"
    rkt.run(INSECURE, "fetch", path, check=0)
    assert rkt.run(*verdict).stdout == "openpgp\n"


def test_progress_without_a_terminal(rkt: Rkt, server: Server) -> None:
    """Figures in lines, no control characters."""
    result = rkt.run(INSECURE, "fetch", server.put("/app.aci", read(make(rkt))), check=0)
    assert re.search(r"^Downloading ACI: \d+ B/\d+ B$", result.stderr, re.MULTILINE), result
    assert "\r" not in result.stderr
    assert "\x1b" not in result.stderr


def test_host_names_are_resolved(rkt: Rkt, server: Server) -> None:
    """The confined worker finds a host by its name."""
    url = server.put("/app.aci", read(make(rkt))).replace("127.0.0.1", "localhost")
    rkt.run(INSECURE, "fetch", url, check=0)
    assert server.requests[0].headers["Host"].startswith("localhost:")


@pytest.mark.parametrize("size_kib", [400, 1000, 1800, 2600])
def test_a_full_disk(rkt: Rkt, size_kib: int) -> None:
    """Wherever the space runs out, the reason is named, the store is as before, and removing needs no space."""
    small = make(rkt, "example.com/small", "small.aci")
    path = make(rkt, content=os.urandom(1_000_000))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=750", "tmpfs", rkt.data], check=True
    )
    try:
        rkt.run(INSECURE, "fetch", small, check=0)
        result = rkt.run(INSECURE, "fetch", path)
        if size_kib < 2000:
            assert result.status == 254, result
            assert "No space left on device" in result.stderr
            assert rkt.run("image", "list", "--no-legend", "--fields=name").lines == ["example.com/small"]
            assert os.listdir(f"{rkt.data}/cas/tmp") == []
        else:
            assert result.status == 0, result
        with open(f"{rkt.data}/filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
        rkt.run("image", "rm", "example.com/small", check=0)
        rkt.run("image", "gc", "--grace-period=0", check=0)
        assert rkt.run("image", "list", "--no-legend", check=0).stdout == ""
    finally:
        subprocess.run(["umount", rkt.data], check=True)


def rule(rkt: Rkt, prefix: str, what: str, default: str = "keystore") -> None:
    """Have one rule."""
    os.makedirs(f"{rkt.local}/trust.d", exist_ok=True)
    path = f"{rkt.local}/trust.d/rule.toml"
    with open(path, "w", encoding="ascii") as file:
        file.write(f'version = 1\ndefault = "{default}"\n[[rule]]\nprefix = "{prefix}"\nall = [ {what} ]\n')
    os.chmod(path, 0o644)


def test_rules_decide_about_acis_too(rkt: Rkt, keys: tuple[KeyRing, Key], server: Server) -> None:
    """Unsigned files and URLs pass where a rule says so, told and marked, and only there; a file of keys is asked as the key store is."""
    rule(rkt, "example.com/lax", '{ kind = "unsigned" }')
    lax, other = make(rkt, "example.com/lax", "lax.aci"), make(rkt, "example.com/laxer", "laxer.aci")
    for path in (lax, other):
        server.put(f"/{os.path.basename(path)}", Page(read(path)))
    told = 'warning: nobody signed image "example.com/lax", the rule for example.com/lax'
    assert told in rkt.run("fetch", lax, check=0).stderr
    assert "NOT SIGNED" in rkt.run("image", "list", "--no-legend", "--fields=verdict", check=0).stdout
    rkt.run("image", "rm", "example.com/lax", check=0)
    assert told in rkt.run("fetch", f"{server.url}/lax.aci", check=0).stderr
    assert 'image "example.com/laxer" has no signature' in rkt.run("fetch", other, check=254).stderr
    refused = rkt.run("fetch", f"{server.url}/laxer.aci", check=254).stderr
    assert "error downloading the signature file" in refused

    ring, key = keys
    trusted = f"{rkt.base}/keys.asc"
    with open(trusted, "wb") as file:
        file.write(ring.export(key))
    os.chmod(trusted, 0o644)
    rule(rkt, "example.com", f'{{ kind = "openpgp", keys = "{trusted}" }}', default="refuse")
    assert "error opening signature file" in rkt.run("fetch", lax, check=254).stderr
    server.put("/laxer.aci.asc", Page(read(sign(keys, other))))
    verified = rkt.run("fetch", f"{server.url}/laxer.aci", check=0).stderr
    assert f"openpgp {key.fingerprint} (detached signature)" in verified
    # Going back is told (SG11).
    aged = ring.make("aged@example.com", when=LONG_AGO)
    with open(trusted, "wb") as file:
        file.write(ring.export(key, aged))
    older = make(rkt, "example.com/laxer", "older.aci", content=b"older")
    with open(f"{older}.asc", "wb") as file:
        file.write(ring.sign(aged, read(older), when=LONG_AGO))
    assert 'warning: image "example.com/laxer" went back: sha512-' in rkt.run("fetch", older, check=0).stderr
    apart = make(rkt, "example.org/app", "apart.aci")
    sign(keys, apart)
    assert "rule.toml refuses the rest" in rkt.run("fetch", apart, check=254).stderr
