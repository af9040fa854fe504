"""The evaluation scripts' common part: weights and options in, report out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dcn
from data import samples
from engine import distributed
from engine.checkpoint import load_key_networks_, load_network
from engine.config import Config, config_from_mapping, read_yaml
from engine.config.inert import check_inert
from engine.distributed import say
from engine.evaluate.measure import check_clips, dark_note, evaluate, output_folders
from engine.evaluate.options import KEYS, output_of, override
from engine.evaluate.output import EVALUATION, REPORTS, output_folder
from engine.released import released_for
from engine.report.files import console_table, write_report
from engine.sources import open_source
from errors import InputError
from models.base import Network
from settings import to_mapping


def prepare(
    options: argparse.Namespace, *, space_time: bool, defaults: Sequence[str] = ()
) -> tuple[Network, Config, Path]:
    """The network, the config from weights, --config and options, and the path of the weights."""
    weights = options.weight or released_for(space_time=space_time)
    model = load_network(weights, key_networks=False)
    if model.space_time != space_time:
        scripts = "test_vid4.py or test_contin.py" if model.space_time else "eval.py or eval_VISO.py"
        kind = "a space-time network" if model.space_time else "a window network"
        raise InputError(f"'{weights}' holds {model.config.name.upper()} weights, {kind}: evaluate them with {scripts}")
    mapping: dict[str, Any] = read_yaml(options.config) if options.config else {"data": {"val": {"kind": "auto"}}}
    mapping["name"] = run_name(weights)
    mapping["network"] = to_mapping(model.config)
    data = mapping.get("data") or {}
    if isinstance(data, dict):  # `config_from_mapping` refuses other types
        mapping["data"] = {**model.restore_settings, **data}
    values = {key: getattr(options, option) for option, key in KEYS.items()}
    given = [override(key, value) for key, value in values.items() if value is not None]
    save = ["eval.save_frames=true"] if options.save_frames else []
    overrides = [*defaults, *given, *save, *options.overrides]
    config = config_from_mapping(mapping, overrides)
    requested, trained = to_mapping(config.network), to_mapping(model.config)
    fixed = [key for key in trained if requested[key] != trained[key]]
    if fixed:
        raise InputError(f"network.{fixed[0]} is fixed by the weights '{weights}': leave it out, or use other weights")
    model.set_restore_settings(vars(config.data))
    load_key_networks_(model, weights)
    if not config.data.val.root and config.data.val.kind == "auto":
        kind, root = ("file", str(samples.natural("test"))) if space_time else ("simulated", "")
        config.data.val = replace(config.data.val, kind=kind, root=root)
        check_inert(config, {word.partition("=")[0] for word in overrides})  # a list file needs --datapath
    dcn.ensure_built(log=say)
    dcn.set_backend(config.dcn)
    return model, config, weights


def run_name(weights: Path) -> str:
    """Title of a report: the run's name if the weights file has one of the names that every run uses."""
    own = weights.stem in ("weights", "best", "last") and weights.resolve().parent.name
    return own or weights.stem


def inputs(options: argparse.Namespace, config: Config) -> list[Path]:
    """Files and folders that an evaluation reads, except the weights."""
    source = config.data.val
    given = [options.config, source.root, source.list_file, *source.simulate.stills]
    return [Path(name) for name in given if name]


def evaluate_and_report(
    options: argparse.Namespace, *, space_time: bool, defaults: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate weights on clips, write report and frames to one folder and print the table."""
    model, config, weights = prepare(options, space_time=space_time, defaults=defaults)
    device = distributed.choose_device(config.device)
    distributed.start(device)
    folder = output_of(options)
    layout = open_source(config, "val")
    count = len(layout.pairs)
    say(f"{count} clip{'s' if count > 1 else ''} ({layout.kind}: {layout.reason})")
    folders = output_folders(config)
    with output_folder(folder, EVALUATION, REPORTS, folders, [weights, *inputs(options, config)]):
        check_clips(layout, config)
        if note := dark_note(layout, config):
            say(note)
        report = evaluate(model, layout, config, device=device, folder=folder, weights=weights)
        finish(report, folder)
    distributed.stop()
    return report


def finish(report: dict[str, Any], folder: Path) -> None:
    """Print the table of a report, then write it, on rank 0: the table is not lost with a full disk."""
    if distributed.is_main():
        print(console_table(report))
        write_report(report, folder)
        print(f"report: {folder / 'report.md'} (also .html, .csv, .json)")
