"""The published weights of STNO."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.stno.config import STNOConfig
from models.stno.network import STNO
from models.weights import load_published, published_state, renamed

# (pattern of a published name, our name), applied in this order
PUBLISHED = [
    (r"^(backward|forward)_branch\.main\.0\.", r"propagation.\1_branch.enter."),
    (r"^(backward|forward)_branch\.main\.1\.", r"propagation.\1_branch.act."),
    (r"^(backward|forward)_branch\.main\.2\.", r"propagation.\1_branch.blocks."),
    (r"^(propagation\.\w+\.blocks\.\d+)\.relu\.", r"\1.act."),
    (r"^conv00\.", "query.gather."),
    (r"^fc1\.", "query.mix."),
    (r"^fc2\.", "query.colour."),
    (r"^short_cut\.", "query.shortcut."),
    (r"^flownet\.encoder\.pyramid2\.", "operator.pyramid.levels.0."),
    (r"^flownet\.encoder\.pyramid3\.", "operator.pyramid.levels.1."),
    (r"^flownet\.encoder\.pyramid4\.", "operator.pyramid.levels.2."),
    (r"^flownet\.decoder4\.", "operator.from_eighth."),
    (r"^flownet\.decoder3\.", "operator.from_quarter."),
    (r"^flownet\.decoder2\.", "operator.from_half."),
    (r"^flownet\.reduce\.", "operator.merge."),
    (r"\.convblock\.1\.conv2\.", ".head.1.side1."),
    (r"\.convblock\.1\.conv3\.", ".head.1.conv2."),
    (r"\.convblock\.1\.conv4\.", ".head.1.side2."),
    (r"\.convblock\.1\.conv5\.", ".head.1.conv3."),
    (r"\.convblock\.1\.prelu\.", ".head.1.act."),
    (r"\.convblock\.", ".head."),
    (r"\.patch_embed\.proj\.", ".inter_frame.embed.project."),
    (r"\.patch_embed\.norm\.", ".inter_frame.embed.norm."),
    (r"\.motionformer\.attn1\.", ".inter_frame.block.attention."),
    (r"\.motionformer\.mlp\.", ".inter_frame.block.feed_forward."),
    (r"\.motionformer\.", ".inter_frame.block."),
    (r"\.attention\.q\.", ".attention.query."),
    (r"\.attention\.kv\.", ".attention.key_value."),
    (r"\.attention\.cor_embed\.", ".attention.coordinate."),
    (r"\.attention\.kln\.", ".attention.key_norm."),
    (r"\.attention\.vln\.", ".attention.value_norm."),
    (r"\.attention\.corln\.", ".attention.coordinate_norm."),
    (r"\.attention\.o_proj\.", ".attention.appearance."),
    (r"\.attention\.o_m_proj\.", ".attention.motion."),
    (r"\.feed_forward\.fc1\.", ".feed_forward.expand."),
    (r"\.feed_forward\.dwconv\.dwconv\.", ".feed_forward.depthwise."),
    (r"\.feed_forward\.fc2\.", ".feed_forward.reduce."),
]
# First components of names that only STNO's weights have
MARKS = frozenset({"flownet", "forward_branch", "backward_branch"})


def stno_official(state: Mapping[str, Tensor]) -> STNO:
    """STNO of the paper's size with published weights, in eval mode. Raises `InputError` if they do not fit it."""
    with torch.device("meta"):
        expected = STNO(STNOConfig()).state_dict()
    state = renamed(published_state(state, "STNO"), PUBLISHED)
    return load_published(state, expected, lambda: STNO(STNOConfig()), "STNO")
