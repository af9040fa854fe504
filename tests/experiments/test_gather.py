"""experiments/gather.py: stills and clips from checkouts of other repositories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.media import read_image, write_image
from errors import InputError
from experiments import gather

HEADER = "repository\tcommit\tfiles\tkind\tshrink\tlicence\tauthor\n"


def picture(seed: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, bands), dtype=np.uint8)


def test_stills_are_reduced_by_area_and_licence_is_recorded(tmp_path, capsys):
    photos, out = tmp_path / "checkouts" / "photos", tmp_path / "out"
    for number in range(2):
        write_image(photos / "images" / f"{number}.png", picture(number))
    write_image(photos / "images" / "2.tif", picture(2, 4))
    (photos / "images" / "broken.png").write_bytes(b"none")
    write_image(tmp_path / "checkouts" / "clips" / "a" / "00000.png", picture(3))
    table = tmp_path / "list.tsv"
    table.write_text(
        f'{HEADER}me/photos\tabc\timages/*\tstills\t4\tCC0 1.0\tA. Person\nme/clips\tdef\ta/*.png\tclip\t1\tCC BY 4.0\t"Title", B\n'
    )
    gather.main([str(tmp_path / "checkouts"), str(out), "--list", str(table)])
    expected = picture(1).reshape(6, 4, 8, 4, 3).mean((1, 3))
    np.testing.assert_allclose(read_image(out / "stills" / "photos_1.png"), expected, atol=0.51)
    assert read_image(out / "stills" / "photos_2.png").shape == (6, 8, 3)
    np.testing.assert_array_equal(read_image(out / "clips" / "clips_a" / "00000.png"), picture(3))
    lines = (out / "sources.tsv").read_text().splitlines()
    assert lines[1] == "stills/photos_0.png\tme/photos@abc images/0.png\tCC0 1.0\tA. Person"
    assert lines[-1] == 'clips/clips_a\tme/clips@def a/*.png\tCC BY 4.0\t"Title", B' and len(lines) == 5
    assert "left out" in capsys.readouterr().out
    with pytest.raises(InputError, match="is not empty"):
        gather.main([str(tmp_path / "checkouts"), str(out), "--list", str(table)])


def test_missing_checkouts_are_named_before_work_starts(tmp_path):
    with pytest.raises(InputError, match="lacks checkouts of OpenDroneMap/odm_data_caliterra, "):
        gather.main([str(tmp_path), str(tmp_path / "out")])
    (tmp_path / "list.tsv").write_text("nothing\n1\n")
    with pytest.raises(InputError, match=r"is no list of sources"):
        gather.main([str(tmp_path), str(tmp_path / "out"), "--list", str(tmp_path / "list.tsv")])


@pytest.mark.parametrize(("kind", "shrink"), [("still", "1"), ("stills", "0"), ("clip", "nan")])
def test_rows_without_meaning_are_refused(tmp_path, kind, shrink):
    (tmp_path / "list.tsv").write_text(f"{HEADER}me/photos\tabc\t*\t{kind}\t{shrink}\tCC0 1.0\tA\n")
    with pytest.raises(InputError, match=f"kind {kind}, shrink {shrink}: expected stills or clip, and 1 or more"):
        gather.read_list(tmp_path / "list.tsv")


def test_files_of_one_name_do_not_replace_each_other(tmp_path):
    for folder in "ab":
        write_image(tmp_path / "photos" / folder / "0.png", picture(0))
    row = gather.Row("me/photos", "abc", "*/*.png", "stills", 1.0, "CC0 1.0", "A")
    with pytest.raises(InputError, match=r"photos_0.png' would be written twice: .* me/photos \*/\*\.png"):
        gather.gather(row, tmp_path / "photos", tmp_path / "out")


def test_permissive_list_has_permissive_licences_only():
    rows = gather.read_list(gather.LIST)
    assert {row.licence for row in rows} <= {"CC0 1.0", "public domain", "CC BY 3.0", "CC BY 4.0", "BSD-2-Clause"}
    assert {row.kind for row in rows} == {"stills", "clip"} and all(row.author for row in rows)


CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_configs_of_experiments_are_valid(name):
    from engine.config import load_config

    config = load_config(str(CONFIGS / f"{name}.yaml"), [])
    assert config.name == name or name == "mtdo_s_7_clips"  # its clips are made for part 7
    if name.startswith("mtdo_s_free"):  # from scratch, without other weights
        assert not config.train.init or config.train.init.startswith("runs/mtdo_s_free_")
