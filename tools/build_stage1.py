# SPDX-License-Identifier: Apache-2.0
"""Builds the stage1 images, one for each flavour: same sources, same interpreter, same bytes.

An image is an ACI whose root file system holds the flavour as a small script of its name, its modules and one file with
the byte code of them all (``lib``), links to the script under the names of the entrypoints, the compiled system call
filter, and for some the built-in networks and the pod's pid 1. Why so: docs/adr/0006 and 0009. Beside the images stands
``stage1.json``, the list by which the engine knows the images of its own installation.

Needs the standard library only.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tools import module_file  # noqa: E402 - isolated, so the path comes first
from tools.build_launcher import head_of_script, real_interpreter  # noqa: E402 - as above

SOURCE = os.path.join(ROOT, "src", "rkt")
#: Modules and packages of every image, relative to src/rkt; what stage1 and stage2 may import (design §2).
MEMBERS = (
    "__init__.py",
    "errors.py",
    "values.py",
    "schema",
    "linux",
    "net",
    "stage0/__init__.py",
    "stage0/contract.py",
    "stage1/__init__.py",
    "stage1/common",
    "stage2",
)
#: Flavours, each a package of that name in ``stage1`` with a manifest: whether its image brings the built-in networks,
#: and a pid 1 for the pod. The first is the default.
FLAVORS = {"ns": (True, True), "nspawn": (True, False), "fly": (False, False)}
_ANNOTATIONS = "coreos.com/rkt/stage1/"
DIRECTORIES = ("opt", "opt/stage2", "rkt", "rkt/env", "rkt/status")
#: Labels of appc by the kernel's machine names (spec runtime §1.2).
ARCHITECTURES = {
    "x86_64": "amd64",
    "i686": "i386",
    "aarch64": "aarch64",
    "aarch64_be": "aarch64_be",
    "armv6l": "armv6l",
    "armv7l": "armv7l",
    "armv7b": "armv7b",
    "ppc64le": "ppc64le",
}
#: The program. ``-I`` keeps the caller's Python environment out; the modules are found beside the script by the path by
#: which the kernel was told to run it.
SCRIPT = """\
# SPDX-License-Identifier: Apache-2.0
import gc
import os
import sys

gc.set_threshold(50_000)
sys.path.insert(0, sys.argv[0].rpartition("/")[0] + "/lib")
@IMPORTER@
from rkt.stage1.@FLAVOR@.__main__ import main

os._exit(main())
""".replace("@IMPORTER@", module_file.LAUNCHER)


def source_files(flavor: str) -> list[str]:
    """Paths below src/ of every module that goes into a flavour's image, sorted."""
    found = []
    for member in (*MEMBERS, f"stage1/{flavor}"):
        path = os.path.join(SOURCE, member)
        if member.endswith(".py"):
            found.append(path)
            continue
        for directory, names, files in os.walk(path):
            names[:] = sorted(name for name in names if name != "__pycache__")
            found += [os.path.join(directory, name) for name in files if name.endswith(".py")]
    return sorted(os.path.relpath(path, os.path.dirname(SOURCE)) for path in found)


def lean(source: bytes, name: str) -> ast.Module:
    """The module with its asserts, without docstrings and types of functions, which nothing in stage1 reads.

    A supervisor holds its code for as long as its pod lives.
    """
    tree = ast.parse(source, name)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
    return tree


def build_modules(flavor: str) -> dict[str, bytes]:
    """Name below rootfs and content of every module's source, and of the file with their byte code."""
    sources = []
    for path in source_files(flavor):
        with open(os.path.join(os.path.dirname(SOURCE), path), "rb") as stream:
            sources.append((path, stream.read()))
    files = {f"lib/{path}": source for path, source in sources}
    files[f"lib/{module_file.FILE_NAME}"] = module_file.build(
        sources,
        lambda source, path: compile(lean(source, path), path, "exec", dont_inherit=True),
    )
    return files


def build_filter(directory: str) -> dict[str, bytes]:
    """Name and bytes of the compiled default system call filter."""
    os.makedirs(directory, exist_ok=True)
    subprocess.run(
        [sys.executable, "-I", "-S", os.path.join(ROOT, "tools", "build_seccomp.py"), directory], check=True
    )
    filters = {}
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), "rb") as stream:
            filters[name] = stream.read()
    return filters


def network_files() -> list[str]:
    """Paths of the built-in networks, sorted."""
    directory = os.path.join(SOURCE, "stage1/common/net.d")
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory))]


def manifest_path(flavor: str) -> str:
    """Path of a flavour's image manifest, without labels."""
    return os.path.join(SOURCE, "stage1", flavor, "manifest.json")


def read_manifest(flavor: str) -> tuple[dict[str, Any], list[str]]:
    """A flavour's manifest, and the names of its entrypoints."""
    with open(manifest_path(flavor), "rb") as stream:
        manifest = json.load(stream)
    values = [each["value"] for each in manifest["annotations"] if each["name"].startswith(_ANNOTATIONS)]
    return manifest, sorted(value[1:] for value in values if value.startswith("/"))


def read_reaper(path: str) -> bytes:
    """The pod's pid 1; it runs where no library of the host is, so it must be static."""
    with open(path, "rb") as stream:
        data = stream.read()
    if not data.startswith(b"\x7fELF") or b"\0/lib/ld" in data or b"\0/lib64/ld" in data:
        raise SystemExit(f"{path} is not a static ELF program")
    return data


