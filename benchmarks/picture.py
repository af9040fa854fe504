"""Make the README's pictures: python benchmarks/picture.py docs/satellite.png [--moving docs/satellite.webp] [--weight FILE].

A clip of satellite video is simulated from the `test` part of an aerial photograph of data/samples (NEON, CC0 1.0), shrunk by 4
and restored. The picture shows the frame and a zoom: bicubic, restored (with Y PSNR over the full frame) and truth. The
animation moves a divider over the clip: bicubic to its left, restored to its right.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import cli
import metrics
from data.clips import CroppedClip, DegradedClip
from data.degrade import Degradation, imresize
from data.media import to_uint8
from data.samples import HERE
from data.simulate import simulate
from engine import api
from engine.restore import restore

SCALE = 4
STILL = HERE / "stills" / "yellowstone_meadow.webp"
SETTINGS = {
    "clips": 1,
    "frames": 24,
    "size": [288, 384],
    "seed": 3,
    "ground": [2, 2],
    "motion": {"drift": [0.4, 0.4], "jitter": 0.2},
    "objects": {"vehicles": 16, "speed": [0.8, 2.0], "buildings": 0},
    "sensor": {"noise": [1.5, 1.5]},
}
BOX = (270, 180, 64, 64)  # left, top, width, height of the zoom, ground-truth pixels
SIDE = 256  # of a panel
GAP, LINE = 8, 26  # pixels between panels, for a line of text
WHITE, BLACK, MARK = (255, 255, 255), (20, 20, 20), (255, 210, 0)


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def zoomed(frame: Tensor) -> Image.Image:
    left, top, width, height = BOX
    return Image.fromarray(to_uint8(frame)[top : top + height, left : left + width]).resize((SIDE, SIDE), Image.NEAREST)


def overview(frame: Tensor) -> Image.Image:
    """The frame at the height of a panel, with the box of the zoom."""
    image = Image.fromarray(to_uint8(frame))
    ratio = SIDE / image.height
    image = image.resize((round(image.width * ratio), SIDE), Image.LANCZOS)
    left, top, width, height = (ratio * value for value in BOX)
    ImageDraw.Draw(image).rectangle((left, top, left + width, top + height), outline=MARK, width=2)
    return image


def still_picture(path: Path, low: Tensor, frames: dict[str, Tensor], truth: Tensor) -> None:
    """A labelled row of panels: the frame, and the zoom of each of `frames` and of the truth."""
    panels = [(f"input {low.shape[-1]}x{low.shape[-2]}, enlarged", overview(frames["bicubic"]))]
    for name, frame in frames.items():
        panels.append((f"{name}: {metrics.psnr(frame, truth, 'standard', SCALE).item():.2f} dB", zoomed(frame)))
    panels.append(("truth", zoomed(truth)))
    width = sum(panel.width for _, panel in panels) + GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (width, SIDE + LINE), WHITE)
    draw, x = ImageDraw.Draw(sheet), 0
    for text, panel in panels:
        sheet.paste(panel, (x, LINE))
        draw.text((x + panel.width / 2, LINE / 2), text, BLACK, font(16), anchor="mm")
        x += panel.width + GAP
    sheet.save(path, optimize=True)


def animation(path: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Play the clip once while a divider moves to the left and back: bicubic | restored."""
    images = []
    for number, (bicubic, ours) in enumerate(pairs):
        height, width = ours.shape[:2]
        at = round(width * (0.5 + 0.3 * math.sin(2 * math.pi * number / len(pairs))))
        image = Image.fromarray(np.concatenate([bicubic[:, :at], ours[:, at:]], axis=1))
        draw = ImageDraw.Draw(image)
        draw.line((at, 0, at, height), fill=WHITE, width=2)
        for text, x, anchor in (("bicubic", at - 8, "rs"), ("MTDO", at + 8, "ls")):
            draw.text((x, height - 8), text, WHITE, font(16), anchor=anchor, stroke_width=2, stroke_fill=BLACK)
        images.append(image)
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0, quality=80, method=4)


def main() -> None:
    parser = cli.Parser(description="Make the README's pictures.")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--moving", type=Path, help="animated WebP to write")
    parser.add_argument("--weight", default="mtdo_s", help="released name or file (default: mtdo_s)")
    parser.add_argument("--frame", type=int, default=12)
    options = parser.parse_args()
    truth = CroppedClip(simulate([STILL], SETTINGS, "test")[0], SCALE)
    low = DegradedClip(truth, Degradation(), SCALE)
    network = api.load_network(options.weight)
    numbers = range(len(low)) if options.moving else [options.frame]
    ours = dict(zip(numbers, (frame.clamp(0, 1) for frame in restore(network, low, frames=numbers)), strict=True))
    bicubic = {number: imresize(low.frame(number), size=truth.size).clamp(0, 1) for number in numbers}
    shown = options.frame
    frames = {"bicubic": bicubic[shown], "MTDO": ours[shown]}
    still_picture(options.out, low.frame(shown), frames, truth.frame(shown))
    if options.moving:
        animation(options.moving, [(to_uint8(bicubic[number]), to_uint8(ours[number])) for number in numbers])


if __name__ == "__main__":
    cli.run(main)
