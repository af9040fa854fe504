from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from data.clips import ArrayClip, CroppedClip, DegradedClip
from data.datasets import Augmentation, SequenceDataset, StepBatches, WindowDataset, build_loader
from data.degrade import Degradation, imresize
from data.layouts import Pair, open_layout
from data.media import to_float, write_image
from errors import InputError

NONE = Augmentation(False, False, False)


def frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Pixels encode their position: red the frame, green the row, blue the column (times 3, so that LR keeps it)."""
    array = np.zeros((count, height, width, 3), np.uint8)
    array[..., 0] = 10 * np.arange(count)[:, None, None] + seed
    array[..., 1] = 3 * np.arange(height)[:, None]
    array[..., 2] = 3 * np.arange(width)
    return array


def pair(count: int, scale: int = 2, name: str = "a", seed: int = 0, **degradation) -> Pair:
    gt = CroppedClip(ArrayClip(name, frames(count, seed=seed)), scale)
    return Pair(name, gt, DegradedClip(gt, Degradation(**degradation), scale))


def keys(dataset, steps: int = 3, batch: int = 4, seed: int = 0, **options):
    return list(StepBatches(dataset, batch, seed, options.pop("start_step", 0), steps, **options))


def test_lr_and_gt_windows_have_the_same_geometry():
    dataset = WindowDataset([pair(7), pair(6, name="b", seed=100)], scale=2, frames=5, patch=8)
    turned = 0
    for batch in keys(dataset, steps=12):
        for key in batch:
            item = dataset[key]
            assert item["lr"].shape == (5, 3, 8, 8) and item["gt"].shape == (3, 16, 16)
            assert item["lr"].dtype == item["gt"].dtype == torch.uint8
            centre, gt = to_float(item["lr"][2]), to_float(item["gt"])
            again = imresize(gt, size=(8, 8))
            assert (again - centre)[:, 2:-2, 2:-2].abs().max() < 1.1 / 255  # away from the crop's own border
            turned += int(gt[1, 0, 0] > gt[1, -1, 0])
    assert 0 < turned < 48


def test_window_frames_are_in_order_or_reversed():
    dataset = WindowDataset([pair(9)], scale=2, frames=5, patch=8)
    directions = set()
    for batch in keys(dataset, steps=10):
        for key in batch:
            red = dataset[key]["lr"][:, 0].float().mean((1, 2)) / 10
            steps = red.diff()
            if key.frame in (2, 3, 4, 5, 6):
                assert torch.allclose(steps.abs(), torch.ones(4), atol=0.02)
                directions.add(round(steps[0].item()))
    assert directions == {-1, 1}


def test_switches_turn_augmentation_off():
    dataset = WindowDataset([pair(5)], 2, patch=8, augmentation=NONE)
    for batch in keys(dataset):
        for key in batch:
            item = dataset[key]
            assert item["gt"][1, 0, 0] < item["gt"][1, -1, 0] and item["gt"][2, 0, 0] < item["gt"][2, 0, -1]
            assert item["lr"][1, 0].float().mean() <= item["lr"][2, 0].float().mean() + 11


def test_share_of_windows_with_the_centre_frame_only():
    clips = [pair(9)]
    every, some, none = (WindowDataset(clips, 2, frames=5, patch=8, single_frame=share) for share in (1.0, 0.5, 0.0))
    single = 0
    for key in (key for batch in keys(none, steps=20) for key in batch):
        still, window, mixed = (dataset[key] for dataset in (every, none, some))
        assert torch.equal(still["lr"], window["lr"][2].expand(5, -1, -1, -1))
        assert torch.equal(still["gt"], window["gt"])  # same crop, same flips
        repeated = torch.equal(mixed["lr"], still["lr"])
        assert repeated or torch.equal(mixed["lr"], window["lr"])
        single += repeated
    assert 0.35 < single / 80 < 0.65


def test_draws_depend_on_seed_step_and_slot_only():
    dataset = WindowDataset([pair(7), pair(5, name="b")], 2, patch=8)
    full = keys(dataset, steps=6, batch=4)
    assert keys(dataset, steps=2, batch=4, start_step=4) == full[4:]
    halves = [keys(dataset, steps=6, batch=2, rank=rank, world=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == full
    assert keys(dataset, steps=6, batch=4, seed=1) != full
    epoch = [(key.clip, key.frame) for batch in full for key in batch][:12]
    assert len(set(epoch)) == 12  # shuffled epochs: every frame once


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_samples_do_not_depend_on_the_number_of_workers(workers):
    dataset = WindowDataset([pair(7, noise=3.0)], 2, patch=8)
    reference = [[dataset[key] for key in batch] for batch in keys(dataset)]
    batches = list(build_loader(dataset, StepBatches(dataset, 4, 0, 0, 3), workers=workers))
    assert len(batches) == 3
    for batch, items in zip(batches, reference, strict=True):
        assert torch.equal(batch["lr"], torch.stack([item["lr"] for item in items]))
        assert torch.equal(batch["gt"], torch.stack([item["gt"] for item in items]))
        assert batch["source"] == [item["source"] for item in items]


@pytest.mark.parametrize("scale", [2, (2.0, 4.0)])
def test_sequence_order_times_and_geometry(scale):
    dataset = SequenceDataset([pair(12)], scale, frames=3, strides=(2, 4), intermediate=1, patch=8)
    scales, seen = set(), set()
    for batch in keys(dataset, steps=12, batch=2):
        assert len({(key.scale, key.stride, key.intermediate) for key in batch}) == 1
        for key in batch:
            item = dataset[key]
            side = round(8 * key.scale)
            assert item["lr"].shape == (3, 3, 8, 8) and item["gt"].shape == (5, 3, side, side)
            red = item["gt"][:, 0].float().mean((1, 2)) / 10
            offset = item["times"].item() * key.stride
            expected = torch.tensor([0, offset, key.stride, key.stride + offset, 2 * key.stride])
            backwards = red[0] > red[-1]
            assert torch.allclose((red - red[0]).abs(), expected, atol=1e-3)
            key_red = item["lr"][:, 0].float().mean((1, 2)) / 10
            assert torch.allclose(key_red, red[::2], atol=0.06)
            again = imresize(to_float(item["gt"][2]), size=(8, 8))
            assert (again - to_float(item["lr"][1]))[:, 2:-2, 2:-2].abs().max() < 1.1 / 255
            scales.add(key.scale)
            seen.add((key.stride, bool(backwards)))
    assert seen == {(2, False), (2, True), (4, False), (4, True)}
    assert len(scales) == (1 if scale == 2 else 12)


def test_sequence_with_all_intermediate_frames():
    dataset = SequenceDataset([pair(10)], 2, frames=2, strides=(4,), intermediate=None, patch=8)
    item = dataset[keys(dataset)[0][0]]
    assert item["times"].tolist() == [0.25, 0.5, 0.75]
    assert item["gt"].shape[0] == 2 + 3


def test_sequences_do_not_cross_cuts():
    dataset = SequenceDataset([pair(12)], 2, frames=2, strides=(3,), patch=8, cuts=[[5]])
    assert dataset.starts[3] == [(0, 0), (0, 1), (0, 5), (0, 6), (0, 7), (0, 8)]


def test_lr_files_are_used(tmp_path: Path):
    high = frames(5)
    for i, frame in enumerate(high):
        write_image(tmp_path / "GT" / "c" / f"{i:03d}.png", frame)
        write_image(tmp_path / "LR2x" / "c" / f"{i:03d}.png", 255 - frame[::2, ::2])
    pairs = open_layout(tmp_path, scale=2).pairs
    fixed = {"patch": 8, "augmentation": NONE}
    window = WindowDataset(pairs, 2, frames=3, **fixed)
    item = window[keys(window)[0][0]]
    assert torch.equal(255 - item["lr"][1], item["gt"][:, ::2, ::2])
    sequence = SequenceDataset(pairs, 2, frames=2, strides=(2,), **fixed)
    item = sequence[keys(sequence)[0][0]]
    assert torch.equal(255 - item["lr"], item["gt"][::2, :, ::2, ::2])


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_frame_is_a_one_line_error_from_any_worker(tmp_path, workers):
    for i, frame in enumerate(frames(5)):
        write_image(tmp_path / "c" / f"{i:03d}.png", frame)
    (tmp_path / "c" / "002.png").write_bytes(b"broken")
    dataset = WindowDataset(open_layout(tmp_path, scale=2).pairs, 2, patch=8)
    with pytest.raises(InputError) as caught:
        list(build_loader(dataset, StepBatches(dataset, 4, 0, 0, 2), workers=workers))
    assert str(caught.value).startswith(f"{tmp_path / 'c' / '002.png'}: cannot be read as an image")


def test_deep_clips_give_floats():
    deep = (frames(5).astype(np.uint16) * 257)[..., :1]
    gt = ArrayClip("deep", deep)
    mixed = [Pair("deep", gt, DegradedClip(gt, Degradation(), 2)), pair(5)]
    dataset = WindowDataset(mixed, 2, patch=8)
    for batch in keys(dataset):
        for key in batch:
            item = dataset[key]
            assert item["lr"].dtype == item["gt"].dtype == torch.float32
            assert item["gt"].min() >= 0 and item["gt"].max() <= 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WindowDataset([], 2), "no clips"),
        (lambda: WindowDataset([pair(5)], 2, frames=4), "odd"),
        (lambda: WindowDataset([pair(5)], 2, patch=25), "patch"),
        (lambda: WindowDataset([pair(5)], 4, patch=8), "scale 4"),
        (lambda: WindowDataset([pair(5)], 2, patch=8, padding="zero"), "padding"),
        (lambda: SequenceDataset([pair(4)], 2, frames=3, strides=(2,), patch=8), "no clip has 5 frames"),
        (lambda: SequenceDataset([pair(9), pair(4, name="b")], 2, frames=3, strides=(2,), patch=8), "clip b: 4 frames"),
        (lambda: SequenceDataset([pair(9)], (2.0, 4.0), patch=13), "smaller than a crop"),
        (lambda: SequenceDataset([pair(9)], 0.5), "scale"),
        (lambda: SequenceDataset([pair(9)], 2, strides=(2,), intermediate=2), "intermediate"),
        (lambda: SequenceDataset([pair(9)], 2, frames=1), "2 key frames"),
        (lambda: SequenceDataset([pair(9)], 2, strides=(4,), patch=8, cuts=[[3, 6]]), "scene cut"),
    ],
)
def test_impossible_settings_are_refused_at_construction(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_panned_sequences_are_moving_crops_of_one_scene() -> None:
    random = np.random.default_rng(0)
    still = random.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    gt = ArrayClip("still", [still] * 5)
    pair = Pair("still", gt, DegradedClip(gt, Degradation(), 4))
    dataset = SequenceDataset([pair], frames=3, patch=8, augmentation=NONE, pan=2)
    moved = 0
    for step in range(12):
        item = dataset[dataset.draw(1, step, 0, 1)]
        places = [_find(still, frame.permute(1, 2, 0).numpy()) for frame in item["gt"]]
        steps = {(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(places)}
        assert len(steps) == 1 and all(value % 4 == 0 and abs(value) <= 8 for value in steps.pop())
        moved += places[0] != places[1]
        low = pair.lr.array(0)
        for key, (top, left) in zip(item["lr"], places[::2], strict=True):
            assert np.array_equal(key.permute(1, 2, 0).numpy(), low[top // 4 : top // 4 + 8, left // 4 : left // 4 + 8])
    assert 2 <= moved <= 10


def _find(still: np.ndarray, crop: np.ndarray) -> tuple[int, int]:
    """The position (top, left) of a crop in a picture of noise."""
    tops, lefts = np.nonzero((still[: 97 - 32, : 129 - 32] == crop[0, 0]).all(-1))
    found = [(t, x) for t, x in zip(tops, lefts, strict=True) if np.array_equal(still[t : t + 32, x : x + 32], crop)]
    assert len(found) == 1
    return int(found[0][0]), int(found[0][1])
