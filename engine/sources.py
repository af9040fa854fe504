"""Open the clips and training batches that the `data` group of a config describes."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.cache import cache_pairs
from data.clips import Clip, DegradedClip, RegionClip, SubClip
from data.clips.derived import Derived
from data.compress import CompressedClip
from data.datasets import Augmentation, SequenceDataset, StepBatches, WindowDataset, build_loader
from data.layouts import Layout, Pair, open_layout
from data.scenes import all_scene_cuts
from data.simulate import simulated_layout
from engine import distributed
from engine.config import Config, DataConfig, SourceConfig, StageConfig
from engine.distributed import say
from errors import InputError
from settings import nearest

CACHE = Path(".cache")
Area = tuple[int, int, int, int]
LOOKED_AT = 16  # clips whose first picture is part of the fingerprint of the training data


def open_source(config: Config, part: str) -> Layout:
    """The clips of `data.train` or `data.val` (`part`), at the config's scale. Raises `InputError` naming the config key."""
    return _open(config, getattr(config.data, part), part)


def _open(config: Config, source: SourceConfig, part: str) -> Layout:
    if source.kind == "simulated":
        split = source.split or ("test" if part == "val" else "train")
        layout = simulated_layout(source.simulate, split, scale=config.scale, degradation=source.degradation)
    elif not source.root:
        raise InputError(
            f"config key 'data.{part}.root' is empty: name the folder of your clips, data.{part}.root=FOLDER"
        )
    else:
        layout = open_layout(
            source.root,
            source.kind,
            scale=config.scale,
            split=source.split,
            list_file=source.list_file,
            degradation=source.degradation,
            allow_gaps=source.allow_gaps,
            bands=source.bands,
        )
        _tell(layout.notes)
    pairs = [narrowed(pair, source, config.scale) for pair in chosen(layout.pairs, source, part)]
    if source.compression.share:
        pairs = [replace(pair, lr=CompressedClip(pair.lr, source.compression)) for pair in pairs]
    return replace(layout, pairs=pairs)


def _tell(notes: list[str]) -> None:
    """Say what the layout left out or changed: at most three lines."""
    for note in notes[:3]:
        say(note)
    if len(notes) > 3:
        say(f"... and {len(notes) - 3} more notes (python -m data.doctor --notes has all)")


def chosen(pairs: list[Pair], source: SourceConfig, part: str) -> list[Pair]:
    """The clips named in `clips`, or all."""
    if source.clips is None:
        return pairs
    if not source.clips:
        raise InputError(f"config key 'data.{part}.clips' is empty: name clips, or remove it to take all")
    known = {pair.name: pair for pair in pairs}
    for name in source.clips:
        if name not in known:
            raise InputError(f"config key 'data.{part}.clips': no clip '{name}'{nearest(name, known)}")
    return [known[name] for name in source.clips]


def narrowed(pair: Pair, source: SourceConfig, scale: float) -> Pair:
    """The pair within the source's `region` (fractions of the frame) and `frames`: held-out parts are never read."""
    if source.region:
        pair = within_region(pair, source.region, scale)
    if source.frames:
        first, stop = source.frames
        indices = range(len(pair))[first:stop]
        if not indices:
            raise InputError(f"clip '{pair.name}' has {len(pair)} frames: none is within 'frames: [{first}, {stop}]'")
        gt = SubClip(pair.gt, indices) if pair.gt else None
        boxes = [pair.boxes[i] for i in indices] if pair.boxes else None
        listed = None if pair.listed is None else [i - indices[0] for i in pair.listed if i in indices]
        if listed == []:
            raise InputError(
                f"clip '{pair.name}': none of its listed frames is within 'frames: [{first}, {stop}]': change the list or the range"
            )
        pair = replace(pair, gt=gt, lr=SubClip(pair.lr, indices), boxes=boxes, listed=listed)
    return pair


def within_region(pair: Pair, region: tuple[float, float, float, float], scale: float) -> Pair:
    """Crop both clips to the same region, aligned to LR pixels; synthetic LR is made from the cropped ground truth."""
    if pair.boxes:
        raise InputError(
            f"clip '{pair.name}' has object boxes: 'region' cannot be used with them: remove it, or name other clips "
            f"(data.train.root=FOLDER data.val.root=FOLDER)"
        )
    height, width = pair.lr.size
    left, top, right, bottom = (round(f * side) for f, side in zip(region, (width, height, width, height), strict=True))
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"config key 'region': expected 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got {list(region)}"
        )
    low = RegionClip(pair.lr, top, left, bottom, right)
    if pair.gt is None:
        return replace(pair, lr=low)
    high = RegionClip(pair.gt, *(round(scale * side) for side in (top, left, bottom, right)))
    if isinstance(pair.lr, DegradedClip) and float(scale).is_integer():
        return replace(pair, gt=high, lr=DegradedClip(high, pair.lr.configured, scale))
    return replace(pair, gt=high, lr=low)


