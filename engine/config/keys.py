"""Every key of a config with its type, default and meaning, from the dataclasses and their comments (`main.py --keys`)."""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import tokenize
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from engine.config.schema import Config
from models import NETWORKS
from settings import WORDS, Between


class Key(NamedTuple):
    """One line of the list."""

    name: str
    kind: str
    default: str
    meaning: str


def table() -> str:
    """All keys, one a line; those of a network under its name."""
    lines = [_line(key) for key in keys(Config) if key.name != "network"]
    for name, entry in NETWORKS.items():
        lines += ["", f"# network: {name}", *(_line(key) for key in keys(entry.config, "network."))]
    return "\n".join(lines)


def keys(cls: type, prefix: str = "") -> Iterator[Key]:
    """The keys of a dataclass and of the dataclasses in it, in their order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    meanings = comments(cls)
    for field in dataclasses.fields(cls):
        kind, name = hints[field.name], f"{prefix}{field.name}"
        inner = _inner(kind)
        if inner is None:
            yield Key(name, describe(kind), _default(field), meanings.get(field.name, ""))
        else:
            listed = typing.get_origin(kind) is list
            if listed or type(None) in typing.get_args(kind):
                yield Key(
                    name,
                    "a list of groups" if listed else "a group or null",
                    _default(field),
                    meanings.get(field.name, ""),
                )
            yield from keys(inner, f"{name}[]." if listed else f"{name}.")


def comments(cls: type) -> dict[str, str]:
    """The comment of each field of a dataclass, or the docstring line that begins with the field's name."""
    found: dict[str, str] = {}
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(cls)).readline):
        if re.match(r"    (?:def |@)", token.line):
            break
        started = re.match(r"    (\w+)\s*:", token.line)
        name = started[1] if started else name
        if token.type == tokenize.COMMENT and name and not token.line.lstrip().startswith("#"):
            found[name] = token.string.lstrip("# ")
    documented = re.findall(r"^\s*(\w+): (.+?)\s*$", inspect.getdoc(cls) or "", re.MULTILINE)
    return dict(documented) | found


def describe(kind: Any) -> str:
    """A type in words: "an integer from 1 to 4096"."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        limits: Between = arguments[1]
        return f"{describe(arguments[0])} from {limits.low:.10g} to {limits.high:.10g}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is type(None) else describe(one) for one in arguments)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple and Ellipsis not in arguments:
        same = all(one == arguments[0] for one in arguments)
        return f"{len(arguments)} values, each {describe(arguments[0])}" if same else "a list of values"
    if origin in (list, tuple):
        return f"a list, each {describe(arguments[0])}"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _inner(kind: Any) -> type | None:
    for one in (kind, *typing.get_args(kind)):
        if dataclasses.is_dataclass(one):
            return one  # type: ignore[return-value]
    return None


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "must be given"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, (list, tuple)) else str(value) or "''"


def _line(key: Key) -> str:
    meaning = f"  # {key.meaning}" if key.meaning else ""
    return f"{key.name}={key.default}  ({key.kind}){meaning}"
