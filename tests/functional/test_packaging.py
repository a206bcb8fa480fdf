# SPDX-License-Identifier: Apache-2.0
"""What ``make deb``, ``make dist`` and ``make release`` are made of; ``make test-deb`` installs the whole package."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from typing import TYPE_CHECKING

import pytest

from tests.lib import host
from tests.lib.keys import KeyRing
from tests.lib.rkt import ROOT
from tools import build_deb, release, source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lib.rkt import Rkt

_NO_DPKG = host.missing("dpkg-deb", "dpkg-query")
needs_dpkg = pytest.mark.skipif(bool(_NO_DPKG), reason=_NO_DPKG)
EPOCH = 1_700_000_000


def _dist(output: Path, umask: int, **environment: str) -> dict[str, str]:
    script = "import os, sys; os.umask(int(sys.argv[1])); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    tool = ["-I", os.path.join(ROOT, "tools", "build_dist.py"), "--output", str(output)]
    words = [sys.executable, "-I", "-c", script, str(umask), *tool]
    subprocess.run(words, env={**os.environ, **environment}, check=True, capture_output=True)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in output.iterdir()}


def test_source_archive_and_wheel_are_reproducible(tmp_path: Path) -> None:
    """Another umask, locale and time zone make the same bytes; the archive builds, the wheel has the engine alone."""
    first = _dist(tmp_path / "one", 0o022, TZ="UTC")
    assert first == _dist(tmp_path / "two", 0o077, TZ="Asia/Tokyo", LC_ALL="C")
    with tarfile.open(next((tmp_path / "one").glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if not source.git("rev-parse", "HEAD"):
        pytest.skip("there is no repository to compare the archive with")
    tracked = set(source.git("ls-tree", "-r", "--name-only", "HEAD").splitlines())
    assert names == tracked | {"PKG-INFO"}
    with zipfile.ZipFile(next((tmp_path / "one").glob("*.whl"))) as wheel:
        assert {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()} == {"rkt"}


class Package:
    """A staging directory with little in it, and what is made of it."""

    def __init__(self, base: Path) -> None:
        self.root = str(base / "root")
        build_deb.write(f"{self.root}/usr/bin/rkt", "#!/bin/sh\n")
        os.chmod(f"{self.root}/usr/bin/rkt", 0o700)
        build_deb.write(f"{self.root}/usr/lib/rkt/site/module.so", b"\0GLIBC_2.4\0GLIBC_2.35\0")
        options = argparse.Namespace(maintainer=build_deb.MAINTAINER, reaper=shutil.which("catatonit"))
        build_deb.control(self.root, "rkt", options, "1.2-1")
        self.path = str(base / "rkt.deb")
        build_deb.pack(self.root, self.path, EPOCH)

    def dpkg_deb(self, *words: str) -> str:
        """What dpkg-deb says of the package."""
        return subprocess.run(
            ["dpkg-deb", *words[:1], self.path, *words[1:]], check=True, capture_output=True, text=True
        ).stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The package of a staging directory."""
    if _NO_DPKG or not shutil.which("catatonit"):
        pytest.skip(_NO_DPKG or "catatonit is missing")
    return Package(tmp_path_factory.mktemp("package"))


def test_package_says_what_it_needs(package: Package) -> None:
    """Interpreter, C library and programs are those that the files inside were made for; sources of others are named."""
    fields = Parser().parsestr(package.dpkg_deb("--field"))
    major, minor = sys.version_info[:2]
    needed = {each.strip() for each in fields["Depends"].split(",")}
    assert {
        f"python3 (>= {major}.{minor}~)",
        f"python3 (<< {major}.{minor + 1}~)",
        "libc6 (>= 2.35)",
    } <= needed
    assert {name.partition(" ")[0] for name in needed} >= {"libseccomp2", "gpgv", "passwd"}
    assert {"containernetworking-plugins", "nftables", "systemd-container"} <= set(
        fields["Recommends"].split(", ")
    )
    assert fields["Built-Using"].startswith("catatonit (= ")
    assert "@" not in package.dpkg_deb("--field").replace(build_deb.MAINTAINER, "")
    assert set(package.dpkg_deb("--info").split()) >= set(build_deb.SCRIPTS) | {"md5sums"}


def test_package_has_modes_and_owners_of_its_own(package: Package) -> None:
    """Whatever the umask was, root owns all of it, everybody may read it, and nobody else may write it."""
    rows = [line.split() for line in package.dpkg_deb("--contents").splitlines()]
    modes = {row[-1]: (row[0], row[1]) for row in rows}
    assert modes["./usr/bin/rkt"] == ("-rwxr-xr-x", "root/root")
    assert modes["./usr/lib/rkt/site/module.so"] == ("-rw-r--r--", "root/root")
    assert all(mode == ("drwxr-xr-x", "root/root") for path, mode in modes.items() if path.endswith("/"))


def test_package_is_reproducible(package: Package, tmp_path: Path) -> None:
    """The same files at another path, made in another order, give the same bytes."""
    other = str(tmp_path / "another path")
    shutil.copytree(package.root, other)
    build_deb.pack(other, str(tmp_path / "rkt.deb"), EPOCH)
    with open(package.path, "rb") as one, open(tmp_path / "rkt.deb", "rb") as two:
        assert one.read() == two.read()


