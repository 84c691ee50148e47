"""The training loop: batch, forward, loss, backward, step; it also triggers logging, checkpoints and validation."""

import hashlib
import math
import time
from collections.abc import Iterator
from itertools import islice

import torch

from griffon_shards.support.errors import DataError
from griffon_train.config.settings import Settings
from griffon_train.data.batch import Batch
from griffon_train.data.loader import StepBatches
from griffon_train.data.rank_split import micro_steps
from griffon_train.distributed.process_group import distributed_session
from griffon_train.distributed.signals import Requests, Stopped
from griffon_train.model.loss import loss_sums
from griffon_train.training.engine import learning_rate_factor
from griffon_train.training.loss_stats import LossAccumulator
from griffon_train.training.metrics import StepFigures, first_logged
from griffon_train.training.run_state import RunState
from griffon_train.training.setup import set_up

_LEARNS_WITHIN = 50  # steps


def train(settings: Settings, requests: Requests) -> None:
    """Train from the run's latest checkpoint, or from the start, to the end.

    Args:
        settings: settings of the run.
        requests: requests to stop or save that this process receives.

    Raises:
        SettingsError: the settings contradict each other, the sets or the checkpoint; nothing was trained.
        DataError: a sample cannot be read, a loss is not finite, or a checkpoint is damaged.
        SystemExit: a rank was asked to stop; all completed steps are saved.
    """
    with distributed_session(settings.memory.device, settings.logging.stall_s, requests) as ranks:
        run = set_up(settings, ranks)
        learned = _Learned(run)
        done = run.start
        try:
            shares = run.loader(start=run.start, stop=run.steps).steps()
            requests.defer()
            run.make_up_validation()
            for step in range(run.start, run.steps):
                ranks.watchdog.now(f"in step {step}")
                if step in run.steering:
                    run.skip(step)
                else:
                    run.profile.before(step)
                    figures = one_step(run, step, shares)
                    run.profile.after(step)
                    run.report(figures)
                    learned.add(figures)
                learned.check(step)
                done = step + 1
                finish_step(run, step)
            run.finish()
        except Stopped as stopped:
            run.stop(done, stopped.number)
        finally:
            run.close()


def one_step(run: RunState, step: int, shares: Iterator[StepBatches]) -> StepFigures:
    """Take one optimizer step on one global batch; the loss is the mean over all of its target tokens."""
    began = time.perf_counter()
    optimizer, save_steps = run.settings.optimizer, run.settings.checkpointing.save_steps
    count = micro_steps(run.plan.global_batch, run.ranks.world_size, run.settings.data.micro_batch)
    share = next(shares)
    assert share.step == step, (share.step, step)
    wait_s = time.perf_counter() - began
    (targets,) = run.ranks.sums([share.targets])
    # DeepSpeed averages over ranks and micro-batches, whose numbers of targets differ: the scale undoes that.
    scale = run.ranks.world_size * count / max(targets, 1.0)
    factor = learning_rate_factor(step, run.steps, optimizer) * run.steering.ratio(step, optimizer.lr)
    run.rates.set(factor)
    _seed(run, step)
    accumulator = LossAccumulator()
    keys: list[str] = []
    batches = _Timed(share.batches)
    for batch, inputs in run.inputs.of(islice(batches, count)):
        keys += filter(None, batch.keys)
        losses_B = loss_sums(run.engine, inputs)
        run.engine.backward(losses_B.sum() * scale)
        run.engine.step()
        accumulator.add(batch, losses_B.detach())
    totals = accumulator.over(run.ranks)
    wait_s += batches.seconds
    norm = float(run.engine.get_global_grad_norm())
    if not (math.isfinite(totals.loss) and math.isfinite(norm)):
        all_keys = " ".join(key for of_rank in run.ranks.gathered(keys) for key in of_rank)
        untrained = all(earlier in run.steering for earlier in range(step))
        weights = "No step was trained before, so the model's weights may hold NaN themselves. " if untrained else ""
        raise DataError(
            f"step {step}: the loss is {totals.loss} and the gradient norm is {norm}; the batch was {all_keys}. "
            f"{weights}Nothing was saved since the last checkpoint. Inspect these samples; then rerun the same command "
            f"to resume from it with --skip-steps {step}:{step + 1}, which skips this batch, or with a lower learning "
            f"rate, such as --lr-from {max(run.start, step - step % save_steps)}={optimizer.lr / 2:g}"
        )
    order = run.plan.step(step)
    metrics = {
        "step": step,
        "loss": totals.loss,
        "lr": optimizer.lr * factor,
        "grad_norm": norm,
        "epoch": order.epoch,
        "group": order.group,
        "batch_id": totals.batch_id,
        "loss_by_task": totals.loss_by_group,
        "targets": int(targets),
        "overlong": totals.overlong,
        "without_targets": totals.without_targets,
    }
    seconds = time.perf_counter() - began
    return StepFigures(
        step=step,
        metrics=metrics,
        samples=run.plan.global_batch,
        tokens=totals.counts.tokens,
        seconds=seconds,
        wait_s=wait_s,
        **run.device_figures(totals.counts, seconds),
    )


