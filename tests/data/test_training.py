"""Both networks train two steps on every layout, from files on disk to a finite loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from data.degrade import Degradation
from data.media import write_image
from data.video.writer import VideoWriter
from engine.config import config_from_mapping
from engine.train.loop import Trainer
from tests.engine.conftest import tiny_mapping

STNO = {"name": "stno", "channels": 8, "blocks": 1, "embedding": 16, "heads": 2, "hidden": 16, "query_width": 16}
STNO |= {"pyramid": [8, 12, 16], "head_widths": [24, 24, 24], "side_channels": 4, "frame_features": 5}


def moving(count: int, seed: int) -> list[np.ndarray]:
    """Frames (48, 64, 3) of one scene that moves by one pixel per frame."""
    ground = np.random.default_rng(seed).integers(0, 256, (12, 24, 3)).repeat(4, 0).repeat(4, 1)
    return [np.ascontiguousarray(ground[:, shift : shift + 64]).astype(np.uint8) for shift in range(count)]


def put(folder: Path, count: int = 7, form: str = "{:08d}.png", first: int = 0, low: bool = False) -> None:
    for index, frame in enumerate(moving(count, sum(folder.name.encode()))):
        frame = Degradation().for_depth(8).array(frame, 2) if low else frame
        write_image(folder / form.format(index + first), frame)


def jilin(root: Path, splits: tuple[str, ...] = ("training_set", "test_set")) -> dict:
    for split in splits:
        for clip in ("006", "007"):
            put(root / split / "GT" / clip)
            put(root / split / "LR2x" / clip, low=True)
    (root / "train.txt").write_text("".join(f"006/{frame:08d}.png\n" for frame in range(7)))
    return {"split": "train", "list_file": "train.txt"} if len(splits) > 1 else {"kind": "viso"}


def clips(root: Path) -> dict:
    put(root / "a clip", form="{:03d}.png")
    put(root / "größe", form="frame_{:06d}.jpg")
    return {}


def spmcs(root: Path) -> dict:
    put(root / "car05_001" / "truth", form="{:04d}.png", first=1)
    put(root / "hdclub" / "HR", form="{:04d}.png")
    return {}


def vimeo90k(root: Path) -> dict:
    for clip in ("00001/0001", "00001/0002"):
        put(root / "sequences" / clip, form="im{}.png", first=1)
    for name, line in (("sep_trainlist.txt", "00001/0001\n"), ("sep_testlist.txt", "00001/0002\n")):
        (root / name).write_text(line)
    return {"split": "train"}


def adobe240(root: Path) -> dict:
    put(root / "720p_240fps_1", form="{:05d}.png")
    return {"kind": "adobe240"}


def gopro(root: Path) -> dict:
    put(root / "GOPR0372_07_00" / "sharp", form="{:06d}.png", first=47)
    return {"kind": "gopro"}


def reds(root: Path) -> dict:
    put(root / "train_sharp" / "000")
    put(root / "train_sharp_bicubic" / "X2" / "000", low=True)
    return {"split": "train"}


def raw_viso(root: Path) -> dict:
    for group in ("car", "train"):
        put(root / "mot" / group / "001" / "img", form="{:06d}.jpg", first=1)
        (root / "mot" / group / "001" / "gt").mkdir()
        (root / "mot" / group / "001" / "gt" / "gt.txt").write_text("1,1,5,5,4,3,1,1,1\n")
    return {}


def processed_viso(root: Path) -> dict:
    return jilin(root, ("test_set",))


def films(root: Path) -> dict:
    root.mkdir()
    for name in ("a.mp4", "b.mkv"):
        with VideoWriter(root / name, fps=25) as writer:
            for frame in moving(8, len(name)):
                writer.write(frame)
    return {}


def deep_stacks(root: Path) -> dict:
    root.mkdir()
    deep = np.stack(moving(8, 1)).astype(np.uint16) * 255
    tifffile.imwrite(root / "a.tif", deep, photometric="rgb")
    return {}


LAYOUTS = (jilin, clips, spmcs, vimeo90k, adobe240, gopro, reds, raw_viso, processed_viso, films, deep_stacks)


@pytest.mark.parametrize("network", ["mtdo", "stno"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_two_steps_on_every_layout(
    layout: Callable[[Path], dict], network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the list of scene cuts is cached below the working folder
    source = layout(tmp_path / "data")
    mapping = tiny_mapping(tmp_path / "runs", steps=2, log_every=1)
    if network == "stno":
        mapping["network"] = STNO
    source["root"] = str(tmp_path / "data")
    data = {"patch": 8, "train": source, "val": source}
    if network == "stno":
        mapping |= {"eval": {"scale": 2}}
        data |= {"scales": [2.0, 2.0]}
    config = config_from_mapping({**mapping, "data": data})
    Trainer(config, tmp_path / "run", torch.device("cpu")).fit()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [value for entry in log for key, value in entry.items() if key.startswith("loss/")]
    assert len(losses) == 2 and np.isfinite(losses).all()
