"""Random inputs and the code under test. A target either works or raises `InputError`; anything else is a fault.

A target is a function of a random generator and an empty folder, and tries one input. Inputs are valid files with changed bytes,
lines and options composed of nearly valid parts, and numbers at the limits of their ranges.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

import models
import upscale
from data import media, tiff
from data.clips import FolderClip, VideoClip
from data.layouts import open_layout
from data.media import write_image
from data.video.writer import VideoWriter
from engine.checkpoint import load_network, save_tensors, save_weights
from engine.config import config_from_mapping, load_config
from engine.config.keys import keys
from engine.train.loop import Trainer
from engine.upscale import Request
from tests.engine.conftest import NETWORK, tiny_mapping
from tests.engine.small import SMALL_STNO

Target = Callable[[Random, Path], None]
ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
WORDS = [
    "0", "-1", "1", "2", "1e400", "-1e400", ".nan", ".inf", "1e-400", "9" * 5000, "99999999999999999999", "0x10", "011", "1_0", "",
    "null", "true", "no", "~", "[]", "{}", "[1]", "[1, 2]", "[0, 0, 0, 0]", "[-1, 2]", "[a, b]", "{a: 1}", "[[1]]", "2020-01-01",
    "1:30", "a", "é", "a b", "..", "/", "'", '"', "[", "{", "&a [*a]", "*a", "!!python/none", "!!int x", "? [a]", "\t", "a: b", "\x00",
    "auto", "off", "4", "[4, 4]", "[{steps: 1}]", "[{}]", "step", "mtdo", "stno", "simulated", "3.5", "1e30", "-0.0", "a" * 5000,
]  # fmt: skip


# --- settings ---------------------------------------------------------------------------------------------------------


def all_keys() -> dict[str, str]:
    """Every key of a config, with the description of its type."""
    result = {key.name.replace("[]", ".0"): key.kind for key in keys(type(config_from_mapping({"network": NETWORK})))}
    for entry in models.NETWORKS.values():
        result |= {key.name: key.kind for key in keys(entry.config, "network.")}
    return result


KINDS = all_keys()
KEYS = [*KINDS, "x", "data", "train", "network", "data.train", "a.b", ".", "data..", "=", "train.stages.steps"]


def overrides(random: Random, folder: Path) -> None:
    """Apply up to three overrides, with any key and any value, to a shipped config."""
    words = [f"{random.choice(KEYS)}={random.choice(WORDS)}" for _ in range(random.randint(1, 3))]
    load_config(random.choice(CONFIGS), words)


def config_files(random: Random, folder: Path) -> None:
    """Read a shipped config with changed lines and bytes."""
    lines = random.choice(CONFIGS).read_text(encoding="utf-8").splitlines()
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(lines))
        change = random.randrange(4)
        if change == 0:
            lines.insert(place, f"{' ' * random.randrange(5)}{random.choice(WORDS)}")
        elif change == 1:
            lines[place] = f"{lines[place].partition(':')[0]}: {random.choice(WORDS)}"
        elif change == 2:
            lines.insert(place, random.choice(lines))
        else:
            del lines[place]
            lines = lines or ["a"]
    content = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    if random.random() < 0.3 and content:
        content[random.randrange(len(content))] = random.randrange(256)
    (folder / "a.yaml").write_bytes(bytes(content))
    load_config(folder / "a.yaml")


EXTREMES: dict[str, list[Any]] = {
    "number": [
        0,
        -1,
        1,
        2,
        3,
        1e-30,
        1e30,
        0.5,
        1e4,
        2**31,
        2**53,
        10**30,
        float("nan"),
        float("inf"),
        -0.0,
        [1, 2],
        [2, 1],
        None,
    ],
    "other": [
        True,
        False,
        "",
        "a",
        "auto",
        "off",
        [],
        [1],
        {},
        ["a"],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [1, 1],
        "/nonexistent",
    ],
}


def extreme_of(kind: str, random: Random) -> Any:
    """A value at the limits of a key's type, or just beyond."""
    if " | " in kind:
        return random.choice(kind.split(" | "))
    if kind.startswith("true"):
        return random.random() < 0.5
    if kind.startswith("a list, each "):
        return [extreme_of(kind.removeprefix("a list, each "), random) for _ in range(random.randint(0, 4))]
    if " values, each " in kind:
        count, _, inner = kind.partition(" values, each ")
        return [extreme_of(inner, random) for _ in range(int(count))]
    limits = re.search(r"from (\S+) to (\S+)", kind)
    ends = [float(end) for end in limits.groups()] if limits else [0.0, 1.0]
    values: list[Any] = [*ends, ends[0] - 1, ends[1] + 1, ends[0] + 1, 0, 1, 2, 3, 5, 8, 16, -1]
    values += [] if "integer" in kind else [0.5, 0.1, 1e-30, 1.5]
    return int(value) if (value := random.choice(values)) == int(value) else value


