# SPDX-License-Identifier: Apache-2.0
"""Builds the Debian packages, from what ``make setup man completion`` has built, without a network.

``rkt`` is the engine; ``rkt-keyless`` has the libraries that verify identities (docs/trust.md), in the same directory as
its own.

``tools/install.sh`` installs below a staging directory; this adds what only a package has (``dist/debian``, the bill of
materials, licences, checksums), gives every file its mode, and has ``dpkg-deb`` write it with the source's date. The same
commit gives the same bytes, whatever the path, the umask, the locale and the time (docs/devel/releasing.md). Why the
package is made so, and why it brings libraries: docs/adr/0015.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from packaging.utils import canonicalize_name

from tools import sbom, source
from tools.copy_libraries import required
from tools.source import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TEMPLATES = os.path.join(ROOT, "dist", "debian")
SCRIPTS = ("postinst", "prerm", "postrm")
#: What Debian calls the interpreter, so that the package does not depend on one minor version's name.
INTERPRETER = "/usr/bin/python3"
DOCUMENTS = ("README.md", "SECURITY.md", "CONTRIBUTING.md")
MAINTAINER = "The rkt maintainers <rkt@packages.invalid>"
_DOC = "usr/share/doc/rkt"


def run(*command: str, **environment: str) -> None:
    """Run a build step; what it prints is seen when it fails."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nbuild_deb: {command[0]} failed with status {done.returncode}")


def output(*command: str) -> str:
    """What a command prints, without the line end."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def write(path: str, data: bytes | str) -> None:
    """A file, with its directories."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


def template(name: str, **values: str) -> str:
    """A file of dist/debian with its ``@NAMES@`` filled in."""
    with open(os.path.join(TEMPLATES, name), encoding="utf-8") as stream:
        text = stream.read()
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1].lower()], text)


def compress(path: str) -> None:
    """Replace a file by ``path.gz``, which has neither its name nor a time in it."""
    with open(path, "rb") as stream:
        data = stream.read()
    write(f"{path}.gz", gzip.compress(data, 9, mtime=0))
    os.unlink(path)


def regular_files(root: str) -> list[str]:
    """Paths of all files below a directory, relative to it, sorted."""
    return sorted(
        os.path.relpath(os.path.join(directory, name), root)
        for directory, _, names in os.walk(root)
        for name in names
    )


def owners_of_libraries(name: str = "runtime") -> dict[str, str]:
    """Path below lib/rkt/site -> canonical name of the library, as the environment's distributions list them."""
    owners = {}
    for requirement in required(os.path.join(ROOT, "requirements", f"{name}.txt")):
        for file in importlib.metadata.distribution(requirement.name).files or ():
            owners[str(file)] = str(canonicalize_name(requirement.name))
    return owners


def c_library(site: str) -> str:
    """The oldest C library that all compiled modules can be loaded with: the newest symbol version they name."""
    versions = {(2, 34)}
    for path in regular_files(site):
        if path.endswith(".so"):
            with open(os.path.join(site, path), "rb") as stream:
                found = re.findall(rb"GLIBC_(\d+)\.(\d+)", stream.read())
            versions |= {(int(major), int(minor)) for major, minor in found}
    return "{}.{}".format(*max(versions))


def built_using(reaper: str) -> str:
    """The source packages whose programs are in the stage1 images, as the control field has them."""
    name = output("dpkg-query", "--search", os.path.realpath(reaper)).partition(":")[0]
    return output("dpkg-query", "--show", "--showformat=${source:Package} (= ${source:Version})", name)


def stanza(site: str, directory: str) -> str:
    """A library's paragraph of the copyright file, with the texts of its licences."""
    metadata = sbom.read_metadata(os.path.join(site, directory, "METADATA"))
    texts = []
    place = os.path.join(site, directory)
    for path in regular_files(place):
        if re.search(r"LICEN[CS]E|COPYING|NOTICE", os.path.basename(path)):
            with open(os.path.join(place, path), encoding="utf-8") as stream:
                text = stream.read().expandtabs().strip("\n\f")
            # Policy 12.5: what base-files has is named, not repeated.
            of_debian = "Apache License" in text[:200] and len(text) > 9000
            texts.append("/usr/share/common-licenses/Apache-2.0" if of_debian else text)
    if not texts:
        raise SystemExit(f"{directory} has no text of its licence")
    body = f"\n{'-' * 20}\n".join(texts).replace("\f", "").splitlines()
    holders = [
        line.strip(" -*")
        for line in body
        if re.match(r"\W*Copyright (\(c\)|©|[12]\d{3})", line, re.IGNORECASE)
    ]
    holders = list(dict.fromkeys(holders)) or [f"the authors of {metadata['Name']}"]
    lines = [
        f"Files: usr/lib/rkt/site/* ({metadata['Name']} {metadata['Version']})",
        "Copyright: " + "\n ".join(holders),
        f"License: {sbom.license_expression(metadata).replace(' OR ', ' or ')}",
        *(f" {line.rstrip()}" if line.strip() else " ." for line in body),
    ]
    if parts := [_named(part) for part in sbom.embedded(site, directory, metadata["Name"])]:
        words = f"Comment: Linked into it, each with the license that it names: {', '.join(parts)}."
        lines += textwrap.wrap(words, 100, subsequent_indent=" ", break_long_words=False)
    return "\n".join(lines)


