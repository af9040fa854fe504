"""The samples in the repository are complete, small, attributed and usable."""

import itertools

import numpy as np

from data import samples
from data.clips import VideoClip
from data.media import read_image
from data.scenes import changes as scene_changes

FILES = [path for path in samples.HERE.rglob("*") if path.suffix in (".webp", ".mp4")]


def test_samples_are_small_and_attributed():
    text = (samples.HERE / "README.md").read_text()
    assert all(path.name in text for path in FILES) and len(FILES) == 5
    assert "CC0" in text and "CC BY 3.0" in text and "Blender Foundation" in text
    for suffix in (".webp", ".mp4"):
        assert sum(path.stat().st_size for path in FILES if path.suffix == suffix) < 2_000_000


def test_stills_are_sharp():
    assert [path.stem for path in samples.stills()] == ["yellowstone_meadow", "yellowstone_road"]
    for path, size in zip(samples.stills(), ((1400, 1400, 3), (1035, 1249, 3)), strict=True):
        still = read_image(path)
        assert still.shape == size and still.dtype == np.uint8 and still.std() > 30


def test_natural_clips_move_in_every_frame_without_cuts():
    lengths = {}
    for split in ("train", "test"):
        for path in sorted(samples.natural(split).glob("*.mp4")):
            clip = VideoClip(path)
            assert clip.size == (360, 640)
            lengths[path.name] = len(clip)
            frames = [clip.array(index)[::4, ::4].astype(np.int16) for index in range(len(clip))]
            changes = [np.abs(after - before).mean() for before, after in itertools.pairwise(frames)]
            assert min(changes) > 0.2 and max(one.mass for one in scene_changes(clip)) < 0.1
    assert sorted(lengths.values()) == [24, 36, 49]
