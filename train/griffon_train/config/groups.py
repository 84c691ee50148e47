"""The settings of a run in groups: name, type, constraints, default and help of each. Does not import torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from griffon_shards.types import BOX_STYLES
from griffon_train.config.options import (
    Bytes,
    Count,
    CountOrZero,
    Epochs,
    NotNegative,
    Option,
    Positive,
    SetRoot,
    Share,
    StepsOrNone,
    one_of,
)
from griffon_train.data.plan import DEFAULT_WINDOW
from griffon_train.data.source_stream import GROUPINGS
from griffon_train.text.chat_templates import CHATS
from griffon_train.text.tokenization import OVERLONG

ATTENTIONS = ("auto", "eager", "sdpa", "flex_attention", "flash_attention_2")
"""Attention implementations, as transformers calls them; `auto` is our choice among them."""

OPTIMIZERS = ("auto", "adamw", "adamw_fused", "cpu_adam")
"""Implementations of AdamW; `griffon_train.training.optimizers` makes them."""

PROJECTOR_TYPES = ("conv_reduce", "linear", "mlp2x_gelu")
"""Types of projectors, as LLaVA and Griffon call them; `griffon_train.model.projector` makes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The model to start from, and how it reads and writes."""

    model: Annotated[
        str | None,
        Option(
            "Preset name, or folder of a saved Griffon model or of a language model.",
            unset="the model of --from",
            reference_name="model_name_or_path",
        ),
    ] = None
    tokenizer: Annotated[Path | None, Option("Folder of a tokenizer.", unset="the model's")] = None
    vision_tower: Annotated[
        Path | None, Option("Folder of the CLIP vision tower; needed with a language model.", unset="the model's")
    ] = None
    region_tower: Annotated[
        Path | None, Option("Folder of the CLIP tower for <region>, if the model has none.", unset="the model's")
    ] = None
    pretrain_mm_mlp_adapter: Annotated[
        Path | None,
        Option("File with trained projector weights to start from, such as mm_projector.bin.", unset="none"),
    ] = None
    projector: Annotated[
        Annotated[str, one_of(*PROJECTOR_TYPES)] | None,
        Option(
            "Type of the projector in a new model.",
            unset="the model's; conv_reduce in a new model",
            reference_name="mm_projector_type",
        ),
    ] = None
    select_layer: Annotated[
        int | None,
        Option(
            "Layer of the vision tower whose hidden states a new model uses.",
            unset="the model's; -2 in a new model",
            reference_name="mm_vision_select_layer",
        ),
    ] = None
    boxes: Annotated[
        Annotated[str, one_of(*BOX_STYLES)] | None,
        Option(
            "How the model writes boxes: as text, or as bin tokens, which are added to a model without them.",
            unset="the model's",
        ),
    ] = None
    chat: Annotated[
        Annotated[str, one_of(*CHATS)] | None, Option("Chat template.", unset="the model's", reference_name="version")
    ] = None
    attention: Annotated[
        str,
        one_of(*ATTENTIONS),
        Option(
            "Attention implementation; auto picks the fastest that the model supports.",
            reference_name="attn_implementation",
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """The samples of each step, their order and how they are read. Exactly one of `steps` and `epochs` is not None."""

    max_length: Annotated[
        int,
        msgspec.Meta(ge=16),
        Option("Maximum sample length in tokens, including image tokens.", reference_name="model_max_length"),
    ] = 4096
    overlong: Annotated[
        str,
        one_of(*OVERLONG),
        Option("Samples longer than --max-length: truncate; truncate and mask from the loss; or end with an error."),
    ] = "truncate"
    global_batch: Annotated[Count, Option("Samples per optimizer step, over all ranks.")] = 128
    micro_batch: Annotated[
        Count, Option("Samples per forward pass on each rank.", reference_name="per_device_train_batch_size")
    ] = 1
    steps: Annotated[
        Count | None,
        Option(
            "Number of optimizer steps; replaces --epochs.",
            StepsOrNone,
            unset="set by --epochs",
            reference_name="max_steps",
        ),
    ] = None
    epochs: Annotated[
        Positive | None,
        Option(
            "Number of passes over the shards, such as 1 or 0.5.",
            Epochs,
            unset="set by --steps",
            reference_name="num_train_epochs",
        ),
    ] = 1
    seed: Annotated[int, Option("Seed of the sample order and of new weights.")] = 0
    grouping: Annotated[
        str, one_of(*GROUPINGS), Option("Fill each batch with samples of one modality (text or image) or one task.")
    ] = "none"
    window: Annotated[
        Count, Option("Number of batches to sort by length together, to reduce padding; 1 disables sorting.")
    ] = DEFAULT_WINDOW
    lengths: Annotated[
        tuple[Path, ...],
        Option(
            "Length table from griffon-train lengths; one per --shards, in the same order.", unset="estimated lengths"
        ),
    ] = ()
    weights: Annotated[
        tuple[str, ...],
        Option(
            "Number of passes over source TAG per epoch, such as 2, 0.5 or 1/3; repeat for several sources.",
            unset="as stored in the shards",
            spelling="weight",
        ),
    ] = ()
    workers: Annotated[
        int,
        msgspec.Meta(ge=0),
        Option(
            "Data loading processes per rank; 0 loads in the training process.", reference_name="dataloader_num_workers"
        ),
    ] = 2
    cache: Annotated[
        Path | None,
        Option("Folder on a local disk in which to cache samples, for shards on slow storage.", unset="none"),
    ] = None
    cache_size: Annotated[Count | None, Option("Maximum size of --cache, such as 500GB.", Bytes, unset="no cache")] = (
        None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """The learning rate of each step, and AdamW."""

    lr: Annotated[Positive, Option("Peak learning rate.", reference_name="learning_rate")] = 2e-5
    projector_lr: Annotated[
        Positive | None,
        Option("Peak learning rate of the projector.", unset="same as --lr", reference_name="mm_projector_lr"),
    ] = None
    vision_tower_lr: Annotated[
        Positive | None,
        Option("Peak learning rate of the vision tower.", unset="same as --lr", reference_name="mm_vision_tower_lr"),
    ] = None
    schedule: Annotated[
        str,
        one_of("cosine", "constant"),
        Option("Learning rate schedule after the warmup.", reference_name="lr_scheduler_type"),
    ] = "cosine"
    warmup_ratio: Annotated[
        Share | None, Option("Fraction of the steps used for linear warmup.", unset="set by --warmup-steps")
    ] = 0.03
    warmup_steps: Annotated[
        CountOrZero | None,
        Option("Number of steps of linear warmup; replaces --warmup-ratio.", unset="set by --warmup-ratio"),
    ] = None
    weight_decay: Annotated[NotNegative, Option("AdamW weight decay; biases and norms are excluded.")] = 0.0
    clip: Annotated[
        NotNegative, Option("Maximum gradient norm; 0 disables clipping.", reference_name="max_grad_norm")
    ] = 1.0
    beta1: Annotated[Share, Option("AdamW beta1.", reference_name="adam_beta1")] = 0.9
    beta2: Annotated[Share, Option("AdamW beta2.", reference_name="adam_beta2")] = 0.999
    epsilon: Annotated[Positive, Option("AdamW epsilon.", reference_name="adam_epsilon")] = 1e-8
    optimizer: Annotated[
        str,
        one_of(*OPTIMIZERS),
        Option(
            "Implementation of AdamW; auto is adamw on CPU and adamw_fused on CUDA, or with --offload on CUDA "
            "DeepSpeed's cpu_adam if it can be compiled."
        ),
    ] = "auto"
    skip_steps: Annotated[
        tuple[str, ...], Option("Skip steps A to B - 1; repeat for several ranges.", unset="none")
    ] = ()
    lr_from: Annotated[
        tuple[str, ...],
        Option(
            "From step STEP on, use LR as --lr and scale the other rates with it; repeat for several steps.",
            unset="none",
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """Memory, precision and speed."""

    zero: Annotated[int, msgspec.Meta(ge=2, le=3), Option("DeepSpeed ZeRO stage.")] = 2
    offload: Annotated[
        str,
        one_of("none", "optimizer", "all"),
        Option("Keep the optimizer state, or all (also the weights; needs --zero 3), in CPU memory."),
    ] = "none"
    deepspeed: Annotated[
        Path | None, Option("Custom DeepSpeed JSON file.", unset="a built-in one for --zero and --offload")
    ] = None
    dtype: Annotated[
        str,
        one_of("auto", "bfloat16", "float32"),
        Option("Data type of the weights; auto is bfloat16 on CUDA and float32 on CPU."),
    ] = "auto"
    device: Annotated[str, one_of("auto", "cpu", "cuda"), Option("Device to train on; auto is CUDA if available.")] = (
        "auto"
    )
    gradient_checkpointing: Annotated[
        bool, Option("Recompute activations in the backward pass: less memory, more time.")
    ] = False
    deterministic: Annotated[bool, Option("Use deterministic algorithms on GPUs; slower.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """The checkpoints to write and keep."""

    save_steps: Annotated[Count, Option("Save a checkpoint every N steps.")] = 1000
    keep: Annotated[Count, Option("Number of latest checkpoints to keep.", reference_name="save_total_limit")] = 3
    save_total_gb: Annotated[
        Positive | None,
        Option(
            "Also delete old checkpoints that exceed N GB (1e9 bytes) in all; the latest and the best always stay.",
            unset="no limit",
        ),
    ] = None
    keep_best: Annotated[
        str | None,
        Option(
            "Also keep the checkpoint with the best validation FIGURE, such as all, source/TAG or score/TAG/NAME.",
            unset="none",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """Validation, and the log of a run."""

    val_shards: Annotated[
        tuple[SetRoot, ...],
        Option("Shard folder to validate on, or its URL; repeat for several folders.", unset="none"),
    ] = ()
    val_steps: Annotated[
        Count | None, Option("Validate every N steps.", unset="no validation", reference_name="eval_steps")
    ] = None
    val_generate: Annotated[
        Count | None,
        Option("At each validation, also answer N samples of each source and score the answers.", unset="losses only"),
    ] = None
    log_every: Annotated[Count, Option("Log progress every N steps.", reference_name="logging_steps")] = 10
    log_hook: Annotated[
        str | None, Option("Python function, as module:function, to call with the metrics of every step.", unset="none")
    ] = None
    profile_steps: Annotated[
        str | None,
        Option("Profile steps A to B - 1 and write traces for Perfetto or chrome://tracing.", unset="none"),
    ] = None
    stall_s: Annotated[Positive, Option("End the run with an error after this many seconds without progress.")] = 600.0
