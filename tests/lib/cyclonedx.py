# SPDX-License-Identifier: Apache-2.0
"""Bills of materials in CycloneDX 1.5: the schema in ``tests/data/cyclonedx``, and their parts."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

import fastjsonschema

from tests.lib.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DIRECTORY = os.path.join(ROOT, "tests", "data", "cyclonedx")


def _read(uri: str) -> Any:
    with open(os.path.join(_DIRECTORY, os.path.basename(uri)), encoding="utf-8") as stream:
        return json.load(stream)


@functools.cache
def _validator() -> Callable[[Any], Any]:
    schema = _read("bom-1.5.SNAPSHOT.schema.json")
    # References are resolved from the schema's own address; they are files here, and nothing is asked of a network.
    found: Callable[[Any], Any] = fastjsonschema.compile(schema, handlers={"http": _read})
    return found


def validate(document: dict[str, Any]) -> None:
    """Hold a document against the schema.

    Raises:
        fastjsonschema.JsonSchemaException: it is not valid.
    """
    _validator()(document)


def walk(components: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each component, those in others too."""
    for component in components:
        yield component["name"], component
        yield from walk(component.get("components", []))
