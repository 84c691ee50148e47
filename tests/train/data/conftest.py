"""A small tokenizer, and the table of lengths that is counted with it."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from griffon_shards.frozen_set import open_set
from griffon_train.data.lengths import count_lengths

from .length_tables import CHAT, in_this_process


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer of bytes and their pairs, as transformers stores it."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=alphabet,
        special_tokens=["<s>", "<start_of_turn>", "<end_of_turn>"],
        show_progress=False,
    )
    trained.train_from_iterator(
        ["Find the red circle in the image, and answer with boxes: [0.120,0.034]."] * 3, trainer
    )
    folder = tmp_path_factory.mktemp("tokenizer") / "分词"
    stored = PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<s>")
    stored.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory, variants_set: Path, tokenizer_folder: Path) -> Path:
    """The table of lengths of the set with three variants."""
    path = tmp_path_factory.mktemp("tables") / "variants.lengths"
    progress: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("griffon_train.data.lengths.LocalPool", in_this_process)
        count_lengths(variants_set, str(tokenizer_folder), CHAT, path, workers=1, done=progress.append)
    assert sum(progress) == len(open_set(variants_set))
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("griffon_train.data.lengths.LocalPool", in_this_process)
