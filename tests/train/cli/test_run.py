"""`griffon-train run` before training starts: options, their spellings, and what is refused."""

import re
from collections.abc import Sequence

import pytest

from griffon_train.config.reference_flags import FOREIGN
from griffon_train.config.settings import OPTIONS, STAGES, option_name

from ..conftest import Run
from ..test_imports import run_without

NEEDED = ("--shards", "set", "--output-dir", "run", "--model", "tiny-gemma2")

Table = dict[str, tuple[str, str]]


def table_of(train_cli: Run, *arguments: object) -> Table:
    """The output of `--print-config`: value and origin by setting."""
    result = train_cli("run", *arguments, "--print-config")
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    head, *rows = (re.split(" {2,}", line) for line in result.stdout.splitlines())
    assert head == ["setting", "value", "from"]
    return {name: (value, origin) for name, value, origin in rows}


def test_every_setting_is_shown_with_where_it_is_from(train_cli: Run) -> None:
    actual = table_of(train_cli, "--stage", "pretrain", *NEEDED, "--lr", "1e-5", "--shards", "other")
    assert list(actual) == list(OPTIONS)
    assert actual["stage"] == ("pretrain", "command line")
    assert actual["shards"] == ("set other", "command line")
    assert actual["lr"] == ("1e-05", "command line")
    assert actual["grouping"] == ("modality", "recipe pretrain")
    assert actual["projector_lr"] == ("(same as --lr)", "default")
    assert actual["gradient_checkpointing"] == ("true", "recipe pretrain")
    assert actual["beta2"] == ("0.999", "default")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_can_be_looked_at_before_there_is_data(train_cli: Run, stage: str) -> None:
    assert table_of(train_cli, "--stage", stage)["shards"] == ("(missing)", "not given")


def test_the_settings_are_shown_without_heavy_libraries() -> None:
    for arguments in (["run", "--stage", "sft", "--print-config"], ["run", "--help"]):
        result = run_without(f"import griffon_train.cli.main; griffon_train.cli.main.main({arguments!r})")
        assert (result.returncode, result.stderr) == (0, "")


def test_only_one_rank_shows_the_settings(train_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    result = train_cli("run", "--stage", "sft", "--print-config")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_help_shows_every_setting_once_in_its_section(train_cli: Run) -> None:
    output = train_cli("run", "--help").stdout
    shown = re.findall(r"^  (--[a-z0-9-]+)", output, re.MULTILINE)
    assert shown == [*map(option_name, OPTIONS), "--print-config"]
    assert re.search(r"^Optimizer:\n  --lr ", output, re.MULTILINE)
    assert "[alignment|pretrain|sft|visual_referring|custom]" in output
    assert not any(f"--{name.replace('_', '-')} " in output for name in (*FOREIGN, "local_rank", "bf16"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--global-batch", "6", "--micro-batch", "3"),
        ("--global_batch", "6", "--micro_batch", "3"),
        ("--global_batch=6", "--per_device_train_batch_size=3"),
        ("--global-batch=6", "--per-device-train-batch-size", "3"),
    ],
)
def test_both_spellings_and_the_references_names_are_understood(train_cli: Run, arguments: Sequence[str]) -> None:
    actual = table_of(train_cli, "--stage", "custom", *arguments)
    assert (actual["global_batch"], actual["micro_batch"]) == (("6", "command line"), ("3", "command line"))


@pytest.mark.parametrize(
    ("arguments", "setting", "shown"),
    [
        (("--epochs", "0.5"), "epochs", "0.5"),
        (("--num_train_epochs", "3.0"), "epochs", "3"),
        (("--num_train_epochs=3.",), "epochs", "3"),
        (("--num_train_epochs", "1e-1"), "epochs", "0.1"),
        (("--num_train_epochs", "2.0", "--max_steps", "-1"), "epochs", "2"),
        (("--max_steps", "200.0"), "steps", "200"),
        (("--logging_steps", "10.0"), "log_every", "10"),
        (("--save_steps", "500.0"), "save_steps", "500"),
        (("--save_total_limit", "1.0"), "keep", "1"),
        (("--model_max_length", "512.0"), "max_length", "512"),
    ],
)
def test_numbers_as_transformers_writes_them_are_understood(
    train_cli: Run, arguments: Sequence[str], setting: str, shown: str
) -> None:
    """transformers writes floats for integers, and -1 for unset steps."""
    assert table_of(train_cli, "--stage", "custom", *arguments)[setting] == (shown, "command line")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--epochs", "0", "0.0 is not in the range x>0"),
        ("--epochs", "-1", "-1.0 is not in the range x>0"),
        ("--epochs", "nan", "--epochs nan .*: expected a finite number"),
        ("--epochs", "1/3", "'1/3' is not a valid float"),
        ("--save_steps", "0.5", "'0.5' is not a valid integer"),
        ("--max_steps", "-2", "-2 is not in the range x>=1"),
        ("--eval_steps", "-1", "-1 is not in the range x>=1"),
        ("--zero", "4", "4 is not in the range 2<=x<=3"),
        ("--workers", "-1", "-1 is not in the range x>=0"),
        ("--warmup-ratio", "1", "1.0 is not in the range 0<=x<1"),
        ("--weight-decay", "-0.1", "-0.1 is not in the range x>=0"),
        ("--model", "", "--model: expected a value, got an empty text"),
        ("--model_name_or_path", "", "--model: expected a value, got an empty text"),
        ("--vision-tower", "", "--vision-tower.*expected a path, got an empty text"),
        ("--from", "", "--from.*expected a path, got an empty text"),
        ("--shards", "", "--shards.*expected a path or a URL, got an empty text"),
    ],
)
def test_invalid_numbers_and_names_are_refused(train_cli: Run, option: str, value: str, says: str) -> None:
    ended = train_cli("run", "--stage", "custom", option, value, "--print-config")
    assert ended.returncode == 2
    assert re.search(says, ended.stderr), ended.stderr


