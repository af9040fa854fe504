"""Validation in the middle of a run and at its end, with the code of eval.py. The best weights are kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engine import distributed
from engine.checkpoint import save_weights
from engine.evaluate.measure import evaluate
from engine.report.tables import number
from engine.train.logger import Logger
from engine.train.run import Run
from engine.train.states import BEST

FINAL = "weights.safetensors"
LOGGED = ("psnr_y", "ssim_y", "bicubic_psnr_y", "gain_psnr_y")


def validate(run: Run, log: Logger) -> dict[str, Any]:
    """Evaluate the averaged weights on the validation clips, log pictures, and return the report."""

    def picture(clip: str, frame: str, bicubic: Tensor, ours: Tensor, gt: Tensor) -> None:
        log.picture(run.step, f"{clip}/{frame}", bicubic, ours, gt)

    with run.averaged() as network:
        report = evaluate(network, run.val, run.config, device=run.device, on_picture=picture)
        _log_report(log, run.step, report)
        gain = number(report["mean"]["gain_psnr_y"], "+.2f")
        log.say(f"step {run.step}: {report['mean']['psnr_y']:.2f} dB, {gain} dB over {report['baseline']}")
        log.flush()
        _keep_best(run, report)
    distributed.barrier()
    return report


def validate_final(run: Run) -> dict[str, Any]:
    """Write the final weights (averaged if averages are kept) and evaluate them, with the report's pictures."""
    with run.averaged() as network:
        distributed.on_main(lambda: save_weights(run.folder / FINAL, network, step=run.step))
        weights = run.folder / FINAL
        report = evaluate(network, run.val, run.config, device=run.device, folder=run.folder, weights=weights)
        _keep_best(run, report)
    log = Logger(run.folder, start=run.step, total=run.step, active=distributed.is_main(), bar=False, validating=True)
    _log_report(log, run.step, report)
    log.close()
    return report


def _keep_best(run: Run, report: dict[str, Any]) -> None:
    """Write the network's present weights as the best ones if their Y PSNR is the highest so far."""
    psnr_y = report["mean"]["psnr_y"]
    if psnr_y > run.best:
        distributed.on_main(lambda: save_weights(run.folder / BEST, run.network, step=run.step, psnr_y=psnr_y))
        run.best = psnr_y  # after the file: a signal may end the validation in between


def _log_report(log: Logger, step: int, report: dict[str, Any]) -> None:
    log.scalars(step, {f"val/{name}": report["mean"][name] for name in LOGGED if name in report["mean"]})
