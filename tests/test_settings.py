"""settings.from_mapping: strict, with messages that name the key and the remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from errors import InputError
from settings import from_mapping, nearest, to_mapping


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

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise InputError(f"'limit' must not be negative, got {self.limit}")


def test_values_arrive_with_their_types() -> None:
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


def test_scientific_notation_as_yaml_1_1_reads_it() -> None:
    assert from_mapping(Inner, {"ratio": "1e-4"}).ratio == 1e-4


def test_off_as_yaml_1_1_reads_it() -> None:
    assert from_mapping(Outer, {"name": False}).name == "off"


@pytest.mark.parametrize(
    ("mapping", "parts"),
    [
        ({"name": "x", "iner": {}}, ["'iner'", "did you mean 'inner'"]),
        ({"name": "x", "inner": {"windw": 8}}, ["'inner.windw'", "did you mean 'window'"]),
        ({"name": "x", "inner": 3}, ["'inner'", "group of keys"]),
        ({"name": 3}, ["'name'", "expected a word", "3"]),
        ({"name": "x", "flag": 1}, ["'flag'", "expected true or false"]),
        ({"name": "x", "inner": {"window": True}}, ["'inner.window'", "expected a whole number"]),
        ({"name": "x", "inner": {"window": 8.5}}, ["'inner.window'", "expected a whole number"]),
        ({"name": "x", "inner": {"ratio": "much"}}, ["'inner.ratio'", "expected a number", "much"]),
        ({"name": "x", "kind": "c"}, ["'kind'", "one of a, b"]),
        ({"name": "x", "pair": [1, 2, 3]}, ["'pair'", "expected 2 values"]),
        ({"name": "x", "sizes": [1, "two"]}, ["'sizes[1]'", "expected a whole number"]),
        ({"name": "x", "limit": "many"}, ["'limit'", "expected a whole number"]),
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


def test_nearest_lists_all_where_none_is_near() -> None:
    assert nearest("zzz", ["alpha", "beta"]) == ": expected one of alpha, beta"
