# SPDX-License-Identifier: Apache-2.0
"""``make install`` and ``make uninstall``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import fastjsonschema
import pytest
from packaging.utils import canonicalize_name

from tests.lib import cyclonedx, host
from tests.lib.rkt import ROOT, Rkt
from tools import build_deb, sbom
from tools.build_stage1 import FLAVORS
from tools.copy_libraries import required

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lib.images import Images

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(host.missing("unshare", "groupadd")), reason=host.missing("unshare", "groupadd")),
]

#: Groups are made in a copy of /etc that only this mount namespace sees; the rest of the script runs in it too.
_PRIVATE_ETC = """
set -eu
mkdir -p "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" overlay /etc
shift
exec "$@"
"""


def _make(scratch: str, *words: str) -> str:
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        _PRIVATE_ETC,
        "sh",
        scratch,
        "make",
        "--no-print-directory",
        "-C",
        ROOT,
    ]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _files(top: str) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(directory, name), top)
        for directory, _, names in os.walk(top)
        for name in names
    )


class Installed:
    """One installation below a temporary directory."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.prefix = f"{base}/usr"
        self.variables = [f"PREFIX={self.prefix}", f"DATA_DIR={base}/data", f"SYSCONF_DIR={base}/etc"]
        self.output = _make(f"{base}/scratch", "install", *self.variables)
        changed = f"{base}/scratch/upper/group"
        # A host that has the groups keeps its file.
        with open(changed if os.path.exists(changed) else "/etc/group", encoding="utf-8") as stream:
            self.groups = {line.split(":")[0]: int(line.split(":")[2]) for line in stream}


@pytest.fixture(scope="module")
def installed(rkt_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """An installation with groups and data directory."""
    base: Path = tmp_path_factory.mktemp("install")
    installation = Installed(str(base))
    yield installation
    _make(f"{base}/scratch", "uninstall", *installation.variables)
    assert _files(installation.prefix) == []


def test_everything_has_its_place(installed: Installed) -> None:
    """Launcher, package, libraries, stage1 images, man pages, completions and units are where the system looks for them."""
    files = _files(installed.prefix)
    for path in (
        "bin/rkt",
        "lib/rkt/package/rkt/cli/main.py",
        "lib/rkt/site/urllib3/__init__.py",
        *(f"lib/rkt/stage1-images/stage1-{flavor}.aci" for flavor in FLAVORS),
        "lib/rkt/stage1-images/stage1.json",
        "lib/rkt/setup-data-dir.sh",
        "lib/systemd/system/rkt-gc.service",
        "lib/systemd/system/rkt-gc.timer",
        "lib/systemd/system/rkt-metadata.service",
        "lib/systemd/system/rkt-metadata.socket",
        "lib/sysusers.d/rkt.conf",
        "lib/tmpfiles.d/rkt.conf",
        "share/bash-completion/completions/rkt",
        "share/zsh/site-functions/_rkt",
        "share/fish/vendor_completions.d/rkt.fish",
        "share/man/man1/rkt.1",
        "share/man/man1/rkt-run.1",
    ):
        assert path in files


def test_nothing_points_back_to_the_checkout(installed: Installed) -> None:
    """An installation works without the tree it came from."""
    for path in _files(installed.prefix):
        with open(os.path.join(installed.prefix, path), "rb") as stream:
            assert ROOT.encode() + b"/" not in stream.read(), path


def test_data_directory_has_owners_and_modes(installed: Installed) -> None:
    """Data is root's, the group rkt may look; configuration may be written by the group rkt-admin."""
    expected = {"data": (0o2750, "rkt"), "data/cas/layer": (0o700, "rkt"), "data/pods/run": (0o2750, "rkt")}
    for path, (mode, group) in {**expected, "etc/rkt": (0o2775, "rkt-admin")}.items():
        status = os.stat(f"{installed.base}/{path}")
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (
            mode,
            0,
            installed.groups[group],
        ), path


def test_nothing_installed_is_writable_for_others(installed: Installed) -> None:
    """Root runs these files, so only root may change them."""
    for path in _files(installed.prefix):
        status = os.lstat(os.path.join(installed.prefix, path))
        assert status.st_uid == 0
        assert not status.st_mode & 0o022, path


def test_launcher_ignores_the_caller_s_python(installed: Installed, tmp_path: Path) -> None:
    """PYTHONPATH, PYTHONSTARTUP, user site and working directory inject nothing."""
    (tmp_path / "rkt").mkdir()
    for name in ("sitecustomize.py", "usercustomize.py", "os.py", "rkt/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit('injected')\n")
    done = subprocess.run(
        [f"{installed.prefix}/bin/rkt", "version"],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path),
            "PYTHONHOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rkt Version: ")


