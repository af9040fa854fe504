"""Evaluate MTDO on satellite test clips: python eval.py --weight FILE --datapath FOLDER."""

from __future__ import annotations

import cli
from engine.compare.options import add_arguments, check_unused
from engine.evaluate.options import evaluation_parser

EXAMPLE = """  python eval.py                                                     the small released weights on simulated clips
  python eval.py --weight runs/mtdo_s/weights.safetensors --datapath Jilin-189 --split test --list Jilin_test_5.txt
  python eval.py --results ours=runs/eval/frames other=OTHER --datapath Vid4    compare frames: needs no network
  python eval.py --weight published.pth --datapath Jilin-189 --split test --protocol paper_mtdo data.padding=replicate"""


def main() -> None:
    arguments = evaluation_parser("Evaluate MTDO weights on clips with ground truth.", EXAMPLE, "runs/eval")
    add_arguments(arguments)
    options = cli.parse(arguments)
    cli.keep_working_without_output()
    if options.results:
        from engine.compare.run import compare  # importing torch is slow: only for valid arguments

        compare(options)
    else:
        check_unused(options)
        from engine.evaluate import scripts

        scripts.evaluate_and_report(options, space_time=False)


if __name__ == "__main__":
    cli.run(main)
