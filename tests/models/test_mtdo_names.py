"""Names of MTDO's weights: published weights load, and so do names of earlier releases."""

from __future__ import annotations

import pytest
import torch

import models
from errors import InputError
from models.mtdo.config import MTDOConfig
from models.mtdo.network import MTDO
from models.mtdo.official import from_earlier, from_published
from models.weights import mismatch
from tests.parity import seeded_state

HAT = {"embed": 8, "depths": [1, 2], "heads": 2, "window": 4, "squeeze": 4, "compress": 2}
SMALL = {"name": "mtdo", "frames": 3, "channels": 8, "deformable_groups": 2, "hat": HAT}
BLOCK = "reconstruction.layers.1.residual_group.blocks.0"
EARLIER_NAMES = {  # one name of every kind -> current name
    "tsa.embed.weight": "tsa.tAtt_1.weight",
    "tsa.level_halve.bias": "tsa.sAtt_L2.bias",
    "tsa.attention.weight": "tsa.sAtt_5.weight",
    "tsa.shift_second.weight": "tsa.sAtt_add_2.weight",
    "reconstruction.enter.weight": "reconstruction.conv_first.weight",
    "reconstruction.norm_enter.weight": "reconstruction.patch_embed.norm.weight",
    "reconstruction.groups.1.blocks.0.norm_attention.weight": f"{BLOCK}.norm1.weight",
    "reconstruction.groups.1.blocks.0.attention.table": f"{BLOCK}.attn.relative_position_bias_table",
    "reconstruction.groups.1.blocks.0.attention.project.bias": f"{BLOCK}.attn.proj.bias",
    "reconstruction.groups.1.blocks.0.conv.compress.weight": f"{BLOCK}.conv_block.cab.0.weight",
    "reconstruction.groups.1.blocks.0.conv.squeeze.weight": f"{BLOCK}.conv_block.cab.3.attention.1.weight",
    "reconstruction.groups.1.blocks.0.conv.excite.bias": f"{BLOCK}.conv_block.cab.3.attention.3.bias",
    "reconstruction.groups.1.blocks.0.norm_mlp.bias": f"{BLOCK}.norm2.bias",
    "reconstruction.groups.1.blocks.0.mlp.expand.weight": f"{BLOCK}.mlp.fc1.weight",
    "reconstruction.groups.0.overlap.attention.qkv.weight": "reconstruction.layers.0.residual_group.overlap_attn.attn.qkv.weight",
    "reconstruction.groups.0.overlap.mlp.reduce.bias": "reconstruction.layers.0.residual_group.overlap_attn.mlp.fc2.bias",
    "reconstruction.groups.0.conv.weight": "reconstruction.layers.0.conv.weight",
    "reconstruction.norm_leave.bias": "reconstruction.norm.bias",
    "reconstruction.after_body.weight": "reconstruction.conv_after_body.weight",
    "reconstruction.leave.weight": "reconstruction.conv_before_upsample.0.weight",
    "reconstruction.upsample.0.weight": "reconstruction.upsample.0.weight",
    "reconstruction.last.weight": "reconstruction.conv_last.weight",
    "ctdm.compress.conv.weight": "ctdm.compress.conv.weight",
}  # fmt: skip


def test_earlier_names_are_converted() -> None:
    names = models.build(SMALL).state_dict().keys()
    for earlier, today in EARLIER_NAMES.items():
        assert list(from_earlier({earlier: torch.zeros(1)})) == [today]
        assert today in names


@pytest.mark.parametrize("changes", [{}, {"wide": True}, {"reconstruction": "residual"}, {"tsa": False}], ids=str)
def test_current_names_are_unchanged(changes: dict) -> None:
    names = list(models.build({**SMALL, **changes}).state_dict())
    assert list(from_earlier(dict.fromkeys(names, torch.zeros(1)))) == names


def test_hat_and_tsa_have_the_published_names() -> None:
    """Apart from the two modules' own names, only the nesting of the overlapping attention differs."""
    theirs = [name for name in seeded_state("mtdo") if name.startswith(("hat.", "TSA_Fusion."))]
    assert len(theirs) > 500
    for name in theirs:
        (ours,) = from_published({name: torch.zeros(1)})
        kept = ours.replace("overlap_attn.attn.", "overlap_attn.")
        assert kept == name.replace("hat.", "reconstruction.", 1).replace("TSA_Fusion.", "tsa.", 1)


def test_mismatch_is_one_line() -> None:
    a, b = torch.zeros(2), torch.zeros(3)
    assert mismatch({"x": a, "y": a}, {"x": a, "y": a}) == ""
    found = mismatch({"x": b, **{f"z{k}": a for k in range(6)}}, {"x": a, "y": a})
    assert found == "1 missing: y; 6 unexpected: z0, z1, z2, z3, and 2 more; 1 of another shape: x (3,) instead of (2,)"


def official_state(scale: int, frames: int) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        network = MTDO(MTDOConfig(scale=scale, frames=frames))
    names = {from_published({key: 0}).popitem()[0]: key for key in seeded_state("mtdo")}
    return {names[name]: torch.zeros(value.shape) for name, value in network.state_dict().items()}


def test_published_weights_of_another_scale_and_window():
    state = {"module." + key: value for key, value in official_state(3, 7).items()}
    state["module.hat.relative_position_index_SA"] = torch.zeros(256, 256, dtype=torch.long)
    network = models.load_official("mtdo", state)
    assert (network.config.scale, network.config.frames, network.config.residual) == (3, 7, "none")


def test_wrong_published_weights_are_refused():
    state = official_state(4, 5)
    del state["fus.bias"]
    state["fea0.conv.weight"] = torch.zeros(32, 3, 3, 3)
    state |= {f"extra.{number}": torch.zeros(1) for number in range(9)}
    with pytest.raises(InputError) as error:
        models.load_official("mtdo", state)
    message = str(error.value)
    assert "1 missing: route3.fuse.bias" in message and "9 unexpected: extra.0" in message and "and 5 more" in message
    assert "shallow.conv.weight (32, 3, 3, 3) instead of (64, 3, 3, 3)" in message
    assert "\n" not in message and len(message) < 500
    with pytest.raises(InputError, match="missing"):
        models.load_official("mtdo", {"other.weight": torch.zeros(3)})
    with pytest.raises(InputError, match="a mapping from names to tensors"):
        models.load_official("mtdo", {0: torch.zeros(3)})