@pytest.mark.parametrize("is_used", [False, True], ids=["no pod", "a pod that runs"])
def test_purging_takes_no_pod_that_runs(is_used: bool, tmp_path: Path) -> None:
    """Purging removes data and configuration without a question, and leaves the data where a pod's directory is locked."""
    data, configuration = tmp_path / "data", tmp_path / "etc"
    pod = data / "pods" / "run" / "a"
    for directory in (pod, configuration):
        directory.mkdir(parents=True)
    text = (
        build_deb.template("postrm")
        .replace("/var/lib/rkt", str(data))
        .replace("/etc/rkt", str(configuration))
    )
    words = ["flock", str(pod)] if is_used else []
    # Not as systemd's host: nothing is asked to reload.
    text = text.replace("/run/systemd/system", str(tmp_path / "none"))
    for action, stays in (("remove", True), ("purge", is_used)):
        done = subprocess.run(
            [*words, "sh", "-c", text, "postrm", action],
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert pod.exists() == stays
    assert not configuration.exists()
    assert ("left alone" in done.stderr) == is_used


@needs_dpkg
@pytest.mark.parametrize(
    ("commit", "tags", "changes", "expected"),
    [
        ("0123456789", "v{version}", "", "{version}-1"),
        ("0123456789", "v{version}", " M README.md", "{version}~git20231114221320.0123456789+changed-1"),
        ("0123456789", "v0.0.1", "", "{version}~git20231114221320.0123456789-1"),
        ("", "", "", "{version}~20231114221320-1"),
    ],
    ids=["release", "release, changed", "another commit", "no repository"],
)
def test_version_of_the_package(
    commit: str, tags: str, changes: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the unchanged commit with the tag of the version is that version; it is an upgrade from every other."""
    version = source.engine_version()
    answers = {"rev-parse": commit, "tag": tags.format(version=version), "status": changes, "log": str(EPOCH)}
    monkeypatch.setattr(source, "git", lambda *words: answers[words[0]])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    found = source.debian_version()
    assert found == expected.format(version=version)
    subprocess.run(["dpkg", "--compare-versions", found, "le", f"{version}-1"], check=True)


@pytest.fixture(scope="module")
def keys() -> Iterator[KeyRing]:
    """A ring with the key of a release."""
    with KeyRing() as ring:
        yield ring


def test_release_needs_its_key(keys: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that cannot sign is noticed before anything is built."""
    key = keys.make("release@example.com")
    monkeypatch.setenv("GNUPGHOME", keys.home)
    release.check_key(key.fingerprint)
    with pytest.raises(SystemExit, match="no secret key nobody@"):
        release.check_key("nobody@example.com")


def test_what_is_linked_into_a_library_is_named(tmp_path: Path) -> None:
    """The copyright file names each part that a library's own bill of materials lists, with its license."""
    place = tmp_path / "lib-1.dist-info"
    (place / "sboms").mkdir(parents=True)
    (place / "METADATA").write_text("Name: lib\nVersion: 1\nLicense-Expression: MIT\n")
    (place / "LICENSE").write_text("Copyright (c) 2026 Somebody\n\nDo as you like.\n")
    part = {"type": "library", "name": "crate", "version": "2", "licenses": [{"expression": "BSD-3-Clause"}]}
    (place / "sboms" / "lib.json").write_text(json.dumps({"bomFormat": "CycloneDX", "components": [part]}))
    text = build_deb.stanza(str(tmp_path), place.name)
    assert "Copyright: Copyright (c) 2026 Somebody\nLicense: MIT\n" in text
    assert text.endswith("crate 2 (BSD-3-Clause).")


def test_release_is_signed(
    rkt: Rkt,
    keys: KeyRing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Checksums cover every file, gpgv finds the signature of the list good, and rkt that of a stage1 image."""
    key = keys.make("release@example.com")
    monkeypatch.setenv("GNUPGHOME", keys.home)
    (tmp_path / "rkt_1_amd64.deb").write_bytes(b"a package")
    shutil.copy(os.path.join(ROOT, "build/stage1/stage1-ns.aci"), tmp_path)
    release.sign(str(tmp_path), key.fingerprint, rkt.binary)
    listed = (tmp_path / release.SUMS).read_text()
    assert [line.split()[1] for line in listed.splitlines()] == [
        "rkt_1_amd64.deb",
        "stage1-ns.aci",
        "stage1-ns.aci.asc",
    ]
    subprocess.run(
        ["sha256sum", "--check", "--strict", release.SUMS], cwd=tmp_path, check=True, capture_output=True
    )
    ring = tmp_path / "key.gpg"
    ring.write_bytes(keys.export(key, armour=False))
    gpgv = ["gpgv", "--keyring", str(ring), f"{release.SUMS}.asc", release.SUMS]
    subprocess.run(gpgv, cwd=tmp_path, check=True, capture_output=True)

    image = str(tmp_path / "stage1-ns.aci")
    rkt.run("fetch", image, check=254)
    armored = tmp_path / "key.asc"
    armored.write_bytes(keys.export(key))
    rkt.run("trust", "--prefix=coreos.com/rkt/stage1-ns", "--skip-fingerprint-review", str(armored), check=0)
    rkt.run("fetch", image, check=0)
    (tmp_path / "stage1-ns.aci.asc").unlink()
    with open(image, "ab") as stream:
        stream.write(bytes(512))
    rkt.run("run", "--net=none", f"--stage1-path={image}", "example.com/none", check=254)
