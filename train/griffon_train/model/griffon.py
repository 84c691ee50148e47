"""The Griffon-G model: towers and a language model of transformers, joined by projectors."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, CLIPVisionModel, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from griffon_train.model.config import GriffonConfig
from griffon_train.model.projector import PROJECTORS, image_tokens, region_projector


class GriffonForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A language model that sees an image and the region of it that a user points at.

    Attributes:
        vision_tower: sees the image.
        projector: maps its patch features to the language model's embeddings.
        language_model: a model of transformers, unchanged; it reads image features among the text's embeddings.
        region_tower: sees the region; frozen, and None without `region_config`.
        region_projector: maps its class token to one embedding; None without `region_config`.
        image_tokens: number of image tokens in `input_ids` per image.
    """

    config: GriffonConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: GriffonConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        text_width = config.get_text_config().hidden_size
        self.vision_tower = CLIPVisionModel._from_config(vision)
        self.projector = PROJECTORS[config.projector](vision.hidden_size, text_width)
        region: Any = config.region_config
        self.region_tower = CLIPVisionModel._from_config(region) if region is not None else None
        self.region_projector = region_projector(region.hidden_size, text_width) if region is not None else None
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.image_tokens = image_tokens(config.projector, config.patches_a_side)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize the projectors as torch and the reference do; the other parts initialize themselves."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the language model's input embeddings."""
        embeddings: nn.Embedding = self.language_model.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Linear:
        """Return the language model's head."""
        head: nn.Linear = self.language_model.get_output_embeddings()
        return head

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features of images; [P, 3, side, side] to [P, image_tokens, width]."""
        features: torch.Tensor = self.projector(self._selected_state(pixel_values)[:, 1:])
        return self._scaled(features)

    def _selected_state(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the vision tower's hidden state `select_layer`; no layer after it is computed."""
        tower: Any = self.vision_tower
        layers = list(tower.encoder.layers)
        state: torch.Tensor = tower.pre_layrnorm(tower.embeddings(pixel_values))
        for layer in layers[: self.config.select_layer % (len(layers) + 1)]:
            state = layer(state, None)
        return state

    def region_features(self, region_values: torch.Tensor) -> torch.Tensor:
        """Return the features of regions; [R, 3, side, side] to [R, width]."""
        assert self.region_tower is not None and self.region_projector is not None
        with torch.no_grad():
            states = self.region_tower(region_values, output_hidden_states=True).hidden_states
        features: torch.Tensor = self.region_projector(states[-1][:, 0])
        return self._scaled(features)

    def _scaled(self, features: torch.Tensor) -> torch.Tensor:
        """Scale features as Gemma scales its embeddings, by the root of the width; others have no such scale."""
        scale = getattr(self.get_input_embeddings(), "embed_scale", None)
        return features if scale is None else features * scale.to(features.dtype)

    def embedded(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None,
        region_values: torch.Tensor | None,
        *,
        every_tower: bool,
        image_of: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the embeddings of tokens, with features in place of image and region tokens; [B, L, width].

        Args:
            input_ids: [B, L].
            pixel_values: images in order of their tokens, [P, 3, side, side].
            region_values: regions in order of their tokens, [R, 3, side, side].
            every_tower: also run towers that have no input, on a blank image whose features do not count.
            image_of: where images repeat, the index into `pixel_values` of each in order of their tokens.

        Raises:
            ValueError: the numbers of images and regions do not match the numbers of their tokens.
        """
        masks = {
            "image": input_ids == self.config.image_token_id,
            "region": input_ids == self.config.region_token_id,
        }
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids.masked_fill(masks["image"] | masks["region"], 0))
        for name, values, tower, features_of in (
            ("image", pixel_values, self.vision_tower, self.image_features),
            ("region", region_values, self.region_tower, self.region_features),
        ):
            order = image_of if name == "image" else None
            shown = values if order is None else order
            wanted, given = int(masks[name].sum()), 0 if shown is None else len(shown)
            if wanted != given * (self.image_tokens if name == "image" else 1) or (given and tower is None):
                raise ValueError(
                    f"{wanted} tokens for {name}s, but {given} {name}s; an image takes {self.image_tokens} tokens, "
                    "a region one, and only a model with `region_config` takes regions"
                )
            if given:
                assert values is not None
                features = features_of(values.to(self.dtype)).to(embeds.dtype)
                features = features if order is None else features[order]
                embeds = embeds.masked_scatter(masks[name].unsqueeze(-1), features)
            elif every_tower and tower is not None:
                side = tower.config.image_size
                blank = torch.zeros((1, 3, side, side), dtype=self.dtype, device=embeds.device)
                embeds = embeds + features_of(blank).sum().to(embeds.dtype) * 0
        return embeds

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        region_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> CausalLMOutputWithPast:
        """Return the logits, and the loss if labels are given.

        Every tower runs every time, on a blank image if it has no input. A rank that skipped a tower would leave the
        other ranks waiting for its gradients and weights.

        Args:
            input_ids: [B, L], with `image_tokens` image tokens per image.
            attention_mask: [B, L]; 0 for padding, on either side.
            pixel_values: normalised images in order of their tokens, [P, 3, side, side].
            region_values: normalised regions in order of their tokens, [R, 3, side, side].
            labels: [B, L]; -100 for tokens that are not targets.
            **kwargs: passed to the language model.

        Raises:
            ValueError: the numbers of images and regions do not match the numbers of their tokens.
        """
        embeds = self.embedded(input_ids, pixel_values, region_values, every_tower=True)
        output: CausalLMOutputWithPast = self.language_model(
            inputs_embeds=embeds, attention_mask=attention_mask, labels=labels, **kwargs
        )
        return output

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        region_values: torch.Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - tokens, or the requested output class
        """Generate; return the new tokens without the prompt. Arguments as for `forward`; pad prompts on the left."""
        embeds = self.embedded(input_ids, pixel_values, region_values, every_tower=False)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        self.language_model.generation_config = self.generation_config
        return self.language_model.generate(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)
