"""`python -m engine.export`."""

import cli
from engine.export.to_onnx import main

cli.run(main)
