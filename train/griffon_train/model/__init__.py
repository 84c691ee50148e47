"""The Griffon-G model: a CLIP tower, a projector, a language model, and a second tower for regions.

Importing this package registers the model with the Auto classes of transformers, so that they and pipelines load
saved models.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

from griffon_train.model.config import GriffonConfig
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.image_processor import GriffonImageProcessor
from griffon_train.model.processor import GriffonProcessor

__all__ = ["GriffonConfig", "GriffonForConditionalGeneration", "GriffonImageProcessor", "GriffonProcessor"]

AutoConfig.register(GriffonConfig.model_type, GriffonConfig, exist_ok=True)
AutoModel.register(GriffonConfig, GriffonForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(GriffonConfig, GriffonForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(
    GriffonConfig,
    image_processor_classes={"pil": GriffonImageProcessor, "torchvision": GriffonImageProcessor},
    exist_ok=True,
)
AutoProcessor.register(GriffonConfig, GriffonProcessor, exist_ok=True)
