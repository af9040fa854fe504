"""The published weights of MTDO, and the names of earlier releases.

HAT and TSA have the published names; the others are translated, from the published name to ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from models.mtdo.config import MTDOConfig, Scale
from models.mtdo.network import MTDO
from models.weights import load_published, published_state, renamed

# (pattern of a published name, our name), applied in this order
PUBLISHED = [
    (r"^fea0\.", "shallow."),
    (r"^fea_all\.", "features.0."),
    (r"^res_feat2\.", "macu."),
    (r"^fus\.", "route3.fuse."),
    (r"^TSA_Fusion\.", "tsa."),
    (r"^hat\.", "reconstruction."),
    (r"(\.overlap_attn)\.(?=qkv|proj|relative)", r"\1.attn."),
    # MSD
    (r"^msd\.offset_conv1\.", "msd.pair."),
    (r"^msd\.mul_scale1\.", "msd.scale3."),
    (r"^msd\.mul_scale2\.", "msd.scale5."),
    (r"^msd\.mul_scale3\.", "msd.scale7."),
    (r"^msd\.offset_conv2\.", "msd.merge."),
    (r"^msd\.dcnpack\.", "msd.dcn."),
    # MTDM
    (r"^A_tdm\.conv1\.", "atdm.gather."),
    (r"^S_tdm\.conv1_2\.", "stdm.gather."),
    (r"^A_tdm\.", "atdm."),
    (r"^S_tdm\.", "stdm."),
    (r"^([as]tdm)\.feat_diff\.", r"\1.difference."),
    (r"^([as]tdm)\.feat0\.", r"\1.centre."),
    (r"^([as]tdm)\.res_feat1\.", r"\1.refine_low."),
    (r"^([as]tdm)\.res_feat2\.", r"\1.refine_high."),
    (r"^C_tdm\.compress_3\.", "ctdm.compress."),
    (r"^C_tdm\.conv1\.", "ctdm.refine."),
    # T-DROM
    (r"^T_drom\.feat0\.", "routes12.centre."),
    (r"^T_drom\.conv2\.", "routes12.enhance.fine."),
    (r"^T_drom\.conv3\.", "routes12.enhance.coarse."),
    (r"^T_drom\.conv4\.", "routes12.merge."),
    (r"^T_drom\.conv5\.", "route3.enhance.fine."),
    (r"^T_drom\.conv6\.", "route3.enhance.coarse."),
    (r"^T_drom\.conv7\.", "route3.gate."),
]

# (pattern of a name in weights files before version 0.2, current name), applied in this order
EARLIER = [
    (r"^tsa\.embed\.", "tsa.tAtt_1."),
    (r"^tsa\.reference\.", "tsa.tAtt_2."),
    (r"^tsa\.fuse\.", "tsa.fea_fusion."),
    (r"^tsa\.enter\.", "tsa.sAtt_1."),
    (r"^tsa\.halve\.", "tsa.sAtt_2."),
    (r"^tsa\.level_enter\.", "tsa.sAtt_L1."),
    (r"^tsa\.level_halve\.", "tsa.sAtt_L2."),
    (r"^tsa\.level_leave\.", "tsa.sAtt_L3."),
    (r"^tsa\.middle\.", "tsa.sAtt_3."),
    (r"^tsa\.rise\.", "tsa.sAtt_4."),
    (r"^tsa\.attention\.", "tsa.sAtt_5."),
    (r"^tsa\.shift_first\.", "tsa.sAtt_add_1."),
    (r"^tsa\.shift_second\.", "tsa.sAtt_add_2."),
    (r"^reconstruction\.last\.", "reconstruction.conv_last."),
    (r"^reconstruction\.enter\.", "reconstruction.conv_first."),
    (r"^reconstruction\.norm_enter\.", "reconstruction.patch_embed.norm."),
    (r"^reconstruction\.norm_leave\.", "reconstruction.norm."),
    (r"^reconstruction\.after_body\.", "reconstruction.conv_after_body."),
    (r"^reconstruction\.leave\.", "reconstruction.conv_before_upsample.0."),
    (r"^(reconstruction)\.groups\.(\d+)\.blocks\.", r"\1.layers.\2.residual_group.blocks."),
    (r"^(reconstruction)\.groups\.(\d+)\.overlap\.", r"\1.layers.\2.residual_group.overlap_attn."),
    (r"^(reconstruction)\.groups\.(\d+)\.conv\.", r"\1.layers.\2.conv."),
    (r"\.conv\.compress\.", ".conv_block.cab.0."),
    (r"\.conv\.expand\.", ".conv_block.cab.2."),
    (r"\.conv\.squeeze\.", ".conv_block.cab.3.attention.1."),
    (r"\.conv\.excite\.", ".conv_block.cab.3.attention.3."),
    (r"(residual_group\..*)\.attention\.(?!\d)", r"\1.attn."),
    (r"\.norm_attention\.", ".norm1."),
    (r"\.norm_mlp\.", ".norm2."),
    (r"\.table$", ".relative_position_bias_table"),
    (r"\.project\.", ".proj."),
    (r"\.mlp\.expand\.", ".mlp.fc1."),
    (r"\.mlp\.reduce\.", ".mlp.fc2."),
]
_RESIDUAL_BLOCK = re.compile(r"^res_feat_ext\.(\d+)\.")
_INDEX_BUFFER = re.compile(r"(^|\.)relative_position_index(_SA|_OCA)?$")
# Output channels of the upsampler's convolutions -> scale: one convolution with 64 * 2^2 or 64 * 3^2, or several with 64 * 2^2.
_SCALE_OF_UPSAMPLER: dict[tuple[int | None, ...], Scale] = {
    (256, None, None): 2,
    (576, None, None): 3,
    (256, 256, None): 4,
    (256, 256, 256): 8,
}
MARKS = frozenset({"hat", "msd", "A_tdm"})  # first name components that only published MTDO weights have


def mtdo_official(state: Mapping[str, Tensor]) -> MTDO:
    """MTDO with published weights, in eval mode: `ctdm: as_shipped`, `residual: none`, frames and scale from the shapes.

    A `module.` prefix and index buffers are ignored. Raises `InputError` listing missing and unexpected tensors and other
    shapes if these are not the weights of an MTDO.
    """
    state = {key: value for key, value in published_state(state, "MTDO").items() if not _INDEX_BUFFER.search(key)}
    frames, scale = _frames(state), _scale(state)
    expected = _expected(frames, scale)
    return load_published(from_published(state), expected, lambda: MTDO(_published_config(frames, scale)), "MTDO")


def _published_config(frames: int, scale: Scale) -> MTDOConfig:
    return MTDOConfig(frames=frames, scale=scale, ctdm="as_shipped")


@lru_cache(maxsize=4)
def _expected(frames: int, scale: Scale) -> dict[str, Tensor]:
    """The published tensors as meta tensors, which use no memory: the file may claim any size."""
    with torch.device("meta"):
        return MTDO(_published_config(frames, scale)).state_dict()


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names -> ours."""
    counted = {_RESIDUAL_BLOCK.sub(lambda match: f"features.{int(match[1]) + 1}.", key): x for key, x in state.items()}
    return renamed(counted, PUBLISHED)


def from_earlier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names in weights files before version 0.2 -> current names; current names stay the same."""
    return renamed(state, EARLIER)


def _outputs(state: Mapping[str, Tensor], key: str, axis: int = 0) -> int | None:
    return state[key].shape[axis] if key in state and state[key].dim() > axis else None


def _frames(state: Mapping[str, Tensor]) -> int:
    """From the fusion after route 3: 64N -> 64. The paper's number if that fails; `mismatch` then finds the reason."""
    frames = (_outputs(state, "fus.weight", 1) or 0) // 64
    return frames if frames >= 3 and frames % 2 else MTDOConfig.frames


def _scale(state: Mapping[str, Tensor]) -> Scale:
    steps = tuple(_outputs(state, f"hat.upsample.{layer}.weight") for layer in (0, 2, 4))
    return _SCALE_OF_UPSAMPLER.get(steps, MTDOConfig.scale)
