"""`python -m data.prepare ROOT OUT`: write a data set or videos in the jilin layout (GT, LR, Bicubic, lists, splits).

Frames of a clip are written to hidden folders, which are renamed when the clip is complete, GT last: OUT never shows an
incomplete clip. The same command continues an interrupted run.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import cli
from data.degrade import imresize
from data.files import remove_unfinished, replacing
from data.folder_settings import remember
from data.layouts import Layout, Pair, open_layout
from data.layouts.splits import ALIASES
from data.media import rgb, write_image
from errors import InputError

EXAMPLE = """examples:
  python -m data.prepare ../videos OUT --shares 0.8 0.1 0.1
  python -m data.prepare ../REDS/train_sharp OUT --scale 4 --jobs 8

Stop it at any time; the same command continues. Afterwards: python -m data.doctor OUT"""
FOLDERS = {"train": "training_set", "val": "validation_set", "test": "test_set"}
CHUNK = 32  # frames per piece of work


@dataclass(frozen=True)
class Plan:
    """Source and settings. All runs into one folder must have the same plan."""

    root: str
    kind: str = "auto"
    scale: int = 4
    shares: tuple[float, float, float] | None = None  # train, val, test; None: the source's own splits or 0.8, 0.1, 0.1
    seed: int = 0
    bicubic: bool = True
    allow_gaps: bool = False

    def __post_init__(self) -> None:
        if self.scale < 2:
            raise InputError(f"scale: expected an integer from 2, got {self.scale}")
        if self.shares is not None and not (min(self.shares) >= 0 and abs(sum(self.shares) - 1) <= 1e-6):
            raise InputError(f"shares: expected three shares that sum to 1, got {' '.join(map(str, self.shares))}")
        if self.seed < 0:
            raise InputError(f"seed: expected an integer from 0, got {self.seed}")


def prepare(plan: Plan, out: str | Path, jobs: int | None = None, quiet: bool = False) -> dict[str, list[str]]:
    """Write the data set; return the clips of each split. Raises InputError for a source or folder that cannot be used."""
    out = Path(out)
    _layout.cache_clear()  # the source may have changed since an earlier call
    layout = _layout(plan)
    if out.resolve() == layout.root.resolve():
        raise InputError(f"{out}: is the source itself; choose another folder for the output")
    _remember(plan, out)
    remove_unfinished(out)
    splits = assign(layout, plan)
    places = {name: out / FOLDERS[split] for split, names in splits.items() for name in names}
    waiting = [pair for pair in layout if not (places[pair.name] / "GT" / flat(pair.name)).is_dir()]
    total = sum(map(len, layout))
    done = total - sum(map(len, waiting))
    with tqdm(total=total, initial=done, unit="frame", desc="prepare", disable=quiet, dynamic_ncols=True) as bar:
        for pair, frames in _worked(plan, waiting, places, jobs or os.cpu_count() or 1):
            bar.update(frames)
            if pair is not None:
                _finish(pair, places[pair.name])
    _write_lists(layout, splits, out)
    return splits


def assign(layout: Layout, plan: Plan) -> dict[str, list[str]]:
    """Split -> clip names: the splits of the source, or drawn by the seed if it has none or `shares` are given."""
    known = {folder: split for split, folders in reversed(ALIASES.items()) for folder in folders}
    names = [pair.name for pair in layout]
    own = [known.get(name.split("/")[0].lower()) for name in names]
    if plan.shares is None and all(own):
        return {split: [name for name, mine in zip(names, own, strict=True) if mine == split] for split in FOLDERS}
    _, val, test = plan.shares or (0.8, 0.1, 0.1)
    order = np.random.default_rng(plan.seed).permutation(len(names))
    counts = [round(len(names) * share) for share in (val, test)]
    if len(names) >= 3:  # each share above 0 gets at least one clip
        counts = [max(count, 1) if share > 0 else 0 for count, share in zip(counts, (val, test), strict=True)]
    bounds = np.cumsum(counts)
    chosen = {"val": order[: bounds[0]], "test": order[bounds[0] : bounds[1]], "train": order[bounds[1] :]}
    return {split: [names[index] for index in sorted(chosen[split])] for split in FOLDERS}


def flat(name: str) -> str:
    """A clip's name as one folder name."""
    return name.replace("/", "_")


# --- work -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _layout(plan: Plan) -> Layout:
    layout = open_layout(plan.root, plan.kind, scale=plan.scale, split="all", allow_gaps=plan.allow_gaps)
    names = [flat(pair.name) for pair in layout]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise InputError(f"{plan.root}: two clips would both be named {doubled}; rename one of them")
    return layout


