"""The code that a result depends on, as digests: modules and what they import, without comments and docstrings.

Files that are shipped with the package (YAML, HTML) count for the modules that name them.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
COMMENT = re.compile(r"""^((?:[^#"']|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')*)#.*$""")
"""A comment behind the code of one line, in which strings are closed."""
SHIPPED = (".yaml", ".html")
CHECKS = (
    *("fdta.errors", "fdta.files", "fdta.names", "fdta.provenance", "fdta.settings"),
    *("fdta.experiment.jobs", "fdta.acquire.catalogue", "fdta.acquire.pretrained"),
)
"""Modules that check, name, find or store, but decide no number. The same holds of every module called settings: its
values are in the job."""


@cache
def code_digests(entry: str, without: tuple[str, ...] = ()) -> Mapping[str, str]:
    """Digest of the code of each module that `entry` imports of this package, directly or not, and of itself.

    Comments, docstrings, blank lines and the Python that reads the files make no difference. Imports for type checkers
    do not count.

    Args:
        entry: a module, such as "fdta.track.run".
        without: modules and packages that do not count, nor what only they import.
    """
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        left_out = any(module == name or module.startswith(f"{name}.") for name in (*CHECKS, *without))
        if module in found or left_out or module.endswith(".settings"):
            continue
        code, imported, shipped = _parsed(module)
        found[module] = _digest(code.encode())
        found |= {file: _digest((PACKAGE / file).read_bytes()) for file in shipped}
        waiting += imported
    return dict(sorted(found.items()))


def combined(digests: Mapping[str, str]) -> str:
    """One digest of those of all modules."""
    return _digest("".join(f"{name} {digest}\n" for name, digest in digests.items()).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@cache
def _parsed(module: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Code of a module, the modules of this package that it imports, and the shipped files that it names."""
    path = _path(module)
    text = path.read_text(encoding="utf-8")
    names: set[str] = set()
    docstrings: set[int] = set()
    tree = ast.parse(text)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif not _is_for_type_checkers(node):
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                inner = getattr(node, name, ())
                waiting += inner if isinstance(inner, list) else ()
    lines = text.splitlines()
    quoted = any(
        number not in docstrings and ('"""' in line or "'''" in line) for number, line in enumerate(lines, start=1)
    )
    imported = tuple(name for name in sorted(names) if name.partition(".")[0] == PACKAGE.name and _path(name).is_file())
    code = _code(lines, docstrings, _texts(tree) if quoted else set())
    neighbours = sorted(file for file in path.parent.iterdir() if file.suffix in SHIPPED)
    shipped = tuple(file.relative_to(PACKAGE).as_posix() for file in neighbours if f'"{file.name}"' in code)
    return code, imported, shipped


def _texts(tree: ast.Module) -> set[int]:
    """Numbers of the lines of strings of several lines."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno:
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _code(lines: list[str], docstrings: set[int], texts: set[int]) -> str:
    """`lines` without comments, docstrings and blank lines. `docstrings` and `texts`, strings of several lines, are
    numbers of lines."""
    kept = []
    for number, line in enumerate(lines, start=1):
        if number in docstrings:
            continue
        if "#" in line and number not in texts:
            line = COMMENT.sub(r"\1", line)
        if line.strip():
            kept.append(line.rstrip())
    return "\n".join(kept)


def _path(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
