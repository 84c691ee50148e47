"""Which attention computes what, and what is refused."""

import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.model.attention import attention_of
from griffon_train.model.presets import preset_config


def test_without_flash_attention_gemma_takes_eager_and_others_sdpa() -> None:
    assert attention_of(preset_config("tiny-gemma2").get_text_config())["text_config"] == "eager"
    assert attention_of(preset_config("tiny-gemma2").get_text_config())["vision_config"] == "sdpa"
    assert attention_of(preset_config("tiny-qwen2").get_text_config())["text_config"] == "sdpa"


@pytest.mark.parametrize(
    ("name", "requested", "message"),
    [
        ("tiny-gemma2", "sdpa", "gemma2 caps attention scores"),
        ("tiny-llama2", "flash_attention_2", "needs a CUDA device and flash-attn"),
        ("tiny-llama2", "fast", "expected one of auto, eager"),
    ],
)
def test_what_cannot_be_computed_is_refused(name: str, requested: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        attention_of(preset_config(name).get_text_config(), requested)
