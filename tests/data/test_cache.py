import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.cache import CachedClip, cache_clips, cache_pairs
from data.clips import ArrayClip, CroppedClip, DegradedClip, FolderClip
from data.compress import CompressedClip, Compression
from data.degrade import Degradation
from data.layouts import Pair
from data.media import write_image
from data.simulate import clips, simulated_layout
from errors import InputError

RANDOM = np.random.default_rng(0)
FRAME = 16 * 24 * 3


class CountingClip(ArrayClip):
    reads = 0

    def array(self, index: int) -> np.ndarray:
        self.reads += 1
        return super().array(index)


def clip(count: int = 6, channels: int = 3, dtype=np.uint8, name: str = "a") -> CountingClip:
    values = RANDOM.integers(0, 255, (count, 16, 24, channels)).astype(dtype)
    return CountingClip(name, values / np.float32(255) if dtype == np.float32 else values)


def gigabytes(nbytes: int) -> float:
    return nbytes / 2**30


@pytest.mark.parametrize("kind", ["ram", "file"])
@pytest.mark.parametrize(
    ("channels", "dtype"), [(3, np.uint8), (1, np.uint8), (3, np.uint16), (3, np.float32), (4, np.uint8)]
)
def test_cached_frames_are_equal_and_decoded_once(kind, channels, dtype, tmp_path):
    original = clip(channels=channels, dtype=dtype)
    (cached,) = cache_clips([original], kind, 1, tmp_path)
    assert isinstance(cached, CachedClip) and cached.size == original.size and len(cached) == 6
    for _ in range(3):
        for index in range(6):
            frame = cached.array(index)
            assert np.array_equal(frame, original.frames[index][..., : 1 if channels == 1 else 3])
            assert frame.dtype == dtype
    assert original.reads == 6
    with pytest.raises(ValueError):
        cached.array(0)[0, 0, 0] = 1


def test_frames_beyond_the_limit_are_read_each_time(tmp_path):
    clips = [clip(4), clip(4, name="b")]
    kept = cache_clips(clips, "file", gigabytes(64 + 5 * 1152), tmp_path)
    for _ in range(2):
        for one in kept:
            for index in range(4):
                one.array(index)
    assert clips[0].reads == 4 and clips[1].reads == 1 + 3 * 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 64 + 5 * 1152


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_clips_are_rendered_and_compressed_once(share, monkeypatch):
    """A process keeps few rendered clips: with one frame in the cache, each of the others would render its clip again."""
    render, rendered = clips._render.__wrapped__, []
    monkeypatch.setattr(clips, "_render", lambda *of: (rendered.append(of), render(*of))[1])
    layout = simulated_layout({"clips": 1, "frames": 4, "size": [64, 64]}, "train")
    (pair,) = [replace(pair, lr=CompressedClip(pair.lr, Compression(share))) for pair in layout.pairs]
    expected = [(pair.lr.array(index), pair.gt.array(index)) for index in range(4)]
    (cached,) = cache_pairs([pair], "ram", 1)
    rendered.clear()
    assert np.array_equal(cached.gt.array(2), expected[2][1]) and len(rendered) == 4
    for index, (low, high) in enumerate(expected):
        assert np.array_equal(cached.gt.array(index), high) and np.array_equal(cached.lr.array(index), low)
    assert len(rendered) == 4


def test_cache_file_is_reused_and_detects_changed_frames(tmp_path):
    for index in range(3):
        write_image(tmp_path / "c" / f"{index}.png", RANDOM.integers(0, 255, (16, 24, 3), np.uint8))
    first = cache_clips([FolderClip(tmp_path / "c")], "file", 1, tmp_path / "cache")[0]
    for index in range(3):
        first.array(index)
    folder = FolderClip(tmp_path / "c")
    folder.array = None  # a second run must not decode any frame  # type: ignore[assignment]
    again = cache_clips([folder], "file", 1, tmp_path / "cache")[0]
    assert np.array_equal(again.array(2), first.array(2))
    write_image(tmp_path / "c" / "1.png", np.zeros((16, 24, 3), np.uint8))
    os.utime(tmp_path / "c" / "1.png", (1, 1))
    changed = cache_clips([FolderClip(tmp_path / "c")], "file", 1, tmp_path / "cache")[0]
    assert changed.array(1).max() == 0


def test_damaged_frame_is_decoded_again(tmp_path):
    original = clip()
    cached = cache_clips([original], "file", 1, tmp_path)[0]
    cached.array(0)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[70] ^= 255
    path.write_bytes(content)
    again = cache_clips([original], "file", 1, tmp_path)[0]
    assert np.array_equal(again.array(0), original.frames[0])
    assert original.reads == 2


def test_old_cache_files_are_removed_for_space(tmp_path):
    limit = gigabytes(3 * FRAME)
    for number in range(4):
        cache_clips([clip(2, name=str(number))], "file", limit, tmp_path)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * FRAME
    assert len(list(tmp_path.iterdir())) == 1


def test_old_temporary_files_of_killed_processes_are_removed(tmp_path):
    old, new = tmp_path / ".frames_a.12.tmp.cache", tmp_path / ".frames_b.13.tmp.cache"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache_clips([clip()], "file", 1, tmp_path)
    assert not old.exists() and new.exists()


def test_cache_file_without_hard_links(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    original = clip()
    cached = cache_clips([original], "file", 1, tmp_path)[0]
    assert np.array_equal(cached.array(0), original.array(0))
    assert [path.suffix for path in tmp_path.iterdir()] == [".cache"]


def test_forked_workers_share_memory():
    original = clip()
    cached = cache_clips([original], "ram", 1)[0]
    process = multiprocessing.get_context("fork").Process(target=cached.array, args=(3,))
    process.start()
    process.join()
    cached.array(3)
    assert original.reads == 0


def test_cache_can_be_pickled_for_spawned_workers(tmp_path):
    for kind in ("ram", "file"):
        cached = cache_clips([clip()], kind, 1, tmp_path)[0]
        assert np.array_equal(pickle.loads(pickle.dumps(cached)).array(1), cached.array(1))


def test_pairs_degrade_the_cached_ground_truth():
    original = clip(4)
    gt = CroppedClip(original, 2)
    pairs = cache_pairs([Pair("a", gt, DegradedClip(gt, Degradation(), 2))], "ram", 1)
    plain = DegradedClip(gt, Degradation(), 2).array(1)
    original.reads = 0
    for _ in range(2):
        assert np.array_equal(pairs[0].lr.array(1), plain)
        assert pairs[0].gt is not None
        pairs[0].gt.array(1)
    assert original.reads == 1
    without = cache_pairs([Pair("a", gt, DegradedClip(gt, Degradation(), 2))], "ram", 1, lr=False)
    assert isinstance(without[0].lr, DegradedClip) and isinstance(without[0].lr.clip, CachedClip)


def test_settings_are_checked(tmp_path):
    original = clip()
    assert cache_clips([original], "none", 1) == [original]
    assert cache_clips([original], "ram", 0) == [original]
    with pytest.raises(InputError, match="cache is 'disk'"):
        cache_clips([original], "disk", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder"):
        cache_clips([original], "file", 1, Path(tmp_path / "file"))
