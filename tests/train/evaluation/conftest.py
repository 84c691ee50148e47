"""A tiny model that has learned a few answers by heart, saved as a run saves it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn.utils.rnn import pad_sequence

from griffon_shards.templates import load_templates
from griffon_shards.types import Turn
from griffon_train.data.images import cropped
from griffon_train.evaluation.generation import Prompt
from griffon_train.evaluation.task_prompts import Inquiry, prompt_of
from griffon_train.model.attention import attention_of
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.image_processor import pixels_of
from griffon_train.model.presets import FAMILY_CHATS, preset_config
from griffon_train.model.saving import save_beside
from griffon_train.text.chat_templates import encode, expand_and_truncate

SIDES_PX = (200, 100)
BOX = (20.0, 20.0, 100.0, 60.0)
LEARNED = {
    Inquiry(question="the red box", task="VG"): "the red box-[0.100,0.200,0.500,0.600]",
    Inquiry(categories=("cat", "dog"), task="DET"): "cat-[0.000,0.500,0.250,1.000]&dog-[0.500,0.000,1.000,0.500]",
    Inquiry(box_xyxy_px=BOX, task="REG"): "a red box",
    Inquiry(region_xyxy_px=BOX, task="VISJ"): "[0.100,0.200,0.500,0.600]",
    Inquiry(question="What is <region>?", region_xyxy_px=BOX): "It is red.",
    Inquiry(question="Where is a zebra?"): "None",
    Inquiry(question="Where?"): "left box-[0.1,0.2,0.5",  # broken
}
LEARNED_TEXT = {"Say hello.": "Hello, you."}


def drawing() -> Image.Image:
    """A red box on grey."""
    image = Image.new("RGB", SIDES_PX, (120, 120, 120))
    ImageDraw.Draw(image).rectangle(BOX, fill=(220, 20, 20))
    return image


def learned_prompts() -> list[tuple[Prompt, str]]:
    image, templates = drawing(), load_templates(None)
    pairs = [(prompt_of(inquiry, image, templates, "text"), answer) for inquiry, answer in LEARNED.items()]
    return pairs + [
        (prompt_of(Inquiry(question=question), None, templates, "text"), answer)
        for question, answer in LEARNED_TEXT.items()
    ]


@pytest.fixture(scope="session")
def learned_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that answers `LEARNED` and `LEARNED_TEXT`."""
    return learn(tmp_path_factory.mktemp("learned") / "model", "tiny-qwen2", learned_prompts())


def learn(folder: Path, name: str, prompts: Sequence[tuple[Prompt, str]], loss_below: float = 0.01) -> Path:
    """Save a model that has seen some prompts and their answers until its loss for each token is below a limit."""
    torch.manual_seed(0)
    config: Any = preset_config(name)
    config._attn_implementation = dict(attention_of(config.text_config))
    model: Any = GriffonForConditionalGeneration(config)
    tokenizer, chat = byte_tokenizer(), FAMILY_CHATS[config.text_config.model_type]
    ids, labels, images, regions = [], [], [], []
    for prompt, answer in prompts:
        pictures, shown = int(prompt.image is not None), int(prompt.region_xyxy_px is not None)
        turns = (*prompt.turns, Turn(role="gpt", text=answer))
        encoded = encode(chat, turns, tokenizer, images=pictures, regions=shown)
        encoded, _ = expand_and_truncate(encoded, 9999, "error", model.image_tokens, "")
        ids.append(torch.tensor(encoded.ids))
        labels.append(torch.tensor(encoded.labels))
        if prompt.image is not None:
            images.append(prompt.image)
            if prompt.region_xyxy_px is not None:
                regions.append(cropped(prompt.image, prompt.region_xyxy_px))
    batch = {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        "pixel_values": pixels_of(images, config.vision_config.image_size),
        "region_values": pixels_of(regions, config.region_config.image_size),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < loss_below:
            break
    assert loss.item() < loss_below
    model.save_pretrained(folder)
    save_beside(folder, model.config, model.generation_config, chat, tokenizer)
    return folder