HEAVY = 64  # larger values may need too much memory or time: they are read, but no training step is taken


def extremes(random: Random, folder: Path) -> None:
    """Set one key to an extreme value, then take one training step if the config is accepted."""
    mapping = deepcopy(tiny_mapping(folder / "runs", steps=1))
    if random.random() < 0.4:
        mapping["network"] = deepcopy(SMALL_STNO)
        mapping["data"]["patch"] = 8
        for part in ("train", "val"):
            mapping["data"][part]["simulate"] = {**mapping["data"][part]["simulate"], "frames": 9}
    elif random.random() < 0.8:  # most keys do not concern the transformer, which is slow
        mapping["network"] |= {"reconstruction": "residual", "reconstruction_blocks": 1}
    mapping["data"]["train"]["simulate"] = {**mapping["data"]["train"]["simulate"], "clips": 1}
    key = random.choice([name for name in KINDS if not name.startswith(("data.also", "name", "runs"))])
    odd = random.choice(EXTREMES["number" if random.random() < 0.7 else "other"])
    value = extreme_of(KINDS[key], random) if random.random() < 0.8 and key in KINDS else odd
    target: Any = mapping
    *groups, last = key.split(".")
    for group in groups:
        target = target.setdefault(group, {}) if isinstance(target, dict) else {}
    if isinstance(target, dict):
        target[last] = value
    config = config_from_mapping(mapping)
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, (int, float)) and abs(number) > HEAVY for number in numbers) or last in (
        "compile",
        "cache",
    ):
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Trainer(config, folder / "run", torch.device("cpu")).fit()


# --- pictures and videos ----------------------------------------------------------------------------------------------


def damaged(random: Random, content: bytes) -> bytes:
    """The content with bytes changed, removed, repeated or inserted."""
    result = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        place = (
            random.randrange(max(len(result), 1))
            if random.random() < 0.5
            else random.randrange(min(len(result), 400) or 1)
        )
        change = random.randrange(5)
        if change == 0:
            del result[place:]
        elif change == 1:
            result[place:place] = random.randbytes(random.randint(1, 8))
        elif change == 2:
            result[place : place + 4] = random.choice(
                (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
            )
        elif place < len(result):
            result[place] = random.randrange(256)
    return bytes(result)


def seeds(folder: Path, make: Callable[[Path], None]) -> list[Path]:
    """Valid files, made once for all tries."""
    place = folder.parent / f"seeds{make.__name__}"
    if not place.is_dir():
        place.mkdir()
        make(place)
    return sorted(place.iterdir())


def _images(place: Path) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "bmp", "webp", "tif"):
        write_image(place / f"a.{suffix}", picture)
    write_image(place / "deep.png", picture.astype(np.uint16) * 257)
    write_image(place / "deep.tif", picture.astype(np.uint16) * 257)
    write_image(place / "float.tif", picture.astype(np.float32) / 255)
    Image.fromarray(picture).quantize(16).save(place / "palette.png")
    Image.fromarray(picture).quantize(16).save(place / "a.gif")
    Image.fromarray(picture[..., 0]).save(place / "gray.ppm")
    tifffile.imwrite(place / "lzw.tif", picture, compression="lzw", photometric="rgb")
    tifffile.imwrite(
        place / "tiles.tif", np.tile(picture, (3, 3, 1)), tile=(16, 16), compression="deflate", photometric="rgb"
    )


def images(random: Random, folder: Path) -> None:
    """Probe, read and open as a clip an image of any format with changed bytes."""
    source = random.choice(seeds(folder, _images))
    path = folder / "clip" / f"0{source.suffix if random.random() < 0.9 else random.choice(('.png', '.jpg', '.tif'))}"
    path.parent.mkdir()
    path.write_bytes(damaged(random, source.read_bytes()))
    for act in (media.probe, media.read_image, lambda p: FolderClip(p.parent).array(0)):
        act(path)


