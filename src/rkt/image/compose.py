# SPDX-License-Identifier: Apache-2.0
"""The manifest of an image being created: from flags, or from a file with flags on top (``rkt image create``).

Flags work on the canonical form of the manifest and add to what the file says: a value with a name replaces the one of
the same name, a list flag that has no names replaces the list. The result is parsed as any manifest is.
"""

from __future__ import annotations

import os

from rkt.errors import InvalidManifest, UsageError, quoted
from rkt.schema import jsontext
from rkt.schema.appc import parse_image_manifest
from rkt.schema.architectures import appc_name
from rkt.schema.isolators import (
    CAPABILITIES_REMOVE,
    CAPABILITIES_RETAIN,
    CPU,
    CPU_SHARES,
    MEMORY,
    OOM_SCORE_ADJ,
    SECCOMP_REMOVE,
    SECCOMP_RETAIN,
)
from rkt.schema.shorthand import parse_seccomp
from rkt.values import AC_VERSION, AppcReference, is_number, parse_boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEPENDENCY_OPTIONS = ("imageID=", "size=")


def compose_manifest(values: dict[str, Any], exec_words: list[str], base: bytes | None = None) -> bytes:
    """Bytes of the manifest that the flags of ``rkt image create`` ask for.

    Args:
        values: flag name -> value; absent and empty ones change nothing.
        exec_words: words after the output file: the command.
        base: a manifest to start from; kept byte for byte when no flag changes it.

    Raises:
        UsageError: a flag's value is not understood, or the name is missing.
        InvalidManifest: what comes out breaks the appc specification.
    """
    if base is None:
        document: dict[str, Any] = {"acKind": "ImageManifest", "acVersion": AC_VERSION}
        _set(document, "labels", {"os": "linux", "arch": appc_name(os.uname().machine)})
    else:
        document = parse_image_manifest(base).to_json()
    untouched = jsontext.dump(document)
    _image_fields(document, values)
    _app_fields(document, values, exec_words)
    if base is not None and jsontext.dump(document) == untouched:
        return base
    if "name" not in document:
        raise UsageError("an image needs a name", hint="give --name=example.com/app or --manifest=FILE")
    canonical = parse_image_manifest(jsontext.dump(document).encode()).to_json()
    return jsontext.dump(canonical).encode()


def compose_above(values: dict[str, Any], base: bytes, image_id: str) -> bytes:
    """A manifest to start from for an image that depends on another one and runs as that one does.

    Args:
        values: as for ``compose_manifest``; must give the new image a name.
        base: the other one's manifest.
        image_id: its full ID.
    Raises:
        UsageError: there is no name.
    """
    if not values.get("name"):
        raise UsageError(
            "an image on top of another one needs a name of its own", hint="--name=example.com/app"
        )
    below = parse_image_manifest(base)
    labels = {name: value for name, value in below.labels.items() if name in {"os", "arch"}}
    dependency: dict[str, Any] = {"imageName": below.name, "imageID": image_id}
    _set(dependency, "labels", below.labels)
    document: dict[str, Any] = {
        "acKind": "ImageManifest",
        "acVersion": AC_VERSION,
        "name": AppcReference.parse(values["name"]).name,
    }
    _set(document, "labels", labels)
    if below.app is not None:
        document["app"] = below.app.to_json()
    document["dependencies"] = [dependency]
    return jsontext.dump(document).encode()


def _image_fields(document: dict[str, Any], values: dict[str, Any]) -> None:
    if values.get("name"):
        reference = AppcReference.parse(values["name"])
        document["name"] = reference.name
        _set(document, "labels", reference.labels)
    _set(document, "labels", parse_pairs(values, "label"))
    _set(document, "annotations", parse_pairs(values, "annotation"))
    if values.get("dependency"):
        document["dependencies"] = [_dependency(text) for text in values["dependency"]]
    if values.get("path-whitelist"):
        document["pathWhitelist"] = list(values["path-whitelist"])