REFERENCE_NAMES = {
    "model_name_or_path": ("model", "folder"),
    "version": ("chat", "gemma_instruct"),
    "model_max_length": ("max_length", "512"),
    "per_device_train_batch_size": ("micro_batch", "5"),
    "learning_rate": ("lr", "0.25"),
    "mm_projector_lr": ("projector_lr", "0.25"),
    "mm_vision_tower_lr": ("vision_tower_lr", "0.25"),
    "save_total_limit": ("keep", "7"),
    "dataloader_num_workers": ("workers", "7"),
    "num_train_epochs": ("epochs", "7"),
    "max_steps": ("steps", "7"),
    "max_grad_norm": ("clip", "0.25"),
    "attn_implementation": ("attention", "flex_attention"),
    "mm_projector_type": ("projector", "mlp2x_gelu"),
    "mm_vision_select_layer": ("select_layer", "-3"),
    "adam_beta1": ("beta1", "0.25"),
    "adam_beta2": ("beta2", "0.25"),
    "adam_epsilon": ("epsilon", "0.25"),
    "lr_scheduler_type": ("schedule", "constant"),
    "logging_steps": ("log_every", "7"),
    "unshared_visual_encoder": ("tune_region_projector", "true"),
    "from_run": ("from_run", "before"),
    "weights": ("weights", "DET=2"),
}


@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_a_name_of_the_reference_is_a_setting(train_cli: Run, name: str) -> None:
    setting, value = REFERENCE_NAMES[name]
    for spelt in (name, name.replace("_", "-")):
        assert table_of(train_cli, "--stage", "custom", f"--{spelt}", value)[setting] == (value, "command line")


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (["--freeze_llm"], "true"),
        (["--freeze_llm", "True"], "true"),
        (["--freeze-llm=true"], "true"),
        (["--freeze-llm=false"], "false"),
        (["--freeze_llm", "False"], "false"),
    ],
)
def test_booleans_in_every_form(train_cli: Run, given: list[str], value: str) -> None:
    for arguments in ([*given, "--stage", "custom"], ["--stage", "custom", *given]):
        assert table_of(train_cli, *arguments)["freeze_llm"] == (value, "command line")