def write_aci(path: str, manifest: bytes, files: dict[str, tuple[int, bytes]], links: dict[str, str]) -> str:
    """Write the image and return its ID, ``sha512-`` and 128 hex digits.

    Args:
        path: file to replace.
        manifest: bytes of the image manifest.
        files: name below rootfs -> mode and content.
        links: name below rootfs -> target of a symbolic link.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), target
            archive.addfile(entry, io.BytesIO(data))

        add("manifest", tarfile.REGTYPE, 0o644, manifest)
        add("rootfs", tarfile.DIRTYPE, 0o755)
        parents = {name[:i] for name in files for i, c in enumerate(name) if c == "/"}
        for name in sorted({*DIRECTORIES, *parents, *files, *links}):
            if name in files:
                add(f"rootfs/{name}", tarfile.REGTYPE, files[name][0], files[name][1])
            elif name in links:
                add(f"rootfs/{name}", tarfile.SYMTYPE, 0o777, target=links[name])
            else:
                add(f"rootfs/{name}", tarfile.DIRTYPE, 0o755)
    data = buffer.getvalue()
    replace(path, data)
    return f"sha512-{hashlib.sha512(data).hexdigest()}"


def replace(path: str, data: bytes) -> None:
    """Write beside and rename."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as stream:
        stream.write(data)
    os.chmod(temporary, 0o644)
    os.rename(temporary, path)


def inputs_digest(interpreter: str, reaper: str, *, is_release: bool) -> str:
    """Changes whenever the image would."""
    host = f"{interpreter}\0{sys.version}\0{platform.machine()}\0{is_release}\0"
    digest = hashlib.sha256(host.encode())
    found = {path for flavor in FLAVORS for path in source_files(flavor)}
    paths = [os.path.join(os.path.dirname(SOURCE), path) for path in sorted(found)]
    tools = os.path.dirname(os.path.abspath(__file__))
    paths += [
        os.path.join(tools, name)
        for name in (
            "build_stage1.py",
            "build_launcher.py",
            "build_seccomp.py",
            "module_file.py",
            "module_importer.py",
        )
    ]
    paths += [manifest_path(flavor) for flavor in FLAVORS]
    paths += [*network_files(), reaper]
    for path in paths:
        digest.update(path.encode() + b"\0")
        with open(path, "rb") as stream:
            digest.update(stream.read())
    return digest.hexdigest()


def package_version(content: bytes, *, is_release: bool) -> str:
    """Version of the image; a checkout's carries a hash of the content, so that changed code is another image."""
    with open(os.path.join(SOURCE, "__init__.py"), encoding="utf-8") as stream:
        version = next(line.split('"')[1] for line in stream if line.startswith("__version__"))
    if not is_release and os.path.exists(os.path.join(ROOT, ".git")):
        version += "+" + hashlib.sha256(content).hexdigest()[:12]
    return version


def main() -> None:
    """Build unless nothing has changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="directory for the image and stage1.json")
    parser.add_argument("--reaper", default=shutil.which("catatonit") or "/usr/bin/catatonit")
    parser.add_argument("--python", default=real_interpreter(), help="interpreter that runs stage1")
    parser.add_argument("--release", action="store_true", help="name the version of the release alone")
    options = parser.parse_args()
    os.makedirs(options.output, mode=0o755, exist_ok=True)
    stamp = os.path.join(options.output, ".inputs")
    digest = inputs_digest(options.python, options.reaper, is_release=options.release)
    if os.path.exists(stamp):
        with open(stamp, encoding="ascii") as stream:
            if stream.read() == digest:
                return

    filters = build_filter(os.path.join(options.output, "seccomp"))
    shutil.rmtree(os.path.join(options.output, "seccomp"))
    images = {flavor: build(flavor, options, filters) for flavor in FLAVORS}
    listed = {"default": next(iter(FLAVORS)), "images": images}
    replace(os.path.join(options.output, "stage1.json"), json.dumps(listed, indent=2).encode() + b"\n")
    replace(stamp, digest.encode())
    for image in images.values():
        print(f"setup: built {image['name']}:{image['version']}", file=sys.stderr)


def build(flavor: str, options: argparse.Namespace, filters: dict[str, bytes]) -> dict[str, str]:
    """Write a flavour's image; returns what the list says of it."""
    has_networks, has_reaper = FLAVORS[flavor]
    manifest, entrypoints = read_manifest(flavor)
    script = SCRIPT.replace("@FLAVOR@", flavor)
    files = {flavor: (0o755, os.fsencode(head_of_script(options.python, "-IS") + script))}
    if has_reaper:
        files["reaper"] = (0o111, read_reaper(options.reaper))
    for name, data in (*build_modules(flavor).items(), *filters.items()):
        files[name] = (0o644, data)
    for path in network_files() if has_networks else ():
        with open(path, "rb") as network:
            files[f"etc/rkt/net.d/{os.path.basename(path)}"] = (0o644, network.read())
    version = package_version(
        json.dumps(manifest).encode() + b"".join(name.encode() + files[name][1] for name in sorted(files)),
        is_release=options.release,
    )
    labels = {"version": version, "os": "linux", "arch": ARCHITECTURES[platform.machine()]}
    manifest["labels"] = [{"name": name, "value": value} for name, value in labels.items()]
    file = f"stage1-{flavor}.aci"
    image = write_aci(
        os.path.join(options.output, file),
        json.dumps(manifest, separators=(",", ":")).encode(),
        files,
        dict.fromkeys(entrypoints, flavor),
    )
    return {"name": manifest["name"], "version": version, "id": image, "file": file}


if __name__ == "__main__":
    main()
