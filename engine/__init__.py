"""Everything that is the same for every network: configs, training, restoring clips, evaluation, upscaling and reports."""
