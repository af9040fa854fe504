"""The training loop, common to all networks.

A step is a pure function of (weights, optimizer moments, seed, step number, samples drawn): batches, augmentation, drop path and
learning rate all derive from the seed and these numbers. So a state file needs no generators or positions of readers, only
tensors and numbers (`Run._header`), and a resumed run gives the same result as an uninterrupted one.

A trainer is a `Run` (its parts and their state on disk) with `Updates` (optimizer steps that are checked and undone) and the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import dcn
from data.files import remove_unfinished, replacing
from engine import distributed
from engine.config import Config, dump_yaml
from engine.distributed import say
from engine.evaluate.measure import check_clips
from engine.restore.precision import precision_of_products
from engine.train.ahead import on_device
from engine.train.deterministic import deterministic
from engine.train.logger import Logger
from engine.train.optim import learning_rate
from engine.train.stops import Interrupted, explained, is_gpu_failure, resume_command
from engine.train.updates import Diverged, Updates
from engine.train.validation import validate, validate_final
from errors import InputError


def train(config: Config, folder: Path, state: Path | None = None, accept_changes: bool = False) -> dict[str, Any]:
    """Train with `config`, write all files to `folder`, and return the report of the final evaluation.

    `state`: a state file to resume, or a run's folder, whose newest readable state is used. accept_changes: also resume with
    other data, another seed or another optimizer. Raises `InputError` for bad input and divergence, `Interrupted` for an
    early end after which the run can be resumed.
    """
    device = distributed.choose_device(config.device)
    dcn.set_backend(config.dcn)
    trainer = Trainer(config, folder, device, fresh=state is None)
    if state is not None:
        trainer.load(state, accept_changes)
    check_clips(trainer.val, config)  # not in the first validation, after hours
    trainer.fit()
    return trainer.finish()


class Trainer(Updates):
    """A run that takes all its steps, with logs, validation and states in between."""

    def fit(self) -> None:
        """Run the remaining steps. After any early end the state is saved if possible."""
        main = distributed.is_main()
        if main:
            self._prepare_folder()
        again = self.validating and self._validation_due()  # the run was interrupted before or within this validation
        self.log = Logger(self.folder, start=self.step, total=self.config.train.steps, active=main, validating=again)
        # Handle signals until the state is saved: torchrun terminates the other ranks as soon as one dies.
        with self.signals.watch(), self.arithmetic():
            try:
                if again:
                    self._validate()
                for batch in self._batches():
                    self._step(batch)
                    if self._caught():
                        raise Interrupted("interrupted", self.signals.code)
                self.save()  # of a run without steps left that was killed between the last state and its renaming
            except Diverged:
                raise
            except (Exception, Interrupted) as error:
                raise self._stopped(error) from error
            finally:
                self.log.close()

    def _prepare_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        with replacing(self.folder / "config.yaml") as temporary:
            temporary.write_text(dump_yaml(self.config), encoding="utf-8")

    def _batches(self) -> Iterator[dict[str, Any]]:
        """The batches of the remaining steps. Signals may interrupt the preparation of the first, which fills caches."""
        batches = on_device(self.data.batches(self.step, self.samples), self.device)
        with self.signals.raising():
            first = next(batches, None)
        return chain([] if first is None else [first], batches)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Set the precision of products and the determinism of the config."""
        train = self.config.train
        with precision_of_products(train.precision, self.device), deterministic(train.deterministic):
            yield

    # --- one step -------------------------------------------------------------------------------------------------

    def _step(self, batch: dict[str, Any]) -> None:
        config = self.config.train
        self._count_unread(batch)
        self.update(batch)
        self.step += 1
        self.validating = self._validation_due()
        last = self.step == config.steps
        if last or any(map(self._due, (config.log_every, config.val_every, config.save_every))):
            self.settle()
        self.log.advance(loss=f"{sum(self.latest[0].values()):.4f}")
        if last or self._due(config.log_every):
            self._log()
        if self.validating:
            self._validate()
        if last or (self._due(config.save_every) and self._is_good()):
            self.log.flush()  # a resumed run does not log these steps again
            self.save()

    def _validation_due(self) -> bool:
        """Whether this step is followed by a validation; the last one is followed by the final evaluation."""
        return self._due(self.config.train.val_every) and self.step < self.config.train.steps

    def _validate(self) -> None:
        with self.signals.raising():
            validate(self, self.log)
        self.validating = False

    def _is_good(self) -> bool:
        """Whether the present state may replace a good one on disk."""
        if self.guard.far_off(self.usual_loss):
            self.log.say(
                f"step {self.step} is not saved: its loss of {self.usual_loss:.3g} is far above the running median"
            )
            return False
        return self.unusual is None

    def _due(self, every: int) -> bool:
        """Whether this step ends a period of `every` steps; 0: never."""
        return every > 0 and self.step % every == 0

    def _log(self) -> None:
        losses, norm = self.latest
        terms = {f"loss/{name}": value for name, value in losses.items()}
        rate = learning_rate(self.step - 1, self.config.train)
        unread = {"skipped_samples": float(self.unread)} if self.unread else {}
        self.log.scalars(self.step, {**terms, "learning_rate": rate, "gradient_norm": norm, **unread})

    def _count_unread(self, batch: dict[str, Any]) -> None:
        for reason in filter(None, batch.get("skipped", [])):
            self.unread += 1
            if self.unread <= 5:
                self.log.say(f"skipped sample {self.unread}: {reason}")

    # --- the end --------------------------------------------------------------------------------------------------

    def _caught(self) -> bool:
        """Whether a signal reached any rank. With enqueued steps, signals of other ranks arrive with the norms of the previous step."""
        if self.ahead:
            return bool(self.signals.caught) and distributed.world() == 1
        return distributed.any_rank(bool(self.signals.caught), self.device)

    def _stopped(self, error: Exception | Interrupted) -> Exception | Interrupted:
        """Save the state if possible, and return the exception with the reason of the end and the way to resume."""
        self.signals.ending = True
        if isinstance(error, InputError) and self.step == self.origin[0]:
            self.undo_unfinished()
            return error  # no step was trained yet
        line = self._save_at_end(error)
        self.signals.saved = True
        known = explained(error)
        if isinstance(error, Interrupted) or self.signals.caught:
            return Interrupted(line, self.signals.code)
        if known is None:
            say(line)
            return error
        why, code = known
        return InputError(f"{why}: {line}") if isinstance(error, InputError) else Interrupted(f"{why}: {line}", code)

    def _save_at_end(self, error: BaseException) -> str:
        """Save the state if possible; returns where the newest one is and how to go on. error: it is reported anyway."""
        try:
            self.undo_unfinished()
            line = f"saved at step {self.step}"
            self.save(survivor=distributed.world() > 1)
        except (InputError, RuntimeError) as problem:
            if not (isinstance(problem, InputError) or is_gpu_failure(problem)):
                raise
            known = str(problem) == str(error) or not isinstance(problem, InputError)
            line = self.newest_on_disk("" if known else f" ({problem})")
            if self.saved is None:
                return line
        return f"{line}; continue with: {resume_command(self.folder)}"

    def finish(self) -> dict[str, Any]:
        """Write and evaluate the final weights; returns the report."""
        try:
            with self.signals.watch(), self.signals.raising():
                return validate_final(self)
        except (Interrupted, InputError) as error:
            message = f"training is done and saved; evaluate it with: {resume_command(self.folder)}"
            if isinstance(error, InputError):
                raise InputError(f"{error}: {message}") from None
            raise Interrupted(message, error.code) from None