class TrainingData:
    """The training clips of a run, and the batches drawn from them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.pairs, self.counts = training_pairs(config)
        if not self.pairs:
            raise InputError("the training data contain no clips: check data.train.root, its split and list_file")
        if config.space_time and any(pair.listed is not None for pair in self.pairs):
            say("list files of training data: space-time networks train with all frames of the listed clips")
        world = distributed.world()
        if config.train.batch_size % world:
            raise InputError(
                f"config key 'train.batch_size': {config.train.batch_size} cannot be divided by {world} processes"
            )

    def fingerprint(self) -> str:
        """Changes with the clips' names, lengths, sizes, weights and (of up to `LOOKED_AT` of them) first pictures."""
        digest = hashlib.sha256()
        for pair, count in zip(self.pairs, self.counts, strict=True):
            digest.update(f"{pair.name} {len(pair)} {pair.lr.size} {pair.gt and pair.gt.size} {count}\n".encode())
        for pair in self.pairs[:: -(-len(self.pairs) // LOOKED_AT)]:
            if pair.gt is not None:
                digest.update(self._first_picture(pair.gt))
        return digest.hexdigest()[:16]

    def _first_picture(self, clip: Clip) -> bytes | memoryview:
        """The values of a clip's first picture; a fixed text if it cannot be read and such samples are skipped."""
        try:
            return np.ascontiguousarray(clip.array(0)).data
        except (InputError, OSError):
            if self.config.data.on_error == "stop":
                raise
            return b"unreadable"

    def batches(self, start: int, samples: int) -> Iterator[dict[str, Any]]:
        """Batches of the steps from `start` to the end of the run, stage by stage; the same after a resume.

        samples: number of samples drawn before `start`.
        """
        config, data, settings = self.config, self.config.data, self.config.train
        pairs = cache_pairs(self.pairs, data.cache, data.cache_gb, CACHE)
        cuts = find_cuts(pairs, data.on_error == "skip") if config.space_time else None
        pairs, cuts = _repeated(pairs, self.counts), _repeated(cuts, self.counts) if cuts else cuts
        stages = settings.all_stages
        ends = list(accumulate(stage.steps for stage in stages))
        # All stages at once: a later one that does not fit the clips must not fail after days
        datasets = [
            build_dataset(pairs, config, stage, cuts) if start < end else None
            for stage, end in zip(stages, ends, strict=True)
        ]
        rank, world = distributed.rank(), distributed.world()
        for stage, dataset, end in zip(stages, datasets, ends, strict=True):
            begin = max(start, end - stage.steps)
            if dataset is None:
                continue
            drawn = samples + (begin - start) * settings.batch_size
            share = settings.batch_size // world
            batches = StepBatches(dataset, share, config.seed, begin, end - begin, rank, world, drawn)
            pin = torch.cuda.is_available() and config.device != "cpu" and data.workers > 0
            yield from build_loader(dataset, batches, data.workers, pin_memory=pin)


def training_pairs(config: Config) -> tuple[list[Pair], list[int]]:
    """The clips of `data.train` and of every source in `data.also`, and the weight of each."""
    pairs, counts = [], []
    for source, part in [(config.data.train, "train"), *((s, f"also[{i}]") for i, s in enumerate(config.data.also))]:
        opened = _open(config, source, part).pairs
        pairs += opened
        counts += [source.repeat] * len(opened)
    return pairs, counts


def clips_trained_on(train: Sequence[Pair], val: Sequence[Pair]) -> list[str]:
    """The names of validation clips with pixels of a measured frame that are trained on. Neighbours in windows do not count."""
    used: dict[str, set[Area]] = {}
    for pair in train:
        for frame in frames_of(pair):
            used.setdefault(frame, set()).add(area(pair.gt))
    return [
        pair.name
        for pair in val
        if any(overlap(area(pair.gt), other) for frame in frames_of(pair) for other in used.get(frame, ()))
    ]


def frames_of(pair: Pair) -> Iterator[str]:
    """File, or file and frame number, of every frame to train with or to measure."""
    if pair.gt is not None:
        yield from (os.path.abspath(pair.gt.source(index)) for index in pair.wanted())  # noqa: PTH100 -- many, no Path


def area(clip: Clip | None) -> Area:
    """Top, bottom, left and right of the clip's region in the frames of its files."""
    while isinstance(clip, Derived):
        if isinstance(clip, RegionClip):
            rows, columns = clip.region
            return rows.start, rows.stop, columns.start, columns.stop
        clip = clip.clip
    return 0, sys.maxsize, 0, sys.maxsize


def overlap(a: Area, b: Area) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _repeated(values: list[Any], counts: list[int]) -> list[Any]:
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


def find_cuts(pairs: list[Pair], skip: bool = False) -> list[list[int]]:
    """Scene cuts of every clip, cached on disk and printed, because no training sequence crosses them.

    skip: pass over frames that cannot be read (`data.on_error`).
    """
    cuts = all_scene_cuts([pair.gt for pair in pairs if pair.gt], CACHE / "cuts", skip)
    if any(cuts) and distributed.is_main():
        places = [
            f"{pair.name} before frame {pair.lr.frame_names[cut]}"
            for pair, found in zip(pairs, cuts, strict=True)
            for cut in found
        ]
        shown = "; ".join(places[:5]) + (f"; and {len(places) - 5} more" if len(places) > 5 else "")
        print(f"scene cuts, which no training sequence crosses: {shown}")
    return cuts


def build_dataset(
    pairs: list[Pair], config: Config, stage: StageConfig, cuts: list[list[int]] | None
) -> WindowDataset | SequenceDataset:
    """The training data set of a stage. cuts: scene cuts of each pair, for space-time networks."""
    data: DataConfig = config.data
    augmentation = Augmentation(data.flips, data.rotations, data.reverse_time)
    patch = stage.patch or data.patch
    if not config.space_time:
        network = config.window_network
        return WindowDataset(
            pairs,
            network.scale,
            network.frames,
            patch,
            data.padding,
            spacing=1 if isinstance(data.spacing, str) else data.spacing,
            single_frame=data.single_frame,
            augmentation=augmentation,
            on_error=data.on_error,
        )
    return SequenceDataset(
        pairs,
        stage.scales or data.scales,
        data.key_frames,
        stage.strides or data.strides,
        stage.times_per_gap or data.times_per_gap,
        patch,
        cuts,
        data.train.degradation,
        pan=data.pan,
        augmentation=augmentation,
        on_error=data.on_error,
    )
