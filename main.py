"""Train a network: python main.py [--config FILE] [key.sub=value ...]."""

from __future__ import annotations

import argparse

import cli

EXAMPLE = """  python main.py                                                        the demo: needs no data, takes minutes
  python main.py --config configs/mtdo_s.yaml data.train.root=DATA data.val.root=DATA
  python main.py --cost 320x180 configs/mtdo_s.yaml configs/stno_s.yaml
  python main.py --resume runs/mtdo_s                                   resume an interrupted run exactly"""


def arguments() -> argparse.ArgumentParser:
    """All options."""
    parser = cli.parser("Train MTDO or STNO from a config file and print the report.", EXAMPLE)
    parser.add_argument("--config", type=cli.filled, help="experiment file (default: configs/mtdo_demo.yaml)")
    parser.add_argument("--resume", metavar="RUN", type=cli.filled, help="folder or state file of an interrupted run")
    parser.add_argument(
        "--accept-changes", action="store_true", help="resume even if the data, the seed or the optimizer have changed"
    )
    parser.add_argument(
        "--keys", action="store_true", help="print every key of a config with type, default and meaning"
    )
    parser.add_argument(
        "--cost", metavar="WxH", help="print parameters, GMAC, seconds and memory of configs for LR frames of this size"
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="bit-identical results in every run, also on GPUs; slower (train.deterministic=true)",
    )
    return parser


def main() -> int:
    options = cli.parse(arguments())
    if options.deterministic:
        options.overrides.append("train.deterministic=true")
    if options.cost:
        from engine.compare.cost import report_cost  # importing torch is slow: only for valid arguments

        report_cost(options.cost, options.config, options.overrides)
        return 0
    if options.keys:
        from engine.config import keys

        print(keys.table())
        return 0

    from engine.train import runs

    cli.keep_working_without_output()
    try:
        runs.train_and_report(options.config, options.overrides, options.resume, options.accept_changes)
    except runs.Interrupted as stop:
        cli.complain(f"{stop}" if stop.code > 128 else f"error: {stop}", cause=False)
        return stop.code
    return 0


if __name__ == "__main__":
    cli.run(main)
