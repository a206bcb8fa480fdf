# SPDX-License-Identifier: Apache-2.0
"""``rkt trust`` and ``rkt image sign`` as people and scripts use them, and what they mean for images."""

from __future__ import annotations

import os
import pty
import stat
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.keys import Key, KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Result, Rkt


@pytest.fixture(scope="module")
def ring() -> Iterator[KeyRing]:
    """A key ring for the module."""
    with KeyRing() as made:
        yield made


@pytest.fixture(scope="module")
def alice(ring: KeyRing) -> Key:
    """A good key."""
    return ring.make("Alice <alice@example.com>")


@pytest.fixture(scope="module")
def bob(ring: KeyRing) -> Key:
    """Another good key, with a sub-key."""
    key = ring.make("Bob <bob@example.com>", "rsa2048")
    ring.add_subkey(key)
    return key


def key_file(rkt: Rkt, ring: KeyRing, *keys: Key, name: str = "pubkey.asc") -> str:
    """A file of public keys."""
    path = os.path.join(rkt.base, name)
    with open(path, "wb") as stream:
        stream.write(ring.export(*keys))
    return path


def stored(rkt: Rkt) -> list[str]:
    """Files of the local key store."""
    base = os.path.join(rkt.local, "trustedkeys")
    return sorted(os.path.relpath(os.path.join(d, f), base) for d, _, files in os.walk(base) for f in files)


def test_key_is_shown_and_trusted_for_a_prefix(rkt: Rkt, ring: KeyRing, bob: Key) -> None:
    """Prefix and location on stderr, fingerprints and identity on stdout, then one file with the documented modes."""
    path = key_file(rkt, ring, bob)
    result = rkt.run("trust", "--prefix=example.com/app", "--skip-fingerprint-review", path, check=0)
    assert 'pubkey: prefix: "example.com/app"\n' in result.stderr
    assert f'pubkey: key: "{path}"\n' in result.stderr
    lines = result.lines
    assert lines[0].startswith("gpg key fingerprint is: ")
    groups = lines[0].removeprefix("gpg key fingerprint is: ")
    assert groups.replace(" ", "").lower() == bob.fingerprint
    assert groups[24:26] == "  "
    assert lines[1].startswith("    Subkey fingerprint: ")
    assert lines[2] == "\tBob <bob@example.com>"
    assert f'Trusting "{path}" for prefix "example.com/app" without fingerprint review.' in result.stderr
    written = os.path.join(rkt.local, "trustedkeys", "prefix.d", "example.com", "app", bob.fingerprint)
    assert f'Added key for prefix "example.com/app" at "{written}"' in result.stderr
    assert stat.S_IMODE(os.stat(written).st_mode) == 0o644
    assert stat.S_IMODE(os.stat(os.path.dirname(written)).st_mode) == 0o755
    assert not os.path.exists(os.path.join(rkt.system, "trustedkeys"))


def test_every_key_of_a_file_is_shown_and_trusted(rkt: Rkt, ring: KeyRing, alice: Key, bob: Key) -> None:
    """One entry for each key that was shown (SG7)."""
    path = key_file(rkt, ring, alice, bob)
    result = rkt.run("trust", "--root", "--skip-fingerprint-review", path, check=0)
    assert result.stdout.count("gpg key fingerprint is: ") == 2
    assert result.stderr.count("Added root key at ") == 2
    assert stored(rkt) == sorted(f"root.d/{key.fingerprint}" for key in (alice, bob))


