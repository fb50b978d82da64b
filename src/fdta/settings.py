"""Typed settings: frozen dataclasses that pydantic checks; every mistake is reported with the path of its key."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import reprlib
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform, overload

import yaml
from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from fdta.errors import InputError

T = TypeVar("T")

Count = Annotated[int, Field(ge=1, le=100_000)]
"""How many of something a model or a file has."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Finite, not negative."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A probability or a part of a whole."""
NAME = r"\w[\w-]*"
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=100)]
"""Letters, digits, - and _, no - at the start: it names a folder."""
MOST_VALUES = 1_000_000
"""Values of a YAML file, counted as often as anchors repeat them."""

WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "a name of letters, digits, - and _",
    "string_too_long": "at most {max_length} characters",
    "tuple_type": "a list",
    "dict_type": "names with values",
    "dataclass_type": "names with values",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "too_long": "{max_length} values",
    "too_short": "a list of at least {min_length}",
}
"""Kind of pydantic's error -> what a value of this key must be."""


class ParamsError(InputError):
    """A wrong key or value in params.yaml, in the catalogue or in a file of settings."""


@overload
def settings(cls: type[T]) -> type[T]: ...
@overload
def settings(*, kw_only: bool) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[T] | None = None, *, kw_only: bool = False) -> Any:
    """Make a class a frozen dataclass whose values are checked when it is built; unknown keys are an error."""
    made = dataclass(frozen=True, kw_only=kw_only, config=ConfigDict(extra="forbid"))
    return made if cls is None else made(cls)


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition`; `read_settings` adds the key's path."""
    if not condition:
        raise ValueError(message)


def read_settings(cls: type[T], value: Any, where: str, path: Path | str) -> T:
    """Instance of `cls` from plain values, as YAML and JSON have them.

    Args:
        cls: a class made by `settings`, or any other type that pydantic checks.
        value: mapping of its fields.
        where: path of the key in the file, "" for the file itself.
        path: the file, for messages.

    Raises:
        ParamsError: one line with the path of the first wrong key.
    """
    try:
        return _adapter(cls).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise ParamsError(f"{path}: {_explained(cls, error, where)}") from None


def read_json(kind: type[T], path: Path) -> T | None:
    """Content of the JSON file `path`, or None where there is no such file.

    Args:
        kind: a class made by `settings`, or any other type that pydantic checks.
        path: the file.

    Raises:
        ParamsError: it is no JSON of this kind; the message gives the path of the first wrong key.
    """
    try:
        return read_settings(kind, parse_json(path.read_bytes(), path), "", path)
    except FileNotFoundError:
        return None


def parse_json(data: bytes | str, source: Path | str) -> Any:
    """Value of the JSON text `data` of `source`, a file or another place for the message.

    Raises:
        ParamsError: it is no JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise ParamsError(f"{source}: broken JSON ({what}); restore it, or remove it and make it again") from None


def to_plain(value: Any) -> Any:
    """Settings as plain values for JSON and YAML."""
    return _adapter(type(value)).dump_python(value, mode="json")


def check_names(names: Iterable[Any], where: str, path: Path | str) -> None:
    """Refuse names below the key `where` of the file `path` that may not name a folder.

    Raises:
        ParamsError: one is no `Name`.
    """
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(NAME, name) or len(name) > 100:
            raise ParamsError(f"{path}: {where}.{_short(name)}: use letters, digits, - and _ in names, they name files")


def named(names: Iterable[Any]) -> str:
    """`names` for a message."""
    return ", ".join(str(name) for name in names)


def suggestion(wrong: str, allowed: Iterable[str]) -> str:
    """The name among `allowed` that `wrong` probably means, or all of them, for a message."""
    allowed = list(allowed)
    close = difflib.get_close_matches(wrong, allowed, 1)
    return f"did you mean {close[0]}?" if close else f"allowed: {named(allowed)}"


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, with an error for a key that a mapping has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                problem = "a key must be a name"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            if key in first:
                problem = f"the key {key!r} is in lines {first[key]} and {line}; join them"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            first[key] = line
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Text where YAML 1.1 and 1.2 read different numbers: 1:30 is 90 in the older one, 010 is 8."""
        if re.search(r":|^[+-]?0\d", node.value):
            return node.value
        return self.construct_yaml_int(node) if node.tag.endswith("int") else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _UniqueKeys.add_constructor(f"tag:yaml.org,2002:{_kind}", _UniqueKeys.construct_number)


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in the file `path`; empty if the file has nothing but comments.

    Raises:
        ParamsError: no such file, no YAML, no mapping, or a key that a mapping has twice.
    """
    try:
        value = yaml.load(path.read_bytes(), _UniqueKeys)
        values = _count(value, {})
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's folder or give --params FILE") from None
    except RecursionError:
        raise ParamsError(f"{path}: its values are nested too deeply; write them flat") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        what = " ".join(str(getattr(error, "problem", error)).split())
        raise ParamsError(f"{path}:{line} is no valid YAML: {what}") from None
    if values > MOST_VALUES:
        raise ParamsError(f"{path}: its anchors (&, *) repeat values more than {MOST_VALUES} times; write it without")
    return mapping({} if value is None else value, "the file", path)


def _count(value: Any, counted: dict[int, float]) -> float:
    """How many values there are in `value`; infinity for one that holds itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in counted:
        counted[id(value)] = math.inf
        within = value.values() if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count(each, counted) for each in within)
    return counted[id(value)]


def mapping(value: Any, where: str, path: Path) -> dict[str, Any]:
    """A copy of `value`, found at the key `where` of the file `path`, if its keys are names.

    Raises:
        ParamsError: it is something else.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ParamsError(f"{path}: {where}: expected names with values, not {_short(value)}")
    return dict(value)


def expand(overrides: Any, where: str, path: Path) -> dict[str, Any]:
    """Nested form of overrides whose keys may be dotted (``training.epochs: 6``)."""
    nested: dict[str, Any] = {}
    for key, value in mapping(overrides, where, path).items():
        head, dotted, rest = key.partition(".")
        if not head or (dotted and not rest):
            raise ParamsError(f"{path}: {where}.{key}: no key begins or ends with a dot; correct it")
        if rest:
            value = expand({rest: value}, f"{where}.{head}", path)
        elif isinstance(value, dict):
            value = expand(value, f"{where}.{head}", path)
        given, now = flat(nested), flat({head: value})
        twice = sorted(given.keys() & now.keys())
        if twice or (head in nested and (head in given or head in now)):
            raise ParamsError(f"{path}: {where}.{(twice or [head])[0]}: given twice; keep one of them")
        nested = merge(nested, {head: value})
    return nested


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key: the opposite of `expand`."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `override`; mappings in both are merged likewise."""
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def _adapter(cls: Any) -> TypeAdapter[Any]:
    return _cached_adapter(cls)


@functools.lru_cache(maxsize=64)
def _cached_adapter(cls: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(cls)
    except PydanticUserError as error:
        raise TypeError(f"{cls}: {error}") from None


def _explained(cls: Any, error: ValidationError, where: str) -> str:
    """One line for the first mistake, an unknown key before others."""
    mistakes = sorted(error.errors(), key=lambda each: each["type"] != "unexpected_keyword_argument")
    first = mistakes[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(filter(None, [where, *place]))
    value, kind = first["input"], first["type"]
    if kind == "unexpected_keyword_argument":
        return f"{key}: unknown key; {suggestion(place[-1], _fields(cls, first['loc'][:-1]))}"
    if kind == "missing":
        return f"{key}: missing; add it"
    if kind == "value_error":
        return f"{key}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    if kind in ("literal_error", "enum"):
        return f"{key}: {value!r} is not allowed; {suggestion(str(value), _choices(first))}"
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        return f"{key}: YAML reads {value} as text; write {float(value):.1e} with a point"
    wanted = WANTED.get(kind, first["msg"].removeprefix("Input should be ")).format(**first.get("ctx", {}))
    return f"{key or 'the file'}: must be {wanted}, not {_short(value)}"


def _short(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _choices(mistake: Any) -> list[str]:
    return re.findall(r"'([^']*)'", str(mistake["ctx"]["expected"]))


def _fields(cls: Any, place: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the settings at `place` within `cls`."""
    for part in place:
        inner = {field.name: field.type for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
        cls = _resolved(cls).get(part) if part in inner else cls
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _resolved(cls: Any) -> dict[str, Any]:
    """Field name -> the settings class of the field, also within a mapping or an optional."""
    import typing

    found = {}
    for name, hint in typing.get_type_hints(cls).items():
        parts = [hint, *typing.get_args(hint)]
        found[name] = next((part for part in parts if dataclasses.is_dataclass(part)), None)
    return found