def _app_fields(document: dict[str, Any], values: dict[str, Any], exec_words: list[str]) -> None:
    app: dict[str, Any] = document.get("app", {"exec": [], "user": "0", "group": "0"})
    before = jsontext.dump(app)
    if command := parse_command(values, exec_words):
        app["exec"] = command
    for flag, member in (("user", "user"), ("group", "group"), ("working-dir", "workingDirectory")):
        if values.get(flag):
            app[member] = values[flag]
    if values.get("supplementary-gids"):
        gids = ",".join(values["supplementary-gids"]).split(",")
        app["supplementaryGIDs"] = [_number(gid, "supplementary-gids") for gid in gids]
    _set(app, "environment", parse_pairs(values, "environment"), remove_empty=False)
    for text in values.get("event-handler", ()):
        name, equals, command_text = text.partition("=")
        if not equals or not command_text:
            raise _bad("event-handler", text, "pre-start=PATH or post-stop=PATH")
        _replace(app, "eventHandlers", {"name": name, "exec": _words("event-handler", [command_text])})
    for text in values.get("mount-point", ()):
        _replace(app, "mountPoints", parse_mount_point(text))
    for text in values.get("port", ()):
        _replace(app, "ports", parse_port(text))
    for isolator in _isolators(app, values):
        _replace(app, "isolators", isolator)
    for flag, member in (("user-label", "userLabels"), ("user-annotation", "userAnnotations")):
        if pairs := parse_pairs(values, flag):
            app[member] = {**app.get(member, {}), **pairs}
    if "app" in document or jsontext.dump(app) != before:
        document["app"] = app


def parse_command(values: dict[str, Any], exec_words: list[str]) -> list[str]:
    """The command, of ``--exec`` or of the words after the output file; empty when there is none."""
    flagged = values.get("exec", [])
    if flagged and exec_words:
        raise UsageError("the command is given twice", hint="use either --exec or words after --")
    return exec_words or _words("exec", flagged)


def _words(flag: str, texts: list[str]) -> list[str]:
    """A command: words one by one, or all of them as a JSON list."""
    if len(texts) != 1 or not texts[0].startswith("["):
        return list(texts)
    words = jsontext.parse(texts[0], what=f"--{flag}")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _bad(flag, texts[0], "a JSON list of strings")
    return words


def _bad(flag: str, text: str, expected: str) -> UsageError:
    return UsageError(f"invalid value in --{flag} flag {quoted(text)}: {expected} is expected")


def _number(text: str, flag: str) -> int:
    if not is_number(text, most_digits=20):
        raise _bad(flag, text, "a number")
    return int(text)


def parse_pairs(values: dict[str, Any], flag: str) -> dict[str, str]:
    """The values of a flag of the form NAME=VALUE."""
    pairs: dict[str, str] = {}
    for text in values.get(flag, ()):
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise _bad(flag, text, "NAME=VALUE")
        pairs[name] = value
    return pairs


def _set(holder: dict[str, Any], member: str, pairs: dict[str, str], *, remove_empty: bool = True) -> None:
    """Put pairs into a list of ``{"name", "value"}``; an empty value removes."""
    if not pairs:
        return
    merged = {pair["name"]: pair["value"] for pair in holder.get(member, ())}
    for name, value in pairs.items():
        merged.pop(name, None)
        if value or not remove_empty:
            merged[name] = value
    holder[member] = [{"name": name, "value": value} for name, value in merged.items()]


def _replace(app: dict[str, Any], member: str, value: dict[str, Any]) -> None:
    """Put an object into a list of objects with unique names."""
    app[member] = [old for old in app.get(member, ()) if old["name"] != value["name"]] + [value]


def _options(flag: str, text: str, known: tuple[str, ...], expected: str) -> tuple[str, dict[str, str]]:
    name, *rest = text.split(",")
    options: dict[str, str] = {}
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or key not in known or key in options:
            raise _bad(flag, text, expected)
        options[key] = value
    if not name or "=" in name:
        raise _bad(flag, text, expected)
    return name, options


