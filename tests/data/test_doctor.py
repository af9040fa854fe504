"""Each fault is planted in a correct data set; the doctor must find it and nothing else."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.degrade import Degradation
from data.doctor import Finding, examine
from data.doctor.__main__ import main as doctor
from data.doctor.__main__ import text
from data.doctor.checks import blockiness, detail, displacement, rounded
from data.doctor.findings import WARNING, ClipReport, Diagnosis
from data.media import read_image, write_image
from data.simulate import simulate

FRAMES = 9


@pytest.fixture(scope="module")
def videos() -> list[np.ndarray]:
    """Two simulated clips, (9, 96, 128, 3)."""
    clips = simulate(None, {"clips": 2, "frames": FRAMES, "size": [96, 128], "motion": {"drift": [0.5, 0.5]}})
    return [np.stack([clip.array(index) for index in range(FRAMES)]) for clip in clips]


def low(frame: np.ndarray) -> np.ndarray:
    return Degradation().for_depth(8).array(frame, 4)


@pytest.fixture()
def root(tmp_path: Path, videos: list[np.ndarray]) -> Path:
    """A correct data set in the jilin layout."""
    for number, video in enumerate(videos):
        for index, frame in enumerate(video):
            write_image(tmp_path / "GT" / f"{number:03d}" / f"{index:08d}.png", frame)
            write_image(tmp_path / "LR4x" / f"{number:03d}" / f"{index:08d}.png", low(frame))
    return tmp_path


def rewrite(root: Path, change, folders=("GT", "LR4x"), clip="001", index: int | None = None) -> None:
    """Pass the frames of a clip through `change`."""
    for folder in folders:
        for position, path in enumerate(sorted((root / folder / clip).iterdir())):
            if index is None or position == index:
                write_image(path, change(read_image(path)))


def found(root: Path, full: bool = False) -> set[tuple[str, str, str]]:
    """(severity, kind, clip) of all faults and warnings."""
    return {(f.severity, f.kind, f.clip) for f in examine(root, full=full).findings if f.severity != "note"}


def only(root: Path, kind: str, full: bool = False) -> Finding:
    """The only fault or warning, which must be of this kind and in clip 001."""
    findings = [f for f in examine(root, full=full).findings if f.severity != "note"]
    assert [(f.kind, f.clip) for f in findings] == [(kind, "001")]
    return findings[0]


@pytest.mark.parametrize("full", [False, True])
def test_correct_data_set_has_no_findings(root: Path, full: bool):
    diagnosis = examine(root, full=full)
    assert {f.kind for f in diagnosis.findings} == {"pair"}
    assert [(clip.name, clip.frames, clip.size, clip.lr_size) for clip in diagnosis.clips] == [
        ("000", FRAMES, (96, 128), (24, 32)),
        ("001", FRAMES, (96, 128), (24, 32)),
    ]


def test_gap_and_duplicate_number(root: Path):
    for folder in ("GT", "LR4x"):
        (root / folder / "001" / "00000004.png").unlink()
    gaps = [f for f in examine(root).findings if f.severity != "note"]
    assert [(f.kind, f.clip, f.frames) for f in gaps] == [("gap", "001", ("00000003",))] * 2
    assert "GT/001: 1 frame(s)" in gaps[0].message and "LR4x/001: 1 frame(s)" in gaps[1].message
    (root / "GT" / "000" / "0003.png").write_bytes((root / "GT" / "000" / "00000003.png").read_bytes())
    assert ("fault", "doubled-number", "000") in found(root)


@pytest.mark.parametrize("keep", [0, 20, 3000])
def test_truncated_file(root: Path, keep: int):
    path = root / "GT" / "001" / "00000002.png"
    path.write_bytes(path.read_bytes()[:keep])
    findings = [f for f in examine(root).findings if f.kind == "unreadable"]
    assert findings and all(f.clip == "001" and "00000002.png" in f.message for f in findings)


def test_truncated_first_file_hides_no_other_fault(root: Path):
    frames = sorted((root / "GT" / "001").iterdir())
    frames[0].write_bytes(b"")
    frames[5].write_bytes(frames[4].read_bytes())
    assert found(root) == {("fault", "unreadable", "001"), ("warning", "frozen", "001")}
    for path in frames:
        path.write_bytes(b"")
    assert len([f for f in examine(root).findings if f.kind == "unreadable"]) == FRAMES


def test_file_of_another_kind(root: Path):
    (root / "GT" / "001" / "00000008.png").write_text("no picture")
    assert ("fault", "unreadable", "001") in found(root)


def test_frame_of_another_size_and_depth(root: Path):
    rewrite(root, lambda frame: frame[:-4], folders=["GT"], index=5)
    assert only(root, "size").frames == ("00000005",)
    rewrite(root, lambda frame: frame, folders=["GT"], clip="000")
    rewrite(root, lambda frame: frame.astype(np.uint16) * 257, folders=["GT"], clip="000", index=1)
    assert ("fault", "depth", "000") in found(root)


def test_empty_clip_and_missing_clip(root: Path):
    for path in (root / "LR4x" / "001").iterdir():
        path.unlink()
    (root / "LR4x" / "001").rmdir()
    assert [kind for _, kind, _ in found(root)] == ["structure"]
    (root / "GT" / "002").mkdir()
    diagnosis = examine(root)
    assert diagnosis.findings[0].kind == "structure" and diagnosis.clips == []


def test_pair_with_different_lengths(root: Path):
    (root / "LR4x" / "001" / "00000008.png").unlink()
    assert "9 frames of ground truth, 8" in only(root, "pair-length").message


def test_pair_with_wrong_ratio(root: Path):
    rewrite(root, lambda frame: frame[:-1], folders=["LR4x"])
    assert only(root, "pair-size").severity == "fault"


def test_pair_with_another_scale(root: Path):
    for path in (root / "GT" / "001").iterdir():
        write_image(root / "LR4x" / "001" / path.name, Degradation().for_depth(8).array(read_image(path), 2))
    finding = only(root, "pair-size")
    assert "is 2 times" in finding.message and "--scale 2" in finding.message


def test_shifted_low_resolution(root: Path, videos: list[np.ndarray]):
    def shift(frame: np.ndarray) -> np.ndarray:
        matrix = np.array([[1, 0, 0.5], [0, 1, -0.25]])
        return cv2.warpAffine(frame, matrix, frame.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)

    rewrite(root, shift, folders=["LR4x"])
    finding = only(root, "pair-shift")
    x, y = re.findall(r"[-+]\d\.\d\d", finding.message)
    assert abs(float(x) - 0.5) < 0.1 and abs(float(y) + 0.25) < 0.1


def test_low_resolution_from_another_frame_colour_order_or_kernel(root: Path, videos: list[np.ndarray]):
    for index in range(FRAMES):
        write_image(root / "LR4x" / "001" / f"{index:08d}.png", low(videos[1][max(index - 1, 0)]))
    assert "frame i -1" in only(root, "pair-time").message
    for index in range(FRAMES):
        write_image(root / "LR4x" / "001" / f"{index:08d}.png", low(videos[1][index])[..., ::-1].copy())
    assert only(root, "pair-colours").severity == "fault"
    for index in range(FRAMES):
        write_image(root / "LR4x" / "001" / f"{index:08d}.png", videos[1][index, ::4, ::4].copy())
    assert {kind for _, kind, _ in found(root)} & {"pair-degradation", "pair-shift"}


def test_noisy_low_resolution(root: Path):
    noise = np.random.default_rng(0).normal(0, 6, (24, 32, 3))
    rewrite(root, lambda frame: np.clip(frame + noise, 0, 255).astype(np.uint8), folders=["LR4x"])
    assert only(root, "pair-degradation").severity == "warning"


def test_repeated_frame_and_still(root: Path):
    for folder in ("GT", "LR4x"):
        frames = sorted((root / folder / "001").iterdir())
        frames[4].write_bytes(frames[3].read_bytes())
    assert only(root, "frozen").frames == ("00000004",)
    for folder in ("GT", "LR4x"):
        frames = sorted((root / folder / "001").iterdir())
        for frame in frames[1:]:
            frame.write_bytes(frames[0].read_bytes())
    assert "no frame differs" in only(root, "frozen").message


def test_exposure_jump_and_cut_are_told_apart(root: Path, videos: list[np.ndarray]):
    brighter = np.clip(videos[1].astype(np.int32) * [[[[1]]]] + 12, 0, 255).astype(np.uint8)
    for index in range(5, FRAMES):
        write_image(root / "GT" / "001" / f"{index:08d}.png", brighter[index])
        write_image(root / "LR4x" / "001" / f"{index:08d}.png", low(brighter[index]))
    assert only(root, "exposure").frames == ("00000005",)
    for index in range(5, FRAMES):
        other = 255 - videos[0][index][::-1, ::-1]
        write_image(root / "GT" / "001" / f"{index:08d}.png", other)
        write_image(root / "LR4x" / "001" / f"{index:08d}.png", low(other))
    assert only(root, "scene-cut", full=True).frames == ("00000005",)


def test_first_frame_of_another_size(root: Path):
    """The size of the other frames is the reference, so only the first frame is reported."""
    rewrite(root, lambda frame: np.concatenate([frame, frame]), folders=["GT"], index=0)
    assert only(root, "size").frames == ("00000000",)
    frames = sorted((root / "GT" / "001").iterdir())
    frames[4].write_bytes(frames[3].read_bytes())
    assert {("warning", "frozen", "001"), ("fault", "size", "001")} <= found(root)


def test_unrelated_pictures(tmp_path: Path):
    random = np.random.default_rng(0)
    for index in range(8):
        picture = cv2.resize(random.integers(0, 256, (9, 12, 3)).astype(np.uint8), (96, 72))
        write_image(tmp_path / "a" / f"{index}.png", picture)
    assert ("stills", "a") in [(f.kind, f.clip) for f in examine(tmp_path).findings]


def test_dark_deep_frames(root: Path):
    rewrite(root, lambda frame: frame.astype(np.uint16) * 8)
    finding = only(root, "range")
    assert "limits 0 and 2047" in finding.message and finding.severity == "warning"


def test_folders_of_frames_next_to_frames(tmp_path: Path, videos: list[np.ndarray]):
    for place in ("stills", "clips/a"):
        write_image(tmp_path / place / "0.png", videos[0][0])
    assert "choose one of the two as root" in examine(tmp_path).findings[0].message


def test_jpeg_blocks(root: Path):
    def compressed(frame: np.ndarray) -> np.ndarray:
        return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 12])[1], 1)[2:-2, 3:-1]

    frame = np.concatenate([read_image(root / "GT" / "001" / "00000000.png")] * 2, axis=1)
    levels = compressed(frame).astype(np.float32)[..., 0]
    assert blockiness(levels) > 0.3 > 0.13 > blockiness(frame[..., 0].astype(np.float32))
    rewrite(root, lambda frame: cv2.imdecode(cv2.imencode(".jpg", frame, [1, 12])[1], 1), folders=["GT"])
    assert ("warning", "blocky", "001") in found(root)


@pytest.mark.parametrize(("quality", "told"), [(30, True), (50, True), (95, False)])
def test_jpeg_under_noise(root: Path, quality: int, told: bool):
    """JPEG blocks under noise: the edges are hidden, but the rounding of the coefficients can be detected."""
    random = np.random.default_rng(0)

    def compressed(frame: np.ndarray) -> np.ndarray:
        noisy = np.clip(frame + random.normal(0, 8, frame.shape), 0, 255).astype(np.uint8)
        return cv2.imdecode(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)

    rewrite(root, compressed, folders=["GT"])
    assert (("warning", "blocky", "001") in found(root)) == told
    y = compressed(read_image(root / "GT" / "000" / "00000000.png"))[3:, 5:, 0].astype(np.float32)
    assert (rounded(y) < 0.3) == told


def test_enlarged_ground_truth(root: Path):
    def enlarged(frame: np.ndarray) -> np.ndarray:
        small = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC)

    rewrite(root, enlarged, folders=["GT"])
    assert ("warning", "soft", "001") in found(root)
    assert detail(np.zeros((64, 64), np.float32)) is None


def test_empty_frame(root: Path):
    rewrite(root, np.zeros_like, index=0)
    assert ("warning", "empty", "001") in found(root)


def test_duplicate_clips_across_splits_are_faults(root: Path, tmp_path_factory):
    for folder in ("GT", "LR4x"):
        (root / folder / "001").rename(root / folder / "aside")
        (root / folder / "001").mkdir()
        for path in (root / folder / "000").iterdir():
            (root / folder / "001" / path.name).write_bytes(path.read_bytes())
    assert ("warning", "duplicate", "aside") not in found(root)
    assert ("warning", "duplicate", "001") in found(root)
    splits = tmp_path_factory.mktemp("splits")
    for split in ("train", "test"):
        (splits / split / "GT").mkdir(parents=True)
        (root / "GT" / "000").rename(splits / split / "GT" / "a") if split == "train" else (root / "GT" / "001").rename(
            splits / split / "GT" / "b"
        )
    assert [f.severity for f in examine(splits).findings if f.kind == "duplicate"] == ["fault"]


def test_boxes(tmp_path: Path, videos: list[np.ndarray]):
    clip = tmp_path / "mot" / "car" / "001"
    for index, frame in enumerate(videos[0]):
        write_image(clip / "img" / f"{index + 1:06d}.jpg", frame, quality=98)
    (clip / "gt").mkdir()
    (clip / "gt" / "gt.txt").write_text("1,1,10,10,5,5\n2,1,500,10,5,5\n40,1,3,3,4,4\n")
    findings = [f for f in examine(tmp_path, "viso").findings if f.kind == "boxes"]
    assert [f.frames for f in findings] == [(), ("000002",)]
    (clip / "gt" / "gt.txt").write_text("1,1,ten\n")
    assert [f.severity for f in examine(tmp_path, "viso").findings if f.kind == "boxes"] == ["fault"]


def test_displacement_of_known_shift():
    picture = cv2.GaussianBlur(np.random.default_rng(0).normal(128, 60, (80, 100)).astype(np.float32), (0, 0), 1.5)
    matrix = np.array([[1, 0, 2.3], [0, 1, -1.4]])
    moved = cv2.warpAffine(picture, matrix, (100, 80), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert displacement(picture, moved) == pytest.approx((2.3, -1.4), abs=0.03)


def test_one_of_a_kind_is_counted_in_the_singular() -> None:
    finding = Finding(WARNING, "range", "a", "no value is above 16383")
    report = text(Diagnosis("CLIPS", "clips", "CLIP/FRAME.png", False, [ClipReport("a", frames=1)], [finding]))
    assert "1 clip, 1 frame\n" in report and "0 faults, 1 warning (" in report


def test_command(root: Path, capsys):
    report = root.parent / f"{root.name}.json"
    assert doctor([str(root), "--json", str(report)]) == 0
    assert "2 clips, 18 frames" in capsys.readouterr().out
    plain = json.loads(report.read_text())
    assert plain["counts"] == {"faults": 0, "warnings": 0, "notes": 2} and len(plain["clips"]) == 2
    (root / "GT" / "001" / "00000003.png").unlink()
    assert doctor([str(root)]) == 1
    assert "FAULT" in capsys.readouterr().out
    for words in ([str(root / "nowhere")], [str(root), "--scale", "0"]):
        assert doctor(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


def test_files_of_the_user_are_not_replaced_by_the_findings(root: Path, capsys):
    report, picture = root.parent / "findings.json", root / "GT" / "001" / "00000003.png"
    before = picture.read_bytes()
    assert doctor([str(root), "--json", str(report)]) == doctor([str(root), "--json", str(report)]) == 0
    report.write_text('{"annotations": []}')
    for path in (picture, report):
        assert doctor([str(root), "--json", str(path)]) == 2
        assert "was not written by this program" in capsys.readouterr().err
    assert picture.read_bytes() == before and report.read_text() == '{"annotations": []}'


def test_line_feeds_in_names(root: Path, capsys):
    for folder in ("GT", "LR4x"):
        (root / folder / "001").rename(root / folder / "one\ntwo")
    (root / "GT" / "one\ntwo" / "00000004.png").unlink()
    assert doctor([str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if r"one\ntwo" in line} == {r"one\ntwo", "FAULT"}
    assert not any(line.startswith("two") for line in lines)


def test_other_pictures_next_to_frames(root: Path):
    for folder in ("GT", "LR4x"):
        source = root / folder / "001" / "00000000.png"
        source.with_name("00000000_mask.png").write_bytes(source.read_bytes())
    kinds = {(kind, clip) for severity, kind, clip in found(root) if severity == "fault"}
    assert ("other-pictures", "001") in kinds and ("other-pictures", "000") not in kinds
