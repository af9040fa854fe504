"""Finished rows of tiles of a scene, and the files that keep them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np

from data.files import replacing


class Row(NamedTuple):
    """A finished row of tiles of one group, (bands, rows, W): rows shared with the row above and the one below in float32,
    weighted; the other rows in the type of the result.

    Its file has three int64 row counts, then the size and the zstd data of each part.
    """

    above: np.ndarray
    own: np.ndarray
    below: np.ndarray

    def write(self, path: Path) -> None:
        header = np.array([part.shape[1] for part in self], "<i8")
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(header.tobytes())
            for part in self:
                packed = imagecodecs.zstd_encode(np.ascontiguousarray(part).tobytes(), level=1)
                file.write(np.array([len(packed)], "<i8").tobytes() + packed)

    @staticmethod
    def read(path: Path, bands: int, width: int, dtype: np.dtype) -> Row:
        """dtype: of the result. Raises any exception for a damaged file."""
        content = path.read_bytes()
        lengths, place, parts = np.frombuffer(content, "<i8", 3), 24, []
        for length, kind in zip(lengths, (np.dtype(np.float32), dtype, np.dtype(np.float32)), strict=True):
            packed = int(np.frombuffer(content, "<i8", 1, place)[0])
            values = np.frombuffer(imagecodecs.zstd_decode(content[place + 8 : place + 8 + packed]), kind)
            parts.append(values.reshape(bands, int(length), width))
            place += 8 + packed
        return Row(*parts)
