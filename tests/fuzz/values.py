"""Odd values for keys, options and fields."""

from __future__ import annotations

from typing import Any

WORDS = [
    "0", "-1", "1", "2", "1e400", "-1e400", ".nan", ".inf", "1e-400", "9" * 5000, "99999999999999999999", "0x10", "011", "1_0", "",
    "null", "true", "no", "~", "[]", "{}", "[1]", "[1, 2]", "[0, 0, 0, 0]", "[-1, 2]", "[a, b]", "{a: 1}", "[[1]]", "2020-01-01",
    "1:30", "a", "é", "a b", "..", "/", "'", '"', "[", "{", "&a [*a]", "*a", "!!python/none", "!!int x", "? [a]", "\t", "a: b", "\x00",
    "auto", "off", "4", "[4, 4]", "[{steps: 1}]", "[{}]", "step", "mtdo", "stno", "simulated", "3.5", "1e30", "-0.0", "a" * 5000,
]  # fmt: skip


EXTREMES: dict[str, list[Any]] = {
    "number": [
        0,
        -1,
        1,
        2,
        3,
        1e-30,
        1e30,
        0.5,
        1e4,
        2**31,
        2**53,
        10**30,
        float("nan"),
        float("inf"),
        -0.0,
        [1, 2],
        [2, 1],
        None,
    ],
    "other": [
        True,
        False,
        "",
        "a",
        "auto",
        "off",
        [],
        [1],
        {},
        ["a"],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [1, 1],
        "/nonexistent",
    ],
}
