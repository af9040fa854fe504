"""The times of the output frames."""

from __future__ import annotations

from fractions import Fraction

import pytest

from engine.upscale.timeline import at_rate, by_steps

TIMES = [k * 1001 / 24_000 for k in range(24)]


def test_regular_steps_in_every_gap():
    line = by_steps([0.0, 0.04, 0.12], [0.25, 0.5], 0.04, Fraction(25))
    assert line.places == ((0, 0.0), (0, 0.25), (0, 0.5), (1, 0.0), (1, 0.25), (1, 0.5), (2, 0.0))
    assert line.times == pytest.approx([0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12])
    assert line.last == 0.04 and line.fps == 75
    assert list(line.outputs(1, 2)) == [3, 4, 5] and line.steps(0) == [0.25, 0.5] and line.steps(2) == []


def test_no_intermediate_frame_across_a_cut():
    line = by_steps([0.0, 0.04, 0.08, 0.12], [0.5], 0.04, Fraction(25), cuts=[2])
    assert line.places == ((0, 0.0), (0, 0.5), (1, 0.0), (1, 0.0), (2, 0.0), (2, 0.5), (3, 0.0))
    assert line.scene(1) == range(0, 2) and line.scene(2) == range(2, 4)
    line = at_rate([k / 10 for k in range(4)], Fraction(30), 0.1, cuts=[2])
    assert all(step == 0 for key, step in line.places if key == 1)


@pytest.mark.parametrize(("rate", "count"), [(60, 61), (Fraction(60_000, 1001), 60), (30, 31), (12, 13), (25, 26)])
def test_any_output_rate_from_23_976(rate, count):
    line = at_rate(TIMES, Fraction(rate), 1001 / 24_000)
    assert len(line) == count  # 1.001 s
    assert line.times == pytest.approx([float(n / Fraction(rate)) for n in range(count)])
    for (key, step), time in zip(line.places, line.times, strict=True):
        if key + 1 < len(TIMES):  # positions are snapped to nearby key frames
            assert TIMES[key] + step * (TIMES[key + 1] - TIMES[key]) == pytest.approx(time, abs=0.001)
    assert line.places[-1][0] == 23


def test_any_output_rate_from_variable_times():
    times = [0.0, 0.02, 0.1, 0.14, 0.3]
    line = at_rate(times, Fraction(50), 0.04)
    assert len(line) == 17
    assert line.places[:6] == ((0, 0.0), (1, 0.0), (1, 0.25), (1, 0.5), (1, 0.75), (2, 0.0))
    assert [len(line.outputs(key, key + 1)) for key in range(5)] == [1, 4, 2, 8, 2]


def test_pieces_of_a_low_output_rate_may_be_empty():
    line = at_rate([k / 25 for k in range(50)], Fraction(1, 2), 0.04)
    assert [key for key, _ in line.places] == [0]
    assert len(line.outputs(25, 50)) == 0
