"""A checkpoint that a run deletes while an evaluation reads it."""

from pathlib import Path

import pytest
import torch

from griffon_shards.support.errors import DataError
from griffon_train.training.checkpoint_folders import TrainingCheckpoint
from griffon_train.training.model_source import fill


def test_the_message_names_it_and_the_remedy(tmp_path: Path) -> None:
    files = [{"name": "rank-00000.safetensors", "fragments": [["weight", 0, 3, 0, 0]]}]
    checkpoint = TrainingCheckpoint(path=tmp_path / "step-00000002", index={"files": files})
    parameters = {"weight": torch.nn.Parameter(torch.zeros(3))}
    with pytest.raises(DataError, match="step-00000002: was deleted while it was read"):
        fill(parameters, checkpoint, lambda: None)
