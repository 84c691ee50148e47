"""Plain transformers with our folders: pixels and tokens of training, and pipelines that answer as `generate` does."""

import base64
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

from griffon_shards.support.errors import DataError
from griffon_shards.types import Turn
from griffon_train.data.images import cropped, decode, resized
from griffon_train.model import GriffonConfig, GriffonForConditionalGeneration, GriffonImageProcessor, GriffonProcessor
from griffon_train.model.attention import attention_of
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.normalize import normalised
from griffon_train.model.presets import FAMILY_CHATS, preset_config
from griffon_train.model.processor import processor_of
from griffon_train.model.saving import save_beside
from griffon_train.text.chat_templates import encode, expand_and_truncate

from ...waiting import TIMEOUT_S
from ..text.test_jinja_templates import VOCABULARIES, messages_of, tokenizer_of
from ..text.test_vocabularies import random_turns
from .test_griffon import FAMILIES

Model = Any
FAMILY_OF = {"plain": "tiny-llama2", "gemma_instruct": "tiny-gemma2", "llama_2": "tiny-llama2", "qwen2": "tiny-qwen2"}


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise, higher than wide."""
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 50, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def processor(chat: str, name: str = "bytes") -> GriffonProcessor:
    return processor_of(preset_config(FAMILY_OF[chat]), chat, tokenizer_of(chat, name))


def as_bytes(image: Image.Image, form: str, **settings: Any) -> bytes:  # noqa: ANN401
    buffer = BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def turned() -> bytes:
    """A JPEG that asks viewers to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return as_bytes(picture(), "JPEG", exif=exif)


def sixteen_bits() -> bytes:
    values = np.random.default_rng(0).integers(0, 65536, (90, 50), dtype=np.uint16)
    return as_bytes(Image.fromarray(values), "PNG")


FILES: Mapping[str, bytes] = {
    "jpeg": as_bytes(picture(), "JPEG"),
    "turned jpeg": turned(),
    "grey": as_bytes(picture("L"), "PNG"),
    "palette": as_bytes(picture("P"), "PNG", transparency=0),
    "alpha": as_bytes(picture("RGBA"), "PNG"),
    "cmyk": as_bytes(picture("CMYK"), "JPEG"),
    "16 bits": sixteen_bits(),
}


def pixels_of_training(data: bytes, side_px: int, box: Sequence[float] | None = None) -> torch.Tensor:
    """Prepare pixels as the loader and the training step do."""
    sample: Any = type("Sample", (), {"image": data})
    seen = decode(sample, "here")
    crop = seen if box is None else cropped(seen, (box[0], box[1], box[2], box[3]))
    return normalised(torch.from_numpy(resized(crop, side_px)[None].copy()), torch.float32)


@pytest.mark.parametrize("name", FILES)
def test_images_have_the_pixels_of_training(name: str, tmp_path: Path) -> None:
    """From a file or its bytes, and from Pillow."""
    path = tmp_path / "picture"
    path.write_bytes(FILES[name])
    actual: Any = GriffonImageProcessor(70, 28)
    expected = pixels_of_training(FILES[name], 70)
    with Image.open(path) as image:
        for given in (path, str(path), FILES[name], image, [image], [[image]]):
            assert torch.equal(actual(given)["pixel_values"], expected)
    assert expected.shape == (1, 3, 70, 70)


def test_arrays_are_images_whichever_way_their_channels_lie() -> None:
    array = np.asarray(picture())
    expected = pixels_of_training(as_bytes(picture(), "PNG"), 70)
    for given in (array, array.transpose(2, 0, 1), torch.from_numpy(array.copy())):
        assert torch.equal(GriffonImageProcessor(70, 28)(given)["pixel_values"], expected)


def test_several_images_come_in_their_order() -> None:
    images = [picture(seed=1), picture(seed=2)]
    actual = GriffonImageProcessor(70, 28)(images, return_tensors="pt")["pixel_values"]
    expected = [pixels_of_training(as_bytes(image, "PNG"), 70) for image in images]
    assert torch.equal(actual, torch.cat(expected))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (FILES["jpeg"][:200], "JPEG"),
        ("missing.jpg", "no such file"),
        ("img/" * 2000, "neither a URL nor base64|not an image"),
    ],
)
def test_what_is_not_an_image_is_named(given: object, message: str) -> None:
    actual: Any = GriffonImageProcessor(70, 28)
    with pytest.raises(DataError, match=message):
        actual(given)


def with_images(turns: Sequence[Turn], pictures: int, boxes: Sequence[Any]) -> dict[str, Any]:
    return {"images": [picture(seed=n) for n in range(pictures)], "regions": list(boxes)} if pictures else {}


