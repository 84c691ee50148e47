"""The configuration of a Griffon model: the configurations of its parts, and the settings that connect them."""

from typing import Any

from transformers import AutoConfig, CLIPVisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from griffon_train.text.chat_templates import IMAGE_TOKEN_ID, REGION_TOKEN_ID


class GriffonConfig(PreTrainedConfig):
    """Configuration of a Griffon model.

    Attributes:
        vision_config: the tower that sees the image; its `image_size` is the model's.
        text_config: a language model that `AutoModelForCausalLM` knows.
        region_config: the frozen tower that sees the region, the crop for `<region>`; None without visual referring.
        projector: a name in `griffon_train.model.projector.PROJECTORS`.
        select_layer: index of the tower's hidden state that the projector takes; -2 is the input of its last layer.
        image_token_id: placeholder in `input_ids` for an image's features; it stands there `image_tokens` times.
        region_token_id: placeholder in `input_ids` for a region's feature.
        box_style: how boxes are written, one of `griffon_shards.types.BOX_STYLES`.
        released_config: the complete configuration of the released weights, for converting back.
    """

    model_type = "griffon"
    sub_configs_defaults = {  # noqa: RUF012 - transformers' way
        "vision_config": SubConfigSpec(config_class=CLIPVisionConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "region_config": SubConfigSpec(config_class=CLIPVisionConfig, optional=True),
    }

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    region_config: dict[str, Any] | PreTrainedConfig | None = None
    projector: str = "conv_reduce"
    select_layer: int = -2
    # Token ids are never negative, so these cannot collide with a token that is added to a vocabulary.
    image_token_id: int = IMAGE_TOKEN_ID
    region_token_id: int = REGION_TOKEN_ID
    box_style: str = "text"
    released_config: dict[str, Any] | None = None
    tie_word_embeddings: bool = False  # the language model's own configuration decides

    @property
    def patches_a_side(self) -> int:
        """Patches along each side of the image."""
        vision: Any = self.vision_config
        return int(vision.image_size) // int(vision.patch_size)
