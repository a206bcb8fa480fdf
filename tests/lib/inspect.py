# SPDX-License-Identifier: Apache-2.0
"""The image that the rows of spec runtime §6 are about, made of busybox, and pods of many apps that each look at one thing.

Limits of 25Mi and 800m, ``VAR_FROM_MANIFEST=manifest``, ``PATH=/bin``, ``/dir1/file`` and ``/dir2/file``, ``user1`` = 1000 and ``group1`` = 100, and no
``/etc/hosts`` or ``/etc/resolv.conf``. Starting a pod costs more than starting an app, so rows that allow it share one.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from tests.lib import flavors
from tests.lib.images import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt

INSECURE = "--insecure-options=image"
NAME = "example.com/inspect"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nuser1:x:1000:1000::/:/bin/sh\n"
GROUP = b"root:x:0:\ngroup1:x:100:\n"
ENVIRONMENT = [{"name": "VAR_FROM_MANIFEST", "value": "manifest"}, {"name": "PATH", "value": "/bin"}]
ISOLATORS = [
    {"name": "resource/memory", "value": {"limit": "25Mi"}},
    {"name": "resource/cpu", "value": {"limit": "800m"}},
]


def inspect_image(images: Images, file: str = "inspect", **more: Any) -> str:
    """Path of the image; ``more`` as for ``Images.busybox``, ``app`` is merged into the app section."""
    app = {"environment": ENVIRONMENT, "isolators": ISOLATORS, **more.pop("app", {})}
    return images.busybox(
        more.pop("name", NAME),
        more.pop("exec_", ("/bin/sh",)),
        file=file,
        files={
            "etc/passwd": PASSWD,
            "etc/group": GROUP,
            "dir1/file": b"dir1",
            "dir2/file": b"dir2",
            **more.pop("files", {}),
        },
        links={"cat-link": "bin/busybox", "link/cat": "/bin/busybox", "bin/cat-on-path": "busybox"}
        | more.pop("links", {}),
        app=app,
        **more,
    )


_KEYS: dict[tuple[str, str], str] = {}


def stored(rkt: Rkt, path: str) -> str:
    """The key of an unsigned image in an engine's store, where it is put only once."""
    if (rkt.base, path) not in _KEYS:
        _KEYS[rkt.base, path] = fetch(rkt, path)
    return _KEYS[rkt.base, path]


def shell_app(image: str, name: str, script: str, *flags: str) -> list[str]:
    """Words for one app that runs a script, to be followed by others."""
    return [image, f"--name={name}", *flags, "--exec=/bin/sh", "--", "-c", script, "---"]


def by_app(output: str) -> dict[str, str]:
    """What each app of a pod said: text by name, without the marks of the lines."""
    texts: dict[str, str] = {}
    for line in output.splitlines():
        match = re.fullmatch(r"([a-z0-9-]+)\[\d+\]: (.*)", line)
        if match:
            texts[match[1]] = texts.get(match[1], "") + match[2] + "\n"
    return texts


def run_apps(
    rkt: Rkt,
    apps: Iterable[Sequence[str]],
    *flags: str,
    way: str = "run",
    env: dict[str, str] | None = None,
) -> dict[str, str]:
    """What each of some apps says, by name: all of them in one pod, or each in its own where the flavour has one app in a pod.

    Args:
        rkt: the engine.
        apps: words of each, as ``shell_app`` gives them; each ends with 0.
        flags: of the pod.
        way: ``run``, or ``prepare`` and ``run-prepared``.
        env: variables of the caller.
    """
    every = [list(words) for words in apps]
    together = flavors.has_promised(rkt.flavor, "several apps")
    said: dict[str, str] = {}
    for some in [every] if together else [[each] for each in every]:
        words = [word for each in some for word in each]
        if way == "run":
            output = rkt.run("run", INSECURE, *flags, *words, env=env, check=0).stdout
        else:
            uuid = rkt.run("prepare", INSECURE, *flags, *words, env=env, check=0).stdout.strip()
            output = rkt.run("run-prepared", uuid, check=0).stdout
        names = [word.removeprefix("--name=") for word in words if word.startswith("--name=")]
        said |= by_app(output) if len(names) > 1 else {names[0]: output}
    return said


def write_pod_manifest(path: str, apps: Iterable[dict[str, Any]], **more: Any) -> str:
    """A pod manifest of apps (see ``manifest_app``); ``more`` are its other members. Returns ``path``."""
    manifest = {"acKind": "PodManifest", "acVersion": "0.8.11", "apps": list(apps), **more}
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(manifest, stream)
    return path


def manifest_app(image_id: str, name: str, script: str | None, **more: Any) -> dict[str, Any]:
    """One app of a pod manifest; members of the app section by their names, members of the app itself under ``entry``."""
    entry = more.pop("entry", {})
    app: dict[str, Any] = {"name": name, "image": {"id": image_id}, **entry}
    if script is not None:
        app["app"] = {"exec": ["/bin/sh", "-c", script], "user": "0", "group": "0", **more}
    return app


def run_manifest(rkt: Rkt, way: str, path: str, *, check: int | None = 0) -> Result:
    """A pod manifest by ``run``, or by ``prepare`` and ``run-prepared``."""
    if way == "run":
        return rkt.run("run", INSECURE, f"--pod-manifest={path}", check=check)
    prepared = rkt.run("prepare", INSECURE, f"--pod-manifest={path}")
    if prepared.status:
        assert prepared.status == check, f"status {check} was expected\n{prepared}"
        return prepared
    return rkt.run("run-prepared", prepared.stdout.strip(), check=check)


def newest_pod(rkt: Rkt) -> str:
    """Path of the pod directory that was made last."""
    return max(
        (rkt.pod_path(uuid) for uuid in rkt.pods()),
        key=lambda path: os.stat(f"{path}/pod-created").st_mtime_ns,
    )
