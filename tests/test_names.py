"""One name per thing and one thing per name: no two modules define a public class or function of the same name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALLOWED = {
    # Every subcommand has it.
    "add_arguments",
    # The protocol that fdta.provenance needs, and the jobs that fulfil it.
    "Job",
}


def test_every_public_name_is_one_thing() -> None:
    places = defaultdict(list)
    for path in sorted((ROOT / "src/fdta").rglob("*.py")):
        found = {
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        }
        for name in found:
            places[name].append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in ALLOWED} == {}
