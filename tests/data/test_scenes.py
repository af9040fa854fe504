import numpy as np
import pytest

from data import samples
from data.clips import ArrayClip, VideoClip
from data.media import read_image
from data.scenes import all_scene_cuts, changes, histogram, scene_cuts
from errors import InputError

RANDOM = np.random.default_rng(1)


def scene(count: int, seed: int, shift: int = 2, gain: float = 1.0) -> list[np.ndarray]:
    """A smooth random picture that moves sideways by `shift` pixels a frame."""
    random = np.random.default_rng(seed)
    low = random.integers(0, 255, (8, 40, 3)).astype(np.float32) * random.uniform(0.3, 1, 3)
    wide = np.kron(low, np.ones((8, 8, 1), np.float32))
    return [np.clip(wide[:, shift * i : shift * i + 96] * gain**i, 0, 255).astype(np.uint8) for i in range(count)]


def test_cuts_are_found_at_their_position():
    flat = [np.full((64, 96, 3), value, np.uint8) for value in (20, 20, 20, 20, 200, 200, 200, 200)]
    assert scene_cuts(ArrayClip("flat", flat)) == [4]
    dark = [frame // 4 for frame in scene(7, 2)]
    assert scene_cuts(ArrayClip("two", scene(9, 1) + dark + scene(5, 3))) == [9, 16]


def test_cuts_between_scenes_of_similar_colours():
    """Like scenes of one video: the histograms share four fifths of their mass."""
    one, two = scene(8, 1), [np.clip(frame * 0.93 + 12, 0, 255).astype(np.uint8) for frame in scene(8, 11)]
    masses = [found.mass for found in changes(ArrayClip("like", one + two))]
    assert masses[7] < 0.3 and max(masses[:7] + masses[8:]) < 0.05
    assert scene_cuts(ArrayClip("like", one + two)) == [8]


def test_cuts_between_real_clips():
    """Pieces of the samples: a video, drifting aerial stills, the same at four times the speed."""
    video = VideoClip(sorted(samples.natural("train").glob("*.mp4"))[0])
    stills = [read_image(path)[:360, :656] for path in samples.stills()]
    drift = [[still[:, shift : shift + 640] for shift in range(8)] for still in stills]
    for step in (1, 4):
        pieces = [[video.array(index) for index in range(0, 6 * step, step)], *drift]
        joined = ArrayClip("joined", [frame for piece in pieces for frame in piece])
        assert scene_cuts(joined) == [6, 14]


def test_black_frames_between_two_scenes():
    black = [np.zeros((64, 96, 3), np.uint8)] * 4
    assert scene_cuts(ArrayClip("black", scene(8, 1) + black + scene(8, 3))) == [8, 12]
    grey = [np.full((64, 96, 3), 15 + number % 2, np.uint8) for number in range(8)]  # across a histogram's edge
    assert scene_cuts(ArrayClip("grey", grey[:4])) == scene_cuts(ArrayClip("grey", grey[3:5])) == []


@pytest.mark.parametrize("shift", [0, 3, 16])
def test_motion_is_not_a_cut(shift):
    assert scene_cuts(ArrayClip("pan", scene(14, 4, shift))) == []


def test_fades_flicker_and_noise_are_not_cuts():
    assert scene_cuts(ArrayClip("fade", scene(20, 5, gain=0.9))) == []
    flicker = [frame if i % 2 else frame // 2 for i, frame in enumerate(scene(16, 6))]
    assert scene_cuts(ArrayClip("flicker", flicker)) == []
    noisy = [np.clip(f + RANDOM.normal(0, 20, f.shape), 0, 255).astype(np.uint8) for f in scene(10, 7)]
    assert scene_cuts(ArrayClip("noise", noisy)) == []


def test_short_and_deep_clips():
    assert scene_cuts(ArrayClip("one", scene(1, 8))) == []
    two = [np.full((8, 8, 1), 1000, np.uint16), np.full((8, 8, 1), 60000, np.uint16)]
    assert scene_cuts(ArrayClip("two", two)) == [1]
    assert np.allclose(histogram(np.full((8, 8, 3), 1.0, np.float32))[:, -1], 1)


class Damaged(ArrayClip):
    """A clip with two frames that cannot be read: its first, and the one after the cut."""

    def array(self, index: int) -> np.ndarray:
        if index in (0, 9):
            raise InputError(f"frame {index} is damaged")
        return super().array(index)


def test_frames_that_cannot_be_read_are_passed_over():
    clip = Damaged("damaged", scene(9, 1) + scene(7, 3))
    assert len(changes(clip, skip=True)) == 15
    assert scene_cuts(clip, skip=True) == [10]
    with pytest.raises(InputError, match="frame 0 is damaged"):
        all_scene_cuts([clip])
    assert all_scene_cuts([clip], skip=True) == [[10]]


def test_results_are_cached(tmp_path):
    clips = [ArrayClip("a", scene(6, 1) + scene(6, 2)), ArrayClip("b", scene(5, 3))]
    first = all_scene_cuts(clips, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert all_scene_cuts(clips, tmp_path) == first == all_scene_cuts(clips)


def test_results_that_cannot_be_cached_are_used(tmp_path, capsys):
    """As in a working folder that may not be written."""
    clips = [ArrayClip("a", scene(6, 1) + scene(6, 2)), ArrayClip("b", scene(5, 3))]
    (tmp_path / "file").touch()
    assert all_scene_cuts(clips, tmp_path / "file" / "cuts") == all_scene_cuts(clips)
    assert capsys.readouterr().out.count("cannot be written") == 1
