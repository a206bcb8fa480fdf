# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of an installation: CycloneDX 1.5, made of what is really there.

::

    rkt                                  every file that is its own, with SHA-256
    ├─ urllib3, cryptography, …          libraries in lib/rkt/site, by their metadata, with their files
    │   └─ openssl, crates of Rust, …    what they say is linked into them (PEP 770)
    └─ coreos.com/rkt/stage1-ns, …       stage1 images, with SHA-512, which is their image ID
        └─ catatonit                     pid 1 of pods, with the package that it was copied from

The same installation gives the same bytes: order, serial number and time follow from the files and the source's date.
"""

from __future__ import annotations

import email.parser
import hashlib
import json
import os
import subprocess
import tarfile
import time
import uuid
from typing import Any

SITE = "lib/rkt/site"
STAGE1 = "lib/rkt/stage1-images"
_NAMESPACE = uuid.UUID("9a3d6e0f-9f0e-5b57-8b0c-3f5d1f3f4a6e")
#: Licence words of old metadata, and of classifiers, as SPDX spells them.
LICENSES = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
#: Licences of libraries whose metadata has no word for them, read in their texts.
BY_TEXT = {"atheris": "Apache-2.0", "sigstore-models": "MIT"}
#: Licence of the program that stage1 images bring along, where the package it came from is known.
_REAPER_LICENSE = "GPL-3.0-or-later"

Component = dict[str, Any]


def read_metadata(path: str) -> Any:
    """The headers of a distribution's METADATA."""
    with open(path, encoding="utf-8") as stream:
        return email.parser.Parser().parse(stream, headersonly=True)


def license_expression(metadata: Any) -> str:
    """The licence of a distribution in the words of SPDX; empty where its metadata does not say."""
    said = metadata["License-Expression"] or metadata["License"] or ""
    if said and "\n" not in said:
        return LICENSES.get(said, said)
    names = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier", ())
        if text.startswith("License ::")
    ]
    found = sorted({LICENSES[name] for name in names if name in LICENSES})
    return " OR ".join(found) or BY_TEXT.get(metadata["Name"].lower().replace("_", "-"), "")


def _licenses(expression: str) -> list[dict[str, Any]]:
    if not expression:
        return []
    return [{"expression": expression}] if " " in expression else [{"license": {"id": expression}}]


def _digest(path: str, algorithm: str) -> dict[str, str]:
    names = {"sha256": "SHA-256", "sha512": "SHA-512"}
    with open(path, "rb") as stream:
        return {"alg": names[algorithm], "content": hashlib.file_digest(stream, algorithm).hexdigest()}


def _files(root: str, below: str = "") -> list[str]:
    """Paths of all regular files below a directory of the root, relative to the root, sorted."""
    found = []
    for directory, _, names in os.walk(os.path.join(root, below)):
        found += [os.path.relpath(os.path.join(directory, name), root) for name in names]
    return sorted(path for path in found if not os.path.islink(os.path.join(root, path)))


def _file(root: str, path: str, prefix: str) -> Component:
    return {
        "type": "file",
        "name": f"{prefix}/{path}",
        "hashes": [_digest(os.path.join(root, path), "sha256")],
    }


def _source(path: str) -> str:
    """The module that byte code was compiled from; any other path as it is."""
    directory, name = os.path.split(path)
    if os.path.basename(directory) != "__pycache__":
        return path
    return os.path.join(os.path.dirname(directory), f"{name.partition('.')[0]}.py")


def embedded(root: str, directory: str, owner: str) -> list[Component]:
    """What a library says is linked into it."""
    found: list[Component] = []
    place = os.path.join(root, directory, "sboms")
    for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
        with open(os.path.join(place, name), encoding="utf-8") as stream:
            document = json.load(stream)
        for component in document.get("components", ()) if document.get("bomFormat") == "CycloneDX" else ():
            kept = {
                key: component[key]
                for key in ("type", "name", "version", "licenses", "purl", "hashes")
                if key in component
            }
            kept["bom-ref"] = f"{owner}#{component['name']}@{component.get('version', '')}"
            found.append(kept)
    return sorted(
        {component["bom-ref"]: component for component in found}.values(), key=lambda each: each["bom-ref"]
    )