@pytest.mark.parametrize(
    ("given", "setting", "value"),
    [
        (["--bf16", "True"], "dtype", "bfloat16"),
        (["--bf16"], "dtype", "bfloat16"),
        (["--bf16", "False"], "dtype", "float32"),
        (["--bf16", "True", "--dtype", "bfloat16"], "dtype", "bfloat16"),
        (["--group_by_modality_length", "True"], "grouping", "modality"),
        (["--group_by_task_length", "True", "--group_by_modality_length", "False"], "grouping", "task"),
        (["--group_by_modality_length", "False"], "grouping", "none"),
        (["--group_by_modality_length", "False", "--grouping", "task"], "grouping", "task"),
        (["--lora_enable", "True"], "lora_r", "64"),
        (["--lora_enable", "True", "--lora_r", "8", "--lora_bias", "none", "--lora_weight_path", ""], "lora_r", "8"),
        (["--lora_enable", "True", "--lora_r", "8", "--bits", "16"], "lora_alpha", "16.0"),
        (["--lora_enable", "True"], "lora_dropout", "0.05"),
    ],
)
def test_what_the_reference_says_otherwise(train_cli: Run, given: list[str], setting: str, value: str) -> None:
    assert table_of(train_cli, "--stage", "pretrain", *given)[setting] == (value, "command line")


COMMON = """
    --vision_tower towers/clip-vit-large-path14-336_to_1022 --mm_projector_type conv_reduce --mm_vision_select_layer -2
    --mm_use_im_start_end False --mm_use_im_patch_token False --bf16 True --num_train_epochs 1
    --per_device_eval_batch_size 4 --evaluation_strategy no --save_strategy steps --save_total_limit 1
    --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --tf32 True
    --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True --report_to tensorboard
    --attn_implementation eager
"""
SCRIPTS = {
    "alignment": """--model_name_or_path google/gemma-2-9b-it --version plain --tune_mm_mlp_adapter True
        --output_dir out/projector --per_device_train_batch_size 4 --save_steps 24000 --learning_rate 1e-3
        --model_max_length 2048""",
    "pretrain": """--model_name_or_path google/gemma-2-9b-it --version gemma_instruct --image_aspect_ratio square
        --pretrain_mm_mlp_adapter out/projector/mm_projector.bin --group_by_modality_length True
        --output_dir out/pretrain --per_device_train_batch_size 2 --save_steps 50000 --learning_rate 2e-5
        --model_max_length 4096""",
    "sft": """--model_name_or_path out/pretrain --version gemma_instruct --image_aspect_ratio square
        --group_by_task_length True --output_dir out/sft --per_device_train_batch_size 2 --save_steps 50000
        --learning_rate 2e-5 --mm_vision_tower_lr 2e-6 --model_max_length 4096""",
}
"""Options of the reference's released scripts for Gemma-2 9B, without data, accumulation and DeepSpeed file."""


