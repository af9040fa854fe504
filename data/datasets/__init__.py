"""Training samples: windows for MTDO, sequences for STNO.

The `SampleKey` of a sample determines its clip, frame, crop, flip, scale and time (`data.sampling`). Frames stay 8-bit
views until they are cropped and rotated; the training device converts them to float.
"""

from data.datasets.samples import Augmentation
from data.datasets.sequences import SequenceDataset
from data.datasets.windows import WindowDataset
from data.sampling import SampleKey, StepBatches, build_loader

__all__ = ["Augmentation", "SampleKey", "SequenceDataset", "StepBatches", "WindowDataset", "build_loader"]
