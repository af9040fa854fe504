"""Simulated scenes as clips and layouts, rendered on first access."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data import samples
from data.clips import Clip, CroppedClip, DegradedClip, image_files
from data.degrade import Degradation
from data.layouts import Box, Layout, Pair
from data.media import IMAGE_SUFFIXES, read_image, rgb
from data.simulate.scene import SPLITS, Scene
from data.simulate.settings import SimulatorSettings, settings_from
from errors import InputError

KEPT_CLIPS = 64  # rendered clips that a process keeps; for more clips use the frame cache (data.cache: ram)


class SimulatedClip(Clip):
    """One clip of simulated satellite video, rendered when its first frame is read.

    `scene` has the ground truth: flow (`scene.flow(start, end)`) and frames at intermediate times (`scene.frame(time)`).
    """

    def __init__(self, still: Path, settings: SimulatorSettings, split: str, index: int) -> None:
        self.still, self.settings, self.split, self.index = still, settings, split, index
        self.name = f"{still.stem}_{index:04d}"
        self.fps = settings.fps
        self.frame_names = [f"{number:08d}" for number in range(settings.frames)]
        self.times = [number / settings.fps for number in range(settings.frames)]

    @property
    def size(self) -> tuple[int, int]:
        return self.settings.size

    @property
    def bit_depth(self) -> int:
        return self.settings.sensor.bits

    @property
    def channels(self) -> int:
        return 3

    def array(self, index: int) -> np.ndarray:
        return self._rendered[0][self.check_index(index)]

    @property
    def computed_together(self) -> bool:
        return True

    @property
    def boxes(self) -> Sequence[list[Box]]:
        """Moving objects of every frame; renders the clip on first access."""
        return _Boxes(self)

    @property
    def scene(self) -> Scene:
        region = light(split_region(load_still(self.still), self.split, self.settings.test_share, self.still))
        return Scene(region, self.settings, self.split, self.index)

    def source(self, index: int) -> str:
        return f"simulated clip {self.name} ({self.split}, seed {self.settings.seed}) frame {self.frame_names[index]}"

    def identity(self, index: int) -> str:
        key = (
            f"{self.still.resolve()} {self.still.stat().st_mtime_ns} {self.settings} {self.split} {self.index} {index}"
        )
        return hashlib.sha256(key.encode()).hexdigest()

    @property
    def _rendered(self) -> tuple[np.ndarray, list[list[Box]]]:
        return _render(self.still, self.still.stat().st_mtime_ns, self.settings, self.split, self.index)


@lru_cache(maxsize=KEPT_CLIPS)
def _render(
    still: Path, changed: int, settings: SimulatorSettings, split: str, index: int
) -> tuple[np.ndarray, list[list[Box]]]:
    """All frames (T, H, W, 3) and boxes of a clip; `changed`, the still's modification time, is part of the cache key."""
    scene = SimulatedClip(still, settings, split, index).scene
    frames, boxes = [], []
    for number in range(settings.frames):
        view = scene.view(number)
        frames.append(scene.frame(number, view))
        boxes.append([Box(box.track, box.x, box.y, box.w, box.h, box.label) for box in scene.boxes(number, view)])
    stacked = np.stack(frames)
    stacked.flags.writeable = False
    return stacked, boxes


class _Boxes(Sequence):
    """The boxes of a clip per frame; the clip is rendered when they are read."""

    def __init__(self, clip: SimulatedClip) -> None:
        self.clip = clip

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, index):
        return self.clip._rendered[1][index]

    def __iter__(self) -> Iterator[list[Box]]:
        return iter(self.clip._rendered[1])


def simulate(
    stills: Sequence[str | Path] | None = None,
    settings: SimulatorSettings | Mapping[str, Any] | None = None,
    split: str = "train",
) -> list[SimulatedClip]:
    """Clips of satellite video simulated from stills; rendered when they are read.

    Args:
        stills: image files or folders of them; None: those of the settings, else those of data/samples.
        settings: `SimulatorSettings` or a mapping of its keys.
        split: "train" or "test", which use different parts of every still and different random numbers.

    Clip i uses still i modulo their number. The same settings give the same bytes in any process.
    """
    settings = settings_from(settings)
    if split not in SPLITS:
        raise InputError(f"simulated clips have no split '{split}': expected {' or '.join(SPLITS)}")
    files = find_stills(settings.stills if stills is None else stills)
    return [SimulatedClip(files[index % len(files)], settings, split, index) for index in range(settings.clips)]


def simulated_layout(
    settings: SimulatorSettings | Mapping[str, Any] | None = None,
    split: str | None = "train",
    *,
    scale: float = 4,
    degradation: Degradation | None = None,
) -> Layout:
    """Simulated clips as pairs of ground truth and low resolution, with the boxes of all moving objects.

    Low resolution is made from the noisy ground truth, as for real clips.
    """
    settings = settings_from(settings)
    split = split or "train"
    pairs = []
    for clip in simulate(None, settings, split):
        gt: Clip = CroppedClip(clip, int(scale)) if float(scale).is_integer() and scale > 1 else clip
        lr = DegradedClip(gt, degradation or Degradation(), scale)
        pairs.append(Pair(clip.name, gt, lr, clip.boxes))
    reason = f"{len(pairs)} clips simulated from stills, split {split}, seed {settings.seed}"
    return Layout("simulated", Path("simulated"), reason, pairs, scale)


def find_stills(places: Sequence[str | Path]) -> list[Path]:
    """The image files in `places` (files or folders); the repository's samples if `places` is empty."""
    if not places:
        return samples.stills()
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = image_files(place)
            if not inside:
                raise InputError(f"{place}: holds no image; expected stills ({', '.join(sorted(IMAGE_SUFFIXES))})")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(f"{place}: no such file or folder; simulate.stills names images or folders of them")
    return found


def load_still(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, or float32 in [0, 1] for deeper images, whose 0.2 and 99.8 percentiles become 0 and 1."""
    return _decoded(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _decoded(path: Path, changed: int) -> np.ndarray:
    array = rgb(read_image(path))
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float32)
    low, high = np.percentile(values[::4, ::4], [0.2, 99.8])
    return np.ascontiguousarray(np.clip((values - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32)


def split_region(still: np.ndarray, split: str, test_share: float, path: Path) -> np.ndarray:
    """The part of a still that belongs to a split; the far `test_share` of its longer side is "test"."""
    height, width = still.shape[:2]
    long = max(height, width)
    border = long - round(long * test_share)
    chosen = slice(0, border) if split == "train" else slice(border, long)
    region = still[:, chosen] if width >= height else still[chosen]
    if min(region.shape[:2]) < 32:
        raise InputError(
            f"{path}: split '{split}' has {region.shape[1]}x{region.shape[0]} pixels of it at test_share {test_share}: "
            "at least 32x32 are needed; change test_share or take a larger still"
        )
    return region


def light(region: np.ndarray) -> np.ndarray:
    """Stored values as float32 in [0, 1]."""
    return region.astype(np.float32) / 255 if region.dtype == np.uint8 else region
