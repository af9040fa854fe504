"""Reports: strict JSON, CSV and Markdown with the values of the dict, and a table for the terminal."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.report.files import console_table, tidy, write_report
from engine.report.page.grid import write_grid
from engine.report.tables import number, provenance
from errors import InputError


@dataclass
class Box:
    track: int
    x: float
    y: float
    w: float
    h: float
    label: str


def frames(count=3, kinds=False):
    return [
        {
            "frame": f"{i:08d}",
            "time": i / 10,
            **({"kind": "between" if i % 2 else "key"} if kinds else {}),
            "psnr_y": 30.0 + i,
            "ssim_y": 0.9,
            "bicubic_psnr_y": 28.0,
            "bicubic_ssim_y": 0.8,
        }
        for i in range(count)
    ]


def sample_report(**more):
    """A small report with the structure of engine/evaluate."""
    figures = {"psnr_y": 31.0, "ssim_y": 0.9, "bicubic_psnr_y": 28.0, "bicubic_ssim_y": 0.8}
    return {
        "title": "demo: MTDO, x4",
        "protocol": "standard",
        "scale": 4,
        "baseline": "bicubic",
        "created": "2025-01-02T03:04:05+00:00",
        "commit": "0123456789ab",
        "weights": {"path": "weights.safetensors", "sha256": "ab" * 32},
        "machine": {"processor": "A CPU", "threads": 2, "gpu": ""},
        "network": {"name": "mtdo", "parameters": 1234567, "seconds_per_frame": 0.25},
        "config": {"name": "demo", "eval": {"protocol": "standard", "crop": 4}},
        "clips": {"calendar": {**figures, "frames": frames()}, "città | <b>": {**figures, "frames": frames(2)}},
        "mean": figures,
        **more,
    }


def strict(text):
    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_all_files_are_written_and_nothing_else(tmp_path):
    write_report(sample_report(), tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        f"report.{kind}" for kind in ("json", "md", "csv", "html")
    }


def test_json_is_strict_and_identical_frames_count_as_100_db(tmp_path):
    report = sample_report()
    clip = report["clips"]["calendar"]
    clip["frames"][0] |= {"psnr_y": math.inf, "gain_psnr_y": math.inf, "tof": math.nan, "warping_error": -math.inf}
    write_report(report, tmp_path)
    frame = strict((tmp_path / "report.json").read_text())["clips"]["calendar"]["frames"][0]
    assert (frame["psnr_y"], frame["gain_psnr_y"]) == (100.0, 72.0)
    assert frame["tof"] is None and frame["warping_error"] is None


def test_tidy_accepts_tensors_arrays_dataclasses_and_paths(tmp_path):
    clean = tidy(
        {
            "a": torch.tensor(1.5),
            "b": np.float32(0.25),
            "c": (1, Box(1, 2.0, 3.0, 4.0, 5.0, "car")),
            "d": tmp_path / "pictures" / "x.png",
            "e": str(tmp_path / "y.png"),
            "f": Path("elsewhere/z.png"),
            3: np.arange(3),
            "g": True,
        },
        tmp_path,
    )
    assert clean == {
        "a": 1.5,
        "b": 0.25,
        "c": [1, {"track": 1, "x": 2.0, "y": 3.0, "w": 4.0, "h": 5.0, "label": "car"}],
        "d": "pictures/x.png",
        "e": "y.png",
        "f": "elsewhere/z.png",
        "3": [0, 1, 2],
        "g": True,
    }


def test_input_report_is_unchanged(tmp_path):
    report = sample_report()
    report["clips"]["calendar"]["objects"] = {"all": {"count": 1}, "rows": [{"frame": "0", "track": 1}]}
    before = repr(report)
    write_report(report, tmp_path)
    console_table(report)
    assert repr(report) == before


def test_csv_has_every_frame_clip_and_mean(tmp_path):
    report = sample_report(groups={"key": {"psnr_y": 31.5}, "between": {"psnr_y": 30.5}})
    write_report(report, tmp_path)
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    levels = [row["level"] for row in rows]
    assert levels == ["frame"] * 5 + ["clip"] * 2 + ["mean"] * 3
    assert [float(row["psnr_y"]) for row in rows[:3]] == [30.0, 31.0, 32.0]
    assert [float(row["gain_psnr_y"]) for row in rows[:3]] == [2.0, 3.0, 4.0]
    assert rows[3]["clip"] == "città | <b>" and rows[8]["kind"] == "key" and float(rows[9]["psnr_y"]) == 30.5


def test_markdown_has_tables_and_settings(tmp_path):
    write_report(sample_report(), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| calendar | 3 | 28.00 | 31.00 | +3.00 | 0.8000 | 0.9000 |" in text
    assert "| **mean** | **5** | **28.00** | **31.00** | **+3.00** | **0.8000** | **0.9000** |" in text
    assert "città \\| &lt;b&gt;" in text and "| 00000002 | 0.2 | 28.00 | 32.00 | +4.00 |" in text
    for fact in (
        "protocol: standard, 4 pixels",
        "1,234,567",
        "0.25 s per frame",
        "ab" * 32,
        "0123456789ab",
        "A CPU, 2 threads",
    ):
        assert fact in text
    assert provenance({"machine": {"processor": "A CPU", "threads": 1}})[-1] == ("machine", "A CPU, 1 thread")
    widths = {line.count("|") for line in text.split("## Clips")[1].split("\n\n")[1].replace("\\|", "").splitlines()}
    assert len(widths) == 1


def test_console_table_shows_baseline_ours_and_gain():
    lines = console_table(sample_report()).splitlines()
    assert lines[0] == "demo: MTDO, x4 (standard protocol, baseline: bicubic)"
    assert lines[4].split() == ["calendar", "3", "28.00", "31.00", "+3.00", "0.8000", "0.9000"]
    assert lines[-1].split() == ["mean", "5", "28.00", "31.00", "+3.00", "0.8000", "0.9000"]
    assert len({len(line) for line in lines[3:]}) == 1


def test_console_table_of_space_time_has_key_and_intermediate_rows():
    report = sample_report(
        baseline="linear blend + bicubic",
        groups={"key": {"psnr_y": 32.0, "bicubic_psnr_y": 30.0}, "between": {"psnr_y": 29.0, "bicubic_psnr_y": 28.5}},
    )
    report["clips"]["calendar"]["frames"] = frames(3, kinds=True)
    text = console_table(report)
    key, between = (line.split() for line in text.splitlines()[-2:])
    assert key[:6] == ["key", "frames", "2", "30.00", "32.00", "+2.00"]
    assert between[:6] == ["intermediate", "frames", "1", "28.50", "29.00", "+0.50"]
    assert "baseline: linear blend + bicubic" in text


def test_names_of_clips_break_no_row_of_the_console_table():
    report = sample_report()
    plain = console_table(report)
    report["clips"] = {name.replace("calendar", "cal\nndar"): clip for name, clip in report["clips"].items()}
    assert console_table(report) == plain.replace("calendar", "cal ndar")


def test_console_table_of_many_clips_is_shortened():
    clip = {"psnr_y": 30.0, "bicubic_psnr_y": 29.0, "frames": frames(1)}
    text = console_table(sample_report(clips={f"clip{i:03d}": clip for i in range(100)}))
    assert len(text.splitlines()) < 50 and "60 more" in text and text.splitlines()[-1].startswith("mean")


def test_missing_values_are_shown_as_dashes(tmp_path):
    report = {"clips": {"one": {"psnr_y": 30.0, "bicubic_psnr_y": None, "frames": []}}, "mean": {"psnr_y": 30.0}}
    write_report(report, tmp_path)
    assert "30.00" in console_table(report)
    assert strict((tmp_path / "report.json").read_text())["clips"]["one"]["bicubic_psnr_y"] is None


def test_gain_that_rounds_to_zero_has_no_sign():
    assert [number(value, "+.2f") for value in (-0.001, 0.001, -0.006, 0.5, None)] == [
        "0.00",
        "0.00",
        "-0.01",
        "+0.50",
        "–",
    ]


def objects():
    group = {"count": 4, "faint": 1, "psnr_y": 27.0, "bicubic_psnr_y": 25.5, "contrast": 0.8, "bicubic_contrast": 0.6}
    return {"all": group, "by_class": {"car": group}, "by_size": {"small": group}, "skipped": 2}


def test_objects_have_a_separate_table_and_file(tmp_path):
    report = sample_report(objects=objects())
    rows = [{"frame": "00000000", "track": 1, "label": "car", "size": "small", "psnr_y": 27.0, "contrast": None}]
    report["clips"]["calendar"]["objects"] = {**objects(), "rows": rows}
    write_report(report, tmp_path)
    saved = strict((tmp_path / "report.json").read_text())["clips"]["calendar"]["objects"]
    assert "rows" not in saved and saved["rows_in"] == "objects.csv" and saved["all"]["count"] == 4
    with (tmp_path / "objects.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"clip": "calendar", **{k: "" if v is None else str(v) for k, v in rows[0].items()}}
        ]
    text = console_table(report)
    car = next(line.split() for line in text.splitlines() if line.startswith("car"))
    assert car == ["car", "4", "25.50", "27.00", "+1.50", "60%", "80%"]
    assert "1 too faint for a contrast; 2 boxes outside the frame skipped" in text


def sweep_report():
    return {
        "title": "sweep",
        "baseline": "linear blend + bicubic",
        "sweep": {
            "scales": [2, 2.4],
            "times": [2, 0.25, 8],
            "psnr_y": [[30.0, 29.0, 28.0], [27.0, None, 25.0]],
            "bicubic_psnr_y": [[29.0, 28.5, 28.5], [26.0, 25.0, 24.0]],
        },
    }


def test_sweep_over_scales_and_times(tmp_path):
    write_report(sweep_report(), tmp_path)
    lines = console_table(sweep_report()).splitlines()
    assert lines[3].split() == ["scale", "x2", "t", "=", "0.25", "x8"]
    assert lines[4].split() == ["x2", "30.00", "(+1.00)", "29.00", "(+0.50)", "28.00", "(-0.50)"]
    assert lines[5].split() == ["x2.4", "27.00", "(+1.00)", "–", "25.00", "(+1.00)"]
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and rows[4] == {
        "level": "sweep", "scale": "2.4", "times": "0.25", "psnr_y": "", "bicubic_psnr_y": "25.0"
    }  # fmt: skip
    assert "| x2 | 30.00 (+1.00) |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_sweep_grid_is_drawn(tmp_path):
    from data.media import read_image

    write_grid(sweep_report(), tmp_path / "grid.png")
    picture = read_image(tmp_path / "grid.png")
    assert picture.shape[0] > 150 and picture.shape[1] > 500
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    with pytest.raises(InputError, match="no sweep"):
        write_grid(sample_report(), tmp_path / "none.png")


def test_unwritable_folder(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError, match="file"):
        write_report(sample_report(), blocked)
