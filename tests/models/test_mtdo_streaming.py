"""MTDO over a clip equals MTDO over single windows."""

from __future__ import annotations

import pytest
import torch

from errors import InputError
from tests.models.small_mtdo import assert_same, clip, small


@pytest.mark.parametrize(
    "changes", [{}, {"ctdm": "as_shipped", "frames": 7}, {"atdm": False, "residual": "bicubic"}, {"wide": True}]
)
def test_streaming_equals_forward(changes):
    network = small(**changes)
    frames, reach, length = clip(9, 1, 3, 9, 13), network.config.frames // 2, 9
    stream, loaded = network.stream(), []

    def load(index: int) -> torch.Tensor:
        loaded.append(index)
        return frames[index]

    for centre in range(length):
        indices = [abs(i) if i < length else 2 * (length - 1) - i for i in range(centre - reach, centre + reach + 1)]
        with torch.no_grad():
            full = network(torch.stack([frames[index] for index in indices], 1))
        assert_same(stream.restore(indices, load), full)
        assert set(stream._frames) == set(indices)
    assert sorted(loaded) == list(range(length))  # every frame once


def test_streaming_takes_any_window():
    network, frames = small(frames=3), clip(6, 2, 3, 8, 8)
    stream = network.stream()
    for indices in ([5, 0, 1], [0, 0, 0], [4, 2, 1], [2, 3, 4]):
        with torch.no_grad():
            full = network(torch.stack([frames[index] for index in indices], 1))
        assert_same(stream.restore(indices, lambda i: frames[i]), full)
    with pytest.raises(InputError, match="3 frames, got 5"):
        stream.restore([0, 1, 2, 3, 4], lambda i: frames[i])


def test_an_edit_of_the_temporal_differences_changes_streaming_too(monkeypatch):
    """MTDM has one definition: here the first frame of a window is compared with each of the others, in other units."""
    network, frames = small(frames=5), clip(5, 1, 3, 8, 12)
    window, encode = torch.stack(list(frames), 1), network.atdm.encode
    with torch.no_grad():
        unedited = network(window)
        monkeypatch.setattr(network.atdm, "pairs", [(0, 1), (0, 2), (0, 3), (0, 4)])
        monkeypatch.setattr(network.atdm, "encode", lambda first, second: 2 * encode(first, second))
        edited = network(window)
    assert (edited - unedited).abs().max() > 1e-5
    assert_same(network.stream().restore(range(5), lambda i: frames[i]), edited)
