"""Make a fast tokenizer from a SentencePiece model without a tokenizer.json, the form in which Llama 2 was released.

transformers can make one too, but it orders merges by id instead of by score, puts no space before a text that begins
with one, and takes the type of tokenizer from other files in the folder.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from griffon_shards.support.errors import SettingsError

MODEL_NAME = "tokenizer.model"

_CONFIG_NAME = "tokenizer_config.json"
_BESIDE = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
_IN_BACKEND = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "sp_model_kwargs", "tokenizer_class")
"""Settings that the backend tokenizer already implements."""

_BLANK = "▁"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # types of pieces in sentencepiece_model.proto
_TURN_MARKS = ("<start_of_turn>", "<end_of_turn>")
"""Control tokens that Gemma's models hold as user-defined words."""

_PROBES = (
    "safe.  Your",
    " a",
    "a   b\n\n\n   c \t\t",
    " " * 40,
    "1234567890 3.14",
    "Größe 两只猫 ねこ 고양이 שלום ｆｕｌｌ 👩‍👩‍👧 \x01",
    "--- ===== }}}} aaaaaaa",
    "</a> [INST]",
)
"""Texts for which a wrongly assembled tokenizer differs from SentencePiece."""


def fast_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - a PreTrainedTokenizerBase
    """Return the tokenizer of a folder with a `tokenizer.model`; it gives the same tokens as SentencePiece.

    Other files in the folder, if any, state the added tokens and the special tokens.

    Raises:
        SettingsError: the file is not a SentencePiece model, or the tokenizers library cannot reproduce its tokens.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerFast

    path = folder / MODEL_NAME
    config = folder / _CONFIG_NAME
    settings = orjson.loads(config.read_bytes()) if config.is_file() else {}
    proto = _read(path)
    if settings.get("add_prefix_space") is False:
        proto.normalizer_spec.add_dummy_prefix = False
    # Load it from a folder with a tokenizer.json, as if it had been published with one.
    with TemporaryDirectory() as scratch:
        as_fast = Path(scratch)
        _backend(proto, settings).save(str(as_fast / "tokenizer.json"))
        (as_fast / _CONFIG_NAME).write_bytes(orjson.dumps(_config(proto, settings)))
        for name in _BESIDE:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, as_fast / name)
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(as_fast, local_files_only=True)
    tokenizer.name_or_path = str(folder)
    tokenizer.add_bos_token, tokenizer.add_eos_token = (
        settings.get("add_bos_token", True),
        settings.get("add_eos_token", False),
    )
    model = SentencePieceProcessor(model_proto=proto.SerializeToString())
    for text in _PROBES:
        if tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] != model.encode(text):
            raise SettingsError(
                f"{path}: the tokenizers library cannot reproduce SentencePiece's tokens (they differ for "
                f"{text!r}); use a folder that has a tokenizer.json"
            )
    return tokenizer


def _read(path: Path) -> Any:  # noqa: ANN401 - a ModelProto
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    with suppress(DecodeError):
        proto.ParseFromString(path.read_bytes())
        if proto.pieces:
            return proto
    raise SettingsError(
        f"{path}: not a SentencePiece model, or damaged; download it again, or use a folder that has a tokenizer.json"
    )


def _config(proto: Any, settings: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return a `tokenizer_config.json`: the folder's settings, and the model's where the folder has none."""
    ids = {f"{name}_token": getattr(proto.trainer_spec, f"{name}_id") for name in ("bos", "eos", "unk", "pad")}
    return {
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        **{name: proto.pieces[token_id].piece for name, token_id in ids.items() if token_id >= 0},
        **{name: value for name, value in settings.items() if name not in _IN_BACKEND and value not in (None, "")},
    }


def _backend(proto: Any, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return a SentencePiece model as a `Tokenizer` of the tokenizers library.

    Args:
        proto: content of `tokenizer.model`.
        settings: its `tokenizer_config.json`. With `legacy`, a space is put not only before a text, but also after
            each control token in it.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    spec = proto.trainer_spec
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece.piece: token_id for token_id, piece in enumerate(proto.pieces)},
            merges=_merges(
                {piece.piece: piece.score for piece in proto.pieces if piece.type in (_NORMAL, _USER_DEFINED)}
            ),
            unk_token=proto.pieces[spec.unk_id].piece,
            fuse_unk=True,
            byte_fallback=spec.byte_fallback,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", _BLANK)
    decoding: list[Any] = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        # The first puts a space before the text. If it put `▁`, it would not where the text begins with one.
        scheme = "always" if settings.get("legacy") else "first"
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=scheme, split=False),
                pre_tokenizers.Metaspace(replacement=_BLANK, prepend_scheme="never", split=False),
            ]
        )
        decoding.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(decoding)
    tokenizer.add_tokens(
        [
            AddedToken(piece.piece, normalized=False, special=piece.type != _USER_DEFINED or piece.piece in _TURN_MARKS)
            for piece in proto.pieces
            if piece.type in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the merges, ordered by score.

    Among equal scores the one with the longer left part comes first. So sequences of spaces, which all have the same
    score in Llama 2's vocabulary, become as long as possible from the left, as in SentencePiece.
    """
    splits = [
        (score, split, len(piece), piece[:split], piece[split:])
        for piece, score in scores.items()
        for split in range(1, len(piece))
        if piece[:split] in scores and piece[split:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(splits, reverse=True)]
