"""Consistency, NDVI, shares of detail and doubt against values computed by hand."""

import pytest
import torch

from errors import InputError
from metrics import consistency, detail_shares, doubt, ndvi, ndvi_change


def test_constant_offset_of_a_band_is_its_bias_and_rmse():
    low = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0))
    result = consistency(low + torch.tensor([0.1, 0.0, -0.2])[:, None, None], low)
    assert result["bias"].tolist() == pytest.approx([0.1, 0, -0.2], abs=1e-6)
    assert result["rmse"].tolist() == pytest.approx([0.1, 0, 0.2], abs=1e-6)
    assert result["map"].shape == (3, 6, 7)
    with pytest.raises(InputError, match="differ in shape"):
        consistency(low, low[:, 1:])


def test_ndvi_by_hand_and_of_dark_pixels():
    bands = torch.tensor([[[300.0, 0.0]], [[100.0, 0.0]]])
    assert ndvi(bands, 0, 1).tolist() == [[0.5, 0.0]]
    changed = bands.clone()
    changed[0, 0, 0] = 100
    assert ndvi_change(changed, bands, 0, 1) == {"ndvi_bias": -0.25, "ndvi_error": 0.25}


def gray(values: list[int]) -> torch.Tensor:
    """Gray values of 0 to 255 in one row: (3, 1, n). Luma is 219 / 255 of them; the factor cancels in the shares."""
    return torch.tensor(values).float().div(255).expand(3, 1, -1)


def test_shares_of_detail_by_hand():
    bicubic, gt = gray([100] * 6), gray([150, 150, 150, 150, 100, 100])
    pred = gray([150, 130, 110, 30, 100, 160])
    assert detail_shares(pred, bicubic, gt) == {
        "restored": 0.5,
        "omitted": 0.25,
        "invented": 0.25,
        "invented_elsewhere": 0.5,
    }
    assert detail_shares(gt, bicubic, gt)["restored"] == 1
    assert detail_shares(bicubic, bicubic, gt)["omitted"] == 1
    assert detail_shares(pred, gt, gt)["restored"] is None


def test_doubt_is_the_standard_deviation_of_the_versions():
    versions = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    assert doubt(versions).tolist() == torch.full((3, 2, 2), 0.5).tolist()
