import numpy as np
import pytest
import torch

from data.degrade import Degradation, imresize
from errors import InputError
from tests.parity import fixture, max_difference

CORE = fixture("imresize_core")
BYTES = fixture("imresize_core_uint8")


def sizes_in(name: str) -> tuple[int, int]:
    height, width = name.rsplit("_", 1)[1].split("x")
    return int(height), int(width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [key for key in CORE if key.startswith("out_sizes")])
def test_imresize_to_a_size_equals_the_fixture(name, dtype):
    out = imresize(CORE["in_x"].to(dtype), size=sizes_in(name))
    assert out.dtype == dtype
    assert max_difference(out, CORE[name]) < 1e-5


@pytest.mark.parametrize("name", [key for key in CORE if key.startswith("out_scale")])
def test_imresize_by_a_scale_equals_the_fixture(name):
    assert max_difference(imresize(CORE["in_x"], scale=float(name.rsplit("_", 1)[1])), CORE[name]) < 1e-5


@pytest.mark.parametrize("name", [key for key in BYTES if key.startswith("out_")])
def test_imresize_of_bytes_rounds_and_clamps_once(name):
    assert torch.equal(imresize(BYTES["in_x"], size=sizes_in(name)), BYTES[name])


def slow_imresize_1d(row: np.ndarray, out: int, scale: float) -> np.ndarray:
    """imresize by its definition, one output pixel at a time."""

    def kernel(d):
        d = abs(d)
        return 1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d <= 2 else 0.0

    shrink, length, result = min(scale, 1), len(row), []
    for i in range(out):
        centre = (i + 0.5) / scale - 0.5
        total = value = 0.0
        for j in range(-4 * length, 5 * length):
            weight = kernel((centre - j) * shrink)
            k = j % (2 * length)
            value, total = value + weight * row[min(k, 2 * length - 1 - k)], total + weight
        result.append(value / total)
    return np.array(result)


@pytest.mark.parametrize(("length", "out"), [(7, 3), (5, 23), (3, 1), (1, 4), (9, 9), (400, 333)])
def test_imresize_equals_the_definition(length, out):
    row = np.random.default_rng(length).random(length)
    got = imresize(torch.from_numpy(row)[None], size=(1, out))[0].numpy()
    np.testing.assert_allclose(got, slow_imresize_1d(row, out, out / length), atol=1e-12)


def test_imresize_takes_leading_axes_and_half_types_and_gives_gradients():
    x = torch.rand(2, 3, 4, 13, 9, requires_grad=True)
    out = imresize(x, scale=2.0)
    assert out.shape == (2, 3, 4, 26, 18)
    out.sum().backward()
    assert x.grad is not None and x.grad.abs().min() > 0
    half = imresize(x.detach().bfloat16(), scale=0.5)
    assert half.dtype == torch.bfloat16 and half.shape[-2:] == (7, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert max_difference(imresize(x, scale=2.0), out) == 0


def test_output_size_is_robust_to_rounding():
    assert imresize(torch.zeros(30, 30), scale=0.1).shape == (3, 3)
    assert imresize(torch.zeros(31, 41), scale=0.25).shape == (8, 11)


@pytest.mark.parametrize(
    "arguments", [{}, {"scale": 2.0, "size": (2, 2)}, {"scale": 0.0}, {"scale": float("nan")}, {"size": (0, 2)}]
)
def test_imresize_refuses_invalid_arguments(arguments):
    with pytest.raises(InputError):
        imresize(torch.zeros(4, 4), **arguments)


def test_blur_down_equals_a_direct_convolution():
    frame = torch.rand(3, 24, 32, dtype=torch.float64)
    taps = torch.exp(-((torch.arange(13, dtype=torch.float64) - 6) ** 2) / (2 * 1.6**2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = torch.nn.functional.pad(frame[None], (6, 6, 6, 6), mode="reflect")[0]
    blurred = torch.nn.functional.conv2d(padded[:, None], kernel[None, None])[:, 0]
    got = Degradation("blur-down", bits=0)(frame, 4)
    assert max_difference(got, blurred[:, ::4, ::4]) < 1e-12


def test_mtf_is_the_response_at_nyquist():
    """A cosine at the LR Nyquist frequency, sampled at the LR pixel centres, keeps the share `mtf` of its amplitude."""
    scale, mtf, x = 4, 0.3, torch.arange(256, dtype=torch.float64)
    wave = 0.5 + 0.4 * torch.cos(torch.pi / scale * (x - (scale - 1) / 2))  # maximum at the centre of LR pixel 0
    out = Degradation("mtf", mtf=mtf, bits=0)(wave.expand(1, 8, 256), scale)[0, 0]
    amplitude = (out[20:40:2] - out[21:40:2]) / 2
    assert torch.allclose(amplitude, torch.full_like(amplitude, 0.4 * mtf), atol=2e-4)


def test_noise_depends_on_seed_clip_and_frame_only():
    frame = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    degrade = Degradation(noise=4.0, seed=3)
    first = degrade(frame, 2, name="a", index=5)
    assert first.dtype == torch.uint8
    assert torch.equal(first, degrade(frame, 2, name="a", index=5))
    for other in (
        degrade(frame, 2, name="a", index=6),
        degrade(frame, 2, name="b", index=5),
        Degradation(noise=4.0)(frame, 2, name="a", index=5),
    ):
        assert not torch.equal(first, other)
    assert abs(first.double().std().item() - 4) < 0.2


def test_jpeg_and_rounding():
    frame = torch.rand(3, 32, 32)
    rounded = Degradation()(frame, 4)
    assert torch.equal((rounded * 255).round() / 255, rounded)
    assert rounded.shape == (3, 8, 8)
    assert not torch.equal(Degradation(bits=0)(frame, 4), rounded)
    strong, light = Degradation(jpeg=10)(frame, 4), Degradation(jpeg=98)(frame, 4)
    assert (strong - rounded).abs().mean() > (light - rounded).abs().mean() > 0
    deep = Degradation(bits=16)((frame * 255).round().to(torch.uint8), 4)
    assert deep.dtype == torch.float32 and not torch.equal((deep * 255).round() / 255, deep)


@pytest.mark.parametrize(
    "fields",
    [{"kind": "nearest"}, {"sigma": 0}, {"mtf": 1.0}, {"noise": -1}, {"jpeg": 0}, {"bits": 9}, {"jpeg": 50, "bits": 0}],
)
def test_bad_fields_are_named(fields):
    with pytest.raises(InputError, match="degradation"):
        Degradation(**fields)


def test_blur_down_needs_an_integer_scale():
    with pytest.raises(InputError, match="integer"):
        Degradation("blur-down")(torch.zeros(3, 30, 30), 2.5)
