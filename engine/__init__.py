"""Code shared by all networks: configs, training, restoration of clips, evaluation, upscaling and reports."""