def _named(part: dict[str, Any]) -> str:
    """A component of a bill of materials with its licenses."""
    said = [each.get("expression") or each["license"].get("id", "") for each in part.get("licenses", ())]
    # The bill that wheels bring says nothing of this one.
    known = {"openssl": "Apache-2.0"}
    license_ = " and ".join(said) or known.get(part["name"], "see there")
    return f"{part['name']} {part.get('version', '')} ({license_})"


def copyright_file(site: str, *, name: str = "copyright") -> str:
    """The copyright file: ours, and the licences of what is brought along."""
    ours = template(name).strip()
    libraries = [stanza(site, name) for name in sorted(os.listdir(site)) if name.endswith(".dist-info")]
    own = (
        "License: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0; that of the\n"
        " GNU General Public License, version 3, in /usr/share/common-licenses/GPL-3."
    )
    return "\n\n".join([ours, *libraries, own]) + "\n"


def changelog(package: str, version: str, maintainer: str, epoch: int) -> str:
    """Debian's changelog: one entry, this build; what changed stands in the changelog of the engine."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(epoch))
    return (
        f"{package} ({version}) unstable; urgency=medium\n\n  * New package; what is new in rkt stands in changelog.gz.\n\n"
        f" -- {maintainer}  {date}\n"
    )


def stage(root: str, options: argparse.Namespace, version: str, epoch: int) -> None:
    """Everything of the package but its control files."""
    images = os.path.join(options.work, "stage1")
    words = ["--release"] if source.is_release() else []
    python = sys.executable
    run(
        *(python, "-I", "-S", "tools/build_stage1.py", "--output", images),
        *("--python", INTERPRETER, "--reaper", options.reaper, *words),
    )
    run(
        *("tools/install.sh", "install", "/usr", root, "/var/lib/rkt", "/etc"),
        STAGE1_IMAGES=images,
        INTERPRETER=INTERPRETER,
    )
    share = os.path.join(root, "usr", "share")
    os.makedirs(os.path.join(share, "zsh", "vendor-completions"))
    os.rename(
        os.path.join(share, "zsh/site-functions/_rkt"), os.path.join(share, "zsh/vendor-completions/_rkt")
    )
    os.rmdir(os.path.join(share, "zsh", "site-functions"))
    for path in regular_files(os.path.join(share, "man")):
        compress(os.path.join(share, "man", path))

    doc = os.path.join(root, _DOC)
    for name in DOCUMENTS:
        with open(os.path.join(ROOT, name), "rb") as stream:
            write(os.path.join(doc, name), stream.read())
    for path in regular_files(os.path.join(ROOT, "docs")):
        if not path.startswith("man/") and path.endswith(".md"):
            with open(os.path.join(ROOT, "docs", path), "rb") as stream:
                write(os.path.join(doc, "docs", path), stream.read())
    shutil.copyfile(os.path.join(ROOT, "tools", "demo.sh"), _made(os.path.join(doc, "examples", "demo.sh")))
    os.chmod(os.path.join(doc, "examples", "demo.sh"), 0o755)
    write(os.path.join(doc, "README.Debian"), template("README.Debian"))
    documents(root, "rkt", options, version, epoch)


def stage_keyless(root: str, options: argparse.Namespace, version: str, epoch: int) -> None:
    """The libraries of the extra, where the engine finds them."""
    site = os.path.join(root, "usr", sbom.SITE)
    python = [sys.executable, "-I"]
    run(*python, "tools/copy_libraries.py", "--requirements", "requirements/keyless.txt", "--target", site)
    compiling = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    run(*python, *compiling, "-s", site, "-p", f"/usr/{sbom.SITE}", site)
    documents(root, "rkt-keyless", options, version, epoch)


def documents(root: str, package: str, options: argparse.Namespace, version: str, epoch: int) -> None:
    """What each package has in its directory of documents, and the bill of materials of all that was staged."""
    doc = os.path.join(root, "usr/share/doc", package)
    suffix = package.removeprefix("rkt")
    site = os.path.join(root, "usr", sbom.SITE)
    write(os.path.join(doc, "copyright"), copyright_file(site, name=f"copyright{suffix}"))
    write(os.path.join(doc, "changelog.Debian"), changelog(package, version, options.maintainer, epoch))
    shutil.copyfile(os.path.join(ROOT, "CHANGELOG.md"), os.path.join(doc, "changelog"))
    for name in ("changelog", "changelog.Debian"):
        compress(os.path.join(doc, name))
    overrides = (
        template("lintian-overrides").replace("rkt:", f"{package}:").replace("doc/rkt/", f"doc/{package}/")
    )
    if suffix:
        overrides = re.sub(r"(#.*\n)+.*maintainer-script.*\n", "", overrides)
    write(os.path.join(root, "usr/share/lintian/overrides", package), overrides)
    bill = sbom.bill(
        os.path.join(root, "usr"),
        name=package,
        prefix="/usr",
        version=version,
        epoch=epoch,
        reaper=options.reaper,
        owners=owners_of_libraries(suffix.removeprefix("-") or "runtime"),
    )
    write(os.path.join(doc, "sbom.cdx.json"), bill)


def _made(path: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def normalise(root: str) -> None:
    """Modes that do not depend on the umask: what its owner may execute, all may; nobody else writes."""
    os.chmod(root, 0o755)
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)


def control(root: str, package: str, options: argparse.Namespace, version: str) -> None:
    """The control directory."""
    suffix = package.removeprefix("rkt")
    directory = os.path.join(root, "DEBIAN")
    files = regular_files(root)
    sums = []
    for path in files:
        with open(os.path.join(root, path), "rb") as stream:
            sums.append(f"{hashlib.file_digest(stream, 'md5').hexdigest()}  {path}\n")
    major, minor = sys.version_info[:2]
    values = {
        "version": version,
        "architecture": output("dpkg", "--print-architecture"),
        "maintainer": options.maintainer,
        "installed_size": str(sum(-(-os.stat(os.path.join(root, path)).st_size // 1024) for path in files)),
        "built_using": built_using(options.reaper),
        "python": f"{major}.{minor}",
        "next_python": f"{major}.{minor + 1}",
        "libc": c_library(os.path.join(root, "usr", sbom.SITE)),
    }
    write(os.path.join(directory, "control"), template(f"control{suffix}", **values))
    write(os.path.join(directory, "md5sums"), "".join(sums))
    for name in () if suffix else SCRIPTS:
        write(os.path.join(directory, name), template(name))
        os.chmod(os.path.join(directory, name), 0o755)


def pack(root: str, path: str, epoch: int) -> None:
    """Write the package of a staging directory; its bytes depend on that and the time alone."""
    normalise(root)
    # One thread: how many there are decides where the compressor cuts.
    run(
        *("dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", root, f"{path}.new"),
        SOURCE_DATE_EPOCH=str(epoch),
        LC_ALL="C.UTF-8",
        TZ="UTC",
    )
    os.rename(f"{path}.new", path)


def main() -> None:
    """Build the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="directory for the package")
    parser.add_argument(
        "--work", default=os.path.join(ROOT, "build", "deb"), help="staging directory, replaced"
    )
    parser.add_argument("--reaper", default=shutil.which("catatonit") or "/usr/bin/catatonit")
    parser.add_argument("--maintainer", default=MAINTAINER, help="NAME <ADDRESS> of who made this package")
    options = parser.parse_args()
    if not shutil.which("dpkg-deb"):
        sys.exit("build_deb: dpkg-deb is missing: a Debian package is built on Debian")
    os.umask(0o022)
    epoch, version = source.source_date_epoch(), source.debian_version()
    shutil.rmtree(options.work, ignore_errors=True)
    os.makedirs(options.output, exist_ok=True)
    for package, fill in (("rkt", stage), ("rkt-keyless", stage_keyless)):
        root = os.path.join(options.work, package)
        fill(root, options, version, epoch)
        control(root, package, options, version)
        name = f"{package}_{version}_{output('dpkg', '--print-architecture')}.deb"
        pack(root, os.path.join(options.output, name), epoch)
        print(os.path.join(options.output, name))


if __name__ == "__main__":
    main()
