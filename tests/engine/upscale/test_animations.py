"""Animated WebP, PNG and GIF and stacks as clips: every frame, with its time in the file."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.clips import WebPClip
from data.layouts import open_layout
from data.media import probe, read_image
from data.video import VideoFile
from engine.upscale.quality import loss
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import moving_clip

SHOWN = [40, 80, 120, 40, 200, 60]  # milliseconds
STARTS = [0, 40, 120, 240, 280, 480]


def frames(count: int = 6) -> list[np.ndarray]:
    clip = moving_clip(count, 16, 24)
    return [clip.array(index) for index in range(count)]


def save(path: Path, arrays: list[np.ndarray], kind: str | None = None, **options) -> Path:
    pictures = [Image.fromarray(array) for array in arrays]
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], **({"duration": SHOWN} | options))
    return path


def times(path: Path) -> list[int]:
    """Milliseconds at which the frames of a video start, and at which it ends."""
    with av.open(str(path)) as file:
        starts = [round(float(frame.time or 0) * 1000) for frame in file.decode(video=0)]
        return [*starts, round((file.duration or 0) / 1000)]


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
@pytest.mark.parametrize("name", ["in.webp", "in.gif", "in"])
def test_every_frame_keeps_its_time(weight, tmp_path, capsys, kind, name):
    source = save(tmp_path / name, frames(), kind)
    upscale(Request(source, tmp_path / "out.mp4", weight, precision="fp32"))
    assert times(tmp_path / "out.mp4") == [*STARTS, sum(SHOWN)]
    assert "transparency" not in capsys.readouterr().out


def test_part_and_speed_of_an_animated_webp(weight, tmp_path):
    source = save(tmp_path / "in.webp", frames())
    upscale(Request(source, tmp_path / "part.mkv", weight, precision="fp32", begin=0.1, end=0.3))
    assert times(tmp_path / "part.mkv") == [0, 120, 160, 360]
    upscale(Request(source, tmp_path / "slow.mp4", weight, precision="fp32", input_fps=5))
    assert times(tmp_path / "slow.mp4") == [0, 200, 400, 600, 800, 1000, 1200]
    with pytest.raises(InputError, match="one constant frame rate"):
        upscale(Request(source, tmp_path / "out.avi", weight, precision="fp32"))


def test_pixels_of_an_animated_webp_in_any_order(tmp_path):
    source = save(tmp_path / "in.webp", frames(), lossless=True)
    clip = WebPClip(source)
    for reader in (clip, deepcopy(clip)):
        for index in (5, 0, 3, 1, 2, 4, 5):
            assert np.array_equal(reader.array(index), frames()[index])
    assert loss(clip) is None and not clip.transparent
    assert loss(WebPClip(save(tmp_path / "lossy.webp", frames(), quality=60))) == "lossy WebP"


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_orientation_of_an_animation(weight, tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(tmp_path / "in", frames(2), kind, duration=40, lossless=True, exif=exif)
    upscale(Request(source, tmp_path / "out", weight, precision="fp32"))
    save(tmp_path / "upright", [np.rot90(array, -1) for array in frames(2)], kind, duration=40, lossless=True)
    upscale(Request(tmp_path / "upright", tmp_path / "expected", weight, precision="fp32"))
    for name in ("00000000.png", "00000001.png"):
        np.testing.assert_array_equal(read_image(tmp_path / "out" / name), read_image(tmp_path / "expected" / name))


def test_frames_without_duration_are_shown_as_browsers_do(tmp_path):
    clip = WebPClip(save(tmp_path / "in.webp", frames(), duration=0))
    assert clip.times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) and clip.last_shown == 0.1


def test_transparency_of_an_animated_webp(weight, tmp_path, capsys):
    arrays = [np.concatenate([array, np.full((16, 24, 1), 255, np.uint8)], axis=-1) for array in frames()]
    for index, array in enumerate(arrays):
        array[index : index + 6, 4:12, 3] = 0
    source = save(tmp_path / "in.webp", arrays, lossless=True)
    upscale(Request(source, tmp_path / "out", weight, precision="fp32"))
    made = [read_image(path) for path in sorted((tmp_path / "out").iterdir())]
    assert len(made) == 6 and all(frame.shape == (32, 48, 4) for frame in made)
    assert made[5][14:18, 10:22, 3].max() == 0 and made[5][26:, :, 3].min() == 255
    upscale(Request(source, tmp_path / "out.mp4", weight, precision="fp32"))
    assert capsys.readouterr().out.count("transparency is left out") == 1


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.97])
def test_animations_cut_short_are_refused_before_the_work(weight, tmp_path, part):
    content = save(tmp_path / "in.webp", frames(), lossless=True).read_bytes()
    (tmp_path / "cut.webp").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=r"cut.webp.*damaged"):
        upscale(Request(tmp_path / "cut.webp", tmp_path / "out.mp4", weight, precision="fp32"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.webp", "in.webp"]


def test_gif_that_is_cut_anywhere_is_read_up_to_the_cut(tmp_path):
    content, path = save(tmp_path / "in.gif", frames()).read_bytes(), tmp_path / "cut.gif"
    begins = [place for place in range(len(content)) if content.startswith(b"\0!\xf9\x04", place)]  # of frames
    for size in range(begins[1] + 20, len(content), 61):
        path.write_bytes(content[:size])
        assert probe(path).pages > 1
        assert len(VideoFile(path)) in (len([begin for begin in begins if begin < size]) - k for k in (0, 1))
        assert any("cut short" in note for note in VideoFile(path).notes)


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_animation_as_a_data_set(tmp_path, suffix):
    layout = open_layout(save(tmp_path / f"in{suffix}", frames(), **({"lossless": True} if suffix == ".webp" else {})))
    clip = layout[0].gt
    assert layout.reason == "an animation of 6 frames" and len(clip) == 6
    assert clip.times == pytest.approx([start / 1000 for start in STARTS])
    assert np.abs(clip.array(4)[..., :3].astype(int) - frames()[4]).max() <= (
        40 if suffix == ".gif" else 0
    )  # a palette of 256 colours
