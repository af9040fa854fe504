"""Evaluate MTDO on satellite test clips: python eval.py --weight FILE --datapath FOLDER."""

from __future__ import annotations

import cli

EXAMPLE = """  python eval.py                                                     the small released weights on simulated clips
  python eval.py --weight runs/mtdo_s/weights.safetensors --datapath Jilin-189 --split test --list Jilin_test_5.txt
  python eval.py --weight published.pth --datapath Jilin-189 --split test --protocol paper_mtdo data.padding=replicate"""


def main() -> None:
    from engine.evaluate import scripts as testing

    options = cli.parse(testing.parser("Evaluate MTDO weights on clips with ground truth.", EXAMPLE, "runs/eval"))
    testing.evaluate_and_report(options, "mtdo")


if __name__ == "__main__":
    cli.run(main)
