"""Strict conversion of plain mappings (YAML) to dataclasses.

`{"patch": 64, "hat": {"window": 16}}` becomes a dataclass. An unknown key is an error that names the nearest one, a wrong type an
error that names the expected one. It is at the root, next to `errors.py`, because every layer has settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

import yaml

from errors import InputError

T = TypeVar("T")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def from_mapping(cls: type[T], mapping: Mapping[str, Any] | None, where: str = "") -> T:
    """Build the dataclass `cls` from `mapping`; `where` is the dotted key that leads here, for messages.

    A field whose metadata holds `parse` (a function of value and dotted key) is built by it, all others by their type.
    A dataclass may check its values in `__post_init__` with an `InputError`; the dotted key is put in front of it.
    Raises `InputError` for unknown keys, missing required keys and wrong types.
    """
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise InputError(f"config key '{where}': expected a group of keys, got {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in mapping.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise InputError(f"unknown config key '{path}'{nearest(str(key), fields)}")
        parse = fields[key].metadata.get("parse")
        values[key] = parse(value, path) if parse else convert(value, hints[key], path)
    missing = [name for name, field in fields.items() if name not in values and not _has_default(field)]
    if missing:
        raise InputError(f"config group '{where or cls.__name__}' lacks the key '{missing[0]}': add it")
    try:
        return cls(**values)
    except InputError as error:
        named = not where or f"{where}." in str(error)
        raise InputError(str(error) if named else f"config group '{where}': {error}") from None


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f": did you mean '{close[0]}'?" if close else f": expected one of {', '.join(known)}"


def convert(value: Any, kind: Any, where: str) -> Any:
    """`value` as the annotated type `kind` (numbers, strings, bools, Literal, lists, tuples, optional ones, dataclasses)."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) != any(
            a is value for a in arguments if isinstance(a, bool)
        ):
            raise InputError(f"config key '{where}': expected one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_mapping(kind, value, where)  # type: ignore[arg-type]
    if origin in (list, tuple):
        return _convert_sequence(value, origin, arguments, where)
    if origin is dict or kind is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"config key '{where}': expected a group of keys, got {value!r}")
        return dict(value)
    return _convert_scalar(value, kind, where)


def _convert_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    message = ""
    for kind in kinds:
        try:
            return convert(value, kind, where)
        except InputError as error:
            message = str(error)
    if len(kinds) == 1:
        raise InputError(message)
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise InputError(f"config key '{where}': expected {names}, got {value!r}")


def _convert_sequence(value: Any, origin: type, arguments: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"config key '{where}': expected a list, got {value!r}")
    variadic = origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis)
    if not variadic and len(value) != len(arguments):
        raise InputError(f"config key '{where}': expected {len(arguments)} values, got {len(value)}")
    kinds = [arguments[0]] * len(value) if variadic else list(arguments)
    return origin(convert(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _convert_scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if kind is str and value is False:  # and `off` as a truth value
        return "off"
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"config key '{where}': expected {WORDS.get(kind, kind.__name__)}, got {value!r}")
    return value


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def to_mapping(settings: Any) -> dict[str, Any]:
    """A dataclass as nested dicts, lists, numbers and strings, for YAML and JSON."""
    return _plain(dataclasses.asdict(settings))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def apply_override(mapping: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in nested dicts; the value is YAML. `from_mapping` finds unknown keys."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"override '{override}': expected key.sub=value, for example train.steps=200")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise InputError(f"override '{override}': the value is not valid YAML") from None
    *groups, last = key.split(".")
    target = mapping
    for group in groups:
        child = target.setdefault(group, {})
        if not isinstance(child, dict):
            if child is not None:
                raise InputError(f"override '{override}': '{group}' is a single value, not a group")
            child = target[group] = {}
        target = child
    target[last] = value
