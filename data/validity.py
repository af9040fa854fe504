"""Missing values of rasters: fill them before restoration, and keep valid values different from nodata.

Arrays are (bands, rows, columns) in the file's own type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FILLS = (-999, -9999, -99999, -32767, -32768, -2147483648)  # usual marks of missing values
HUGE = 1e20  # beyond any measured value


def filled(values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Replace every missing value of (bands, rows, columns) by the nearest valid one of its band, so that the network sees
    no artificial edges. A band without valid values becomes 0.
    """
    if valid is None:
        return values
    from scipy.ndimage import distance_transform_edt  # installed with scikit-image

    result = np.where(valid, values, values.dtype.type(0))
    for band, there in enumerate(valid):
        if there.any() and not there.all():
            nearest = distance_transform_edt(~there, return_distances=False, return_indices=True)
            result[band] = values[band][tuple(nearest)]
    return result


def undeclared_fill(values: np.ndarray, valid: np.ndarray | None) -> float | None:
    """The value by which programs mark missing values (-9999, the smallest float, ...), if `values` hold one that is apart from
    all others; None if there is none. valid: where values are measured by what the file declares; None: everywhere.
    """
    if values.dtype.kind not in "if":
        return None
    known = values if valid is None else values[valid]
    known = known[np.isfinite(known)] if values.dtype.kind == "f" else known
    for fill in (known.min(), known.max()) if known.size else ():
        rest = known[known != fill]
        if (float(fill) in FILLS or abs(float(fill)) >= HUGE) and rest.size:
            low, high = float(rest.min()), float(rest.max())
            if min(abs(float(fill) - low), abs(float(fill) - high)) > high - low:
                return fill.item()
    return None


def without_fill(values: np.ndarray, valid: np.ndarray | None, fill: float | None) -> np.ndarray | None:
    """`valid` without the places of a value of `undeclared_fill`; None: every value is measured."""
    if fill is None or not (hole := values == fill).any():
        return valid
    return ~hole if valid is None else valid & ~hole


def fill_note(name: str, fill: float) -> str:
    """A message on a value of `undeclared_fill`."""
    return (
        f"'{name}': values of {fill:g}, far from all others, are taken for missing ones (to declare them: gdal_edit.py -a_nodata "
        f"{fill:.17g})"
    )


def nearest(length: int, out: int, first: int, last: int) -> np.ndarray:
    """Source pixel of each output pixel first .. last - 1 along an axis of `length` pixels that becomes `out`."""
    return ((np.arange(first, last) + 0.5) * length / out).astype(np.int64).clip(0, length - 1)


def with_holes(large: np.ndarray, source: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W, C) restored values with the holes of `source` (h, w, C), by nearest neighbour. `valid`: where it is measured.

    A restored value that equals the value of a hole is moved by one step towards the source: it is measured.
    """
    rows = nearest(source.shape[0], large.shape[0], 0, large.shape[0])
    columns = nearest(source.shape[1], large.shape[1], 0, large.shape[1])
    there, result = valid[rows][:, columns], large.copy()
    near = source[rows][:, columns].astype(large.dtype)
    for band in range(large.shape[-1]):
        hole = source[..., band][~valid[..., band]]
        missing = float(hole[0]) if hole.size and (hole == hole[0]).all() else None
        towards = np.where(there[..., band], near[..., band], result[..., band])
        keep_apart(result[None, ..., band], [missing], towards[None])
    return np.where(there, result, near)


def keep_apart(values: np.ndarray, nodata: Sequence[int | float | None], towards: np.ndarray) -> None:
    """Replace valid values that equal nodata by the next value in the direction of `towards`, in place.

    All (bands, rows, columns); `towards` holds valid values of the source. Where these equal nodata, nothing changes.
    """
    for band, missing in enumerate(nodata):
        if missing is None or not np.isfinite(missing):
            continue
        hit = (values[band] == missing) & (towards[band] != missing)
        if not hit.any():
            continue
        if values.dtype.kind == "f":
            values[band][hit] = np.nextafter(values[band][hit], towards[band][hit])
        else:
            values[band][hit] = np.where(towards[band][hit] > missing, int(missing) + 1, int(missing) - 1)