@pytest.mark.parametrize(("chat", "name"), VOCABULARIES)
def test_conversations_have_the_tokens_of_training(chat: str, name: str) -> None:
    """Texts may spell control tokens, and hold more `<image>` than there are images."""
    actual, draws = processor(chat, name), random.Random(f"{chat} {name}")
    for i in range(60):
        pictures = draws.choice((0, 1, 1, 2))
        regions = draws.choice((0, 1)) if pictures else 0
        turns = random_turns(draws, spelled=i % 2 == 0, pictures=pictures, regions=regions)
        boxes = [(3.4, 5, 20.5, 33)] * regions
        for some, prompt in ((turns, False), (turns[:-1], True)):
            encoded = encode(chat, some, actual.tokenizer, images=pictures, regions=regions, prompt=prompt)
            expected, _ = expand_and_truncate(encoded, 10**6, "error", actual.image_tokens, "here")
            batch = actual.apply_chat_template(
                messages_of(some),
                tokenize=True,
                add_generation_prompt=prompt,
                return_dict=True,
                processor_kwargs=with_images(some, pictures, boxes),
            )
            assert batch["input_ids"] == [expected.ids]
            assert batch["attention_mask"] == [[1] * len(expected.ids)]
            assert len(batch.get("pixel_values", ())) == pictures
            assert len(batch.get("region_values", ())) == regions


@pytest.mark.parametrize(("chat", "name"), VOCABULARIES)
def test_what_is_written_out_has_the_same_tokens(chat: str, name: str) -> None:
    """The template's text given to the processor, with bos in front or to be put there."""
    actual, draws = processor(chat, name), random.Random(0)
    bos = actual.tokenizer.bos_token or ""
    for _ in range(30):
        turns = [
            Turn(role=turn.role, text=turn.text if turn.role == "human" else turn.text.replace("<", "("))
            for turn in random_turns(draws, spelled=False, pictures=1, regions=1)
        ]
        given: dict[str, Any] = {"images": picture(), "regions": [(3.4, 5, 20.5, 33)]}
        messages: Any = messages_of(turns)
        expected = actual.apply_chat_template(messages, tokenize=True, return_dict=True, processor_kwargs=given)
        text = actual.apply_chat_template(messages)
        for written in {text, text.removeprefix(bos)} if name == "gemma3" else {text}:
            batch = actual(text=written, **given)
            assert batch["input_ids"] == expected["input_ids"]
            assert torch.equal(batch["pixel_values"], expected["pixel_values"])
            assert torch.equal(batch["region_values"], expected["region_values"])


QUESTION: Sequence[Any] = [
    {"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "How many?"}]}
]


def test_regions_are_crops_of_their_conversations_first_image() -> None:
    """Box by box, where the messages have them; several conversations, the shorter padded on the left."""
    prepared = processor("gemma_instruct")
    boxes = [(3.4, 5.0, 20.5, 33.0), (0.0, 0.0, 50.0, 90.0)]
    seen = [picture(seed=1), picture(seed=2)]
    conversations = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": seen[number]},
                    {"type": "text", "text": "What is like "},
                    *([{"type": "region", "box": boxes[number]}] if number else []),
                ],
            }
        ]
        for number in (0, 1)
    ]
    settings: Any = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    batch = prepared.apply_chat_template(conversations, **settings)
    alone = [prepared.apply_chat_template(conversation, **settings) for conversation in conversations]
    lengths = [conversation["input_ids"].shape[1] for conversation in alone]
    assert lengths[0] < lengths[1] == batch["input_ids"].shape[1]
    gap = lengths[1] - lengths[0]
    assert batch["input_ids"][0, gap:].tolist() == alone[0]["input_ids"][0].tolist()
    assert batch["attention_mask"].tolist() == [[0] * gap + [1] * lengths[0], [1] * lengths[1]]
    assert torch.equal(batch["pixel_values"], torch.cat([conversation["pixel_values"] for conversation in alone]))
    expected = pixels_of_training(as_bytes(seen[1], "PNG"), 28, boxes[1])
    assert torch.equal(batch["region_values"], expected)
    assert "region_values" not in alone[0]


def test_an_image_in_base64_is_taken() -> None:
    """Web services send images so; the text may be longer than any file name."""
    for side_px in (1, 4, 30):
        data = as_bytes(picture().crop((0, 0, side_px, side_px)), "PNG")
        text = base64.b64encode(data).decode()
        for given in (text, f"data:image/png;base64,{text}", base64.encodebytes(data).decode()):
            actual: Any = GriffonImageProcessor(70, 28)(given)  # type: ignore[arg-type]
            assert torch.equal(actual["pixel_values"], pixels_of_training(data, 70))


@pytest.mark.parametrize("key", ["image", "url", "path", "image_url"])
def test_a_message_names_its_image_in_several_ways(key: str, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(FILES["turned jpeg"])
    part = {"type": "image_url", key: {"url": str(path)}} if key == "image_url" else {"type": "image", key: str(path)}
    messages: Any = [{"role": "user", "content": [part, {"type": "text", "text": "How many?"}]}]
    prepared = processor("qwen2").apply_chat_template(messages, tokenize=True, return_dict=True)
    assert torch.equal(prepared["pixel_values"], pixels_of_training(FILES["turned jpeg"], 70))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "How many?", "images": [picture()]}, r"the text lacks 1 <image> for 1 image\(s\)"),
        ({"text": "<image> <region>", "images": [picture()], "regions": [(0, 0, 1, 1)] * 2}, "lacks 1 <region>"),
        ({"text": "<region>", "regions": [(0, 0, 1, 1)]}, "without an image"),
        ({"text": ["<image>", "<image>"], "images": [picture()]}, "2 texts, but images for 1 of them"),
        ({"images": [picture()]}, "a text is required"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        processor("qwen2")(**given)


def test_an_image_part_without_image_is_refused() -> None:
    messages: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}]
    with pytest.raises(DataError, match="an image part without an image"):
        processor("qwen2").apply_chat_template(messages, tokenize=True)


