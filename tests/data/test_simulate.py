"""The simulator's ground truth: motion, boxes, flow, noise and split are measured in the rendered frames."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy import ndimage, optimize

from data import samples
from data.degrade import imresize
from data.doctor.checks import displacement, luma
from data.layouts import open_layout
from data.media import read_image, write_image
from data.simulate import SimulatorSettings, settings_from, simulate, simulated_layout
from data.simulate.__main__ import main
from data.simulate.clips import find_stills
from data.simulate.motion import Platform
from data.simulate.objects import Part
from data.simulate.settings import MotionSettings
from errors import InputError
from tests.data.simulated import BARE, CLEAN, STEADY, clips


def pixels(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (x, y) of the pixels of a frame after the flow."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x + flow[..., 0], y + flow[..., 1]


def shift_between(before: np.ndarray, after: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """The shift (x, y) from `before` to `after`, by least squares with spline interpolation from an initial guess."""

    def error(step: np.ndarray) -> float:
        moved = ndimage.shift(after, -step[::-1], order=5, mode="nearest")
        return float(((moved - before)[12:-12, 12:-12] ** 2).mean())

    return optimize.minimize(error, guess, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4}).x


# --- seeds and splits -------------------------------------------------------------------------------------------------


def test_frames_do_not_depend_on_worker_or_order():
    wanted = {"clips": 4, "sky": {"cover": [0.2, 0.4]}, "objects": {"ships": 1, "planes": 1, "trains": 1}}
    first = [clip.array(3) for clip in clips(**wanted)]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda clip: clip.array(3), clips(**wanted)[::-1]))[::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    few = clips(**{**wanted, "clips": 2})
    np.testing.assert_array_equal(few[1].array(3), first[1])
    scene = few[1].scene
    np.testing.assert_array_equal(scene.frame(3), first[1])  # a single frame equals the frame of the clip
    assert not np.array_equal(clips(seed=1, **wanted)[0].array(3), first[0])
    assert not np.array_equal(clips("test", **wanted)[0].array(3), first[0])


def test_train_and_test_never_share_a_pixel(tmp_path: Path):
    still = np.zeros((200, 400, 3), np.uint8)
    still[:, :280, 0], still[:, 280:, 2] = 200, 200
    write_image(tmp_path / "two.png", still)
    settings = {"stills": [str(tmp_path)], "objects": BARE, "sensor": CLEAN, "clips": 6, "ground": [2, 3]}
    for split, seen, hidden in (("train", 0, 2), ("test", 2, 0)):
        for clip in clips(split, **settings):  # windows larger than the regions: the border is mirrored
            assert clip.array(2)[..., seen].min() > 190 and clip.array(2)[..., hidden].max() < 5


# --- motion -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [0.0, 35.0, 120.0])
def test_known_shift_in_frames_and_flow(direction: float):
    motion = {**STEADY, "drift": [0.7, 0.7], "direction": direction}
    (clip,) = clips(motion=motion, objects=BARE, sensor=CLEAN)
    scene = clip.scene
    step = 0.7 * np.array([np.cos(np.deg2rad(direction)), np.sin(np.deg2rad(direction))])
    np.testing.assert_allclose(scene.flow(1, 4), np.broadcast_to(3 * step, (96, 128, 2)), atol=1e-5)
    np.testing.assert_allclose(scene.flow(0, 0.5), np.broadcast_to(step / 2, (96, 128, 2)), atol=1e-5)
    frames = [luma(scene.frame(time).astype(np.float32)) for time in (1, 1.5, 4)]
    np.testing.assert_allclose(shift_between(frames[0], frames[2], 3 * step + 0.1), 3 * step, atol=0.02)
    np.testing.assert_allclose(shift_between(frames[0], frames[1], step / 2 - 0.1), step / 2, atol=0.02)


WILD = {"drift": [0.6, 0.6], "jitter": 0.4, "warp": 0.15, "rolling": 0.8}


def test_forward_and_backward_flow_cancel():
    (clip,) = clips(motion=WILD, objects=BARE)
    there, back = clip.scene.flow(0, 3.25), clip.scene.flow(3.25, 0)
    x, y = pixels(there)
    returned = cv2.remap(back, x, y, cv2.INTER_CUBIC)
    inside = (x > 4) & (x < 123) & (y > 4) & (y < 91)
    assert np.abs(there + returned)[inside].max() < 0.02 and np.abs(there).max() > 1


def test_warping_by_the_flow_aligns_frames():
    objects = {"vehicles": 6, "buildings": 4, "lean_change": 0.06, "trains": 1, "planes": 1, "ships": 1}
    (clip,) = clips(motion=WILD, objects=objects, sensor=CLEAN, seed=3, size=[160, 160])
    scene = clip.scene
    start, end = scene.view(0), scene.view(3.5)
    flow, back = scene.flow(0, 3.5, start), scene.flow(3.5, 0, end)
    x, y = pixels(flow)
    before, after = (scene.frame(time, view).astype(np.float32) for time, view in ((0, start), (3.5, end)))
    aligned = cv2.remap(after, x, y, cv2.INTER_CUBIC)
    visible = np.hypot(*np.moveaxis(flow + cv2.remap(back, x, y, cv2.INTER_NEAREST), -1, 0)) < 0.2
    visible &= (x > 2) & (x < 157) & (y > 2) & (y < 157)
    rest, unaligned = np.abs(aligned - before).mean(-1), np.abs(after - before).mean(-1)
    owner = start.owner[1::2, 1::2] > 0
    tall = start.height[1::2, 1::2] > 0
    assert visible.mean() > 0.8
    for part in (visible, visible & tall, visible & owner):
        assert part.sum() > 30 and rest[part].mean() < 0.4 * unaligned[part].mean()


def test_roofs_lean_in_proportion_to_height():
    (clip,) = clips(motion=STEADY, objects={**BARE, "buildings": 2, "lean_change": 0.1}, sensor=CLEAN)
    scene = clip.scene
    view = scene.view(1)
    height = view.height[1::2, 1::2]
    flow = scene.flow(1, 3, view)
    assert height.max() > 3
    np.testing.assert_allclose(flow, height[..., None] * 2 * scene.lean_change, atol=1e-5)


def test_rolling_exposure_delays_the_rows():
    motion = {**STEADY, "drift": [1, 1], "direction": 0.0, "jitter": 0.5, "rolling": 1.0}
    (clip,) = clips(motion=motion, objects=BARE)
    platform, flow = clip.scene.platform, clip.scene.flow(1, 2)
    for row in (0, 40, 95):  # the row's own time; the flow's vertical part moves it on by a fraction of a row
        late = row / 96 - 0.5
        expected = platform.offset(np.array(2 + late)) - platform.offset(np.array(1 + late))
        np.testing.assert_allclose(flow[row, 64], expected, atol=0.05)


@pytest.mark.parametrize("slope", [0.5, 1.5])
def test_spectrum_of_the_shaking(slope: float):
    settings = MotionSettings(jitter=0.3, jitter_slope=slope)
    platforms = [Platform(settings, (64, 64), 16, np.random.default_rng(seed)) for seed in range(200)]
    power = np.mean([platform.amplitude**2 for platform in platforms], axis=(0, 1))
    fitted = np.polyfit(np.log(platforms[0].frequency.mean(axis=0)), np.log(power) / 2, 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.1)
    assert np.sqrt(power.sum() / 2) == pytest.approx(0.3, rel=1e-6)


# --- objects ----------------------------------------------------------------------------------------------------------


def test_boxes_contain_exactly_the_moving_pixels():
    objects = {"roads": 1, "vehicles": 5, "ships": 2, "planes": 1, "trains": 1, "buildings": 0}
    seen = set()
    for clip in clips(objects=objects, sensor=CLEAN, clips=4, size=[160, 160]):
        scene = clip.scene
        for time in (0, 4):
            view = scene.view(time)
            owners = np.array([0] + [mover.track for mover, _ in scene.parts])[view.owner]
            for box in scene.boxes(time, view):
                seen.add(box.label)
                rows, columns = np.nonzero(owners == box.track)
                low, high = np.array([columns.min(), rows.min()]) / 2, np.array([columns.max() + 1, rows.max() + 1]) / 2
                if box.visible > 0.9:
                    np.testing.assert_allclose([box.x, box.y], low, atol=1.1)
                    np.testing.assert_allclose([box.x + box.w, box.y + box.h], high, atol=1.1)
                assert box.x >= 0 and box.x + box.w <= 160 and box.y >= 0 and box.y + box.h <= 160
    assert seen == {"car", "ship", "plane", "train"}


def test_objects_smaller_than_a_pixel_of_their_picture():
    part = Part(np.zeros((4, 6, 4), np.float32), fine=2.0)
    assert part.outline.min(axis=0).tolist() == [-1.5, -1.0] and part.outline.max(axis=0).tolist() == [1.5, 1.0]


def test_boxes_move_with_the_flow():
    (clip,) = clips(motion=WILD, objects={"vehicles": 8, "speed": [1, 2]}, frames=4, seed=5)
    flow = clip.scene.flow(1, 2)
    later = {box.track: box for box in clip.boxes[2]}
    compared = 0
    for box in clip.boxes[1]:
        other = later.get(box.track)
        inside = 1 < box.x < 126 - box.w and 1 < box.y < 94 - box.h
        if other is None or not inside or abs(other.w - box.w) > 0.2 or other.label != box.label:
            continue
        column, row = round(box.x + box.w / 2 - 0.5), round(box.y + box.h / 2 - 0.5)
        moved = np.array([other.x - box.x, other.y - box.y]) + np.array([other.w - box.w, other.h - box.h]) / 2
        np.testing.assert_allclose(flow[row, column], moved, atol=0.1)
        compared += 1
    assert compared >= 3


# --- sky and sensor ---------------------------------------------------------------------------------------------------


def test_clouds_drift_with_the_wind_and_shade_the_ground():
    sky = {"cover": [0.35, 0.35], "wind": [1.5, 1.5], "opacity": 1.0}
    settings = {"motion": STEADY, "objects": BARE, "sensor": CLEAN, "size": [192, 192], "seed": 2}
    (clip,), (clear,) = clips(sky=sky, **settings), clips(**settings)
    scene = clip.scene
    view = scene.view(1)
    cloud = view.cloud[1::2, 1::2]
    covered, open_sky = cloud > 0.6, cloud < 0.01
    assert covered.mean() > 0.1 and open_sky.mean() > 0.05
    flow = scene.flow(1, 3, view)
    np.testing.assert_allclose(flow[covered], np.broadcast_to(2 * scene.sky.wind, flow[covered].shape), atol=1e-4)
    assert np.abs(flow[open_sky]).max() < 1e-4 and np.hypot(*scene.sky.wind) == pytest.approx(1.5)
    ratio = scene.frame(1, view).astype(float)[open_sky].mean(-1) / (
        clear.scene.frame(1).astype(float)[open_sky].mean(-1) + 1
    )
    assert ratio.min() > 0.4 and np.quantile(ratio, 0.05) < 0.9 and ratio.max() < 1.1  # parts are in shadow
    before, after = (scene.view(time).cloud[8:-8:2, 8:-8:2] for time in (0, 4))
    assert displacement(before * 100, after * 100) == pytest.approx(tuple(4 * scene.sky.wind), abs=0.15)


# --- settings, layout, command ----------------------------------------------------------------------------------------


def test_layout_for_training():
    layout = simulated_layout({"clips": 3, "frames": 4, "size": [66, 70]}, "train", scale=4)
    assert (layout.kind, len(layout), layout.scale) == ("simulated", 3, 4)
    pair = layout[1]
    assert pair.gt is not None and pair.boxes is not None
    assert (pair.gt.size, pair.lr.size, len(pair), len(pair.boxes)) == ((64, 68), (16, 17), 4, 4)
    expected = imresize(pair.gt.frame(2).mul(255).round().byte(), 0.25)
    assert (pair.lr.frame(2) * 255 - expected).abs().max() < 1e-3
    identities = {other.gt.identity(index) for other in layout for index in range(4) if other.gt is not None}
    assert len(identities) == 12


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"clip": 3}, "did you mean 'clips'"),
        ({"motion": {"jiter": 1}}, "motion.jiter"),
        ({"sky": {"cover": [0.5, 0.1]}}, "lowest, highest"),
        ({"sky": {"cover": [0.5, 1.1]}}, r"'sky\.cover\[1\]': expected at most 1"),
        ({"sensor": {"bits": 12}}, "expected one of 8, 16"),
        ({"size": [16, 64]}, r"'size\[0\]': expected at least 32"),
        ({"objects": {"vehicles": 10**6}}, "'objects.vehicles': expected at most 1000"),
        ({"objects": {"roads": 0}}, "road"),
        ({"ground": [0.1, 1]}, "ground"),
        ({"frames": 0}, "frames"),
    ],
)
def test_wrong_settings_are_named(mapping: dict, message: str):
    with pytest.raises(InputError, match=message):
        settings_from(mapping)


@pytest.mark.parametrize("changes", [{"frames": 100_000}, {"size": (8192, 8192)}])
def test_a_clip_larger_than_the_memory_is_refused(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=4 * 2**30))
    layout = simulated_layout(SimulatorSettings(clips=1, **changes), "train", scale=4)
    with pytest.raises(InputError, match=r"simulated clip of .* GiB of memory: lower size, frames or motion\.drift"):
        layout.pairs[0].lr.array(0)


def test_wrong_stills_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        simulate([tmp_path / "none.png"])
    with pytest.raises(InputError, match="no image"):
        simulate([tmp_path])
    with pytest.raises(InputError, match="no split 'val'"):
        simulate(None, None, "val")
    write_image(tmp_path / "small.png", np.zeros((60, 60, 3), np.uint8))
    with pytest.raises(InputError, match="18x60 pixels"):
        simulate([tmp_path], None, "test")[0].array(0)
    assert settings_from(None) == SimulatorSettings()


def test_hidden_files_are_no_stills(tmp_path: Path):
    for name in ("b10.png", "b9.png"):
        write_image(tmp_path / name, np.zeros((120, 120, 3), np.uint8))
    (tmp_path / "._b9.png").write_bytes(b"resource fork")
    assert [path.name for path in find_stills([tmp_path])] == ["b9.png", "b10.png"]


def test_settings_from_python_are_those_of_a_mapping():
    """Lists as in YAML: as fields they could not be a key of the rendered clips."""
    settings = SimulatorSettings(size=[64, 96], stills=[str(samples.stills()[0])], clips=1, frames=1)  # type: ignore[arg-type]
    assert settings == settings_from({"size": [64, 96], "stills": [str(samples.stills()[0])], "clips": 1, "frames": 1})
    assert simulate(None, settings)[0].array(0).shape == (64, 96, 3)


@pytest.mark.parametrize("layout", ["jilin", "viso"])
def test_command_writes_readable_layouts(tmp_path: Path, layout: str, capsys):
    out = tmp_path / "out"
    settings = ["clips=2", "frames=3", "size=[64,96]", "objects.vehicles=10"]
    assert main(["--out", str(out), "--layout", layout, "--split", "test", "--flow", *settings]) == 0
    found = open_layout(out)
    clip = simulate(None, {"clips": 2, "frames": 3, "size": [64, 96], "objects": {"vehicles": 10}}, "test")[1]
    pair = next(pair for pair in found if pair.name.endswith(clip.name))
    assert found.kind == layout and pair.gt is not None and pair.boxes is not None
    assert np.abs(pair.gt.array(2).astype(int) - clip.array(2)).mean() < (4 if layout == "viso" else 1e-9)
    for read, true in zip(pair.boxes, clip.boxes, strict=True):
        assert [(box.track, box.label) for box in read] == [(box.track, box.label) for box in true]
        np.testing.assert_allclose([box[1:5] for box in read], [box[1:5] for box in true], atol=1e-3)
    path = next(path for path in out.rglob("00000001.flo") if clip.name in str(path))
    raw = path.read_bytes()
    assert raw[:4] == b"PIEH" and np.frombuffer(raw[4:12], "<i4").tolist() == [96, 64]
    flow = np.frombuffer(raw[12:], "<f4").reshape(64, 96, 2)
    np.testing.assert_allclose(flow, clip.scene.flow(1, 2), atol=1e-6)
    assert main(["--out", str(out), *settings]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")
    if layout == "jilin":
        low = read_image(out / "test_set" / "LR4x" / clip.name / "00000002.png")
        assert low.shape == (16, 24, 3)


@pytest.mark.parametrize("words", [["--scale", "0"], ["--scale", "65"], ["--layout", "viso", "--scale", "4"]])
def test_wrong_scales_are_refused_before_any_work(tmp_path: Path, words: list[str], capsys):
    assert main(["--out", str(tmp_path / "out"), "size=[64,96]", *words]) == 2
    assert capsys.readouterr().err.startswith("error: --scale ") and not any(tmp_path.iterdir())


@pytest.mark.parametrize("existing", [False, True])
def test_interrupted_command_leaves_no_data_set(tmp_path: Path, monkeypatch, existing: bool):
    """It would have fewer frames than a complete one. A killed process leaves hidden files, which the next run removes."""
    out = tmp_path / "out"
    words = ["--out", str(out), "--split", "test", "clips=1", "frames=2", "size=[64,64]"]
    if existing:
        out.mkdir()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data.simulate.__main__.write_boxes", stop)
        assert main(words) == 130
    assert not any(out.iterdir()) if existing else not any(tmp_path.iterdir())
    left = (out / ".clips.0123456789abcdef.tmp") if existing else (tmp_path / ".out.0123456789abcdef.tmp")
    left.mkdir()
    assert main(words) == 0 and [path.name for path in out.iterdir()] == ["test_set"] and not left.exists()
    assert main(words) == 2