GEO = (
    33550,
    33922,
    34264,
    34735,
    34736,
    34737,
    50844,
    42113,
    256,
    257,
    258,
    259,
    262,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    325,
    338,
    339,
)


def geotiff_tags(random: Random, folder: Path) -> None:
    """Read a small TIFF whose geographic and structural tags have any type, count and values."""
    path = folder / "a.tif"
    extra = []
    for _ in range(random.randint(1, 4)):
        kind = random.choice("sBHIdf")
        count = random.choice((1, 2, 3, 6, 12, 16, 100))
        value: Any = random.choice(("nan", "1e400", "a\0b", "", "5|WGS|", "é")) if kind == "s" else None
        if value is None:
            most = {"B": 255, "H": 65535, "I": 2**32 - 1}.get(kind, 0)
            whole = [random.choice((0, 1, most, random.randint(0, most))) for _ in range(count)]
            real = [random.choice((0.0, -1.0, 1e308, float("nan"), float("inf"), 0.5)) for _ in range(count)]
            value = tuple(whole if most else real)
        extra.append((random.choice(GEO), kind, len(value) if kind == "s" else count, value, True))
    picture = np.zeros((8, 8, 3), np.uint8)
    try:
        tifffile.imwrite(path, picture, photometric="rgb", extratags=extra)
    except Exception:  # the writer refuses some tags itself: nothing was made
        return
    tiff.read_geo(path)
    media.read_image(path)
    media.read_geo(path)


def _videos(place: Path) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    for suffix in ("mp4", "mkv", "avi"):
        with VideoWriter(place / f"a.{suffix}", fps=10) as writer:
            for frame in frames:
                writer.write(frame)


def videos(random: Random, folder: Path) -> None:
    """Open a short video with changed bytes and read every frame."""
    source = random.choice(seeds(folder, _videos))
    path = folder / f"a{source.suffix}"
    path.write_bytes(damaged(random, source.read_bytes()))
    clip = VideoClip(path)
    for index in range(min(len(clip), 6)):
        clip.array(index)


# --- weights ----------------------------------------------------------------------------------------------------------


def _weights(place: Path) -> None:
    torch.manual_seed(0)
    for name, config in (("mtdo", NETWORK), ("stno", SMALL_STNO)):
        save_weights(place / f"{name}.safetensors", models.build(config))


def safetensors(random: Random, folder: Path) -> None:
    """Load weights with changed bytes, and small files whose header claims a network of any size."""
    path = folder / "w.safetensors"
    if random.random() < 0.5:
        path.write_bytes(damaged(random, random.choice(seeds(folder, _weights)).read_bytes()))
    else:
        network: Any = {"name": random.choice(("mtdo", "stno", "x", 3, None))}
        for key in random.sample(KEYS, 3):
            target = network
            *groups, last = key.removeprefix("network.").split(".")
            for group in groups:
                inner = target.setdefault(group, {})
                target = inner if isinstance(inner, dict) else {}
            target[last] = random.choice([*EXTREMES["number"], *EXTREMES["other"]])
        header = {"network": random.choice((network, network, [], None, "x")), "step": 1}
        tensors = {
            random.choice(("a", "network.a", "hat.a", "flownet.a")): torch.zeros(random.choice(((), (1,), (0, 3))))
        }
        save_tensors(path, tensors, json.loads(json.dumps(header)))
    load_network(path)


def _pth(place: Path) -> None:
    state = {
        "module.hat.a": torch.zeros(3),
        "fus.weight": torch.zeros(64, 320, 1, 1),
        "flownet.b": torch.ones(2).half(),
    }
    torch.save({"state_dict": state}, place / "new.pth")
    torch.save(state, place / "old.pth", _use_new_zipfile_serialization=False)


