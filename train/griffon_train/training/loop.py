"""The training loop: plan, batch, forward, loss, backward, step. Everything else a run does is told from here, too."""

import hashlib
import math
import time
from collections.abc import Iterator

import torch

from griffon_shards.support.errors import DataError
from griffon_train.config.settings import Settings
from griffon_train.data.loader import StepBatches
from griffon_train.data.rank_split import micro_steps
from griffon_train.training.collate import collate
from griffon_train.training.distributed import distributed_session
from griffon_train.training.engine import learning_rate_factor
from griffon_train.training.loss import loss_sums
from griffon_train.training.loss_stats import LossAccumulator
from griffon_train.training.metrics import StepFigures, first_told
from griffon_train.training.run_state import RunState
from griffon_train.training.setup import set_up
from griffon_train.training.signals import Requests, Stopped

_LEARNS_WITHIN = 50  # steps


def train(settings: Settings, requests: Requests) -> None:
    """Train as the settings say, from the last checkpoint of the run if there is one, to the end.

    Args:
        settings: of the run.
        requests: what this process is asked for from outside.

    Raises:
        SettingsError: the settings contradict each other, the sets or the checkpoint; nothing was trained.
        DataError: a sample cannot be read, a loss is not a number, or a checkpoint is damaged.
        SystemExit: a rank was asked to stop; what was done is saved.
    """
    with distributed_session(settings.device, settings.stall_s, requests) as ranks:
        job = set_up(settings, ranks)
        learned = _Learned(job)
        done = job.start
        try:
            shares = job.loader(start=job.start, stop=job.steps).steps()
            requests.defer()
            job.make_up_validation()
            for step in range(job.start, job.steps):
                ranks.watchdog.now(f"in step {step}")
                if step in job.steering:
                    job.skip(step)
                else:
                    figures = one_step(job, step, shares)
                    job.report(figures)
                    learned.add(figures)
                learned.check(step)
                done = step + 1
                finish_step(job, step)
            job.finish()
        except Stopped as stopped:
            job.stop(done, stopped.number)
        finally:
            job.close()


def one_step(job: RunState, step: int, shares: Iterator[StepBatches]) -> StepFigures:
    """One step of the optimizer on one global batch; the loss is a mean over all of its learned tokens."""
    began = time.perf_counter()
    count = micro_steps(job.plan.global_batch, job.ranks.world_size, job.settings.micro_batch)
    share = next(shares)
    assert share.step == step, (share.step, step)
    wait_s = time.perf_counter() - began
    (targets,) = job.ranks.sums([share.targets])
    # DeepSpeed takes the mean over ranks and micro-batches, which hold unlike numbers of targets: it is undone here.
    scale = job.ranks.world_size * count / max(targets, 1.0)
    factor = learning_rate_factor(step, job.steps, job.settings) * job.steering.ratio(step, job.settings.lr)
    job.rates.set(factor)
    _seed(job, step)
    tally = LossAccumulator()
    keys: list[str] = []
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(share.batches)
        wait_s += time.perf_counter() - asked
        keys += filter(None, batch.keys)
        inputs = collate(batch, job.ranks.device, job.dtype)
        losses_B = loss_sums(job.engine, inputs)
        job.engine.backward(losses_B.sum() * scale)
        job.engine.step()
        tally.add(batch, losses_B.detach())
    whole = tally.over(job.ranks)
    norm = float(job.engine.get_global_grad_norm())
    if not (math.isfinite(whole.loss) and math.isfinite(norm)):
        of_all = " ".join(key for each in job.ranks.gathered(keys) for key in each)
        raise DataError(
            f"step {step}: the loss is {whole.loss} and the gradient's norm {norm}; the batch was {of_all}. Nothing "
            "was saved since the last checkpoint. Look at these samples; then the same command goes on from there with "
            f"--skip-steps {step}:{step + 1}, which leaves this batch out, or with a lower rate, such as "
            f"--lr-from {max(job.start, step - step % job.settings.save_steps)}={job.settings.lr / 2:g}"
        )
    order = job.plan.step(step)
    metrics = {
        "step": step,
        "loss": whole.loss,
        "lr": job.settings.lr * factor,
        "grad_norm": norm,
        "epoch": order.epoch,
        "group": order.group,
        "batch_id": whole.batch_id,
        "loss_by_task": whole.loss_by_group,
        "targets": int(targets),
        "overlong": whole.overlong,
        "without_targets": whole.without_targets,
    }
    seconds = time.perf_counter() - began
    return StepFigures(
        step=step, metrics=metrics, samples=job.plan.global_batch, tokens=whole.tokens, seconds=seconds, wait_s=wait_s
    )


class _Learned:
    """Ends a run that learns nothing in its first steps, before it saves or exports what it began with."""

    def __init__(self, job: RunState) -> None:
        self._job = job
        lines = first_told(job.settings.output_dir, _LEARNS_WITHIN) if job.start and job.ranks.first else []
        sums = (len(lines), *(sum(line[name] for line in lines) for name in ("targets", "overlong")))
        self._steps, self._targets, self._overlong = map(int, job.ranks.sums(sums))

    def add(self, figures: StepFigures) -> None:
        """Count a step."""
        self._steps += 1
        self._targets += figures.metrics["targets"]
        self._overlong += figures.metrics["overlong"]

    def check(self, step: int) -> None:
        """Look whether anything was learned, when it should have been.

        Raises:
            DataError: not one token was.
        """
        if self._targets or (self._steps < _LEARNS_WITHIN and step + 1 < self._job.steps):
            return
        settings = self._job.settings
        why = "none of these samples has an answer: look at some with `griffon-shards show`, and freeze others"
        if self._overlong:
            samples = self._job.plan.global_batch * self._steps
            why = (
                f"{self._overlong:,} of {samples:,} samples were longer than --max-length {settings.max_length} "
                f"(--overlong {settings.overlong}), and a picture alone takes "
                f"{self._job.engine.module.image_tokens:,} tokens; raise --max-length"
            )
        if not self._steps:
            why = "--skip-steps leaves all steps out; give fewer"
        raise DataError(
            f"not one token was learned in {self._steps} steps: {why}, and begin anew with another --output-dir"
        )


def finish_step(job: RunState, step: int) -> None:
    """Save and validate, where it is time to or somebody asks for it; all ranks agree on that here.

    A checkpoint comes first, so that a validation which fails, or is stopped, costs nothing but itself.

    Raises:
        Stopped: a rank was asked to stop.
    """
    settings, requests, done = job.settings, job.ranks.requests, step + 1
    if job.ranks.first:
        requests.look(settings.output_dir)
    save, requests.save = requests.save, False  # what is asked for while the ranks agree is the next step's
    (saves,) = job.ranks.highest(save)
    job.ranks.go_on()
    if saves or done % settings.save_steps == 0 or done == job.steps:
        job.save(done)
    if job.validates_after(done):
        job.validate(step)


def _seed(job: RunState, step: int) -> None:
    """A step's random draws are its own, so there is no generator's state to keep."""
    name = f"{job.settings.seed}:{step}:{job.ranks.rank}"
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1
    # Not torch.manual_seed: without CUDA it queues a call for each device, and a stack trace with it, at every step.
    torch.default_generator.manual_seed(seed)
    if job.ranks.device.type == "cuda":
        torch.cuda.manual_seed(seed)