def libraries(root: str, prefix: str, owners: dict[str, str]) -> list[Component]:
    """A component for each library in ``lib/rkt/site``, with its files.

    Args:
        root: the installation's prefix as it is on disk now.
        prefix: the prefix as it will be.
        owners: path below lib/rkt/site, byte code aside -> canonical name of the library that it belongs to.
    """
    site = os.path.join(root, SITE)
    components: dict[str, Component] = {}
    for name in sorted(os.listdir(site)):
        if not name.endswith(".dist-info"):
            continue
        metadata = read_metadata(os.path.join(site, name, "METADATA"))
        project = owners[f"{name}/METADATA"]
        purl = f"pkg:pypi/{project}@{metadata['Version']}"
        components[project] = {
            "type": "library",
            "bom-ref": purl,
            "name": metadata["Name"],
            "version": metadata["Version"],
            "licenses": _licenses(license_expression(metadata)),
            "purl": purl,
            "components": embedded(root, f"{SITE}/{name}", purl),
        }
    for path in _files(root, SITE):
        project = owners[_source(os.path.relpath(path, SITE))]
        components[project]["components"].append(_file(root, path, prefix))
    return list(components.values())


def _reaper(path: str) -> Component:
    """Pid 1 of pods, and which package its bytes are from."""
    component: Component = {
        "type": "application",
        "bom-ref": f"file:{os.path.basename(path)}",
        "name": os.path.basename(path),
        "hashes": [_digest(path, "sha256")],
    }
    query = ["dpkg-query", "--search", os.path.realpath(path)]
    try:
        owner = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return component
    if owner:
        form = "--showformat=${Package} ${Version} ${Architecture}"
        show = ["dpkg-query", "--show", form, owner.partition(":")[0]]
        package, version, machine = subprocess.run(
            show, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.split()
        purl = f"pkg:deb/debian/{package}@{version}?arch={machine}"
        component |= {
            "bom-ref": purl,
            "version": version,
            "purl": purl,
            "licenses": _licenses(_REAPER_LICENSE),
        }
    return component


def stage1_images(root: str, prefix: str, reaper: str) -> list[Component]:
    """A component for each stage1 image, with the program of others in it."""
    directory = os.path.join(root, STAGE1)
    if not os.path.isdir(directory):
        return []
    with open(os.path.join(directory, "stage1.json"), encoding="utf-8") as stream:
        listed = json.load(stream)["images"]
    found = []
    for flavor in sorted(listed):
        image = listed[flavor]
        path = os.path.join(directory, image["file"])
        digest = _digest(path, "sha512")
        if image["id"] != f"sha512-{digest['content']}":
            raise SystemExit(f"{path} is not the image that stage1.json lists")
        reference = f"{image['name']}@{image['version']}"
        component = {
            "type": "container",
            "bom-ref": reference,
            "name": image["name"],
            "version": image["version"],
            "hashes": [digest],
            "licenses": _licenses("Apache-2.0"),
            "components": [_file(root, f"{STAGE1}/{image['file']}", prefix)],
        }
        bundled = _reaper_in(path)
        if bundled is not None:
            program = _reaper(reaper)
            if program["hashes"][0]["content"] != bundled:
                raise SystemExit(f"the pid 1 in {path} is not {reaper}: build the stage1 images again")
            program["bom-ref"] = f"{reference}#{program['bom-ref']}"
            component["components"].append(program)
        found.append(component)
    return found


def _reaper_in(path: str) -> str | None:
    """SHA-256 of the pid 1 in a stage1 image; None when it has none."""
    with tarfile.open(path) as archive:
        try:
            member = archive.extractfile("rootfs/reaper")
        except KeyError:
            return None
        assert member is not None
        return hashlib.sha256(member.read()).hexdigest()


def bill(
    root: str,
    *,
    name: str = "rkt",
    prefix: str,
    version: str,
    epoch: int,
    reaper: str,
    owners: dict[str, str],
) -> bytes:
    """The document, as JSON.

    Args:
        root: directory that holds the installation's prefix now.
        name: of what is described, as packages are called.
        prefix: the prefix as it will be, such as ``/usr``.
        version: version of what is described.
        epoch: the source's time, in seconds.
        reaper: path of the program that stage1 images have as pid 1 of pods.
        owners: which library each file in lib/rkt/site belongs to, as ``libraries`` takes it.
    """
    vendored = libraries(root, prefix, owners)
    images = stage1_images(root, prefix, reaper)
    of_others = (SITE + "/", f"{STAGE1}/stage1-")
    own = [_file(root, path, prefix) for path in _files(root) if not path.startswith(of_others)]
    main = f"pkg:generic/{name}@{version}"
    parts = sorted([*vendored, *images], key=lambda each: str(each["bom-ref"]))
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": {
                "type": "application",
                "bom-ref": main,
                "name": name,
                "version": version,
                "licenses": _licenses("Apache-2.0"),
                "purl": main,
            },
        },
        "components": parts + own,
        "dependencies": [
            {"ref": main, "dependsOn": [part["bom-ref"] for part in parts]},
            *(
                {"ref": part["bom-ref"], "dependsOn": inner}
                for part in parts
                if (inner := [each["bom-ref"] for each in part["components"] if each["type"] != "file"])
            ),
        ],
    }
    content = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}"
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
