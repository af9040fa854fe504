"""Evaluation: restore clips, compare them with the ground truth, write the report."""

from engine.evaluate.measure import evaluate

__all__ = ["evaluate"]
