"""The published weights of MTDO: their names, and what their shapes say about the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from models.mtdo.config import MTDOConfig
from models.mtdo.network import MTDO
from models.official import fit, strip_module_prefix

# Our name -> published name: all are applied, in this order.
_RENAMES: list[tuple[str, str | Callable[[re.Match], str]]] = [
    (r"^shallow\.", "fea0."),
    (r"^features\.0\.", "fea_all."),
    (r"^features\.(\d+)\.", lambda match: f"res_feat_ext.{int(match[1]) - 1}."),
    (r"^macu\.", "res_feat2."),
    # MSD
    (r"^msd\.pair\.", "msd.offset_conv1."),
    (r"^msd\.scale3\.", "msd.mul_scale1."),
    (r"^msd\.scale5\.", "msd.mul_scale2."),
    (r"^msd\.scale7\.", "msd.mul_scale3."),
    (r"^msd\.merge\.", "msd.offset_conv2."),
    (r"^msd\.dcn\.", "msd.dcnpack."),
    # MTDM
    (r"^atdm\.gather\.", "A_tdm.conv1."),
    (r"^stdm\.gather\.", "S_tdm.conv1_2."),
    (r"^atdm\.", "A_tdm."),
    (r"^stdm\.", "S_tdm."),
    (r"_tdm\.difference\.", "_tdm.feat_diff."),
    (r"_tdm\.centre\.", "_tdm.feat0."),
    (r"_tdm\.refine_low\.", "_tdm.res_feat1."),
    (r"_tdm\.refine_high\.", "_tdm.res_feat2."),
    (r"^ctdm\.compress\.", "C_tdm.compress_3."),
    (r"^ctdm\.refine\.", "C_tdm.conv1."),
    # T-DROM
    (r"^routes12\.centre\.", "T_drom.feat0."),
    (r"^routes12\.enhance\.fine\.", "T_drom.conv2."),
    (r"^routes12\.enhance\.coarse\.", "T_drom.conv3."),
    (r"^routes12\.merge\.", "T_drom.conv4."),
    (r"^route3\.enhance\.fine\.", "T_drom.conv5."),
    (r"^route3\.enhance\.coarse\.", "T_drom.conv6."),
    (r"^route3\.gate\.", "T_drom.conv7."),
    (r"^route3\.fuse\.", "fus."),
    # TSA
    (r"^tsa\.embed\.", "TSA_Fusion.tAtt_1."),
    (r"^tsa\.reference\.", "TSA_Fusion.tAtt_2."),
    (r"^tsa\.fuse\.", "TSA_Fusion.fea_fusion."),
    (r"^tsa\.enter\.", "TSA_Fusion.sAtt_1."),
    (r"^tsa\.halve\.", "TSA_Fusion.sAtt_2."),
    (r"^tsa\.level_enter\.", "TSA_Fusion.sAtt_L1."),
    (r"^tsa\.level_halve\.", "TSA_Fusion.sAtt_L2."),
    (r"^tsa\.level_leave\.", "TSA_Fusion.sAtt_L3."),
    (r"^tsa\.middle\.", "TSA_Fusion.sAtt_3."),
    (r"^tsa\.rise\.", "TSA_Fusion.sAtt_4."),
    (r"^tsa\.attention\.", "TSA_Fusion.sAtt_5."),
    (r"^tsa\.shift_first\.", "TSA_Fusion.sAtt_add_1."),
    (r"^tsa\.shift_second\.", "TSA_Fusion.sAtt_add_2."),
    # HAT
    (r"^reconstruction\.groups\.(\d+)\.conv\.", r"hat.layers.\1.conv."),
    (r"^reconstruction\.groups\.(\d+)\.overlap\.(attention\.)?", r"hat.layers.\1.residual_group.overlap_attn."),
    (r"^reconstruction\.groups\.(\d+)\.", r"hat.layers.\1.residual_group."),
    (r"\.conv\.compress\.", ".conv_block.cab.0."),
    (r"\.conv\.expand\.", ".conv_block.cab.2."),
    (r"(blocks\.\d+)\.attention\.", r"\1.attn."),
    (r"\.conv\.squeeze\.", ".conv_block.cab.3.attention.1."),
    (r"\.conv\.excite\.", ".conv_block.cab.3.attention.3."),
    (r"\.table$", ".relative_position_bias_table"),
    (r"\.project\.", ".proj."),
    (r"\.norm_attention\.", ".norm1."),
    (r"\.norm_mlp\.", ".norm2."),
    (r"\.mlp\.expand\.", ".mlp.fc1."),
    (r"\.mlp\.reduce\.", ".mlp.fc2."),
    (r"^reconstruction\.norm_enter\.", "hat.patch_embed.norm."),
    (r"^reconstruction\.norm_leave\.", "hat.norm."),
    (r"^reconstruction\.enter\.", "hat.conv_first."),
    (r"^reconstruction\.after_body\.", "hat.conv_after_body."),
    (r"^reconstruction\.leave\.", "hat.conv_before_upsample.0."),
    (r"^reconstruction\.upsample\.", "hat.upsample."),
    (r"^reconstruction\.last\.", "hat.conv_last."),
]
_INDEX_BUFFER = re.compile(r"(^|\.)relative_position_index(_SA|_OCA)?$")
_SCALE_OF_UPSAMPLER = {(256, None, None): 2, (576, None, None): 3, (256, 256, None): 4, (256, 256, 256): 8}


def official_name(name: str) -> str:
    """The published name of one of our parameters."""
    for ours, theirs in _RENAMES:
        name = re.sub(ours, theirs, name, count=1)
    return name


def mtdo_official(state: Mapping[str, Tensor]) -> MTDO:
    """An MTDO with published weights, in eval mode: `ctdm: as_shipped`, `residual: none`, frames and scale from shapes.

    A `module.` prefix and index buffers are ignored. Raises InputError with what is missing, unexpected or of another
    shape when the weights are not MTDO's.
    """
    state = {key: value for key, value in strip_module_prefix(state).items() if not _INDEX_BUFFER.search(key)}
    config = MTDOConfig(frames=_frames(state), scale=_scale(state), ctdm="as_shipped")
    with torch.device("meta"):  # shapes without memory: the file may claim any size
        network = MTDO(config)
    names = {name: official_name(name) for name in network.state_dict()}
    shapes = {names[name]: value.shape for name, value in network.state_dict().items()}
    fit(state, shapes, "published MTDO")
    network = MTDO(config)
    network.load_state_dict({name: state[official] for name, official in names.items()})
    return network.eval()


def _outputs(state: Mapping[str, Tensor], key: str, axis: int = 0) -> int | None:
    return state[key].shape[axis] if key in state and state[key].dim() > axis else None


def _frames(state: Mapping[str, Tensor]) -> int:
    """From the fusion after route 3: 64N -> 64. What cannot be read counts as the paper's; `fit` complains later."""
    frames = (_outputs(state, "fus.weight", 1) or 0) // 64
    return frames if frames >= 3 and frames % 2 else MTDOConfig.frames


def _scale(state: Mapping[str, Tensor]) -> int:
    steps = tuple(_outputs(state, f"hat.upsample.{layer}.weight") for layer in (0, 2, 4))
    return _SCALE_OF_UPSAMPLER.get(steps, MTDOConfig.scale)
