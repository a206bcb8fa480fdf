# SPDX-License-Identifier: Apache-2.0
"""Makes a release: builds everything, lists it with checksums, and signs it with a key of the caller's GnuPG.

::

    rkt-VERSION.tar.gz, rkt-VERSION-py3-none-any.whl
    rkt{,-keyless}_VERSION-1_ARCH.deb
    rkt{,-keyless}-VERSION.cdx.json  the bills of materials of the packages
    stage1-FLAVOR.aci{,.asc}         the stage1 images, each with a signature that rkt checks itself
    SHA256SUMS{,.asc}                checksums of all of these, and the signature of the list

Signatures stay out of the package: it is the same bytes whoever builds it (docs/devel/releasing.md).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tools import source
from tools.source import ROOT

SUMS = "SHA256SUMS"


def run(*command: str) -> None:
    """Run a step; its output is the caller's."""
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"release: {command[0]} failed with status {done.returncode}")


def build(directory: str) -> None:
    """Put everything that is to be signed into an empty directory."""
    work = os.path.join(ROOT, "build", "deb")
    run(sys.executable, "-I", "tools/build_dist.py", "--output", directory)
    run(sys.executable, "-I", "tools/build_deb.py", "--output", directory, "--work", work)
    for package in ("rkt", "rkt-keyless"):
        bill = os.path.join(work, package, "usr/share/doc", package, "sbom.cdx.json")
        shutil.copyfile(bill, os.path.join(directory, f"{package}-{source.engine_version()}.cdx.json"))
    images = os.path.join(work, "stage1")
    for name in sorted(os.listdir(images)):
        if name.endswith(".aci"):
            shutil.copyfile(os.path.join(images, name), os.path.join(directory, name))


def default_directory() -> str:
    """Where it goes unless told otherwise; what was only tried does not take the place of the release."""
    name = source.debian_version().rpartition("-")[0]
    return os.path.join(ROOT, "build", "release", name)


def check_key(key: str) -> None:
    """Refuse a key that could not sign before minutes were spent on what it should sign."""
    command = ["gpg", "--batch", "--list-secret-keys", "--", key]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        sys.exit("release: gpg, which signs, is not there\nhint: apt-get install gpg gpg-agent")
    if done.returncode:
        sys.exit(f"release: your GnuPG has no secret key {key}\nhint: gpg --list-secret-keys")


def write_sums(directory: str) -> str:
    """The list of checksums, in the form that ``sha256sum --check`` takes; returns its path."""
    path = os.path.join(directory, SUMS)
    lines = []
    for name in sorted(os.listdir(directory)):
        if not name.startswith(SUMS):
            with open(os.path.join(directory, name), "rb") as stream:
                lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {name}\n")
    with open(path, "w", encoding="ascii") as stream:
        stream.writelines(lines)
    return path


def sign(directory: str, key: str, engine: str) -> None:
    """Sign the stage1 images as every rkt will check them, then the list of everything.

    Args:
        directory: with what was built.
        key: fingerprint, key ID or address, as GnuPG takes it.
        engine: the rkt that signs.
    """
    for name in sorted(os.listdir(directory)):
        if name.endswith(".aci"):
            run(engine, "image", "sign", "--overwrite", f"--key={key}", os.path.join(directory, name))
    sums = write_sums(directory)
    words = ["--batch", "--yes", "--armor", "--local-user", key, "--output", f"{sums}.asc"]
    run("gpg", *words, "--detach-sign", sums)


def main() -> None:
    """Build and sign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", required=True, help="secret key of the caller's GnuPG")
    parser.add_argument(
        "--output", help="directory, replaced (build/release/VERSION; that of the package to try)"
    )
    parser.add_argument(
        "--snapshot", action="store_true", help="also of a commit without the tag of its version"
    )
    options = parser.parse_args()
    version = source.engine_version()
    if not source.is_release() and not options.snapshot:
        sys.exit(
            f"release: this is not the unchanged commit with the tag v{version}\n"
            f"hint: git status; git tag --sign v{version}; or SNAPSHOT=1 to try"
        )
    check_key(options.key)
    directory = os.path.abspath(options.output or default_directory())
    os.umask(0o022)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    build(directory)
    sign(directory, options.key, os.path.join(ROOT, "bin", "rkt"))
    print(f"release: {directory}")


if __name__ == "__main__":
    main()
