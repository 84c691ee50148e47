"""How much memory a run will take on each device and machine, before anything is allocated."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from griffon_shards.support.errors import SettingsError
from griffon_train.config.deepspeed import zero_config
from griffon_train.config.settings import Settings
from griffon_train.data.rank_split import micro_steps
from griffon_train.data.shared_memory import AHEAD, needed_bytes
from griffon_train.data.source_stream import Shows
from griffon_train.model.attention import attention_of
from griffon_train.model.config import GriffonConfig
from griffon_train.model.freezing import freeze
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import add_adapters
from griffon_train.model.memory import Activations, MicroBatch, activations, model_on_meta
from griffon_train.training.direct_file import BUFFERS_BYTES
from griffon_train.training.engine import parameter_groups
from griffon_train.training.zero_memory import ADAM_COPIES, Held, Tensors, ZeroRules, held, rule_of

_CUDA_CONTEXT = 760_000_000
"""https://discuss.pytorch.org/t/73021: 723 MiB; differs between GPUs and drivers."""
_CUDA_WORKSPACE, _NCCL = 100_000_000, 400_000_000
"""Assumed, not measured: cuBLAS takes 32 MiB on a Hopper GPU, NCCL several channels with buffers of 4 MiB."""
_FRAGMENTED = 0.03
"""Assumed, not measured: of what is allocated and freed in each step, what PyTorch's allocator cannot use."""

_PROCESS = {"cpu": 500_000_000, "cuda": 3_000_000_000}
_WORKER = 40_000_000
_PROCESSES, _LOADING = "processes, an allowance", "loading the weights, before the rest"
_READ_BY_STAGE_3 = 1.4
"""Host memory for loading under ZeRO-3, in bytes of the weights: each rank keeps a part. Under ZeRO-2 each has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The processes of a run.

    Attributes:
        count: number of ranks, each with a device of its own.
        per_machine: ranks on each machine.
        device: `cuda` or `cpu`; on the CPU the ranks' memory is the machine's.
    """

    count: int
    per_machine: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes that a run takes.

    Attributes:
        held: by weights, optimizer and buffers of a rank.
        activations: by a micro-batch.
        allowance: for what is not counted on a device: CUDA, NCCL, and gaps between tensors.
        host: on each machine, by name.
        offloaded: the part of it that is there instead of on a device.
    """

    held: Held
    activations: Activations
    allowance: int
    host: Mapping[str, int]
    offloaded: Mapping[str, int]

    @property
    def passes(self) -> int:
        """The most on a device during forward and backward pass."""
        kept, batch = self.held, self.activations
        always = kept.weights + kept.optimizer + kept.gradients + kept.buffers + kept.gathered
        return always + max(kept.arriving + batch.images + batch.language, kept.arriving_later + batch.peak)

    @property
    def step(self) -> int:
        """The most on a device during the optimizer's step."""
        return self.held.weights + self.held.optimizer + self.held.buffers + self.held.step

    @property
    def tensors(self) -> int:
        """The most that tensors take on a device, which is what `torch.cuda.max_memory_allocated` counts."""
        return max(self.passes, self.step)

    @property
    def device(self) -> int:
        """What a device needs."""
        return self.tensors + self.allowance

    @property
    def machine(self) -> int:
        """What a machine needs in CPU memory: loading the weights is over when the rest begins."""
        loading, processes = self.host.get(_LOADING, 0), self.host[_PROCESSES]
        return processes + max(loading, sum(self.host.values()) - loading - processes)


