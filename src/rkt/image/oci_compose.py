# SPDX-License-Identifier: Apache-2.0
"""The configuration of an OCI image being created: from the flags of ``rkt image create``, on top of a base's or of none.

The command becomes the entrypoint, so that words behind ``rkt run IMAGE --`` are added to it, as with an ACI.
"""

from __future__ import annotations

import os

from rkt.errors import UsageError, quoted
from rkt.image import compose
from rkt.schema import jsontext
from rkt.schema.oci import Platform
from rkt.values import AppcReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.schema.appc import ImageManifest, Port

#: Flags that say what only an ACI can.
_ACI_ONLY = (
    "manifest",
    "supplementary-gids",
    "isolator",
    "memory",
    "cpu",
    "cpu-shares",
    "oom-score-adj",
    "caps-retain",
    "caps-remove",
    "seccomp",
    "event-handler",
    "dependency",
    "path-whitelist",
    "user-annotation",
)
#: appc's annotations to the specification's.
_ANNOTATIONS = {
    "homepage": "org.opencontainers.image.url",
    "documentation": "org.opencontainers.image.documentation",
}
_TITLE = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"


def check_flags(values: dict[str, Any]) -> None:
    """Refuse flags that an OCI image has no place for.

    Raises:
        UsageError: naming the first.
    """
    for flag in _ACI_ONLY:
        if values.get(flag):
            raise UsageError(
                f"an OCI image cannot say what --{flag} says", hint="make an ACI: leave out --format"
            )


def reference_of(values: dict[str, Any]) -> str:
    """``name:tag`` of the image, empty without ``--name``."""
    if not values.get("name"):
        return ""
    reference = AppcReference.parse(values["name"])
    for label in reference.labels:
        if label != "version":
            raise UsageError(
                f"an OCI image cannot have the label {quoted(label)} in its name", hint="use --label"
            )
    return f"{reference.name}:{reference.labels.get('version', 'latest')}"


def compose_config(
    values: dict[str, Any], exec_words: list[str], base: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The configuration, without what it says of layers.

    Args:
        values: flag name -> value; absent and empty ones change nothing.
        exec_words: the command.
        base: a configuration to start from.
    Raises:
        UsageError: a flag's value is not understood.
    """
    document: dict[str, Any] = {**_processor(os.uname().machine), "os": "linux"}
    if base is not None:
        document = dict(base)
    labels = compose.parse_pairs(values, "label")
    if "arch" in labels:
        document.pop("variant", None)
        document |= _processor(labels.pop("arch"))
    if "os" in labels:
        document["os"] = labels.pop("os")
    execution = dict(document.get("config") or {})
    if command := compose.parse_command(values, exec_words):
        execution["Entrypoint"] = command
        execution.pop("Cmd", None)
    if values.get("user") or values.get("group"):
        user, _, group = execution.get("User", "").partition(":")
        user, group = values.get("user") or user or "0", values.get("group") or group
        execution["User"] = f"{user}:{group}" if group else user
    if values.get("working-dir"):
        execution["WorkingDir"] = values["working-dir"]
    environment = compose.parse_pairs(values, "environment")
    if environment:
        old = dict(pair.partition("=")[::2] for pair in execution.get("Env") or [])
        execution["Env"] = [f"{name}={value}" for name, value in {**old, **environment}.items()]
    for text in values.get("mount-point", ()):
        point = compose.parse_mount_point(text)
        execution["Volumes"] = {**(execution.get("Volumes") or {}), point["path"]: {}}
    for text in values.get("port", ()):
        port = compose.parse_port(text)
        name = f"{port['port']}/{port['protocol']}"
        execution["ExposedPorts"] = {**(execution.get("ExposedPorts") or {}), name: {}}
    _update(execution, "Labels", {**labels, **compose.parse_pairs(values, "user-label")})
    document["config"] = execution
    return document


def config_of_appc(manifest: ImageManifest) -> dict[str, Any]:
    """The configuration that says of an ACI what one can say: a command, a user, an environment, volumes, ports."""
    labels = {**manifest.labels}
    document: dict[str, Any] = {
        **_processor(labels.pop("arch", os.uname().machine)),
        "os": labels.pop("os", "linux"),
    }
    annotations = dict(manifest.annotations)
    if "created" in annotations:
        document["created"] = annotations["created"]
    if "authors" in annotations:
        document["author"] = annotations["authors"]
    execution: dict[str, Any] = {}
    app = manifest.app
    if app is not None:
        execution["User"] = f"{app.user}:{app.group}"
        execution["Entrypoint"] = list(app.exec)
        execution["WorkingDir"] = app.working_directory or "/"
        if app.environment:
            execution["Env"] = [f"{name}={value}" for name, value in app.environment.items()]
        if app.mount_points:
            execution["Volumes"] = {point.path: {} for point in app.mount_points}
        if app.ports:
            execution["ExposedPorts"] = {_exposed(port): {} for port in app.ports}
    titles = {_TITLE: manifest.name, **({_VERSION: labels["version"]} if "version" in labels else {})}
    texts = {_ANNOTATIONS[name]: value for name, value in annotations.items() if name in _ANNOTATIONS}
    user_labels = {} if app is None else dict(app.user_labels)
    _update(execution, "Labels", {**titles, **texts, **user_labels})
    document["config"] = execution
    return document


def _exposed(port: Port) -> str:
    last = f"-{port.port + port.count - 1}" if port.count > 1 else ""
    return f"{port.port}{last}/{port.protocol}"


def lost_of_appc(manifest: ImageManifest) -> list[str]:
    """What of an ACI's manifest no configuration can say, in words."""
    app = manifest.app
    if app is None:
        return []
    lost = {
        "isolators": app.isolators,
        "event handlers": app.event_handlers,
        "supplementary groups": app.supplementary_gids,
    }
    return [what for what, values in lost.items() if values]


def with_layers(
    document: dict[str, Any],
    diff_ids: list[str],
    *,
    added: int,
    created: str,
    created_by: str,
) -> bytes:
    """The configuration's bytes.

    Args:
        document: as ``compose_config`` returns it.
        diff_ids: of all layers, the bottom one first.
        added: how many of them the base does not have.
        created: time for people, may be empty.
        created_by: which command made the layers that were added.
    """
    whole = {**({"created": created} if created else {}), **document}
    if created:
        whole["created"] = created
    whole["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    history = list(whole.get("history") or [])
    told = sum(not item.get("empty_layer") for item in history if isinstance(item, dict))
    # A history that does not tell of every layer is taken for damage by some.
    if told == len(diff_ids) - added:
        new: dict[str, Any] = {**({"created": created} if created else {}), "created_by": created_by}
        whole["history"] = [*history, *([new] * added or [{**new, "empty_layer": True}])]
    return jsontext.dump(whole).encode()


def _processor(name: str) -> dict[str, str]:
    """Appc's or the kernel's word for a processor as the members of a configuration."""
    platform = Platform.parse(f"linux/{name}")
    variant = {"variant": platform.variant} if platform.variant else {}
    return {"architecture": platform.architecture, **variant}


def _update(execution: dict[str, Any], member: str, pairs: dict[str, str]) -> None:
    """Put pairs in; an empty value removes."""
    if not pairs:
        return
    merged = {**(execution.get(member) or {}), **pairs}
    execution[member] = {name: value for name, value in merged.items() if value or name not in pairs}