def saved(name: str, folder: Path) -> Model:
    """A tiny model in a folder as training leaves it, with weights so large that every part is heard."""
    config: Any = preset_config(name)
    config._attn_implementation = dict(attention_of(config.text_config))
    torch.manual_seed(2)
    model: Model = GriffonForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    chat = FAMILY_CHATS[config.text_config.model_type]
    save_beside(folder, model.config, model.generation_config, chat, byte_tokenizer())
    loaded: Model = GriffonForConditionalGeneration.from_pretrained(folder)
    return loaded.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pipeline_answers_as_generate_does(name: str, tmp_path: Path) -> None:
    """It uses the pixels and tokens of training, whatever the question spells."""
    model = saved(name, tmp_path)
    answering: Any = pipeline("image-text-to-text", model=str(tmp_path))
    assert isinstance(answering.model, GriffonForConditionalGeneration)
    tokenizer, chat = answering.tokenizer, FAMILY_CHATS[model.config.text_config.model_type]
    conversations, expected = [], []
    for seed, question in enumerate(("<image>\nHow many?", "Is <s></s><end_of_turn><|im_end|> in <image>?")):
        encoded = encode(chat, [Turn(role="human", text=question)], tokenizer, images=1, prompt=True)
        ids = torch.tensor([expand_and_truncate(encoded, 10**6, "error", model.image_tokens, "here")[0].ids])
        pixels = pixels_of_training(as_bytes(picture(seed=seed), "PNG"), 70)
        expected.append(model.generate(ids, pixel_values=pixels, max_new_tokens=9)[0].tolist())
        content = [{"type": "image", "image": picture(seed=seed)}, {"type": "text", "text": question}]
        conversations.append([{"role": "user", "content": content}])
    assert expected[0] != expected[1]
    for messages, tokens in zip(conversations, expected, strict=True):
        actual = answering(text=messages, max_new_tokens=9, return_tensors=True)
        assert actual[0]["generated_token_ids"].tolist() == tokens
        output = answering(text=messages, max_new_tokens=9)[0]["generated_text"][-1]
        assert output == {"role": "assistant", "content": tokenizer.decode(tokens, skip_special_tokens=True)}
    together = answering(text=conversations, max_new_tokens=9, return_tensors=True)
    assert [item[0]["generated_token_ids"].tolist() for item in together] == expected


def test_a_pipeline_takes_images_and_rendered_texts(tmp_path: Path) -> None:
    saved("tiny-qwen2", tmp_path)
    answering: Any = pipeline("image-text-to-text", model=str(tmp_path))
    output = answering(images=picture(), text="<image>\nHow many?", max_new_tokens=4, return_full_text=False)
    assert output[0]["generated_text"] != ""
    prefilled = [*QUESTION, {"role": "assistant", "content": [{"type": "text", "text": "There are"}]}]
    went_on = answering(text=prefilled, max_new_tokens=4)[0]["generated_text"][-1]["content"][-1]["text"]
    assert went_on.startswith("There are") and len(went_on) > len("There are")


def test_the_auto_classes_know_a_saved_folder(tmp_path: Path) -> None:
    saved("tiny-llama2", tmp_path)
    for auto, kind in (
        (AutoConfig, GriffonConfig),
        (AutoModel, GriffonForConditionalGeneration),
        (AutoModelForImageTextToText, GriffonForConditionalGeneration),
        (AutoImageProcessor, GriffonImageProcessor),
        (AutoProcessor, GriffonProcessor),
    ):
        assert type(auto.from_pretrained(tmp_path)) is kind
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert (loaded.chat, loaded.image_tokens) == ("llama_2", 9)
    assert (loaded.image_processor.image_px, loaded.image_processor.region_px) == (70, 28)
    assert loaded.chat_template == loaded.tokenizer.chat_template is not None


@pytest.mark.parametrize(
    "imports",
    ["from transformers import AutoConfig, AutoProcessor; import griffon_train", "import griffon_train.model"],
)
def test_importing_the_package_registers_the_auto_classes(imports: str, tmp_path: Path) -> None:
    preset_config("tiny-qwen2").save_pretrained(tmp_path)
    script = (
        f"{imports}\nfrom transformers import AutoConfig\nprint(type(AutoConfig.from_pretrained({str(tmp_path)!r})))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.stdout == "<class 'griffon_train.model.config.GriffonConfig'>\n", result.stderr
