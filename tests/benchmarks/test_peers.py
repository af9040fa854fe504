"""benchmarks/peers.py: its tables, and loading networks from checkouts of other projects."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import metrics
import models
from benchmarks import contender_table, contenders
from data.clips import ArrayClip
from errors import InputError


@pytest.fixture
def clip():
    random = np.random.default_rng(0)
    return ArrayClip("city", random.integers(0, 256, (3, 32, 40, 3), dtype=np.uint8))


def brighter(clip, by):
    return lambda index: (clip.frame(index) + by / 255).clamp(0, 1)


def test_rows_are_means_by_clip_input_and_kind(clip):
    table = contender_table.Table(flicker=True)
    table.measure("same", clip, ["", "", ""], clip.frame)
    table.measure("off", clip, ["", "", ""], brighter(clip, 8))
    table.input = "JPEG 60"
    table.measure_together("off", clip, ["", "", ""], lambda: map(brighter(clip, 16), range(3)))
    clean, lossy = table.rows()
    expected = [metrics.psnr(brighter(clip, 8)(i), clip.frame(i), "standard", 4).item() for i in range(3)]
    assert clean | {"same": 0} == {
        "clip": "city",
        "input": "clean",
        "kind": "",
        "frames": 3,
        "same": 0,
        "off": round(sum(expected) / 3, 3),
    }
    assert lossy["input"] == "JPEG 60" and "same" not in lossy and lossy["off"] < clean["off"]
    assert [row["frames"] for row in table.flicker_rows()] == [2, 2]
    assert table.flicker_rows()[0]["same"] == 0 <= table.flicker_rows()[0]["off"]


def test_timing_excludes_the_first_run_of_a_size(clip):
    runs = []

    def make():
        runs.append(1)
        return map(clip.frame, range(3))

    table = contender_table.Table()
    for _ in range(2):
        table.measure_together("ours", clip, ["", "", ""], make)
    assert len(runs) == 3 and len(table.seconds["ours"]) == 6  # the second measurement of a size needs no warm-up


def test_table_has_a_mean_row_per_input():
    rows = [
        {"clip": clip, "input": source, "kind": "", "frames": 2, "bicubic": value, "ours": value + 1}
        for clip, source, value in (("a", "clean", 20.0), ("a", "JPEG 60", 10.0), ("b", "clean", 30.0))
    ]
    del rows[1]["ours"]
    lines = contender_table.markdown(rows, ["bicubic", "ours"], "Y PSNR, dB", 2)
    assert lines == [
        "| Y PSNR, dB | input | frames | bicubic | ours |",
        "|---|---|---|---|---|",
        "| a | clean | 2 | 20.00 | 21.00 |",
        "| b | clean | 2 | 30.00 | 31.00 |",
        "| mean | clean | 4 | 25.00 | 26.00 |",
        "| a | JPEG 60 | 2 | 10.00 |  |",
    ]


def test_plot_shows_the_first_input(monkeypatch, tmp_path):
    rows = [{"input": "clean", "bicubic": 20, "ours": 21}, {"input": "JPEG 60", "bicubic": 20, "ours": 10}]
    found = {"what": "space", "baseline": "bicubic", "seconds": {"bicubic": 0.1, "ours": 2.0}, "rows": rows}
    (tmp_path / "a.json").write_text(json.dumps(found))
    drawn = []
    monkeypatch.setattr(contender_table, "plot", lambda *arguments, **options: drawn.append(arguments[3]))
    contender_table.draw(tmp_path / "a.png", [tmp_path / "a.json"])
    assert drawn == [{"ours (space)": [(2.0, 1)]}]


CHECKOUT = """
import torch
from models.helper import SCALE
class RLFN_cut(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
    def forward(self, x):
        assert x.max() > 1
        return self.gain * torch.nn.functional.interpolate(x, scale_factor=SCALE)
"""


def test_modules_of_a_checkout_do_not_shadow_ours(clip, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "model_zoo").mkdir()
    (tmp_path / "models" / "team04_rlfn.py").write_text(CHECKOUT)
    (tmp_path / "models" / "helper.py").write_text("SCALE = 4")
    torch.save({"gain": torch.tensor(0.5)}, tmp_path / "model_zoo" / "team04_rlfn.pth")
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "models"}
    found = contenders.challengers([tmp_path])
    assert {name: module for name, module in sys.modules.items() if name.split(".")[0] == "models"} == before
    assert sys.modules["models"] is models
    frame = clip.frame(0)
    expected = 0.5 * frame.repeat_interleave(4, -1).repeat_interleave(4, -2)
    torch.testing.assert_close(found["RLFN"](frame), expected)


def test_folder_without_known_networks_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a checkout that has one of model_zoo/team04_rlfn"):
        contenders.challengers([tmp_path])
