"""Evaluation: restore clips, compare them with the ground truth, write the report."""