def _worked(plan: Plan, waiting: list[Pair], places: dict[str, Path], jobs: int) -> Iterator[tuple[Pair | None, int]]:
    """Yield the number of frames of each finished piece, and the pair if it was its last piece."""
    pieces = [
        (pair, range(start, min(start + CHUNK, len(pair)))) for pair in waiting for start in range(0, len(pair), CHUNK)
    ]
    left = {pair.name: -(-len(pair) // CHUNK) for pair in waiting}
    if jobs == 1 or len(pieces) <= 1:
        for pair, indices in pieces:
            write_piece(plan, pair.name, indices, places[pair.name])
            left[pair.name] -= 1
            yield (None if left[pair.name] else pair), len(indices)
        return
    pool = ProcessPoolExecutor(min(jobs, len(pieces)), mp_context=_context(), initializer=_start_worker)
    try:
        futures: dict[Future, tuple[Pair, range]] = {
            pool.submit(write_piece, plan, pair.name, indices, places[pair.name]): (pair, indices)
            for pair, indices in pieces
        }
        for future in as_completed(futures):
            future.result()
            pair, indices = futures[future]
            left[pair.name] -= 1
            yield (None if left[pair.name] else pair), len(indices)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Workers fork from a server that has imported torch, once for all. A fork of this process would inherit torch's threads in a
    broken state. Libraries of macOS do not bear forks.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data.layouts"])
    return context


def _start_worker() -> None:
    torch.set_num_threads(1)


def write_piece(plan: Plan, name: str, indices: Sequence[int], place: Path) -> None:
    """Write some frames of a clip into its hidden folders; existing frames are kept."""
    pair = next(pair for pair in _layout(plan) if pair.name == name)
    assert pair.gt is not None
    folders = {kind: _hidden(place, kind, pair) for kind in kinds(plan)}
    for index in indices:
        missing = [kind for kind, folder in folders.items() if not _frame(folder, index, pair.gt.bit_depth).exists()]
        if not missing:
            continue
        gt, low = rgb(pair.gt.array(index)), rgb(pair.lr.array(index))
        for kind in missing:
            array = gt if kind == "GT" else low if kind.startswith("LR") else enlarged(low, plan.scale)
            write_image(_frame(folders[kind], index, pair.gt.bit_depth), np.ascontiguousarray(array))


def kinds(plan: Plan) -> list[str]:
    """The folders, in the order in which they are renamed."""
    return [f"Bicubic{plan.scale}x"] * plan.bicubic + [f"LR{plan.scale}x", "GT"]


def enlarged(low: np.ndarray, scale: int) -> np.ndarray:
    """(h, w, 3) -> (scale h, scale w, 3) by bicubic, of the same type."""
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(low, -1, 0)).astype(np.float32))
    large = np.moveaxis(imresize(planes, scale=scale).numpy(), 0, -1)
    if low.dtype == np.float32:
        return large
    return np.clip(np.floor(large + 0.5), 0, np.iinfo(low.dtype).max).astype(low.dtype)


def _frame(folder: Path, index: int, bits: int) -> Path:
    return folder / f"{index:08d}{'.png' if bits <= 16 else '.tif'}"


def _hidden(place: Path, kind: str, pair: Pair) -> Path:
    return place / kind / f".{flat(pair.name)}.part"


def _finish(pair: Pair, place: Path) -> None:
    """Write the boxes of a complete clip, then rename its folders, ground truth last."""
    name = flat(pair.name)
    if pair.boxes is not None:
        lines = [
            f"{index},{box.track},{box.x:g},{box.y:g},{box.w:g},{box.h:g},{box.label}\n"
            for index, boxes in enumerate(pair.boxes)
            for box in boxes
        ]
        with replacing(place / "boxes" / f"{name}.txt") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    for hidden in sorted(place.glob(f"*/.{name}.part"), key=lambda path: path.parent.name == "GT"):
        final = hidden.with_name(name)
        if final.exists():  # left by a run that was stopped in this loop
            shutil.rmtree(final)
        hidden.replace(final)


def _remember(plan: Plan, out: Path) -> None:
    """Write the plan into the output folder. Raises InputError if the folder has another plan."""
    root = str(Path(plan.root).resolve())
    remember(out / "prepare.json", {**asdict(plan), "root": root, "clips": _fingerprint(_layout(plan))})


def _fingerprint(layout: Layout) -> str:
    """A hash of the names and lengths of the clips, which determine the splits."""
    return hashlib.sha256(json.dumps([(pair.name, len(pair)) for pair in layout]).encode()).hexdigest()[:16]


def _write_lists(layout: Layout, splits: dict[str, list[str]], out: Path) -> None:
    lengths = {pair.name: (len(pair), pair.gt.bit_depth if pair.gt else 8) for pair in layout}
    for split, names in splits.items():
        lines = []
        for name in names:
            length, bits = lengths[name]
            lines += [f"{flat(name)}/{_frame(Path(), index, bits).name}\n" for index in range(length)]
        with replacing(out / f"{split}.txt") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


# --- command ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return cli.exit_code(lambda: run(arguments), "stopped; the same command continues, finished clips are kept")


def run(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser(
        description="Write a data set or videos as training_set, validation_set and test_set with GT, LR and Bicubic.",
        epilog=EXAMPLE,
    )
    parser.add_argument("root", help="data set, folder of videos, or one video")
    parser.add_argument("out", help="output folder: a new one, or that of an interrupted run")
    parser.add_argument("--kind", default="auto", help="layout of the source, if detection fails")
    parser.add_argument("--scale", type=int, default=4, help="GT pixels per LR pixel (default: 4)")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of the clips (default: 0.8 0.1 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    parser.add_argument(
        "--no-bicubic", action="store_true", help="do not write the enlarged LR, which takes most space"
    )
    parser.add_argument("--allow-gaps", action="store_true", help="accept clips whose frame numbers have gaps")
    parser.add_argument("--jobs", type=int, default=None, help="number of processes (default: one per core)")
    options = parser.parse_args(arguments)
    shares = tuple(options.shares) if options.shares else None
    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: expected a number of processes, from 1")
    plan = Plan(
        options.root, options.kind, options.scale, shares, options.seed, not options.no_bicubic, options.allow_gaps
    )
    splits = prepare(plan, options.out, options.jobs)
    counts = ", ".join(f"{split} {len(names)}" for split, names in splits.items())
    print(f"{options.out}: clips: {counts}; lists train.txt, val.txt, test.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
