"""From a language model's folder with its family's own vocabulary to a model that answers, on two ranks.

Loading Gemma's or Qwen's tokenizer takes seconds in every process, so they go through one stage and the export, and
Llama 2's through all stages. test_stages.py has all stages for every family, with a small tokenizer.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from transformers import AutoModelForCausalLM, CLIPVisionModel, GenerationConfig, PreTrainedTokenizerBase

from griffon_shards.types import Turn
from griffon_train.config.settings import settings_from_json
from griffon_train.model import GriffonForConditionalGeneration
from griffon_train.model.presets import FAMILY_CHATS
from griffon_train.text.chat_templates import encode, end_tokens, expand_and_truncate
from griffon_train.text.tokenizer import load_tokenizer
from griffon_train.training.model_loading import load_model

from ..model_folders import FAMILIES, language_model_folder, real_tokenizer, tower_folder
from .launcher import Launcher

Model = Any
SMALL = ("--global-batch", 2, "--micro-batch", 1, "--workers", 0, "--save-steps", 1)
MAX_LENGTH = {"gemma2": 192, "llama2": 512, "qwen2": 192}
"""Llama 2's system prompt is long; logits over Gemma's vocabulary take a megabyte a token."""
ZERO = {"alignment": 2, "pretrain": 3, "sft": 3, "visual_referring": 2}
"""By stage, in their order; as the recipes have it."""
STAGES = {"gemma2": ("pretrain",), "llama2": tuple(ZERO), "qwen2": ("pretrain",)}
"""By family, the stages that it goes through."""
RESUMED = {"gemma2": None, "llama2": "visual_referring", "qwen2": None}
"""By family, the stage that is ended after its first step and resumed."""
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
QUESTION = "<image>\nHow many?"


def ending_folder(folder: Path, family: str, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A language model with its own vocabulary and generation settings, that answers with its end mark at once.

    Every token's first feature is large, and the mark's output looks at nothing else.
    """
    language_model_folder(folder, family, tokenizer)
    model: Model = AutoModelForCausalLM.from_pretrained(folder)
    end = end_tokens(FAMILY_CHATS[model.config.model_type], tokenizer)[0]
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 2.0
        head = model.get_output_embeddings().weight
        head[end] = 0.0
        head[end, 0] = 40.0
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, **SAMPLING)
    model.save_pretrained(folder)
    return folder


def run_stage(launcher: Launcher, run: Path, steps: int, *arguments: object) -> str:
    """Run a stage on two ranks, and return the stderr of the first."""
    options = (*arguments, *SMALL, "--steps", steps, "--output-dir", run)
    ended = launcher.run("run", "--stage", run.name, *options)
    assert ended.codes == [0, 0], ended.said
    assert f"step {steps}/{steps}  loss " in ended.said[0]
    assert orjson.loads((run / "settings.json").read_bytes())["zero"] == ZERO[run.name]
    return ended.said[0]


def check_resumption(launcher: Launcher, run: Path, *arguments: object) -> None:
    """Without its last step and its result, the same command brings both back, bit for bit."""
    before = (run / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    assert "resuming at step 1 of 2" in run_stage(launcher, run, 2, *arguments)
    assert (run / "model" / "model.safetensors").read_bytes() == before


def check_logits_of_parts(first_run: Path, language: Path, tower: Path) -> None:
    """Before training, the model computes what the language model and the tower in their folders do."""
    settings = settings_from_json(orjson.loads((first_run / "settings.json").read_bytes()))
    model: Model = load_model(settings, torch.float32)[0]
    model.eval()
    parts: Mapping[str, Model] = {
        "language": AutoModelForCausalLM.from_pretrained(language, attn_implementation="eager"),
        "tower": CLIPVisionModel.from_pretrained(tower),
    }
    ids = torch.tensor([[5, 7, *[-200] * model.image_tokens, 11, 13]])
    pixels = torch.randn(1, 3, 70, 70)
    with torch.no_grad():
        seen = parts["tower"](pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        embeddings = parts["language"].get_input_embeddings()
        features = model.projector(seen) * getattr(embeddings, "embed_scale", 1.0)
        embeds = torch.cat([embeddings(ids[:, :2]), features, embeddings(ids[:, -2:])], dim=1)
        expected = parts["language"](inputs_embeds=embeds).logits
        torch.testing.assert_close(model(ids, pixel_values=pixels).logits, expected, rtol=1e-4, atol=1e-4)


def check_answers(folder: Path, chat: str, before: PreTrainedTokenizerBase) -> None:
    """Answers stop at the end mark, alone and in a batch; tokens and sampling are the language model's own."""
    model: Model = GriffonForConditionalGeneration.from_pretrained(folder)
    model.eval()
    tokenizer = load_tokenizer(folder)
    (end,) = end_tokens(chat, tokenizer)
    generation = model.generation_config
    assert {name: getattr(generation, name) for name in SAMPLING} == SAMPLING
    assert {end, tokenizer.eos_token_id} == set(generation.eos_token_id)
    rows = []
    for question in (QUESTION, "<image>\nHow many dogs, and how many cats?"):
        encoded = encode(chat, [Turn(role="human", text=question)], tokenizer, images=1, prompt=True)
        rows.append(expand_and_truncate(encoded, 10**6, "error", model.image_tokens, "here")[0].ids)
    pixels = torch.randn(2, 3, 70, 70)
    greedy = {"do_sample": False, "max_new_tokens": 5}
    for row, seen in zip(rows, pixels, strict=True):
        assert model.generate(torch.tensor([row]), pixel_values=seen[None], **greedy).tolist() == [[end]]
    gap = len(rows[1]) - len(rows[0])
    both = torch.tensor([[generation.pad_token_id] * gap + rows[0], rows[1]])
    mask = torch.ones_like(both)
    mask[0, :gap] = 0
    assert model.generate(both, attention_mask=mask, pixel_values=pixels, **greedy).tolist() == [[end], [end]]
    endless = model.generate(both[1:], pixel_values=pixels[1:], **greedy, eos_token_id=None)
    assert endless.shape == (1, 5)  # nothing else ends it
    for text in ("safe.  Your", "  a\n\n", "两只猫 <s></s>", "person-[0.120,0.034,0.560,0.800]"):
        assert tokenizer(text)["input_ids"] == before(text)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_language_models_folder_becomes_a_model_that_answers(
    family: str, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    tokenizer = real_tokenizer(family)
    language, tower = ending_folder(tmp_path / "language", family, tokenizer), tower_folder(tmp_path / "tower")
    parts = ("--model", language, "--vision-tower", tower)
    region = ("--region-tower", tower_folder(tmp_path / "region", image_size=28))
    before = None
    for stage in STAGES[family]:
        begin = (*parts, *region) if before is None else ("--from", before)
        arguments = (*begin, "--shards", frozen_set, "--weight", "VISJ_shapes=100", "--max-length", MAX_LENGTH[family])
        run_stage(launcher, tmp_path / stage, 2 if RESUMED[family] == stage else 1, *arguments)
        if RESUMED[family] == stage:
            check_resumption(launcher, tmp_path / stage, *arguments)
        before = tmp_path / stage
    check_logits_of_parts(tmp_path / STAGES[family][0], language, tower)
    chat = {"gemma2": "gemma_instruct", "llama2": "llama_2", "qwen2": "qwen2"}[family]
    check_answers(tmp_path / STAGES[family][-1] / "model", chat, tokenizer)
