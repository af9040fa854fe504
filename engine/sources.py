"""From the config's `data` group to clips and training batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data.clips import CropClip, SubClip
from data.datasets import SequenceDataset, WindowDataset, build_loader
from data.layouts import Layout, Pair, open_layout
from data.simulate import simulated_layout
from engine import distributed
from engine.config import Config, SourceConfig, StageConfig
from errors import InputError
