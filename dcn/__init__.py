"""Modulated deformable convolution (DCNv2): one operator with several implementations.

`deform_conv2d` is the operator, `DCNv2Pack` the layer. `backends()` lists the implementations that work here, best
first; `set_backend` or the environment variable DCN_BACKEND force one. `plain.deform_conv2d` implements the operator with
standard PyTorch operators, for export. The import builds and loads nothing; `ensure_built()` builds the compiled kernels if
a compiler is available. `attention.window_attention` (attention of HAT), `query.render` (query of STNO) and
`motion.add_moved` (temporal filter) are compiled operators for inference on CPUs.
"""

from __future__ import annotations

from dcn import attention, motion, plain, query
from dcn.choice import backends, deform_conv2d, set_backend
from dcn.compiled import ensure_built
from dcn.module import DCNv2Pack

__all__ = [
    "DCNv2Pack",
    "attention",
    "backends",
    "deform_conv2d",
    "ensure_built",
    "motion",
    "plain",
    "query",
    "set_backend",
]
