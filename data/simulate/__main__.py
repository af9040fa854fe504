"""`python -m data.simulate --out DIR`: write simulated clips with true boxes and, on request, true flow."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import cli
from data.degrade import Degradation
from data.files import remove, replacing, temporary_path, unfinished_next_to
from data.layouts import Box
from data.locks import lock
from data.media import write_image
from data.naming import is_hidden
from data.simulate.clips import SimulatedClip, simulate
from data.simulate.settings import settings_from
from errors import InputError
from settings import apply_override

EXAMPLE = """examples:
  python -m data.simulate --out SIM                               train and test clips in the jilin layout
  python -m data.simulate --out SIM clips=8 frames=30 size=[256,384] objects.ships=3 objects.planes=1 sky.cover=[0,0.3]
  python -m data.simulate --out VISO --layout viso stills=[../photos]
  python -m data.simulate --out SIM --flow motion.rolling=0.5

Settings: data/simulate/settings.py, explained in docs/simulator.md."""
SCALE = 4
PLACES = {"train": "training_set", "test": "test_set"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return cli.exit_code(lambda: run(arguments))


def run(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser(
        description="Simulate satellite video from aerial stills.",
        epilog=EXAMPLE,
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the simulator, as in a config")
    parser.add_argument("--out", required=True, type=Path, help="new folder")
    parser.add_argument("--layout", choices=("jilin", "viso"), default="jilin", help="jilin: GT and LR; viso: raw VISO")
    parser.add_argument("--scale", type=int, help="GT pixels per LR pixel (jilin; default: 4)")
    parser.add_argument(
        "--split", choices=("train", "test", "both"), default="both", help="regions of the stills to use"
    )
    parser.add_argument("--flow", action="store_true", help="write the true flow to the next frame as .flo files")
    options = parser.parse_args(arguments)
    settings = settings_from(mapping_from(options.settings))
    scale = checked_scale(options.scale, options.layout, min(settings.size))
    splits = tuple(PLACES) if options.split == "both" else (options.split,)
    clips = [clip for split in splits for clip in simulate(None, settings, split)]

    with new_folder(options.out) as place:

        def write(clip: SimulatedClip) -> None:
            if options.layout == "viso":
                write_viso(clip, place, options.flow)
            else:
                write_jilin(clip, place, scale, options.flow)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(tqdm(pool.map(write, clips), total=len(clips), unit="clip", desc="simulate", dynamic_ncols=True))
    print(f"{options.out}: {len(clips)} clips of {settings.frames} frames {settings.size[1]}x{settings.size[0]}")
    return 0


def checked_scale(scale: int | None, layout: str, side: int) -> int:
    """The scale of LR frames. Raises InputError for one that the layout does not use or that leaves no pixels of `side`."""
    if scale is not None and layout != "jilin":
        raise InputError(f"--scale {scale}: layout {layout} has no low resolution; leave it out")
    scale = SCALE if scale is None else scale
    if not 1 <= scale <= side:
        raise InputError(f"--scale {scale}: expected an integer from 1 to {side}, the shorter side of a frame")
    return scale


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that gets the name `out` when it is complete, so that an interrupted run leaves no data set with fewer
    frames. Raises InputError if `out` exists and is not empty.
    """
    inside = out / "clips" if out.exists() else out  # an existing folder may be a mount point, which cannot be renamed
    with lock(inside):
        remove(unfinished_next_to(inside))  # of a process that was killed
        if out.exists() and (not out.is_dir() or any(not is_hidden(path.name) for path in out.iterdir())):
            raise InputError(f"{out}: exists and is not empty; choose a new folder")
        place = temporary_path(inside)
        try:
            place.mkdir()
            yield place
            for path in place.iterdir() if out.exists() else ():
                path.rename(out / path.name)
            if not out.exists():
                place.rename(out)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
        finally:
            remove([place] if place.exists() else [])


def write_jilin(clip: SimulatedClip, out: Path, scale: int, flow: bool = False) -> None:
    """OUT/{training_set, test_set}/{GT, LR4x}/CLIP/FRAME.png, boxes/CLIP.txt, flow/CLIP/FRAME.flo."""
    place = out / PLACES[clip.split]
    degradation = Degradation().for_depth(clip.bit_depth)
    height, width = (side - side % scale for side in clip.size)
    for index, name in enumerate(clip.frame_names):
        frame = clip.array(index)[:height, :width]
        low = degradation.array(frame, scale, name=clip.name, index=index)
        write_image(place / f"LR{scale}x" / clip.name / f"{name}.png", low)
        write_image(place / "GT" / clip.name / f"{name}.png", frame)
    write_boxes(place / "boxes" / f"{clip.name}.txt", clip.boxes, 0)
    if flow:
        write_flow(place / "flow" / clip.name, clip)


def write_viso(clip: SimulatedClip, out: Path, flow: bool = False) -> None:
    """OUT/mot/CLASS/SPLIT_CLIP/{img/000001.jpg, gt/gt.txt}, as raw VISO; CLASS is that of most boxes."""
    labels = Counter(box.label for boxes in clip.boxes for box in boxes)
    label = labels.most_common(1)[0][0] if labels else "car"
    place = out / "mot" / label / f"{clip.split}_{clip.name}"
    for index in range(len(clip)):
        frame = clip.array(index)
        frame = frame if frame.dtype == np.uint8 else (frame >> 8).astype(np.uint8)
        write_image(place / "img" / f"{index + 1:06d}.jpg", frame, quality=98)
    write_boxes(place / "gt" / "gt.txt", clip.boxes, 1)
    if flow:
        write_flow(place / "flow", clip)


def write_boxes(path: Path, boxes: Sequence[list[Box]], first: int) -> None:
    """Lines frame, track, x, y, w, h, class; frames are numbered from `first`."""
    lines = [
        f"{index + first},{box.track},{box.x:.3f},{box.y:.3f},{box.w:.3f},{box.h:.3f},{box.label}\n"
        for index, frame in enumerate(boxes)
        for box in frame
    ]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def write_flow(folder: Path, clip: SimulatedClip) -> None:
    """Flow from every frame to the next as Middlebury .flo: b"PIEH", width, height (int32), rows of (u, v) float32."""
    scene = clip.scene
    height, width = clip.size
    for index in range(len(clip) - 1):
        flow = scene.flow(index, index + 1).astype("<f4")
        head = b"PIEH" + np.array([width, height], "<i4").tobytes()
        with replacing(folder / f"{clip.frame_names[index]}.flo") as temporary:
            temporary.write_bytes(head + flow.tobytes())


def mapping_from(assignments: Sequence[str]) -> dict[str, Any]:
    """Nested dicts from `a.b=value` (values in YAML)."""
    mapping: dict[str, Any] = {}
    for assignment in assignments:
        apply_override(mapping, assignment)
    return mapping


if __name__ == "__main__":
    sys.exit(main())