def parse_mount_point(text: str) -> dict[str, Any]:
    """The value of ``--mount-point`` as manifests have it."""
    expected = "NAME,path=PATH[,readOnly=BOOL]"
    name, options = _options("mount-point", text, ("path", "readOnly"), expected)
    if "path" not in options:
        raise _bad("mount-point", text, expected)
    value: dict[str, Any] = {"name": name, "path": options["path"]}
    if "readOnly" in options:
        value["readOnly"] = parse_boolean(options["readOnly"])
    return value


def parse_port(text: str) -> dict[str, Any]:
    """The value of ``--port`` as manifests have it."""
    expected = "NAME,protocol=tcp|udp,port=N[,count=N][,socketActivated=BOOL]"
    name, options = _options("port", text, ("protocol", "port", "count", "socketActivated"), expected)
    if "port" not in options:
        raise _bad("port", text, expected)
    value: dict[str, Any] = {
        "name": name,
        "protocol": options.get("protocol", "tcp"),
        "port": _number(options["port"], "port"),
    }
    if "count" in options:
        value["count"] = _number(options["count"], "port")
    if "socketActivated" in options:
        value["socketActivated"] = parse_boolean(options["socketActivated"])
    return value


def _dependency(text: str) -> dict[str, Any]:
    parts = text.split(",")
    reference = AppcReference.parse(",".join(p for p in parts if not p.startswith(_DEPENDENCY_OPTIONS)))
    value: dict[str, Any] = {"imageName": reference.name}
    for part in parts:
        key, _, option = part.partition("=")
        if key == "imageID":
            value["imageID"] = option
        elif key == "size":
            value["size"] = _number(option, "dependency")
    _set(value, "labels", reference.labels)
    return value


def _isolators(app: dict[str, Any], values: dict[str, Any]) -> list[dict[str, Any]]:
    """Isolators that flags ask for; those they conflict with are taken out of ``app``."""
    found: list[dict[str, Any]] = []
    for text in values.get("isolator", ()):
        name, equals, value = text.partition("=")
        if not equals:
            raise _bad("isolator", text, "NAME=JSON")
        try:
            found.append(
                {"name": name, "value": jsontext.parse(value, what=f"value of isolator {quoted(name)}")}
            )
        except InvalidManifest as e:
            raise UsageError(f"invalid value in --isolator flag {quoted(text)}: {e}") from e
    for flag, name in (("memory", MEMORY), ("cpu", CPU)):
        if quantity := values.get(flag):
            found.append({"name": name, "value": {"request": quantity, "limit": quantity}})
    if values.get("cpu-shares"):
        found.append({"name": CPU_SHARES, "value": _number(values["cpu-shares"], "cpu-shares")})
    if score := values.get("oom-score-adj"):
        sign = -1 if score.startswith("-") else 1
        found.append(
            {"name": OOM_SCORE_ADJ, "value": sign * _number(score.removeprefix("-"), "oom-score-adj")}
        )
    if values.get("caps-retain") and values.get("caps-remove"):
        raise UsageError("cannot use both --caps-retain and --caps-remove on the same image")
    for flag, name in (("caps-retain", CAPABILITIES_RETAIN), ("caps-remove", CAPABILITIES_REMOVE)):
        if values.get(flag):
            _drop(app, CAPABILITIES_RETAIN, CAPABILITIES_REMOVE)
            found.append({"name": name, "value": {"set": ",".join(values[flag]).split(",")}})
    if values.get("seccomp"):
        _drop(app, SECCOMP_RETAIN, SECCOMP_REMOVE)
        found.append(parse_seccomp(values["seccomp"]).to_json())
    return found


def _drop(app: dict[str, Any], *names: str) -> None:
    if "isolators" in app:
        app["isolators"] = [old for old in app["isolators"] if old["name"] not in names]