class _Timed:
    """An iterator over micro-batches that adds up the time spent waiting for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches, self.seconds = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - asked


class _Learned:
    """Ends a run that learns nothing in its first steps, before it saves or exports untrained weights."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        lines = first_logged(run.settings.output_dir, _LEARNS_WITHIN) if run.start and run.ranks.first else []
        sums = (len(lines), *(sum(line[name] for line in lines) for name in ("targets", "overlong")))
        self._steps, self._targets, self._overlong = map(int, run.ranks.sums(sums))

    def add(self, figures: StepFigures) -> None:
        """Count a step."""
        self._steps += 1
        self._targets += figures.metrics["targets"]
        self._overlong += figures.metrics["overlong"]

    def check(self, step: int) -> None:
        """Check, after the first steps or at the end, that something was learned.

        Raises:
            DataError: no step had a target token.
        """
        if self._targets or (self._steps < _LEARNS_WITHIN and step + 1 < self._run.steps):
            return
        data = self._run.settings.data
        why = "none of these samples has an answer: inspect some with `griffon-shards show`, and freeze others"
        if self._overlong:
            samples = self._run.plan.global_batch * self._steps
            why = (
                f"{self._overlong:,} of {samples:,} samples were longer than --max-length {data.max_length} "
                f"(--overlong {data.overlong}), and an image alone takes "
                f"{self._run.engine.module.image_tokens:,} tokens; raise --max-length"
            )
        if not self._steps:
            why = "--skip-steps skips all steps; give fewer"
        raise DataError(
            f"not one token was learned in {self._steps} steps: {why}, and start over with another --output-dir"
        )


def finish_step(run: RunState, step: int) -> None:
    """Save and validate if it is due or requested. All ranks agree on that here.

    The checkpoint comes first, so that a validation that fails or is stopped loses no training.

    Raises:
        Stopped: a rank was asked to stop.
    """
    requests, done = run.ranks.requests, step + 1
    if run.ranks.first:
        requests.look(run.settings.output_dir)
    save, requests.save = requests.save, False  # a request that arrives while the ranks agree is for the next step
    (saves,) = run.ranks.highest(save)
    run.ranks.go_on()
    if saves or run.saves_after(done):
        run.save(done)
    if run.validates_after(done):
        run.validate(step)


def _seed(run: RunState, step: int) -> None:
    """Seed the generators from the step and rank, so that checkpoints need no generator state."""
    name = f"{run.settings.data.seed}:{step}:{run.ranks.rank}"
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1
    # torch.manual_seed without CUDA would queue a call and a stack trace for each device at every step.
    torch.default_generator.manual_seed(seed)
    if run.ranks.device.type == "cuda":
        torch.cuda.manual_seed(seed)
