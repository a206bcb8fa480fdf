# SPDX-License-Identifier: Apache-2.0
"""The one base class of plain records: slots, keywords, equality, no start-up cost.

A subclass lists annotated fields, with or without defaults, as a dataclass does::

    class Port(Record):
        name: str
        port: int
        count: int = 1

Type checkers see a frozen keyword-only dataclass; the interpreter sees ``__slots__`` and a generic ``__init__``.
``dataclasses`` itself costs 15 ms (docs/devel/start-up.md). A list or dict default is copied for each instance. A field
whose name starts by ``_``, or that is annotated ``ClassVar``, belongs to the class.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # noqa: ANN003, ANN201, D103
        return lambda cls: cls


class _RecordMeta(type):
    """Moves defaults out of the namespace, where they would collide with ``__slots__``."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _RecordMeta:
        # Strings, because every module that defines a record imports ``annotations`` from ``__future__``.
        fields = [
            field
            for field, annotation in namespace.get("__annotations__", {}).items()
            if not field.startswith("_") and not annotation.startswith("ClassVar")
        ]
        defaults = {field: namespace.pop(field) for field in fields if field in namespace}
        namespace["__slots__"] = tuple(fields)
        cls = super().__new__(mcs, name, bases, namespace)
        cls._defaults = {**getattr(cls, "_defaults", {}), **defaults}  # type: ignore[attr-defined]
        cls._fields = (*getattr(cls, "_fields", ()), *fields)  # type: ignore[attr-defined]
        return cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record(metaclass=_RecordMeta):
    """A frozen value with named fields."""

    if TYPE_CHECKING:
        _defaults: Any
        _fields: Any
    else:

        def __init__(self, **values) -> None:  # noqa: ANN003
            put = object.__setattr__
            defaults = self._defaults
            for field in self._fields:
                if field in values:
                    put(self, field, values.pop(field))
                elif field in defaults:
                    value = defaults[field]
                    put(self, field, value.copy() if isinstance(value, (list, dict)) else value)
                else:
                    raise TypeError(f"{type(self).__name__}: field {field!r} is missing")
            if values:
                raise TypeError(f"{type(self).__name__}: no field {next(iter(values))!r}")

        def __setattr__(self, name, value) -> None:  # noqa: ANN001
            raise AttributeError(f"{type(self).__name__} is frozen")

        def __delattr__(self, name) -> None:  # noqa: ANN001
            raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.as_dict().items())})"

    def as_dict(self) -> dict[str, Any]:
        """Field -> value."""
        return {field: getattr(self, field) for field in self._fields}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**self.as_dict(), **changes})
