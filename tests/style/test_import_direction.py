# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import os

import pytest

import rkt

SOURCE = os.path.dirname(os.path.abspath(rkt.__file__))
#: Packages that decide and keep; they may use each other, without a cycle of modules.
MIDDLE = frozenset({"pod", "store", "image", "trust", "fetch", "config", "privsep", "metadata"})
BASE = frozenset({"errors", "values", "schema", "linux"})
CONTRACT = "rkt.stage0.contract"
#: Package to the packages it may import, besides itself and ``rkt`` (docs/devel/architecture.md).
ALLOWED = {
    "errors": frozenset[str](),
    "linux": frozenset[str](),
    "values": frozenset({"errors"}),
    "schema": frozenset({"errors", "values"}),
    "net": BASE,
    **dict.fromkeys(MIDDLE, BASE | MIDDLE),
    "stage0": BASE | MIDDLE | {"net"},
    "stage1": BASE | {"net", "stage2"},
    "stage2": BASE,
    "conformance": BASE | MIDDLE | {"stage0"},
    "cli": BASE | MIDDLE | {"net", "stage0", "conformance"},
    "__main__": frozenset({"cli", "config"}),
    "__init__": frozenset[str](),
}
#: Modules below the middle that everybody may know: plain records and constants without a side effect.
EXCEPTIONS = {
    ("net", CONTRACT),
    ("pod", CONTRACT),
    ("stage1", CONTRACT),
    ("stage2", CONTRACT),
    # rkt explain must not tell otherwise than stage1 acts.
    ("stage0", "rkt.stage1.common.paths"),
    ("stage0", "rkt.stage1.common.users"),
}


def modules() -> dict[str, str]:
    """Module name to path."""
    found = {}
    for directory, _, names in os.walk(SOURCE):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(directory, name)
                relative = os.path.relpath(path, os.path.dirname(SOURCE))[: -len(".py")].replace(os.sep, ".")
                found[relative.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def package(module: str) -> str:
    """``store`` of ``rkt.store.cas``."""
    return module.split(".")[1] if "." in module else "__init__"


def is_type_checking(node: ast.stmt) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST, *, at_start: bool) -> set[str]:
    """Modules of ours that are imported.

    Args:
        tree: of one module.
        at_start: only those that importing the module imports: not in functions, not for types.
    """
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else str(node.module))
        if at_start and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if at_start and isinstance(node, ast.If) and is_type_checking(node):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
    return {name for name in found if name.partition(".")[0] == "rkt"}


def parsed(path: str) -> ast.AST:
    """The syntax tree of a file."""
    with open(path, encoding="utf-8") as stream:
        return ast.parse(stream.read(), path)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module: str) -> None:
    """A module imports only what stands below it, types included (style of the architecture page)."""
    own = package(module)
    wrong = [
        name
        for name in sorted(imports(parsed(MODULES[module]), at_start=False))
        if package(name) not in ALLOWED[own] | {own, "__init__"} and (own, name) not in EXCEPTIONS
    ]
    assert wrong == []


def test_no_module_imports_itself_through_others() -> None:
    """At import time there is no cycle of modules."""
    graph = {module: imports(parsed(path), at_start=True) - {module} for module, path in MODULES.items()}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            pytest.fail(" -> ".join((*trail[trail.index(module) :], module)))
        if module not in done:
            for name in sorted(graph.get(module, ())):
                walk(name, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())


def test_judging_does_not_fetch() -> None:
    """Bytes and keys in, verdict out: what verifies opens no connection, what reads archives neither."""
    for module, path in MODULES.items():
        if package(module) in {"trust", "image", "schema"}:
            names = imports(parsed(path), at_start=False)
            assert not {name for name in names if package(name) == "fetch"}, module
