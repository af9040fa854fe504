"""One thread for the tests: their tensors are so small that sharing them out over cores costs more than it saves."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
