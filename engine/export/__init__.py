"""Export a network to ONNX (`python -m engine.export`)."""

from engine.export.to_onnx import export

__all__ = ["export"]