def estimate(config: GriffonConfig, settings: Settings, ranks: Ranks, *, tokens: int, learned: int) -> Estimate:
    """Estimate the memory of a run.

    Args:
        config: configuration of the model.
        settings: settings of the run.
        ranks: the run's processes.
        tokens: of the longest sample, with image tokens.
        learned: of these, those that are learned.

    Raises:
        SettingsError: settings contradict each other or do not fit the model, or its memory cannot be estimated.
    """
    memory, data = settings.memory, settings.data
    model = described_model(config, settings, ranks.device)
    width = model.dtype.itemsize
    tensors = tensors_of(model, settings)
    rules = _rules(settings, tensors, ranks.device)
    of_rank = held(
        tensors,
        rules,
        ranks=ranks.count,
        width=width,
        micro_steps=micro_steps(data.global_batch, ranks.count, data.micro_batch),
        adam=_adam_copies(settings, rules, ranks.device),
        device=ranks.device,
    )
    samples = min(data.micro_batch, -(-data.global_batch // ranks.count))
    try:
        of_batch = activations(
            model,
            MicroBatch(samples=samples, tokens=tokens, learned=max(1, learned)),
            checkpointing=memory.gradient_checkpointing,
            rule=rule_of(tensors, rules, ranks=ranks.count, width=width, device=ranks.device),
        )
    except (RuntimeError, TypeError) as error:  # a class of transformers that needs the values of its tensors
        kind, reason = config.get_text_config().model_type, str(error).strip().partition("\n")[0]
        raise SettingsError(f"memory cannot be estimated for language models of type {kind} ({reason})") from error
    result = Estimate(
        held=of_rank,
        activations=of_batch,
        allowance=_allowance(of_rank, of_batch, ranks),
        host={},
        offloaded={f"offloaded: {name}": ranks.per_machine * size for name, size in of_rank.host.items()},
    )
    weights_bytes = width * sum(each.numel() for each in tensors.all)
    return replace(result, host=_host(model.config, settings, ranks, result, weights_bytes))


def described_model(config: GriffonConfig, settings: Settings, device: str) -> GriffonForConditionalGeneration:
    """The model of a run on the meta device, with its adapters and with its parts frozen."""
    requested = settings.model.attention
    if requested == "flash_attention_2":  # may be asked about on a machine that does not have it
        attention: Mapping[str, str] = dict.fromkeys(("text_config", "vision_config", "region_config"), requested)
    else:
        attention = attention_of(config.get_text_config(), requested)
    model = model_on_meta(config, dtype_of(settings.memory.dtype, device), attention)
    if settings.lora.enabled:
        add_adapters(model, settings.lora, settings.data.seed, model.dtype)
    freeze(model, settings.freezing)
    return model


def _rules(settings: Settings, tensors: Tensors, device: str) -> ZeroRules:
    """DeepSpeed's rules for a run. In CPU memory, the part of a bucket that no gradient fills takes no pages."""
    rules = ZeroRules.of(zero_config(settings.memory, settings.optimizer))
    if device != "cpu":
        return rules
    return replace(rules, bucket=min(rules.bucket, sum(each.numel() for each in tensors.trained)))


def _allowance(of_rank: Held, of_batch: Activations, ranks: Ranks) -> int:
    if ranks.device == "cpu":
        return 0
    fragmented = int(_FRAGMENTED * max(of_batch.peak, of_rank.step))
    return _CUDA_CONTEXT + _CUDA_WORKSPACE + _NCCL * (ranks.count > 1) + fragmented


def dtype_of(setting: str, device: str) -> torch.dtype:
    """The data type that `--dtype` means on a device."""
    if setting == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[setting]


def tensors_of(model: GriffonForConditionalGeneration, settings: Settings) -> Tensors:
    """The parameters of a model in the optimizer's groups."""
    groups = [group["params"] for group in parameter_groups(model, settings.optimizer)]
    if not groups:
        raise SettingsError("nothing is left to train; remove one of the freezing flags")
    return Tensors(
        groups=groups,
        frozen=[parameter for parameter in model.parameters() if not parameter.requires_grad],
    )


def _adam_copies(settings: Settings, rules: ZeroRules, device: str) -> int:
    """Float32 copies that the optimizer makes in a step, as `select_optimizer` would choose it."""
    place = "cpu" if rules.optimizer_offloaded else device
    kind = settings.optimizer.optimizer
    if kind == "auto":
        fused = "cpu_adam" if place == "cpu" else "adamw_fused"
        kind = "adamw" if device == "cpu" else fused
    return ADAM_COPIES.get((kind, place), 0)


def _host(
    config: Any,  # noqa: ANN401
    settings: Settings,
    ranks: Ranks,
    on_device: Estimate,
    weights_bytes: int,
) -> dict[str, int]:
    """Bytes on a machine, by name."""
    here, data = ranks.per_machine, settings.data
    shared = needed_bytes(
        Shows(words=True, images=True, regions=config.region_config is not None),
        workers=data.workers,
        micro_batch=data.micro_batch,
        image_px=config.vision_config.image_size,
        region_px=0 if config.region_config is None else config.region_config.image_size,
    )
    cuda = ranks.device == "cuda"
    pinned = shared // max(1, AHEAD * data.workers + 2) * 3 if cuda else 0
    rows = {
        _PROCESSES: here * (_PROCESS[ranks.device] + data.workers * _WORKER),
        "images from the workers, in shared memory": here * shared,
        "pinned images": here * pinned,
        **on_device.offloaded,
        "buffers of a checkpoint": here * BUFFERS_BYTES,
        _LOADING: int(weights_bytes * (_READ_BY_STAGE_3 if settings.memory.zero == 3 else here)),
    }
    if not cuda:
        rows["the ranks' tensors"] = here * on_device.tensors
    return {name: size for name, size in rows.items() if size}
