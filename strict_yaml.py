"""YAML for settings: no dates, base-60 numbers, tags, duplicate keys, recursive groups or large alias expansions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from errors import InputError, shorten

NODES, DEPTH, DIGITS = 100_000, 40, 30  # of a text, aliases written out; of an integer


class _Loader(yaml.SafeLoader):
    """YAML loader that keeps plain words as strings: no dates, no numbers in base 60, 011 is a name, not 9, and so are on, off,
    yes and no (as in YAML 1.2)."""


class _Dumper(yaml.SafeDumper):
    """Puts quotes around words that `_Loader` would read as numbers."""


def _plain_numbers() -> None:
    taken = tuple(f"tag:yaml.org,2002:{name}" for name in ("timestamp", "int", "float", "bool"))
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag not in taken]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _Loader.yaml_implicit_resolvers = resolvers
    integer = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
    decimal = re.compile(
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    )
    _Dumper.add_implicit_resolver("tag:yaml.org,2002:float", decimal, list("-+.0123456789"))
    truth = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
    _Loader.add_implicit_resolver("tag:yaml.org,2002:bool", truth, list("tTfF"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:int", integer, list("-+0123456789"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:float", decimal, list("-+.0123456789"))


_plain_numbers()
TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML text. `what` names it in messages, such as "config file 'a.yaml'".

    Raises `InputError` for text that is not YAML, and for YAML that cannot be settings: duplicate keys, tags, recursive
    groups, and aliases that expand to more than `NODES` values.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Nodes(what).count(node, 0)
        return loader.construct_document(node)
    except InputError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and "\n" in text.strip() else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise InputError(f"{what}{line} is not valid YAML: {problem}") from None
    except RecursionError:
        raise InputError(f"{what} is not valid YAML: groups are nested too deeply") from None
    except (ValueError, KeyError, AttributeError):  # `!!int many`
        raise InputError(f"{what} is not valid YAML: a value does not have the type of its tag") from None


def dump_yaml(mapping: Mapping[str, Any]) -> str:
    """Write YAML that `parse_yaml` reads back unchanged."""
    return yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Nodes:
    """Counts the values of a parsed YAML text with all aliases expanded, and rejects values that settings cannot contain."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.counts: dict[int, int] = {}  # 0: being counted

    def count(self, node: yaml.Node, depth: int) -> int:
        """Number of values of a node with its aliases expanded; InputError above the limits."""
        known = self.counts.get(id(node))
        if known == 0:
            self._refuse("a group contains itself", node)
        if known is not None:
            return known
        if depth > DEPTH:
            self._refuse("groups are nested too deeply", node)
        if node.tag not in TAGS:
            self._refuse(f"'{shorten(node.tag)}' is not a type of setting", node)
        if node.tag.endswith(":int") and len(node.value) > DIGITS:
            self._refuse(f"a number of {len(node.value)} digits", node)
        self.counts[id(node)] = 0
        total = 1 + sum(self.count(child, depth + 1) for child in self._children(node))
        if total > NODES:
            self._refuse(f"it holds more than {NODES} values", node)
        self.counts[id(node)] = total
        return total

    def _children(self, node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if not isinstance(node, yaml.MappingNode):
            return []
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            self._refuse("a key is a group", node)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                self._refuse(f"the key '{shorten(key.value)}' is given twice", key)
            seen.add(key.value)
        return [child for pair in node.value for child in pair]

    def _refuse(self, problem: str, node: yaml.Node) -> None:
        raise InputError(f"{self.what}, line {node.start_mark.line + 1}: {problem}")
