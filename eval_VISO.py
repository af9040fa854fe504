"""Evaluate MTDO on VISO clips, on full frames and inside the boxes of moving objects: python eval_VISO.py --datapath VISO."""

from __future__ import annotations

import cli
from engine.evaluate.options import evaluation_parser

EXAMPLE = """  python eval_VISO.py --datapath VISO/mot                raw VISO: boxes from gt/gt.txt
  python eval_VISO.py --datapath VISO_processed --kind viso --weight runs/mtdo_s/weights.safetensors"""


def main() -> None:
    options = cli.parse(
        evaluation_parser("Evaluate MTDO weights on VISO clips with moving objects.", EXAMPLE, "runs/eval_VISO")
    )

    from engine.evaluate import scripts  # importing torch is slow: only for valid arguments

    kind = "viso" if options.datapath else "simulated"
    cli.keep_working_without_output()
    scripts.evaluate_and_report(options, space_time=False, defaults=[f"data.val.kind={kind}", "eval.detect=true"])


if __name__ == "__main__":
    cli.run(main)
