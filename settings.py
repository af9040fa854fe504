"""Strict conversion of plain mappings (YAML) to dataclasses.

`{"patch": 64, "hat": {"window": 16}}` becomes a dataclass. An unknown key is an error that names the nearest one, a wrong type an
error that names the expected one. It is at the root, next to `errors.py`, because every layer has settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union

from errors import InputError, shorten
from strict_yaml import parse_yaml

T = TypeVar("T")
# Values of settings that several folders use
Padding = Literal["reflect", "replicate", "circular", "distinct"]  # neighbours beyond the ends of a clip
PADDINGS: tuple[str, ...] = typing.get_args(Padding)
FilterForm = Literal["none", "clean", "compressed"]  # of the temporal filter
Precision = Literal["fp32", "tf32", "bf16", "fp16", "auto"]
TEMPORAL_FILTERS: tuple[str, ...] = typing.get_args(FilterForm)
LARGEST = 2**53  # of integers without limits of their own
LONGEST = 4096  # characters of a string
DECIMAL = re.compile(
    r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
)  # float() also takes "1_0" and other digits
TRUTH = {"yes": True, "on": True, "no": False, "off": False}  # words for a bool
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}


class Between(NamedTuple):
    """Limits of a number, both included: `patch: Annotated[int, Between(1, 2048)] = 64`."""

    low: float
    high: float


def from_mapping(cls: type[T], mapping: Mapping[str, Any] | None, where: str = "") -> T:
    """Build the dataclass `cls` from `mapping`; `where` is the dotted key that leads here, for messages.

    A field whose metadata holds `parse` (a function of value and dotted key) is built by it, all others by their type.
    A dataclass may check its values in `__post_init__` with an `InputError`; the dotted key is prefixed to its message.
    Raises `InputError` for unknown keys, missing required keys and wrong types.
    """
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise InputError(f"config key '{where}': expected a group of keys, got {shown(mapping)}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {}
    for key, value in mapping.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise InputError(f"unknown config key '{shorten(path)}'{nearest(shorten(str(key)), fields)}")
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


def convert_fields(settings: Any, where: str) -> None:
    """Convert the fields of a dataclass to their types as `from_mapping` does, for the `__post_init__` of a dataclass that
    is also built directly. `where` prefixes the field's name in messages, such as "network.".
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = convert(getattr(settings, field.name), hints[field.name], f"{where}{field.name}")
        object.__setattr__(settings, field.name, value)  # some are frozen


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f": did you mean '{close[0]}'?" if close else f": expected one of {', '.join(known)}"


def convert(value: Any, kind: Any, where: str) -> Any:
    """`value` as the annotated type `kind` (numbers, strings, bools, Literal, lists, tuples, optional ones, dataclasses)."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _within(convert(value, arguments[0], where), arguments[1], where)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where)
    if origin is Literal:
        value = "off" if value is False else value  # as for strings
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            raise InputError(
                f"config key '{where}': expected one of {', '.join(map(str, arguments))}, got {shown(value)}"
            )
        return value
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_mapping(kind, value, where)  # type: ignore[arg-type]
    if origin in (list, tuple):
        return _convert_sequence(value, origin, arguments, where)
    if origin is dict or kind is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"config key '{where}': expected a group of keys, got {shown(value)}")
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
    names = " or ".join(_name(kind) for kind in kinds)
    raise InputError(f"config key '{where}': expected {names}, got {shown(value)}")


def _name(kind: Any) -> str:
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return " or ".join(map(str, choices)) or WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _within(value: Any, limits: Between, where: str) -> Any:
    if not limits.low <= value <= limits.high:
        bound = f"at least {limits.low:.10g}" if value < limits.low else f"at most {limits.high:.10g}"
        raise InputError(f"config key '{where}': expected {bound}, got {shown(value)}")
    return value


def _convert_sequence(value: Any, origin: type, arguments: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        remedy = f": write [{value}]" if isinstance(value, str) and len(value) < 40 else ""
        raise InputError(f"config key '{where}': expected a list, got {shown(value)}{remedy}")
    variadic = origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis)
    if not variadic and len(value) != len(arguments):
        raise InputError(f"config key '{where}': expected {len(arguments)} values, got {len(value)}")
    kinds = [arguments[0]] * len(value) if variadic else list(arguments)
    return origin(convert(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _convert_scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is float and (type(value) is int or (isinstance(value, str) and DECIMAL.fullmatch(value))):
        with suppress(ValueError, OverflowError):
            value = float(value)
    if kind is str and value is False:  # a mapping read by YAML 1.1, in which `off` is a truth value
        return "off"
    if kind is bool and isinstance(value, str):
        value = TRUTH.get(value.lower(), value)
    if kind is str and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return str(value)  # a folder or clip may be called 2024
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"config key '{where}': expected {WORDS.get(kind, kind.__name__)}, got {shown(value)}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"config key '{where}': expected a finite number, got {value}")
    if kind is int and abs(value) > LARGEST:
        raise InputError(f"config key '{where}': expected an integer up to 2**53, got {shown(value)}")
    if kind is str and (len(value) > LONGEST or "\0" in value):
        raise InputError(f"config key '{where}': expected up to {LONGEST} characters and no null byte")
    return value


def shown(value: Any) -> str:
    """A value for a message: its representation, truncated if long."""
    try:
        return shorten(repr(value))
    except (ValueError, RecursionError):
        return "a value too long to show"


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
        hint = "; files need their option, such as --config FILE" if override.endswith((".yaml", ".yml")) else ""
        raise InputError(f"override '{shorten(override)}': expected key.sub=value, for example train.steps=200{hint}")
    value = parse_yaml(text, f"override '{shorten(override)}'") if text else ""
    *groups, last = key.split(".")
    target = mapping
    for group in groups:
        child = target.setdefault(group, {})
        if not isinstance(child, dict):
            if child is not None:
                raise InputError(f"override '{shorten(override)}': '{group}' is a single value, not a group")
            child = target[group] = {}
        target = child
    target[last] = value