def pth(random: Random, folder: Path) -> None:
    """Load published weights with changed bytes, and pickles of other objects."""
    path = folder / f"w{random.choice(('.pth', '.pt', '.ckpt'))}"
    if random.random() < 0.7:
        path.write_bytes(damaged(random, random.choice(seeds(folder, _pth)).read_bytes()))
    else:
        odd: list[Any] = [
            torch.zeros(1),
            torch.zeros(1).expand(10**9),
            torch.zeros(1, device="meta"),
            torch.zeros(2, 2).to_sparse(),
        ]
        odd += [torch.zeros(1, dtype=torch.complex64), 3, "a", None, [1], {"a": 1}, torch.zeros(0), torch.zeros(())]
        names: list[Any] = ["hat.a", "fus.weight", "flownet.a", "hat.upsample.0.weight", 3, "state_dict", "params", ""]
        state: Any = {random.choice(names): random.choice(odd) for _ in range(random.randint(0, 3))}
        torch.save(random.choice((state, state, {"params": state}, [state], random.choice(odd))), path)
    load_network(path)


# --- folders ----------------------------------------------------------------------------------------------------------

FIELDS = [
    "1",
    "0",
    "-1",
    "1e400",
    "nan",
    "1.5",
    "",
    "car",
    "2",
    "99999999999999999999",
    "é",
    "1e-400",
    " ",
    "\x00",
    "0x1",
    "inf",
]


def boxes_and_lists(random: Random, folder: Path) -> None:
    """Open a tiny VISO tree whose boxes and list file are composed of odd fields."""
    frames = folder / "mot" / "car" / "test_1" / "img"
    for number in (1, 2):
        write_image(frames / f"{number:06d}.png", np.zeros((16, 16, 3), np.uint8))
    rows = [",".join(odd_row(random)) for _ in range(random.randint(0, 4))]
    truth = frames.parent / "gt" / "gt.txt"
    truth.parent.mkdir()
    truth.write_bytes(odd_text(random, [*rows, "1,1,2,2,4,4,car"]))
    names = [
        "test_1",
        "test_1/000001",
        "test_1/000002.png",
        "car/test_1",
        "..",
        "/",
        "x",
        "mot/car/test_1/img/000001.png",
        "*",
    ]
    (folder / "list.txt").write_bytes(
        odd_text(random, [random.choice([*names, *FIELDS]) for _ in range(random.randint(0, 4))])
    )
    layout = open_layout(
        folder, random.choice(("auto", "viso")), scale=2, list_file=random.choice((None, folder / "list.txt"))
    )
    for pair in layout.pairs:
        pair.lr.array(0)


def odd_row(random: Random) -> list[str]:
    """A line of boxes with one or two changed fields, or of odd fields only."""
    if random.random() < 0.2:
        return [random.choice(FIELDS) for _ in range(random.choice((0, 5, 6, 7, 10)))]
    row = ["1", "1", "2", "2", "4", "4", "car"]
    for _ in range(random.randint(0, 2)):
        row[random.randrange(7)] = random.choice(FIELDS)
    return row


def odd_text(random: Random, lines: list[str]) -> bytes:
    content = random.choice(("\n", "\r\n", "\r")).join(lines).encode()
    if random.random() < 0.3:
        content = damaged(random, content)
    return random.choice((b"", b"", b"\xef\xbb\xbf", b"\xff\xfe")) + content


# --- options ----------------------------------------------------------------------------------------------------------


def upscale_options(random: Random, folder: Path) -> None:
    """Parse random options of upscale.py with odd values."""
    flags = [action.option_strings[-1] for action in upscale.arguments()._actions if action.option_strings]
    flags.remove("--help")
    values = [
        *WORDS,
        "x2",
        "x0",
        "xnan",
        "60",
        "30000/1001",
        "1/0",
        "1920x1080",
        "x1080",
        "0x0",
        "5M",
        "5s",
        "0,2047",
        "1,2,3",
        "1:2:3",
        "a=b",
    ]
    words = ["in.mp4", "out.mp4"]
    for _ in range(random.randint(1, 4)):
        words.append(random.choice(flags))
        if random.random() < 0.8:
            words.append(random.choice(values))
    random.shuffle(words) if random.random() < 0.1 else None
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        Request(**upscale.parse([word for word in words if "\0" not in word]))


TARGETS: dict[str, tuple[Target, int]] = {  # and how many tries an ordinary run of the tests makes
    "overrides": (overrides, 60),
    "config_files": (config_files, 60),
    "extremes": (extremes, 25),
    "images": (images, 150),
    "geotiff_tags": (geotiff_tags, 100),
    "videos": (videos, 25),
    "safetensors": (safetensors, 60),
    "pth": (pth, 40),
    "boxes_and_lists": (boxes_and_lists, 60),
    "upscale_options": (upscale_options, 60),
}
