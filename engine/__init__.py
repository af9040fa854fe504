"""What is the same for every network: configs, training, restoring clips, evaluation and reports."""
