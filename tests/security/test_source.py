# SPDX-License-Identifier: Apache-2.0
"""What the engine's source must not have, since no test of a running engine could show that it is nowhere."""

from __future__ import annotations

import ast
import functools
import os
from typing import TYPE_CHECKING

from tests.lib.rkt import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Modules that make objects or code of data.
_MAKE_CODE = frozenset(("pickle", "marshal", "shelve", "dill", "yaml", "cloudpickle", "joblib"))
#: Modules that would listen on abstract sockets, and unpickle what comes (CPython CVE-2022-42919).
_LISTEN = frozenset(("multiprocessing", "socketserver", "xmlrpc"))
#: Functions of ``os`` that take a line for a shell.
_SHELLS = frozenset(("system", "popen"))


@functools.cache
def sources() -> dict[str, ast.Module]:
    """All modules of the engine."""
    found = {}
    for directory, _, names in os.walk(os.path.join(ROOT, "src", "rkt")):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(directory, name)
                with open(path, encoding="utf-8") as stream:
                    found[os.path.relpath(path, ROOT)] = ast.parse(stream.read())
    assert len(found) > 200
    return found


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Everything in them, each with its place."""
    for path, tree in sources().items():
        for node in ast.walk(tree):
            yield f"{path}:{getattr(node, 'lineno', 0)}", node


def imported(node: ast.AST) -> set[str]:
    """Modules of the first level that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").partition(".")[0]}
    return set()


def called(node: ast.AST) -> str:
    """``NAME`` or ``OF.NAME`` of what is called."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Name):
        return node.func.id
    if isinstance(node.func, ast.Attribute):
        of = node.func.value
        return f"{of.id if isinstance(of, ast.Name) else ''}.{node.func.attr}"
    return ""


def test_data_never_becomes_code() -> None:
    """HH9: nothing that makes objects of data is imported, and neither ``eval`` nor ``exec`` is called."""
    found = [
        where for where, node in nodes() if imported(node) & _MAKE_CODE or called(node) in {"eval", "exec"}
    ]
    assert not found


def test_no_shell_is_called() -> None:
    """HH4: helpers are called by lists of words; no line is given to a shell."""
    found = []
    for where, node in nodes():
        if called(node) in {f"os.{name}" for name in _SHELLS}:
            found.append(where)
        if (
            isinstance(node, ast.Call)
            and called(node).startswith("subprocess.")
            and any(
                word.arg == "shell"
                and not (isinstance(word.value, ast.Constant) and word.value.value is False)
                for word in node.keywords
            )
        ):
            found.append(where)
    assert not found


def test_no_abstract_socket_is_made() -> None:
    """NT6: nothing binds or connects to a name that is no path, itself or by a module that would."""
    found = [where for where, node in nodes() if imported(node) & _LISTEN]
    for where, node in nodes():
        if called(node).rpartition(".")[2] not in {"bind", "connect", "connect_ex"}:
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and str(inner.value)[:1] == "\0":
                found.append(where)
            if (
                isinstance(inner, ast.Constant)
                and isinstance(inner.value, bytes)
                and inner.value[:1] == b"\0"
            ):
                found.append(where)
    assert not found