@pytest.mark.parametrize("stage", SCRIPTS)
def test_the_references_command_lines_say_what_the_recipes_do(train_cli: Run, stage: str) -> None:
    ours = table_of(train_cli, "--stage", stage)
    theirs = table_of(train_cli, "--stage", stage, "--shards", "set", *SCRIPTS[stage].split(), *COMMON.split())
    differing = {name for name, (value, _) in theirs.items() if value != ours[name][0]}
    differing -= {"shards", "output_dir", "model", "vision_tower", "pretrain_mm_mlp_adapter"}
    from_the_model = {"projector", "select_layer"} | (set() if stage == "alignment" else {"chat"})  # theirs names them
    assert differing == from_the_model | {"attention", "dtype", "keep", "log_every", "save_steps", "workers"}
    custom = table_of(train_cli, "--stage", "custom", *SCRIPTS[stage].split(), *COMMON.split())
    left = {name for name, (value, _) in custom.items() if value != theirs[name][0]}
    assert left <= {"stage", "shards", "global_batch", "zero"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--gradient_accumulation_steps", "8"], "--gradient_accumulation_steps 8: it follows from --global-batch"),
        (["--data_path", "a.json"], "--data_path a.json: .* give --shards"),
        (["--multi_path", "a.txt"], "griffon-prep build"),
        (["--image_folder", "a"], "give --shards"),
        (["--lazy_preprocess", "False"], "--lazy_preprocess False: "),
        (["--tf32", "False"], "TF32 is always on"),
        (["--report_to", "wandb"], "--log-hook module:function"),
        (["--mm_use_im_start_end"], "--mm_use_im_start_end true: "),
        (["--mm_use_im_patch_token", "True"], "no token in the vocabulary"),
        (["--image_aspect_ratio", "pad"], "always resized to a square"),
        (["--evaluation_strategy", "epoch"], "--val-shards and --val-steps"),
        (["--save_strategy", "epoch"], "--save-steps"),
        (["--bits", "4"], "quantized"),
        (["--lora_bias", "all", "--lora_r", "64"], "biases do not train with LoRA"),
        (["--lora_weight_path", "a", "--lora_enable", "True"], "--lora_weight_path a: .* as --from"),
        (["--lora_enable", "False", "--lora_r", "64"], "--lora_enable False and --lora_r contradict each other"),
        (
            ["--lora-alpha", "8", "--lora-targets", "q_proj"],
            "--lora-alpha 8.0 .*, --lora-targets q_proj .*: without a ",
        ),
        (["--lora-r", "8", "--freeze-llm"], "--lora-r 8 .* and --freeze-llm true .* contradict each other"),
        (["--lora-r", "8", "--tune-mm-mlp-adapter"], "--lora-r 8 .* --tune-mm-mlp-adapter true .* contradict"),
        (["--lora-r", "8", "--lora-targets", "(q"], "--lora-targets .q .*: neither names of layers nor a regular expr"),
        (["--fp16", "True"], "--dtype bfloat16"),
        (["--group_by_modality_length", "--group_by_task_length"], "contradict each other on grouping; give one"),
        (["--group_by_task_length", "True", "--grouping", "modality"], "--group_by_task_length true and --grouping"),
        (["--bf16", "True", "--dtype", "float32"], "--bf16 true and --dtype contradict each other"),
        (["--steps", "3", "--epochs", "1"], "--steps 3 and --epochs 1 contradict"),
        (["--steps", "3"], "--shards, --output-dir, --model .*: missing"),
        (["--tune_mm_mlp_adapter", "--freeze-llm"], "tune_mm_mlp_adapter and freeze_llm contradict"),
        (["--deepspeed", "nowhere.json"], "--deepspeed nowhere.json: no such file"),
    ],
)
def test_what_is_not_done_here_is_refused_with_what_to_do(train_cli: Run, given: list[str], message: str) -> None:
    result = train_cli("run", "--stage", "custom", *given)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.match(f"error: .*{message}", result.stderr), result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--global-bach", "3"], r"No such option.*--global-bach.*--global-batch"),
        (["--learnin_rate", "3"], r"No such option.*--learnin_rate"),
        (["--stage", "nope"], r"'nope' is not one of 'alignment', 'pretrain', 'sft', 'visual_referring', 'custom'"),
        (["--learning_rate", "0"], r"'--lr': 0.0 is not in the range x>0"),
        (["--max-length", "15"], r"'--max-length': 15 is not in the range"),
        (["--freeze_llm", "maybe"], r"'--freeze-llm': 'maybe' is not a valid boolean"),
        (["set"], r"unexpected extra argument \(set\)"),
    ],
)
def test_what_is_not_an_option_or_value_is_refused(train_cli: Run, given: list[str], message: str) -> None:
    result = train_cli("run", *given)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.search(message, result.stderr), result.stderr


def test_deepspeeds_local_rank_is_accepted_in_both_places(train_cli: Run) -> None:
    """DeepSpeed puts it before the command when it starts the module."""
    plain = train_cli("run", "--stage", "sft", "--print-config").stdout
    assert train_cli("--local_rank=1", "run", "--stage", "sft", "--print-config").stdout == plain
    assert train_cli("run", "--local_rank=1", "--stage", "sft", "--print-config").stdout == plain
