"""Dataclasses from mappings (YAML), strictly: an unknown key or a wrong type is an error that names the key."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from errors import InputError

T = TypeVar("T")


def from_mapping(kind: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """`kind(**mapping)` with nested dataclasses; `where` (as "network") is put before each key in messages.

    Raises InputError for an unknown key (with the nearest one) and for a value of the wrong type. A whole number is
    taken for a float; YAML's `off`, read as false, for the string "off".
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where} is {mapping!r}; expected keys and values: indent them under {where}:")
    types = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in mapping.items():
        if key not in known:
            raise InputError(_unknown(where, str(key), known))
        values[key] = _converted(types[key], value, f"{where}.{key}")
    return kind(**values)


def _unknown(where: str, key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {where}.{nearest[0]}?" if nearest else "known keys: " + ", ".join(known)
    return f"unknown key {where}.{key}; {hint}"


def _converted(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, or InputError. bool is no int here, and int is a float."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and type(None) in arguments:
            return None
        return _converted(next(each for each in arguments if each is not type(None)), value, where)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        items = [_converted(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(value)]
        return origin(items)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_mapping(kind, value, where)  # type: ignore[arg-type]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and value is False:
        return "off"
    if origin is None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"{where} is {value!r}; expected {_described(kind)}: change it in the config")


def _described(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    if get_origin(kind) in (list, tuple):
        return "a list"
    return words.get(kind, str(kind))
