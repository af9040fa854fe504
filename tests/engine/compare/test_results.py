"""Matching a method's files to clips and frames: accepted layouts and refused ones."""

from pathlib import Path

import numpy as np
import pytest

from data.clips import ArrayClip, CroppedClip, FolderClip
from data.media import write_image
from engine.compare.frame_names import counting, match_frames
from engine.compare.results import candidates, match_clips, open_result, parse_results
from errors import InputError

CLIPS = ["city", "city_2", "car/001"]


def fill(*paths: Path, size=(8, 12)) -> None:
    for path in paths:
        write_image(path, np.zeros((*size, 3), np.uint8))


def frames(folder: Path, *names: str, **options) -> None:
    fill(*(folder / f"{name}.png" for name in names), **options)


@pytest.mark.parametrize(
    "layout",
    [
        {"city": "city", "city_2": "city_2", "car/001": "car/001"},
        {"city": "out/x4/City/png", "city_2": "out/x4/city_2/png", "car/001": "out/x4/car/001/png"},
        {"city": "frames/city", "city_2": "frames/city_2", "car/001": "frames/001"},
        {"city": "city_x4", "city_2": "city_2_x4", "car/001": "001_x4"},
    ],
)
def test_clips_are_found_in_common_layouts(tmp_path: Path, layout: dict[str, str]) -> None:
    for folder in layout.values():
        frames(tmp_path / folder, "0001", "0002")
    frames(tmp_path / "pictures", "city_0001_ours")
    found = match_clips("ours", tmp_path, CLIPS)
    assert {name: candidate.name for name, candidate in found.items()} == layout


def test_all_frames_in_one_folder(tmp_path: Path) -> None:
    frames(tmp_path, "city_0001", "city_0002", "city_2_0001", "001_1")
    found = match_clips("ours", tmp_path, CLIPS)
    assert [path.stem for path in found["city"].source] == ["city_0001", "city_0002"]
    assert [path.stem for path in found["city_2"].source] == ["city_2_0001"]


def test_single_clip_may_have_any_folder_name(tmp_path: Path) -> None:
    frames(tmp_path / "anything", "1", "2")
    assert match_clips("ours", tmp_path, ["city"])["city"].name == "anything"


def test_ambiguous_clips_are_refused(tmp_path: Path) -> None:
    frames(tmp_path / "GT" / "city", "1")
    frames(tmp_path / "LR4x" / "city", "1")
    with pytest.raises(InputError, match=r"'city' is found twice in .*GT/city' and 'LR4x/city'"):
        match_clips("ours", tmp_path, ["city"])
    with pytest.raises(InputError, match=r"no clip 'walk' in .* .it contains GT/city, LR4x/city"):
        match_clips("ours", tmp_path, ["walk"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="contains no frames"):
        candidates(tmp_path / "empty")


@pytest.mark.parametrize(
    ("given", "pairs", "how"),
    [
        (["0003", "0004", "0005"], [0, 1, 2], "name"),
        (["0004"], [None, 0, None], "name"),
        (["0003_x4", "0004_x4", "0005_x4"], [0, 1, 2], "name"),
        (["city_0003", "city_0005"], [0, None, 1], "name"),
        (["out-00000005", "out-00000003"], [1, None, 0], "number"),
        (["3", "4", "5"], [0, 1, 2], "number"),
        (["f2_00", "f2_01", "f2_02"], [0, 1, 2], "order"),
    ],
)
def test_frames_are_matched_by_name_then_number_then_order(given, pairs, how) -> None:
    found = match_frames(["0003", "0004", "0005"], given, "ours, city", ordered=False)
    assert found == ({index: place for index, place in enumerate(pairs) if place is not None}, how)


@pytest.mark.parametrize("given", [["0", "1"], ["0003", "0004", "0006", "0007"], ["a", "b"]])
def test_frames_that_cannot_be_matched_are_refused(given) -> None:
    with pytest.raises(InputError, match="cannot be matched with the 3 of the ground truth"):
        match_frames(["0003", "0004", "0005"], given, "ours, city", ordered=False)


def test_frame_number_is_the_number_that_varies() -> None:
    assert counting(["a4_007_x2", "a4_010_x2"]) == [7, 10]
    assert counting(["a1_1", "a2_2"]) is None and counting(["a", "b"]) is None and counting(["7"]) is None


def test_full_cropped_or_rounded_sizes_are_accepted(tmp_path: Path) -> None:
    gt = CroppedClip(ArrayClip("city", np.zeros((2, 66, 98, 3), np.uint8)), 4)
    lr = ArrayClip("city", np.zeros((2, 16, 24, 3), np.uint8))

    def opened(name: str, size: tuple[int, int]):
        frames(tmp_path / name, "00000000", "00000001", size=size)
        return open_result(name, candidates(tmp_path / name)[0], gt, lr, (66, 98))

    for name, size in (("cut", (64, 96)), ("full", (66, 98)), ("ceil", (68, 100))):
        result = opened(name, size)
        assert result.array(1).shape == (64, 96, 3)
        assert bool(result.notes) == (name != "cut")
    with pytest.raises(InputError, match="24x16 pixels, the size of the low resolution"):
        opened("low", (16, 24))
    with pytest.raises(InputError, match=r"60x60 pixels.*the position of a crop is unknown"):
        opened("crop", (60, 60))
    with pytest.raises(InputError, match="no such size"):
        opened("large", (132, 196))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ours"], "expected NAME=FOLDER"),
        (["=x"], "expected NAME=FOLDER"),
        (["bicubic=."], "name 'bicubic' is reserved"),
        (["a=.", "a=."], "occurs twice"),
        (["a=nowhere"], "'nowhere' does not exist"),
    ],
)
def test_bad_option_values_are_refused_in_one_line(words, message) -> None:
    with pytest.raises(InputError, match=message):
        parse_results(words)


def test_missing_values_of_a_result_are_refused(tmp_path: Path) -> None:
    """NaN of a network that diverged would be filled as nodata of a measurement is."""
    values = np.full((8, 12, 3), 0.5, np.float32)
    write_image(tmp_path / "gt" / "0.tif", values)
    broken = values.copy()
    broken[2, 3:5] = np.nan
    write_image(tmp_path / "x" / "0.tif", broken)
    gt, found = FolderClip([tmp_path / "gt" / "0.tif"]), match_clips("x", tmp_path / "x", ["gt"])["gt"]
    result = open_result("x", found, gt, ArrayClip("lr", values[None, ::2, ::2]), (8, 12))
    with pytest.raises(InputError, match=r"0\.tif.*: 2 of its pixels have no value"):
        result.array(0)
    write_image(tmp_path / "gt" / "0.tif", broken)  # measured there neither
    gt = FolderClip([tmp_path / "gt" / "0.tif"])
    assert open_result("x", found, gt, ArrayClip("lr", values[None, ::2, ::2]), (8, 12)).array(0).shape == (8, 12, 3)


def test_folder_of_an_evaluation_means_its_frames(tmp_path: Path) -> None:
    frames(tmp_path / "eval" / "frames" / "a", "000", "001")
    fill(tmp_path / "eval" / "pictures" / "a" / "000_ours.png")
    assert parse_results([f"x={tmp_path / 'eval'}"]) == {"x": tmp_path / "eval"}
    (tmp_path / "eval" / "report.json").write_text("{}")
    assert parse_results([f"x={tmp_path / 'eval'}"]) == {"x": tmp_path / "eval" / "frames"}
