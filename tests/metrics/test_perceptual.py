"""LPIPS, FSIM and VIF against other packages, with random weights; errors for missing weights and packages."""

import importlib.util

import pytest
import torch

from errors import InputError
from metrics import Perceptual, PerceptualFlicker, perceptual, planes
from tests.metrics.optional import package

LPIPS_AND_DISTS = ("lpips", "dists")


def frames() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    gt = torch.rand(3, 72, 80, generator=generator)
    return (gt + 0.1 * torch.randn(gt.shape, generator=generator)).clamp(0, 1), gt


@pytest.fixture
def alexnet(tmp_path, monkeypatch):
    """Store an AlexNet with random weights, the network of LPIPS, where PyTorch looks for its file."""
    package("torchmetrics")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    network = alexnet(weights=None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / perceptual.ALEXNET.file)
    return network


def test_lpips_equals_the_lpips_package(alexnet):
    authors = package("lpips").LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    names = dict(zip(authors.net.state_dict(), alexnet.features.state_dict().values(), strict=True))
    authors.net.load_state_dict(names)
    pred, gt = frames()
    shown, truth = ((planes(frame, channel="rgb") / 255).float()[None] for frame in (pred, gt))
    expected = authors(shown, truth, normalize=True).item()
    assert Perceptual(["lpips"])(pred, gt)["lpips"] == pytest.approx(expected, rel=1e-6)


def test_clip_that_changes_like_the_truth_has_no_flicker(alexnet):
    pred, gt = frames()
    meter = PerceptualFlicker()
    assert meter.add({"same": gt, "frozen": gt}, gt) is None
    values = meter.add({"same": pred, "frozen": gt}, pred)
    assert values["same"] == 0
    assert values["frozen"] == pytest.approx(100 * Perceptual(["lpips"])(pred, gt)["lpips"], rel=1e-5)


def test_fsim_and_vif_equal_piq():
    piq = package("piq")
    pred, gt = frames()
    shown, truth = ((planes(frame, channel="rgb") / 255).float()[None] for frame in (pred, gt))
    values = Perceptual(["fsim", "vif"])(pred, gt)
    assert values["fsim"] == pytest.approx(piq.fsim(shown, truth).item(), rel=1e-6)
    assert values["vif"] == pytest.approx(piq.vif_p(shown, truth).item(), rel=1e-6)


@pytest.mark.parametrize("name", LPIPS_AND_DISTS)
def test_missing_weights_are_named_and_not_downloaded(name, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(InputError, match=rf"'{name}' needs '.*pth'.*checkpoints"):
        Perceptual([name])


def test_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs the package piq.*pip install"):
        Perceptual(["fsim"])
    with pytest.raises(InputError, match="unknown perceptual metric 'niqe'"):
        Perceptual(["niqe"])
