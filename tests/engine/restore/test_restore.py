"""Restoring clips: windows, chunks, tiles, self-ensemble, running out of memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.restore import Options, restore
from engine.restore.jobs import inverse_transform, transform
from engine.restore.threads import WriteBehind, read_ahead
from errors import InputError
from tests.engine.small import moving_clip, small_mtdo, small_stno


def all_frames(network, clip, **how):
    return torch.stack(list(restore(network, clip, **how)))


@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular", "distinct"])
@pytest.mark.parametrize("frames", [None, [5, 0, 1, 2, 6]])
def test_mtdo_equals_its_windows(padding, frames):
    network, clip = small_mtdo(frames=5), moving_clip(7, 18, 22)
    restored = all_frames(network, clip, padding=padding, frames=frames)
    with torch.no_grad():
        expected = [network(clip.window(i, 5, padding)[None])[0] for i in frames or range(7)]
    torch.testing.assert_close(restored, torch.stack(expected), atol=2e-5, rtol=0)


def test_result_does_not_depend_on_the_first_frame():
    """Resumed and distributed runs rely on this."""
    network, clip = small_mtdo(), moving_clip(8, 18, 22)
    assert torch.equal(all_frames(network, clip)[3:], all_frames(network, clip, frames=range(3, 8)))
    network, options = small_stno(), Options(chunk=2, context=1)
    full = all_frames(network, clip, times=[0.5], options=options)
    assert len(full) == 15
    assert torch.equal(full[4:8], all_frames(network, clip, times=[0.5], frames=range(2, 4), options=options))
    assert torch.equal(full[12:], all_frames(network, clip, times=[0.5], frames=range(6, 8), options=options))


@pytest.mark.parametrize("times", [[0.5], [0.25, 0.75]])
def test_stno_in_one_chunk_equals_the_network(times):
    network, clip = small_stno(), moving_clip(3, 16, 24)
    restored = all_frames(network, clip, times=times, size=(40, 52))
    with torch.no_grad():
        expected = network(torch.stack([clip.frame(i) for i in range(3)])[None], times=times, size=(40, 52))[0]
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)


def test_more_context_reduces_the_error_of_chunks():
    network, clip = small_stno(), moving_clip(7, 16, 16)
    full = all_frames(network, clip, options=Options(chunk=7), size=(16, 16))
    differences = [
        (all_frames(network, clip, options=Options(chunk=3, context=context), size=(16, 16)) - full).abs().max().item()
        for context in (0, 2, 7)
    ]
    assert differences[0] > differences[1] > differences[2] and differences[2] < 1e-5


def test_key_frames_only():
    network, clip = small_stno(), moving_clip(3, 16, 24)
    pairs = all_frames(network, clip, times=[0.5])
    torch.testing.assert_close(all_frames(network, clip, times=()), pairs[::2], atol=1e-6, rtol=0)
    assert torch.equal(all_frames(network, clip, times=np.array([0.5], np.float32)), pairs)


@pytest.mark.parametrize(("build", "largest"), [(small_mtdo, 0.01), (small_stno, 0.08)])
def test_tiles_are_close_to_the_full_frame(build, largest):
    """The tolerance is wide: weights are random, and STNO's Galerkin attention depends on the complete frame."""
    network, clip = build(), moving_clip(2, 64, 144)
    full = all_frames(network, clip, size=(64, 144))
    tiled = all_frames(network, clip, options=Options(tile=96), size=(64, 144))
    difference = (tiled - full).abs()
    assert 0 < difference.max() < largest
    assert difference.mean() < largest / 5


def test_tile_is_halved_when_memory_runs_out(monkeypatch):
    network, clip, notes = small_mtdo(), moving_clip(3, 64, 160), []
    describe = type(network).encode

    def greedy(self, frames):
        if frames.shape[-1] > 100:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return describe(self, frames)

    full = all_frames(network, clip)
    monkeypatch.setattr(type(network), "encode", greedy)
    restored = all_frames(network, clip, note=notes.append)
    assert notes == ["out of memory: continuing with tiles of 80x80 LR pixels"]
    assert (restored - full).abs().max() < 0.02
    monkeypatch.setattr(type(network), "encode", lambda *_: torch.empty(1 << 60))
    with pytest.raises(InputError, match="memory is too small"):
        all_frames(network, clip, note=notes.append)


@pytest.mark.parametrize("orientation", range(8))
def test_inverse_transform_restores_the_frame(orientation):
    frames = torch.rand(2, 3, 4, 6)
    assert torch.equal(inverse_transform(transform(frames, orientation), orientation), frames)


def test_ensemble_is_the_mean_over_transformed_frames():
    network, clip = small_mtdo(), moving_clip(3, 20, 24)
    restored = all_frames(network, clip, frames=[1], options=Options(ensemble=True))
    window = clip.window(1, 3)[None]
    with torch.no_grad():
        expected = torch.stack(
            [inverse_transform(network(transform(window, orientation)), orientation) for orientation in range(8)]
        ).mean(0)
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)


def test_bf16_is_close_to_fp32():
    for network in (small_mtdo(), small_stno()):
        clip = moving_clip(4, 32, 32)
        error = all_frames(network, clip, options=Options(precision="bf16")) - all_frames(network, clip)
        assert 0 < error.abs().mean() < 0.01


def test_stno_needs_two_frames():
    with pytest.raises(InputError, match="at least 2 key frames"):
        all_frames(small_stno(), moving_clip(1, 16, 16))


def test_unknown_filters_are_refused_and_no_frames_are_nothing():
    with pytest.raises(InputError, match="'temporal_filter' is 'strong'"):
        all_frames(small_mtdo(), moving_clip(3, 16, 16), temporal_filter="strong")
    for network in (small_mtdo(), small_stno()):
        assert list(restore(network, moving_clip(3, 16, 16), frames=range(0))) == []


def test_restore_in_training_mode_needs_no_gradients():
    network = small_mtdo().train()
    assert not next(restore(network, moving_clip(3, 16, 16))).requires_grad


def test_read_ahead_keeps_order_and_passes_errors_on():
    def items():
        yield from range(20)
        raise InputError("frame 20 is broken")

    seen = []
    with pytest.raises(InputError, match="frame 20"):
        for item in read_ahead(items(), depth=3):
            seen.append(item)
    assert seen == list(range(20))
    endless = read_ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()  # its thread ends


def test_write_behind_keeps_order_and_passes_errors_on():
    written = []
    with WriteBehind(written.append, depth=2) as behind:
        for item in range(20):
            behind.put(item)
    assert written == list(range(20))

    def full(item):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), WriteBehind(full, depth=1) as behind:
        for item in range(5):
            behind.put(item)
