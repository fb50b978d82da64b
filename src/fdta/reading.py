"""Typed reading of YAML: frozen dataclasses from mappings; every mistake is told with the path of its key."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from fdta.errors import InputError


class ParamsError(InputError):
    """A wrong key or value in params.yaml or the catalogue."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition`; `build` tells it with the key's place."""
    if not condition:
        raise ValueError(message)


def require_positive(settings: Any, *names: str) -> None:
    """`require` that the fields `names` are above 0."""
    for name in names:
        require(getattr(settings, name) > 0, f"{name} must be above 0, not {getattr(settings, name)}")


def require_share(settings: Any, *names: str) -> None:
    """`require` that the fields `names` lie in 0..1."""
    for name in names:
        require(0 <= getattr(settings, name) <= 1, f"{name} must lie in 0..1, not {getattr(settings, name)}")


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, which refuses a key that a mapping has twice instead of forgetting the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in first:
                problem = f"the key {key!r} stands in lines {first[key]} and {line}; join them"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            first[key] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in the file `path`; an empty one where it holds nothing but comments.

    Raises:
        ParamsError: no such file, no YAML, no mapping, or a key that stands in a mapping twice.
    """
    try:
        value = yaml.load(path.read_text(), _UniqueKeys)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's folder or give --params FILE") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ParamsError(f"{path}:{line} is no valid YAML: {getattr(error, 'problem', error)}") from None
    return mapping({} if value is None else value, "the file", path)


def listed(names: typing.Iterable[Any]) -> str:
    """`names` for a message."""
    return ", ".join(str(name) for name in names)


def mapping(value: Any, where: str, path: Path) -> dict[str, Any]:
    """A copy of `value`, which stands at the key `where` of the file `path`, if its keys are names.

    Raises:
        ParamsError: it is something else.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ParamsError(f"{path}: {where}: expected names with values, got {value!r}")
    return dict(value)


def only_keys(
    raw: dict[str, Any], allowed: typing.Iterable[str], where: str, path: Path, needed: tuple[str, ...] = ()
) -> None:
    """Refuse keys of `raw` that are not among `allowed`, and the lack of those in `needed`.

    Raises:
        ParamsError: there is one.
    """
    prefix = f"{where}." if where else ""
    allowed = tuple(allowed)
    for key in raw:
        if key not in allowed:
            raise ParamsError(f"{path}: {prefix}{key}: unknown key; allowed: {listed(allowed)}")
    for key in needed:
        if key not in raw:
            raise ParamsError(f"{path}: {prefix}{key}: missing")


def expand(overrides: Any, where: str, path: Path) -> dict[str, Any]:
    """Nested form of overrides whose keys may be dotted."""
    nested: dict[str, Any] = {}
    for key, value in mapping(overrides, where, path).items():
        head, _, rest = key.partition(".")
        if rest:
            value = expand({rest: value}, f"{where}.{head}", path)
        elif isinstance(value, dict):
            value = expand(value, f"{where}.{head}", path)
        nested = merge(nested, {head: value})
    return nested


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `override`; mappings in both are merged likewise."""
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def build(cls: type, value: Any, where: str, path: Path, validate: bool = True) -> Any:
    """Dataclass `cls` from a mapping; without `validate` only its keys and types are checked, and None comes back.

    Raises:
        ParamsError: a key or value does not fit, or the class refuses it with a ValueError.
    """
    raw = mapping(value, where, path)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    needed = tuple(
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    only_keys(raw, fields, where, path, needed if validate else ())
    converted = {}
    for key, item in raw.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            converted[key] = build(hint, item, f"{where}.{key}", path, validate)
        else:
            converted[key] = convert(hint, item, f"{where}.{key}", path)
    if not validate:
        return None
    try:
        return cls(**converted)
    except ValueError as error:
        raise ParamsError(f"{path}: {where}: {error}") from None


def convert(hint: Any, value: Any, where: str, path: Path) -> Any:
    """`value` as the type `hint`: a dataclass, Literal, tuple, dict, float, int, str, bool, or one of these or None.

    Raises:
        ParamsError: it is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return convert(next(a for a in arguments if a is not type(None)), value, where, path)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, path)
    if origin is Literal:
        if value not in arguments:
            raise ParamsError(f"{path}: {where}: {value!r} is not allowed; allowed: {listed(arguments)}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        variadic = len(arguments) == 2 and arguments[1] is Ellipsis
        if not variadic and len(value) != len(arguments):
            raise ParamsError(f"{path}: {where}: expected {len(arguments)} values, got {value!r}")
        inner = [arguments[0]] * len(value) if variadic else list(arguments)
        return tuple(convert(h, v, f"{where}[{i}]", path) for i, (h, v) in enumerate(zip(inner, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {
            convert(arguments[0], key, where, path): convert(arguments[1], item, f"{where}.{key}", path)
            for key, item in value.items()
        }
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        raise ParamsError(f"{path}: {where}: YAML reads {value} as text; write {float(value):.1e} with a point")
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ParamsError(f"{path}: {where}: expected {name}, got {value!r}")
