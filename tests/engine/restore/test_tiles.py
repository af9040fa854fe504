"""Tiles: coverage, blending weights, smaller tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.restore import tiles


@settings(max_examples=25)
@given(
    height=st.integers(8, 250),
    width=st.integers(8, 250),
    scale=st.sampled_from([(1, 1), (2, 1), (5, 2), (14, 5), (93, 77)]),
    tile=st.integers(32, 200),
    multiple=st.sampled_from([4, 8, 16]),
    overlap=st.integers(4, 40),
)
def test_tiles_cover_the_frame_and_their_weights_add_up_to_one(height, width, scale, tile, multiple, overlap):
    out = tuple(side * scale[0] // scale[1] + 1 if scale[1] > 1 else side * scale[0] for side in (height, width))
    regions = tiles.plan((height, width), out, tile, multiple, overlap)
    canvas = tiles.Canvas(regions, out)
    blended = canvas.blend([torch.ones(1, 3, *region.out_size) for region in regions])
    assert blended.shape == (1, 3, *out)
    torch.testing.assert_close(blended, torch.ones_like(blended), atol=2e-6, rtol=0)
    for region in regions:
        for span, length, full in zip((region.y, region.x), (height, width), out, strict=True):
            assert span.start % multiple == 0
            assert span.out_start * length == span.start * full and span.out_stop * length == span.stop * full


def test_difference_between_tiles_becomes_a_gradual_transition():
    """Two tiles of different brightness: the transition takes half of the overlap, without a step at either end."""
    regions = tiles.plan((64, 160), (128, 320), 96, 16, 32)
    canvas = tiles.Canvas(regions, (128, 320))
    blended = canvas.blend([torch.full((1, 3, *region.out_size), float(k)) for k, region in enumerate(regions)])
    row = blended[0, 0, 0]
    assert row[0] == 0 and row[-1] == len(regions) - 1 > 0
    assert row.diff().min() >= 0 and row.diff().max() < 1.6 / 32  # a smoothstep over 32 output pixels rises by 1.5 / 32
    assert row.diff().diff().abs().max() < 7 / 32**2  # and its slope changes by 6 / 32^2 per pixel


def test_tile_with_enough_context_equals_the_full_frame():
    """A 9x9 blur reads 4 pixels around each pixel: with an unused border of 8 pixels the tiles agree to rounding."""
    frame = torch.rand(1, 3, 96, 150)

    def enlarge(x):
        blurred = torch.nn.functional.avg_pool2d(x, 9, 1, 4)
        return torch.nn.functional.interpolate(blurred, scale_factor=2)

    regions = tiles.plan((96, 150), (192, 300), 64, 16, 32)
    assert len(regions) > 4
    blended = tiles.Canvas(regions, (192, 300)).blend([enlarge(region.crop(frame)) for region in regions])
    torch.testing.assert_close(blended, enlarge(frame), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "out", "sides"),
    [
        ((64, 256), (64, 256), [128, 64]),
        ((256, 256), (256, 256), [128, 64]),
        ((64, 1009), (96, 1513), []),  # neither axis can be divided
        ((600, 1009), (1200, 1513), [504, 252, 126]),  # the height can
        ((1001, 1001), (1209, 1209), []),  # in multiples of 77 and 8 only
    ],
)
def test_halving_ends(size, out, sides):
    regions, found, pixels = tiles.plan(size, out, None, 8), [], size[0] * size[1]
    while smaller := tiles.halved(regions, size, out, 8):
        side, regions = smaller
        largest = max((region.y.stop - region.y.start) * (region.x.stop - region.x.start) for region in regions)
        assert largest < pixels
        found.append(side)
        pixels = largest
    assert found == sides
