"""The code that a result depends on, as a digest: modules and what they import, without comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def code_digest(entries: tuple[str, ...], without: tuple[str, ...] = ()) -> str:
    """Digest of the code of `entries` and of all that they import of this package, directly or not.

    Comments, docstrings, blank lines and the Python that reads the files make no difference.

    Args:
        entries: modules, such as "fdta.track.run".
        without: modules and packages that do not count, nor what only they import.
    """
    return _digest(entries, without)


@cache
def _digest(entries: tuple[str, ...], without: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for module in sorted(_reachable(entries, without)):
        digest.update(f"{module}\n{_parsed(module)[0]}".encode())
    return digest.hexdigest()[:16]


def _reachable(entries: tuple[str, ...], without: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        left_out = any(module == name or module.startswith(f"{name}.") for name in without)
        if module not in found and not left_out:
            found.add(module)
            waiting += _parsed(module)[1]
    return found


@cache
def _parsed(module: str) -> tuple[str, tuple[str, ...]]:
    """Code of a module, and the modules of this package that it imports."""
    text = _path(module).read_text()
    tree = ast.parse(text)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    imported = tuple(name for name in sorted(names) if name.partition(".")[0] == PACKAGE.name and _exists(name))
    return _code(text, tree), imported


def _code(text: str, tree: ast.Module) -> str:
    lines: list[str] = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _path(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(module: str) -> bool:
    return _path(module).is_file()
