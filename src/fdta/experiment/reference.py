"""docs/settings.md: every key of params.yaml, from the classes that check it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from fdta.experiment.settings import BenchmarkSettings, DatasetSettings, Settings, TableSettings
from fdta.synthetic.settings import RenderSettings

HEAD = """# Settings

All keys of `params.yaml`. `fdta params reference` writes this page from the classes that check the file.
[model.md](model.md) explains the settings of a run with their equations and published values.

The keys at the top of the file are `benchmark` (what is run, unless `--benchmark` or `--config benchmark=NAME` names
another), `preset` (`published` or null, [reproducing.md](reproducing.md)), `seeds` (of all benchmarks that name none),
`benchmarks`, `variants` (name -> what it changes of the settings of a run), `tables`, and `catalogue` (further data
sets and checkpoints, [datasets.md](datasets.md)).
"""
PARTS: dict[str, tuple[type, str]] = {
    "Benchmark": (
        BenchmarkSettings,
        "The keys of `benchmarks.NAME`; `inherits` names a benchmark whose keys it takes.",
    ),
    "Data set": (DatasetSettings, "The keys of `benchmarks.NAME.datasets.NAME`."),
    "Rendered data": (RenderSettings, "The keys of `render` of a data set."),
    "Run": (
        Settings,
        "The keys of `settings` of a benchmark, of `overrides` of a data set, and of a variant; each overrides those "
        "before it. Keys may be nested or joined by points: `spatial.bins: 20`.",
    ),
    "Table": (TableSettings, "The keys of `tables.NAME`."),
}
"""Title -> class and text of a section."""


def reference() -> str:
    """The page, in Markdown."""
    lines = [HEAD]
    for title, (cls, text) in PARTS.items():
        lines += [f"## {title}", "", text, "", "| key | value | default | |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(cells)} |" for cells in _rows(cls, TypeAdapter(cls).json_schema())]
        lines.append("")
    return "\n".join(lines)


def _rows(cls: type, schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Key, kind of value, default and meaning of each field of `cls`, those of settings within it in their place."""
    meanings, types = _meanings(cls), get_type_hints(cls)
    properties = schema["properties"] if cls.__name__ not in schema.get("$defs", {}) else None
    properties = properties or schema["$defs"][cls.__name__]["properties"]
    for field in dataclasses.fields(cls):
        kind = types[field.name]
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _rows(kind, schema, f"{prefix}{field.name}.")
            continue
        if (cls, field.name) == (BenchmarkSettings, "name"):
            continue  # It stands before the benchmark's keys.
        told = properties[field.name]
        default = f"`{json.dumps(told['default'])}`" if "default" in told else ""
        yield f"`{prefix}{field.name}`", _kind(told), default, meanings.get(field.name, "")


def _meanings(cls: type) -> dict[str, str]:
    """Field -> the string that follows it in the source of its class."""
    found = {}
    for base in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        body = ast.parse(inspect.getsource(base)).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _kind(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_kind(schema['prefixItems'][0])}"
    if "$ref" in schema:
        return "keys of their own"
    names = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "string": "text",
        "null": "null",
    }
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    told = [names.get(schema.get("type", ""), "names with values")]
    if schema.get("type") == "array":
        told = [f"list of: {_kind(schema['items'])}"]
    return " ".join([*told, *(f"{word} {schema[key]:.10g}" for key, word in limits.items() if key in schema)])
