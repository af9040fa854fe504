"""The code under test and its random inputs, by name. A target either works or raises `InputError`; anything else is a fault.

A target is a function of a random generator and an empty folder, and tries one input. Inputs are valid files with changed bytes,
lines and options composed of nearly valid parts, and numbers at the limits of their ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.folders import boxes_and_lists
from tests.fuzz.pictures import geotiff_tags, images, videos
from tests.fuzz.settings import config_files, extremes, overrides, upscale_options
from tests.fuzz.weights import pth, safetensors

Target = Callable[[Random, Path], None]
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
