"""Evaluation: figures equal a recomputation from the frames, truth is met by time, shares add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metrics
import models
from data.clips import SubClip
from data.degrade import imresize
from engine.config import Config, EvalConfig, config_from_mapping
from engine.evaluate.measure import Blend, evaluate, in_between_times, means, shown_frames
from engine.restore.jobs import turned, turned_back
from engine.sources import open_source
from errors import InputError
from tests.engine.conftest import CLIPS, NETWORK
from tests.engine.small import SMALL_STNO

CPU = torch.device("cpu")


def space_time(frames: int = 7, **evaluation: object) -> Config:
    clips = {"kind": "simulated", "simulate": {**CLIPS, "clips": 1, "frames": frames}}
    mapping = {"network": SMALL_STNO, "data": {"val": clips}, "eval": {"stride": 3, "scale": 2.5, **evaluation}}
    return config_from_mapping(mapping)


@pytest.mark.parametrize("ensemble", [False, True])
def test_space_figures_equal_a_recomputation(tiny: Config, tmp_path: Path, ensemble: bool) -> None:
    torch.manual_seed(0)
    tiny = replace(tiny, eval=replace(tiny.eval, ensemble=ensemble))
    network = models.build(NETWORK).eval()
    torch.nn.init.normal_(network.reconstruction.last.weight, std=0.02)
    layout = open_source(tiny, "val")
    report = evaluate(network, layout, tiny, device=CPU, folder=tmp_path, progress=False)
    pair = layout.pairs[0]
    clip = report["clips"][pair.name]
    assert [row["frame"] for row in clip["frames"]] == list(pair.gt.frame_names[:2])
    for index, row in enumerate(clip["frames"]):
        with torch.no_grad():
            window, turns = pair.lr.window(index, 3)[None], range(8 if ensemble else 1)
            ours = torch.cat([turned_back(network(turned(window, turn)), turn) for turn in turns]).mean(0)
        bicubic = imresize(pair.lr.frame(index), scale=2)
        assert row["psnr_y"] == pytest.approx(metrics.psnr(ours, pair.gt.frame(index), crop=2).item(), abs=1e-4)
        assert row["bicubic_psnr_y"] == pytest.approx(
            metrics.psnr(bicubic, pair.gt.frame(index), crop=2).item(), abs=1e-6
        )
    assert report["mean"]["psnr_y"] == pytest.approx(sum(row["psnr_y"] for row in clip["frames"]) / 2)
    assert report["objects"]["all"]["count"] > 0
    assert len(report["pictures"]) == 1 and Path(report["pictures"][0]["ours"]).is_file()
    assert ("eight" in report["title"]) == ensemble
    assert report["network"]["seconds_per_frame"] > 0 and report["network"]["gmac_per_frame"] > 0


def test_key_and_in_between_frames_meet_their_truth() -> None:
    config = space_time()
    network = models.build(config.network).eval()
    layout = open_source(config, "val")
    rows = evaluate(network, layout, config, device=CPU, progress=False)["clips"][layout.pairs[0].name]["frames"]
    assert [row["kind"] for row in rows] == ["key", "between", "between", "key", "between", "between", "key"]
    assert [row["frame"] for row in rows] == list(layout.pairs[0].gt.frame_names)
    keys = SubClip(layout.pairs[0].lr, [0, 3, 6])
    with torch.no_grad():
        frames = torch.stack([keys.frame(i) for i in range(3)])[None]
        ours = network(frames, times=[1 / 3, 2 / 3], size=layout.pairs[0].gt.size)[0]
    for index, row in enumerate(rows):
        expected = metrics.psnr(ours[index], layout.pairs[0].gt.frame(index), crop=3).item()
        assert row["psnr_y"] == pytest.approx(expected, abs=1e-3)


def test_baseline_between_is_the_blend_of_the_enlarged_key_frames() -> None:
    config = space_time()
    pair = open_source(config, "val").pairs[0]
    blend = Blend(SubClip(pair.lr, [0, 3, 6]), 3, pair.gt.size)
    large = [imresize(pair.lr.frame(i), size=pair.gt.size) for i in (0, 3)]
    torch.testing.assert_close(blend(1), large[0] * 2 / 3 + large[1] / 3)
    torch.testing.assert_close(blend(3), large[1])


def test_chosen_times_leave_the_other_frames_out() -> None:
    config = space_time(times=[2 / 3])
    pair = open_source(config, "val").pairs[0]
    assert shown_frames(pair, config) == [0, 2, 3, 5, 6]
    wrong = replace(config, eval=replace(config.eval, times=[0.5]))
    with pytest.raises(InputError, match=r"no true frame at 0\.5"):
        in_between_times(wrong)


def test_clips_too_short_for_the_stride() -> None:
    config = space_time(frames=3)
    with pytest.raises(InputError, match="needs at least 4"):
        shown_frames(open_source(config, "val").pairs[0], config)


def test_paper_protocol_takes_the_mean_over_frames(tiny: Config) -> None:
    mapping_free = replace(tiny, eval=EvalConfig(protocol="paper_mtdo", frames=2))
    report = evaluate(models.build(NETWORK), open_source(tiny, "val"), mapping_free, device=CPU, progress=False)
    rows = [row for clip in report["clips"].values() for row in clip["frames"]]
    assert report["mean"]["psnr_y"] == pytest.approx(sum(row["psnr_y"] for row in rows) / len(rows))


def test_output_that_is_not_finite_is_named(tiny: Config) -> None:
    network = models.build(NETWORK)
    torch.nn.init.constant_(network.reconstruction.last.bias, float("nan"))
    with pytest.raises(InputError, match="not finite"):
        evaluate(network, open_source(tiny, "val"), tiny, device=CPU, progress=False)


def test_means_skip_what_is_no_figure() -> None:
    rows = [
        {"frame": "a", "time": 1.0, "kind": "key", "psnr_y": 30.0},
        {"frame": "b", "time": 2.0, "psnr_y": 32.0, "tof": 1.0},
    ]
    assert means(rows) == {"psnr_y": 31.0, "tof": 1.0}
