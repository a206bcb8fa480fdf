# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, ClassVar, cast

import pytest

from rkt.schema.record import Record


class Point(Record):
    """Fields with and without defaults, and a constant."""

    x: int
    y: int = 0
    tags: list[str] = []
    unit: ClassVar[str] = "mm"


class Named(Point):
    """One more field than its base."""

    name: str


def test_fields_and_defaults() -> None:
    """Fields come from annotations, in order, with their defaults."""
    point = Point(x=1)
    assert (point.x, point.y, point.tags, point.unit) == (1, 0, [], "mm")
    assert repr(point) == "Point(x=1, y=0, tags=[])"


def test_defaults_are_not_shared() -> None:
    """A list default belongs to one record only."""
    one, other = Point(x=1), Point(x=1)
    one.tags.append("a")
    assert other.tags == []


def test_inheritance() -> None:
    """A record has its base's fields too."""
    assert Named(x=1, name="n") == Named(x=1, y=0, name="n", tags=[])
    assert cast("Any", Named(x=1, name="n")) != Point(x=1)


def test_replace() -> None:
    """A changed copy leaves the record as it was."""
    point = Point(x=1, y=2)
    assert point.replace(y=3) == Point(x=1, y=3)
    assert point.y == 2


def test_frozen() -> None:
    """Fields can neither be set nor deleted, nor others added."""
    point = cast("Any", Point(x=1))
    with pytest.raises(AttributeError):
        point.x = 2
    with pytest.raises(AttributeError):
        point.z = 2
    with pytest.raises(AttributeError):
        del point.x


@pytest.mark.parametrize("values", [{}, {"y": 1}, {"x": 1, "z": 2}])
def test_wrong_fields(values: dict[str, int]) -> None:
    """A missing or an unknown field is a mistake of the caller."""
    with pytest.raises(TypeError):
        cast("Any", Point)(**values)


def test_hash() -> None:
    """Records of hashable fields can be keys."""

    class Pair(Record):
        a: int
        b: str = ""

    assert {Pair(a=1): "x"}[Pair(a=1)] == "x"
