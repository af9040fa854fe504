"""settings.from_mapping: strict types, with errors that name the key and the remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from errors import InputError
from settings import Between, apply_override, from_mapping, nearest, to_mapping
from strict_yaml import dump_yaml, parse_yaml


@dataclass
class Inner:
    window: int = 16
    ratio: float = 0.5


@dataclass
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (1.0, 2.0)
    sizes: list[int] = field(default_factory=list)
    limit: int | None = None
    flag: bool = False
    share: Annotated[float, Between(0, 1)] = 0.5

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise InputError(f"'limit' must not be negative, got {self.limit}")


def test_values_have_the_declared_types() -> None:
    built = from_mapping(
        Outer,
        {
            "name": "x",
            "inner": {"window": 8.0, "ratio": 1},
            "kind": "b",
            "pair": [2, 4],
            "sizes": [1, 2],
            "limit": 3,
            "flag": True,
        },
    )
    assert built == Outer("x", Inner(8, 1.0), "b", (2.0, 4.0), [1, 2], 3, True)
    assert isinstance(built.inner.ratio, float) and isinstance(built.inner.window, int)


def test_round_trip() -> None:
    built = Outer("x", sizes=[3], limit=1)
    assert from_mapping(Outer, to_mapping(built)) == built


def test_scientific_notation_read_as_text_by_yaml_1_1() -> None:
    assert from_mapping(Inner, {"ratio": "1e-4"}).ratio == 1e-4


def test_off_read_as_false_by_yaml_1_1() -> None:
    assert from_mapping(Outer, {"name": False}).name == "off"


@pytest.mark.parametrize(
    ("mapping", "parts"),
    [
        ({"name": "x", "iner": {}}, ["'iner'", "did you mean 'inner'"]),
        ({"name": "x", "inner": {"windw": 8}}, ["'inner.windw'", "did you mean 'window'"]),
        ({"name": "x", "inner": 3}, ["'inner'", "group of keys"]),
        ({"name": 3.5}, ["'name'", "expected a word", "3.5"]),
        ({"name": "a\0b"}, ["'name'", "no null byte"]),
        ({"name": "x" * 5000}, ["'name'", "up to 4096 characters"]),
        ({"name": "x", "inner": {"ratio": float("nan")}}, ["'inner.ratio'", "finite number"]),
        ({"name": "x", "inner": {"ratio": "1_0"}}, ["'inner.ratio'", "expected a number", "'1_0'"]),
        ({"name": "x", "inner": {"ratio": "\u0661"}}, ["'inner.ratio'", "expected a number"]),
        ({"name": "x", "inner": {"ratio": "nan"}}, ["'inner.ratio'", "expected a number"]),
        ({"name": "x", "inner": {"ratio": "1e400"}}, ["'inner.ratio'", "finite number"]),
        ({"name": "x", "inner": {"ratio": 10**400}}, ["'inner.ratio'", "expected a number"]),
        ({"name": "x", "inner": {"window": 10**30}}, ["'inner.window'", "up to 2**53"]),
        ({"name": "x", "inner": {"window": 10**5000}}, ["'inner.window'", "too long to show"]),
        ({"name": "x", "share": 1.5}, ["'share'", "at most 1", "1.5"]),
        ({"name": "x", "share": -1}, ["'share'", "at least 0", "-1"]),
        ({"name": "x", "flag": 1}, ["'flag'", "expected true or false"]),
        ({"name": "x", "inner": {"window": True}}, ["'inner.window'", "expected an integer"]),
        ({"name": "x", "inner": {"window": 8.5}}, ["'inner.window'", "expected an integer"]),
        ({"name": "x", "inner": {"ratio": "much"}}, ["'inner.ratio'", "expected a number", "much"]),
        ({"name": "x", "kind": "c"}, ["'kind'", "one of a, b"]),
        ({"name": "x", "pair": [1, 2, 3]}, ["'pair'", "expected 2 values"]),
        ({"name": "x", "sizes": [1, "two"]}, ["'sizes[1]'", "expected an integer"]),
        ({"name": "x", "limit": "many"}, ["'limit'", "expected an integer"]),
        ({"name": "x", "limit": -1}, ["'limit' must not be negative"]),
        ({}, ["lacks the key 'name'"]),
        ([1], ["group of keys"]),
    ],
)
def test_bad_values_are_named(mapping: object, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(Outer, mapping)  # type: ignore[arg-type]
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)


def test_nearest_lists_all_names_if_none_is_similar() -> None:
    assert nearest("zzz", ["alpha", "beta"]) == ": expected one of alpha, beta"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[000, 011, '7', 8]", ["000", "011", "7", 8]),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("1e-4", 1e-4),
        ("-3", -3),
        (".5", 0.5),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("{a: &x {c: 1}, b: {<<: *x, d: 2}}", {"a": {"c": 1}, "b": {"c": 1, "d": 2}}),
        ("", None),
    ],
)
def test_yaml_words_stay_text(text: str, value: object) -> None:
    assert parse_yaml(text, "it") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 3\n'a': 2", "line 3: the key 'a' is given twice"),
        ("&a [*a]", "contains itself"),
        ("{a: &a {b: *a}}", "contains itself"),
        (
            "\n".join(
                ["- &a0 [x,x,x,x,x,x,x,x,x,x]", *(f"- &a{i + 1} [{','.join([f'*a{i}'] * 10)}]" for i in range(9))]
            ),
            "more than",
        ),
        ("9" * 5000, "5000 digits"),
        ("[" * 5000, "nested too deeply|not valid"),
        ("!!int many", "not have the type"),
        ("!!bool many", "not have the type"),
        ("!!timestamp x", "not a type of setting"),
        ("!!python/object/apply:os.system [ls]", "not a type of setting"),
        ("{[1]: 2}", "a key is a group"),
        ("a: [", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_invalid_yaml_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_yaml(text, "config file 'a.yaml'")
    assert str(caught.value).startswith("config file 'a.yaml'") and len(str(caught.value)) < 300


def test_yaml_round_trip() -> None:
    mapping = {"a": ["000", "011", "1e5", "2020-01-01", "no", "1:30", "~", ""], "b": 1e-05, "c": None, "d": "größe"}
    assert parse_yaml(dump_yaml(mapping), "it") == mapping


def test_error_for_a_word_instead_of_a_list_shows_the_list() -> None:
    with pytest.raises(InputError, match=r"config key 'sizes': expected a list, got '000': write \[000\]"):
        from_mapping(Outer, {"name": "x", "sizes": "000"})


@dataclass
class Words:
    mode: Literal["off", "on"] = "on"
    name: str = ""
    flag: bool = True
    names: list[str] = field(default_factory=list)


@pytest.mark.parametrize(("text", "flag"), [("off", False), ("No", False), ("true", True), ("on", True)])
def test_off_is_text_where_text_is_expected(text: str, flag: bool) -> None:
    parsed = parse_yaml(f"{{mode: off, name: off, names: [no, on, y], flag: {text}}}", "text")
    assert from_mapping(Words, parsed) == Words("off", "off", flag, ["no", "on", "y"])


def test_a_config_file_without_its_option_is_explained() -> None:
    with pytest.raises(InputError, match=r"override 'configs/a\.yaml': expected key\.sub=value.*--config FILE"):
        apply_override({}, "configs/a.yaml")
