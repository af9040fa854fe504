"""Evaluation: metrics equal a recomputation from the frames, ground truth is matched by time, shards add up."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import metrics
import models
from data.clips import ArrayClip, DegradedClip, SubClip
from data.degrade import Degradation, imresize
from data.layouts import Layout, Pair
from engine.compare.measure import FrameMeter, Settings
from engine.config import Config, EvalConfig, config_from_mapping
from engine.evaluate.averages import means
from engine.evaluate.clip_meter import ClipMeter
from engine.evaluate.measure import check_clips, dark_note, evaluate, low_resolution
from engine.evaluate.restored import Blend, RestoredFrame, measured_frames
from engine.evaluate.times import gap_times, runs
from engine.report.tables import provenance
from engine.restore.jobs import inverse_transform, transform
from engine.sources import open_source
from errors import InputError
from metrics.planes import gray
from tests.engine.conftest import CLIPS, NETWORK
from tests.engine.small import SMALL_STNO

CPU = torch.device("cpu")


def space_time(frames: int = 7, **evaluation: object) -> Config:
    clips = {"kind": "simulated", "simulate": {**CLIPS, "clips": 1, "frames": frames}}
    mapping = {"network": SMALL_STNO, "data": {"val": clips}, "eval": {"stride": 3, "scale": 2.5, **evaluation}}
    return config_from_mapping(mapping)


def test_a_number_of_frames_is_taken_from_those_of_the_list(tiny: Config) -> None:
    """Not from the first frames of the clip, of which none may be listed."""
    clip = ArrayClip("a", np.zeros((9, 8, 8, 3), np.uint8))
    tiny = replace(tiny, eval=replace(tiny.eval, frames=2))
    assert measured_frames(Pair("a", clip, clip), tiny) == [0, 1]
    assert measured_frames(Pair("a", clip, clip, listed=[5, 6, 8]), tiny) == [5, 6]


@pytest.mark.parametrize("ensemble", [False, True])
def test_spatial_metrics_equal_a_recomputation(tiny: Config, tmp_path: Path, ensemble: bool) -> None:
    torch.manual_seed(0)
    tiny = replace(tiny, eval=replace(tiny.eval, ensemble=ensemble))
    network = models.build(NETWORK).eval()
    torch.nn.init.normal_(network.reconstruction.conv_last.weight, std=0.02)
    layout = open_source(tiny, "val")
    report = evaluate(network, layout, tiny, device=CPU, folder=tmp_path, progress=False)
    pair = layout.pairs[0]
    clip = report["clips"][pair.name]
    assert [row["frame"] for row in clip["frames"]] == list(pair.gt.frame_names[:2])
    for index, row in enumerate(clip["frames"]):
        with torch.no_grad():
            window, orientations = pair.lr.window(index, 3)[None], range(8 if ensemble else 1)
            ours = torch.cat(
                [
                    inverse_transform(network(transform(window, orientation)), orientation)
                    for orientation in orientations
                ]
            ).mean(0)
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


def test_key_and_intermediate_frames_are_compared_with_their_truth() -> None:
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


def test_intermediate_frames_use_the_true_times() -> None:
    """Frame 1 is at a tenth of its gap, frame 3 in the middle: network and baseline must use these times."""
    config = space_time(frames=5, stride=2)
    layout = open_source(config, "val")
    pair = layout.pairs[0]
    pair.gt.times = [0.0, 0.1, 1.0, 1.5, 2.0]
    network = models.build(config.network).eval()
    rows = evaluate(network, layout, config, device=CPU, progress=False)["clips"][pair.name]["frames"]
    assert [row.get("gap_time") for row in rows] == [None, pytest.approx(0.1), None, pytest.approx(0.5), None]
    assert [row["kind"] for row in rows] == ["key", "between", "key", "between", "key"]
    keys = torch.stack([pair.lr.frame(i) for i in (0, 2, 4)])
    with torch.no_grad():
        early = network(keys[None], times=[0.1], size=pair.gt.size)[0]
    blend = torch.lerp(*(imresize(keys[i], size=pair.gt.size) for i in (0, 1)), 0.1)
    for prefix, frame in (("", early[1]), ("bicubic_", blend)):
        expected = metrics.psnr(frame, pair.gt.frame(1), crop=3).item()
        assert rows[1][f"{prefix}psnr_y"] == pytest.approx(expected, abs=1e-3)


def test_rounded_frame_times_count_as_regular() -> None:
    clip = ArrayClip("clip", np.zeros((5, 4, 4, 3), np.uint8))
    clip.times = [0.0, 0.008, 0.017, 0.025, 0.033]
    assert gap_times(clip, 0, 2, [1]) == [0.5] and gap_times(clip, 0, 4, [1, 2, 3]) == [0.25, 0.5, 0.75]
    clip.times = [0.0, 0.0, 1.0, 1.8, 2.0]
    assert gap_times(clip, 0, 2, [1]) == [0.5]  # two frames with the same time
    assert gap_times(clip, 2, 2, [1]) == [pytest.approx(0.8)]
    assert runs([[0.5], [0.5], [0.8]]) == [(range(0, 2), [0.5]), (range(2, 3), [0.8])]


def test_moving_objects_are_detected_on_request(tiny: Config) -> None:
    config = replace(tiny, eval=replace(tiny.eval, frames=4, detect=True))
    layout = open_source(config, "val")
    report = evaluate(models.build(NETWORK), layout, config, device=CPU, progress=False)
    assert list(report["detection"]) == ["LR", "baseline", "ours", "GT"]
    pair = layout.pairs[0]
    frames = [gray(pair.gt.frame(index)) for index in range(4)]
    assert report["detection"]["GT"] == metrics.detection_count(frames, pair.boxes[:4]).result()
    assert report["detection"]["LR"]["boxes"] == sum(map(len, pair.boxes[:4]))


def test_report_has_both_means_and_the_settings(tiny: Config) -> None:
    config = replace(tiny, eval=replace(tiny.eval, frames=2), data=replace(tiny.data, spacing=2))
    report = evaluate(models.build(NETWORK), open_source(tiny, "val"), config, device=CPU, progress=False)
    assert report["mean_over_clips"] == report["mean"]
    assert report["settings"]["frames"] == "only the first 2 of each clip"
    assert report["settings"]["padding"] == "reflect"
    assert report["settings"]["spacing"] == "2 between the frames of a window"
    facts = provenance(report)
    assert ("padding", "reflect") in facts
    assert ("protocol", "standard, 2 pixels of border left out") in facts
    assert ("low resolution", "made from the ground truth (bicubic)") in facts


def test_reports_name_the_source_of_the_low_resolution() -> None:
    """Files of a data set may have another degradation: figures on them are not those of bicubic."""
    gt = ArrayClip("a", np.zeros((3, 8, 8, 3), np.uint8))
    stored = Pair("a", gt, SubClip(ArrayClip("a", np.zeros((3, 4, 4, 3), np.uint8)), [0, 1]))
    made = Pair("b", gt, SubClip(DegradedClip(gt, Degradation(kind="blur-down"), 2), [0, 1]))
    assert low_resolution(Layout("clips", Path(), "", [stored])) == "files of the data set"
    assert low_resolution(Layout("clips", Path(), "", [made, made])) == "made from the ground truth (blur-down)"
    both = "files of the data set (1 of 3 clips), made from the ground truth (blur-down) (2 of 3 clips)"
    assert low_resolution(Layout("clips", Path(), "", [stored, made, made])) == both


def test_baseline_of_intermediate_frames_blends_upscaled_key_frames() -> None:
    config = space_time()
    pair = open_source(config, "val").pairs[0]
    blend = Blend(SubClip(pair.lr, [0, 3, 6]), 3, pair.gt.size)
    large = [imresize(pair.lr.frame(i), size=pair.gt.size) for i in (0, 3)]
    torch.testing.assert_close(blend(1), large[0] * 2 / 3 + large[1] / 3)
    torch.testing.assert_close(blend(3), large[1])


def test_only_frames_at_chosen_times_are_evaluated() -> None:
    config = space_time(times=[2 / 3])
    pair = open_source(config, "val").pairs[0]
    assert measured_frames(pair, config) == [0, 2, 3, 5, 6]
    with pytest.raises(InputError, match=r"no true frame at 0\.5"):
        replace(config, eval=replace(config.eval, times=[0.5]))


def test_times_of_one_true_frame_select_it_once() -> None:
    config = space_time(times=[0.3333333, 1 / 3, 0.6666667])
    assert config.intermediate_times == [1 / 3, 2 / 3]


def test_clips_too_short_for_the_stride() -> None:
    config = space_time(frames=3)
    with pytest.raises(InputError, match="needs at least 4"):
        check_clips(open_source(config, "val"), config)


@pytest.mark.parametrize("highest", [1.2, 0.9])
def test_values_that_are_no_brightness_are_refused_before_the_work(tiny: Config, highest: float) -> None:
    clip = ArrayClip("a", np.full((3, 8, 8, 3), highest, np.float32))
    layout = Layout("file", Path(), "", [Pair("a", clip, clip)])
    if highest < 1:
        check_clips(layout, tiny)
    else:
        with pytest.raises(InputError, match=r"run from 1\.2 to 1\.2, metrics need 0 to 1"):
            check_clips(layout, tiny)


def test_listed_frames_of_space_time_networks_are_measured_among_all() -> None:
    """The results of the listed frames are those of an evaluation without a list."""
    config = space_time()
    layout = open_source(config, "val")
    torch.manual_seed(0)
    network = models.build(SMALL_STNO).eval()
    (full,) = evaluate(network, layout, config, device=CPU, progress=False)["clips"].values()
    listed = replace(layout, pairs=[replace(layout.pairs[0], listed=[1, 5, 6])])
    report = evaluate(network, listed, config, device=CPU, progress=False)
    (part,) = report["clips"].values()
    wanted = [{**full["frames"][index]} for index in (1, 5, 6)]
    keys = ("frame", "kind", "psnr_y", "ssim_y", "bicubic_psnr_y")
    assert [[row[key] for key in keys] for row in part["frames"]] == [[row[key] for key in keys] for row in wanted]
    assert report["groups"]["key"]["psnr_y"] == wanted[2]["psnr_y"]
    pair = replace(layout.pairs[0], listed=[1])
    with pytest.raises(InputError, match="none of its listed frames is among"):
        measured_frames(pair, replace(config, eval=replace(config.eval, times=[2 / 3])))


def test_paper_protocol_takes_the_mean_over_frames(tiny: Config) -> None:
    mapping_free = replace(tiny, eval=EvalConfig(protocol="paper_mtdo", frames=2))
    report = evaluate(models.build(NETWORK), open_source(tiny, "val"), mapping_free, device=CPU, progress=False)
    rows = [row for clip in report["clips"].values() for row in clip["frames"]]
    assert report["mean"]["psnr_y"] == pytest.approx(sum(row["psnr_y"] for row in rows) / len(rows))


def test_output_that_is_not_finite_is_named(tiny: Config) -> None:
    network = models.build(NETWORK)
    torch.nn.init.constant_(network.reconstruction.conv_last.bias, float("nan"))
    with pytest.raises(InputError, match="not finite"):
        evaluate(network, open_source(tiny, "val"), tiny, device=CPU, progress=False)


def test_means_skip_missing_values() -> None:
    rows = [
        {"frame": "a", "time": 1.0, "kind": "key", "psnr_y": 30.0},
        {"frame": "b", "time": 2.0, "psnr_y": 32.0, "tof": 1.0},
    ]
    assert means(rows) == {"psnr_y": 31.0, "tof": 1.0}


def test_only_decibels_are_capped_in_means() -> None:
    """The bias of stretched bands has the units of the files, such as 16-bit counts."""
    rows = [
        {"psnr_y": math.inf, "consistency": 120.0, "bias_1": 150.0},
        {"psnr_y": 40.0, "consistency": 60.0, "bias_1": 250.0},
    ]
    assert means(rows) == {"psnr_y": 70.0, "consistency": 80.0, "bias_1": 200.0}


@pytest.mark.parametrize(("offset", "gain"), [(0.0, 0.0), (0.02, None)])
def test_identical_frames_do_not_make_the_gain_infinite(tiny: Config, offset: float, gain: float | None) -> None:
    """Bicubic restores a constant frame exactly: its PSNR is infinite, and so was the gain of all frames."""
    black = ArrayClip("black", np.zeros((3, 64, 64, 3), np.uint8))
    low = ArrayClip("black", np.zeros((3, 16, 16, 3), np.uint8))
    meter = ClipMeter(tiny, Pair("black", black, low), None)
    for index in range(3):
        truth = black.frame(index)
        meter.add(RestoredFrame(index, truth + offset, truth, truth))
    mean = meter.result()
    assert mean["bicubic_psnr_y"] == 100
    assert mean["gain_psnr_y"] == (mean["psnr_y"] - 100 if gain is None else gain)


def test_temporal_values_only_between_successive_frames(tiny: Config) -> None:
    """Frame 3 follows frame 1 in a list file: the motion of two frames is no flicker."""
    values = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    clip, low = ArrayClip("a", values), ArrayClip("a", values[:, ::4, ::4])
    meter = ClipMeter(replace(tiny, eval=replace(tiny.eval, temporal=True)), Pair("a", clip, low), None)
    for index in (0, 1, 3, 4):
        meter.add(RestoredFrame(index, clip.frame(index), clip.frame(index), clip.frame(index)))
    assert ["tof" in row for row in meter.rows] == [False, True, False, True]

    settings = Settings.of(tiny.eval, 4, ["tof", "psnr_y"], None)
    frames = FrameMeter(settings, Pair("a", clip, low), ["bicubic"])
    rows = [frames.add(index, {"bicubic": clip.frame(index)}, clip.frame(index))["bicubic"] for index in (0, 1, 3, 4)]
    assert ["tof" in row for row in rows] == [False, True, False, True]


@pytest.mark.parametrize(("largest", "limit"), [(4000, 4095), (2047, 2047), (40000, None)])
def test_ground_truth_of_fewer_bits_is_told(tiny: Config, largest: int, limit: int | None) -> None:
    clip = ArrayClip("a", np.full((2, 8, 8, 3), largest, np.uint16))
    note = dark_note(Layout("clips", Path(), "", [Pair("a", clip, clip)], 2), tiny)
    assert (f"reach {largest} of 65535" in note and f"limits=[0,{limit}]" in note) if limit else not note