def test_without_a_terminal_nothing_is_trusted(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """A script must say that it does not want to be asked; ``yes`` from a pipe does not count."""
    result = rkt.run("trust", "--root", key_file(rkt, ring, alice), input="yes\n", check=254)
    assert (
        "error reviewing key: unable to ask user to review fingerprint due to lack of tty\n" in result.stderr
    )
    assert "--skip-fingerprint-review" in result.stderr
    assert stored(rkt) == []


def on_terminal(rkt: Rkt, answers: str, *words: str) -> tuple[int, str]:
    """Run a command on a terminal and type; exit status and all that appeared."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            command = rkt.command(*words)
            os.execve(command[0], command, rkt.environment())
        finally:
            os._exit(99)
    try:
        os.write(terminal, answers.encode())
        shown = b""
        while True:
            try:
                chunk = os.read(terminal, 4096)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode().replace("\r\n", "\n")


def test_terminal_is_asked_until_the_answer_is_a_full_word(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """``y`` is not enough, ``yes`` is."""
    status, shown = on_terminal(rkt, "y\nyes\n", "trust", "--prefix=example.com", key_file(rkt, ring, alice))
    assert status == 0
    assert "Are you sure you want to trust this key (yes/no)?" in shown
    assert "Please enter 'yes' or 'no'" in shown
    assert "after fingerprint review." in shown
    assert stored(rkt) == [f"prefix.d/example.com/{alice.fingerprint}"]


@pytest.mark.parametrize("answer", ["no\n", "\x04"])
def test_no_goes_on_with_the_next_file(rkt: Rkt, ring: KeyRing, alice: Key, bob: Key, answer: str) -> None:
    """Refusing one key, by ``no`` or by end of input, is not an error and does not touch the next."""
    first, second = key_file(rkt, ring, alice), key_file(rkt, ring, bob, name="second.asc")
    status, shown = on_terminal(rkt, answer + "yes\n", "trust", "--root", first, second)
    assert status == 0
    assert f'not trusting "{first}"' in shown
    assert stored(rkt) == [f"root.d/{bob.fingerprint}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["KEY"], "aborting due to implicit unbounded trust (root domain)"),
        ([], "--prefix or --root is needed"),
        (["--prefix=example.com", "--root", "KEY"], "--root and --prefix usage mutually exclusive"),
        (
            ["--prefix=https://example.com", "KEY"],
            "--prefix must not contain a URL scheme, omit https://",
        ),
        (["--prefix=example.com/*", "KEY"], "--prefix=example.com\n"),
        (["--prefix=a.com/../b", "KEY"], "invalid --prefix"),
        (["--root"], "empty prefix"),
        (["--prefix=127.1.1.1"], "meta discovery on 127.1.1.1 resulted in no keys"),
        (["--root", "http://example.com/k"], "--insecure-allow-http required for http URLs"),
        (["--root", "https://127.1.1.1/k"], 'cannot fetch "https://127.1.1.1/k"'),
        (["--root", "ftp://example.com/k"], "only local files and http or https URLs supported"),
        (["--root", "/nonexistent"], "/nonexistent"),
        (["--root", "/etc/hostname"], "not a file of OpenPGP public keys"),
        (["--insecure-options=image", "--root", "KEY"], "could not get the keystore"),
    ],
)
def test_misuse_is_refused(rkt: Rkt, ring: KeyRing, alice: Key, words: list[str], message: str) -> None:
    """Each wrong call ends with status 254, its message, a hint, and an unchanged key store."""
    path = key_file(rkt, ring, alice)
    result = rkt.run(
        "trust", "--skip-fingerprint-review", *(path if word == "KEY" else word for word in words), check=254
    )
    assert message in result.stderr
    assert stored(rkt) == []


def test_unsuitable_keys_are_refused(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """Weak, expired, revoked and secret keys are not trusted, nor is a good key named with them (SG4, SG5)."""
    revoked = ring.make("revoked@example.com")
    ring.revoke(revoked)
    cases = {
        "RSA with 1024 bits": ring.make("small@example.com", "rsa1024"),
        "DSA is not accepted": ring.make("dsa@example.com", "dsa2048"),
        "SHA-1": ring.make("sha1@example.com", certify_hash="SHA1"),
        "expired on 2020-12-31": ring.make_expired("expired@example.com"),
        "is revoked": revoked,
    }
    good = key_file(rkt, ring, alice, name="good.asc")
    for message, key in cases.items():
        bad = key_file(rkt, ring, key, name="bad.asc")
        result = rkt.run("trust", "--root", "--skip-fingerprint-review", good, bad, check=254)
        assert message in result.stderr
        both = key_file(rkt, ring, alice, key, name="both.asc")
        rkt.run("trust", "--root", "--skip-fingerprint-review", both, check=254)
    with open(bad, "wb") as stream:
        stream.write(ring.export(alice, secret=True))
    result = rkt.run("trust", "--root", "--skip-fingerprint-review", bad, check=254)
    assert "secret key" in result.stderr
    assert stored(rkt) == []


def test_identity_cannot_steer_the_terminal(rkt: Rkt, ring: KeyRing) -> None:
    """Control characters in an identity are shown as escapes (LG3)."""
    key = ring.make("Ev\x1b[2Jil\u202e <evil@example.com>")
    result = rkt.run("trust", "--root", "--skip-fingerprint-review", key_file(rkt, ring, key), check=0)
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "\\x1b[2Jil" in result.stdout


def sign(rkt: Rkt, ring: KeyRing, key: Key, image: str, *words: str) -> Result:
    """Sign an image by command."""
    return rkt.run("image", "sign", f"--gpg-homedir={ring.home}", f"--key={key.fingerprint}", *words, image)


def test_image_sign_prints_the_path(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """Standard output has the path alone, stderr what was signed and by whom; nothing is replaced unless asked."""
    image = os.path.join(rkt.base, "app.aci")
    write_aci(image)
    result = sign(rkt, ring, alice, image)
    assert (result.status, result.stdout) == (0, f"{image}.asc\n")
    assert "Alice <alice@example.com>" in result.stderr
    again = sign(rkt, ring, alice, image)
    assert again.status == 254
    assert "--overwrite" in again.stderr
    assert sign(rkt, ring, alice, image, "--overwrite").status == 0
    elsewhere = os.path.join(rkt.base, "elsewhere.sig")
    assert sign(rkt, ring, alice, image, f"--signature={elsewhere}").stdout == f"{elsewhere}\n"


@pytest.mark.parametrize(
    "words", [["app.aci"], ["--key=nobody@example.com", "app.aci"], ["--key=x"], ["--key=x", "absent.aci"]]
)
def test_image_sign_misuse_is_refused(rkt: Rkt, ring: KeyRing, words: list[str]) -> None:
    """Missing key, unknown key, missing image: status 254 and no signature."""
    write_aci(os.path.join(rkt.base, "app.aci"))
    result = rkt.run("image", "sign", f"--gpg-homedir={ring.home}", *words, check=254)
    assert "hint: " in result.stderr or "absent.aci" in result.stderr
    assert not os.path.exists(os.path.join(rkt.base, "app.aci.asc"))


class Images:
    """Two signed images of different prefixes (spec cli §10.5)."""

    def __init__(self, rkt: Rkt, ring: KeyRing, key: Key) -> None:
        self.rkt, self.ring = rkt, ring
        self.one, self.two = (os.path.join(rkt.base, f"{n}.aci") for n in ("one", "two"))
        write_aci(self.one, name="example.com/app", files={"data": b"x" * 10_000})
        write_aci(self.two, name="example.org/other")
        for path in (self.one, self.two):
            assert sign(rkt, ring, key, path).status == 0

    def trust(self, *words: str, key: Key) -> None:
        """Trust a key."""
        path = key_file(self.rkt, self.ring, key)
        self.rkt.run("trust", "--skip-fingerprint-review", *words, path, check=0)

    def fetch(self, image: str, *words: str) -> Result:
        """Import an image from its file."""
        return self.rkt.run("fetch", *words, image)

    def refused(self, image: str, *messages: str) -> None:
        """The image is refused with these messages and a hint, and nothing of it is in the store."""
        result = self.fetch(image)
        assert result.status == 254, str(result)
        assert not result.stdout
        for message in messages:
            assert message in result.stderr, str(result)
        assert "hint: " in result.stderr
        assert self.rkt.run("image", "list", "--no-legend", check=0).stdout == ""


UNKNOWN = "openpgp: signature made by unknown entity"


@pytest.mark.root
def test_signature_is_asked_for(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """T1: without a signature file an image is refused, even if its signer is trusted."""
    images = Images(rkt, ring, alice)
    images.trust("--root", key=alice)
    os.unlink(f"{images.one}.asc")
    images.refused(images.one, "error opening signature file")


@pytest.mark.root
def test_signer_must_be_trusted_for_the_name(rkt: Rkt, ring: KeyRing, alice: Key, bob: Key) -> None:
    """T2 to T7: only the right key for the right prefix, or as root key, makes an image acceptable."""
    images = Images(rkt, ring, alice)
    hint = "rkt trust --prefix=example.com/app"
    images.refused(images.one, UNKNOWN, 'image "example.com/app" verification failed', hint)
    images.trust("--prefix=example.com/ap", key=alice)
    images.trust("--prefix=example.net", key=alice)
    images.refused(images.one, UNKNOWN, hint)
    images.trust("--prefix=example.com/app", key=bob)
    images.refused(images.one, UNKNOWN, hint)
    images.trust("--prefix=example.com/app", key=alice)
    assert images.fetch(images.one).status == 0
    result = images.fetch(images.two)
    assert result.status == 254
    assert UNKNOWN in result.stderr
    images.trust("--root", key=alice)
    assert images.fetch(images.two).status == 0


@pytest.mark.root
def test_changed_image_is_refused(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """One flipped byte in an image by a trusted signer: refused, nothing in the store."""
    images = Images(rkt, ring, alice)
    images.trust("--root", key=alice)
    with open(images.one, "r+b") as stream:
        stream.seek(stream.read().index(b"x" * 1000) + 500)
        stream.write(b"X")
    images.refused(images.one, "changed after it was signed")


@pytest.mark.root
def test_removed_key_stops_a_stored_image(rkt: Rkt, ring: KeyRing, alice: Key) -> None:
    """A verified image is prepared until its key is gone; then the rule and the next command are named (SG12)."""
    images = Images(rkt, ring, alice)
    images.trust("--prefix=example.com", key=alice)
    image_id = images.fetch(images.one).stdout.strip()
    uuid = rkt.run("prepare", image_id, check=0).stdout.strip()
    os.unlink(os.path.join(rkt.local, "trustedkeys", "prefix.d", "example.com", alice.fingerprint))
    for words in (("prepare", image_id), ("run", image_id), ("run-prepared", uuid)):
        result = rkt.run(*words, check=254)
        assert 'rule "prefix example.com"' in result.stderr, str(result)
        assert "rkt trust --prefix=example.com/app" in result.stderr
    rkt.run("--insecure-options=image", "prepare", image_id, check=0)