@pytest.mark.parametrize("first_byte", [None, 0xFF], ids=["same interpreter", "another interpreter"])
def test_modules_come_from_one_file_if_it_fits(
    installed: Installed, tmp_path: Path, first_byte: int | None
) -> None:
    """The engine imports from its file of byte code, and from its sources when another interpreter wrote that file."""
    package = f"{installed.prefix}/lib/rkt/package"
    with open(f"{package}/modules", "rb") as stream:
        data = bytearray(stream.read())
    with open(f"{installed.prefix}/bin/rkt", encoding="utf-8") as stream:
        launcher = stream.read()
    if first_byte is not None:
        data[0] = first_byte
    (tmp_path / "modules").write_bytes(data)
    (tmp_path / "rkt").symlink_to(f"{package}/rkt")
    script = tmp_path / "launcher"
    assert repr(package) in launcher
    report = "import rkt.cli.version as m; print(type(m.__loader__).__name__, m.__file__, m.COMMAND.run.__code__.co_filename)\n"
    script.write_text(
        launcher.replace(repr(package), repr(str(tmp_path))).replace(
            "status = main(", f"{report}status = main("
        )
    )
    script.chmod(0o755)
    done = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
    loader, *paths = done.stdout.splitlines()[0].split()
    assert loader == ("ModuleFile" if first_byte is None else "SourceFileLoader")
    assert paths == [f"{tmp_path}/rkt/cli/version.py"] * 2


def test_installed_rkt_runs_a_pod(installed: Installed, images: Images) -> None:
    """The installed engine fetches and runs an image with its own libraries and its own stage1, and finds the others by name."""
    engine = Rkt(f"{installed.base}/engine", f"{installed.prefix}/bin/rkt")
    try:
        image = images.script("example.com/installed", "echo installed and running")
        engine.run("--insecure-options=image", "fetch", image, check=0)
        result = engine.run("--insecure-options=image", "run", "--net=none", "example.com/installed", check=0)
        assert "installed and running" in result.stdout
        fly = ("--stage1-name=coreos.com/rkt/stage1-fly", "example.com/installed")
        result = engine.run("--insecure-options=image", "run", *fly, check=0)
        assert result.stdout == "installed and running\n"
    finally:
        engine.close()


def test_bill_of_materials(installed: Installed) -> None:
    """It is valid CycloneDX, names each file with its digest, each library with its licence, and what is inside of those."""
    made = [
        sbom.bill(
            installed.prefix,
            prefix="/usr",
            version="1.2-1",
            epoch=1_700_000_000,
            reaper=shutil.which("catatonit") or "",
            owners=build_deb.owners_of_libraries(),
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]
    document = json.loads(made[0])
    cyclonedx.validate(document)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        cyclonedx.validate({**document, "components": [{"type": "library"}]})

    parts = dict(cyclonedx.walk(document["components"]))
    files = {name: part["hashes"][0]["content"] for name, part in parts.items() if part["type"] == "file"}
    assert sorted(files) == [f"/usr/{path}" for path in _files(installed.prefix)]
    for name, digest in files.items():
        with open(f"{installed.prefix}/{name.removeprefix('/usr/')}", "rb") as stream:
            assert hashlib.sha256(stream.read()).hexdigest() == digest
    libraries = {
        canonicalize_name(part["name"]): part for part in document["components"] if part["type"] == "library"
    }
    for wanted in required(f"{ROOT}/requirements/runtime.txt"):
        part = libraries.pop(canonicalize_name(wanted.name))
        assert part["version"] in wanted.specifier
        assert part["licenses"]
    assert not libraries
    assert "openssl" in parts
    assert parts["catatonit"]["version"]
    images = {part["name"]: part for part in document["components"] if part["type"] == "container"}
    assert {f"coreos.com/rkt/stage1-{flavor}" for flavor in FLAVORS} <= set(images)
    assert all(part["hashes"][0]["alg"] == "SHA-512" for part in images.values())


def test_second_installation_replaces_the_first(installed: Installed) -> None:
    """Installing again leaves the same files, and data alone."""
    before = _files(installed.prefix)
    marker = f"{installed.base}/data/marker"
    with open(marker, "w", encoding="ascii"):
        pass
    _make(f"{installed.base}/scratch", "install", *installed.variables)
    assert _files(installed.prefix) == before
    assert os.path.exists(marker)


def test_staged_installation_touches_nothing_else(rkt_binary: str, tmp_path: Path) -> None:
    """With DESTDIR everything goes below it, no group is made and no data directory."""
    scratch = str(tmp_path / "scratch")
    output = _make(scratch, "install", f"DESTDIR={tmp_path}/stage", "PREFIX=/usr")
    assert os.path.exists(tmp_path / "stage/usr/bin/rkt")
    assert not os.path.exists(tmp_path / "stage/var")
    assert os.listdir(f"{scratch}/upper") == []
    assert "setup-data-dir.sh" in output
    launcher = (tmp_path / "stage/usr/bin/rkt").read_text()
    assert "/usr/lib/rkt/package" in launcher
    assert str(tmp_path) not in launcher
