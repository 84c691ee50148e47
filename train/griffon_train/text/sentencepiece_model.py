"""A fast tokenizer out of a SentencePiece model that has no tokenizer.json beside it, as Llama 2 was released.

transformers makes one, too, but orders merges by id where SentencePiece goes by score, sets no blank in front of a text
that begins with one, and takes the kind of tokenizer from whatever else is in the folder.
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
"""Settings that are carried out in what the tokenizers library makes of the model."""

_BLANK = "▁"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # types of pieces in sentencepiece_model.proto
_TURN_MARKS = ("<start_of_turn>", "<end_of_turn>")
"""Control tokens that Gemma's models hold as words."""

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
"""Texts in which a tokenizer that was put together wrongly differs from SentencePiece."""


def fast_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - a PreTrainedTokenizerBase
    """The tokenizer of a folder with a `tokenizer.model`; it gives the tokens that SentencePiece gives.

    The folder's other files, if there are any, say what was added to the vocabulary and which tokens are for what.

    Raises:
        SettingsError: the file is no SentencePiece model, or its tokens cannot be had from the tokenizers library.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerFast

    path = folder / MODEL_NAME
    config = folder / _CONFIG_NAME
    said = orjson.loads(config.read_bytes()) if config.is_file() else {}
    proto = _read(path)
    if said.get("add_prefix_space") is False:
        proto.normalizer_spec.add_dummy_prefix = False
    # As if it had been published with a tokenizer.json.
    with TemporaryDirectory() as scratch:
        as_fast = Path(scratch)
        _backend(proto, said).save(str(as_fast / "tokenizer.json"))
        (as_fast / _CONFIG_NAME).write_bytes(orjson.dumps(_config(proto, said)))
        for name in _BESIDE:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, as_fast / name)
        made: Any = PreTrainedTokenizerFast.from_pretrained(as_fast, local_files_only=True)
    made.name_or_path = str(folder)
    made.add_bos_token, made.add_eos_token = said.get("add_bos_token", True), said.get("add_eos_token", False)
    model = SentencePieceProcessor(model_proto=proto.SerializeToString())
    for text in _PROBES:
        if made(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] != model.encode(text):
            raise SettingsError(
                f"{path}: the tokenizers library cannot reproduce SentencePiece's tokens (they differ for "
                f"{text!r}); use a folder that has a tokenizer.json"
            )
    return made


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


def _config(proto: Any, said: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """A `tokenizer_config.json`: what the folder's own said, and of what it did not what the model says."""
    ids = {f"{name}_token": getattr(proto.trainer_spec, f"{name}_id") for name in ("bos", "eos", "unk", "pad")}
    return {
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        **{name: proto.pieces[number].piece for name, number in ids.items() if number >= 0},
        **{name: value for name, value in said.items() if name not in _IN_BACKEND and value not in (None, "")},
    }


def _backend(proto: Any, said: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """SentencePiece's model as a `Tokenizer` of the tokenizers library.

    Args:
        proto: what `tokenizer.model` holds.
        said: its `tokenizer_config.json`. With `legacy` a blank is set not only in front of a text, but behind each
            control token in it, too.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    spec = proto.trainer_spec
    made = Tokenizer(
        models.BPE(
            vocab={each.piece: number for number, each in enumerate(proto.pieces)},
            merges=_merges({each.piece: each.score for each in proto.pieces if each.type in (_NORMAL, _USER_DEFINED)}),
            unk_token=proto.pieces[spec.unk_id].piece,
            fuse_unk=True,
            byte_fallback=spec.byte_fallback,
        )
    )
    made.normalizer = normalizers.Replace(" ", _BLANK)
    decoding: list[Any] = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        # The first sets a blank in front. Were it to set `▁`, it would not where there is one already.
        scheme = "always" if said.get("legacy") else "first"
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=scheme, split=False),
                pre_tokenizers.Metaspace(replacement=_BLANK, prepend_scheme="never", split=False),
            ]
        )
        decoding.append(decoders.Strip(content=" ", left=1))
    made.decoder = decoders.Sequence(decoding)
    made.add_tokens(
        [
            AddedToken(each.piece, normalized=False, special=each.type != _USER_DEFINED or each.piece in _TURN_MARKS)
            for each in proto.pieces
            if each.type in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]
    )
    return made


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the merges, ordered by score.

    Among equal scores the one with the longer left part comes first. So sequences of spaces, which all score the same
    in Llama 2's vocabulary, become as long as they can from the left, as SentencePiece makes them.
    """
    splits = [
        (score, place, len(piece), piece[:place], piece[place:])
        for piece, score in scores.items()
        for place in range(1, len(piece))
        if piece[:place] in scores and piece[place:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(splits, reverse=True)]
