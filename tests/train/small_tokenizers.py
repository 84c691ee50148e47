"""Tokenizers made on the spot, and conversations as they come out of them, in writing."""

from collections.abc import Sequence
from itertools import groupby

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from griffon_shards.types import Turn
from griffon_train.text.chat_templates import IGNORE, IMAGE_TOKEN_ID, REGION_TOKEN_ID, Encoded

MARKS = ("<start_of_turn>", "<end_of_turn>", "</s>", "<|im_start|>", "<|im_end|>")


def byte_level(
    *merges: tuple[str, str], special: Sequence[str] = MARKS, bos: str | None = "<s>", trim: bool = False
) -> PreTrainedTokenizerBase:
    """A token for every byte, and those that are merged, in the order of merging.

    Args:
        merges: of bytes as the byte level writes them: a newline is `Ċ`, a space `Ġ`.
        special: control tokens.
        bos: the token that texts begin with.
        trim: leave spaces out of tokens' places, as GPT-2's tokenizer does.
    """
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    made = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=list(merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=trim)
    made.decoder = decoders.ByteLevel()
    loaded: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos)
    loaded.add_tokens([AddedToken(item, special=True) for item in special])
    return loaded


def conversation(*texts: str) -> list[Turn]:
    """Human and model take turns, and human begins."""
    return [Turn(role="gpt" if index % 2 else "human", text=text) for index, text in enumerate(texts)]


def id_of(token: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of a token that is in the vocabulary, or that of the unknown token."""
    result = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(result, int)
    return result


def shown(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> str:
    """Write tokens out: targets in «», images as 🖼, regions as ✂. Check that each label is the id or `IGNORE`."""
    text = ""
    for (learned, position), group in groupby(zip(encoded.ids, encoded.labels, strict=True), _kind):
        pairs = list(group)
        assert all(label == (token if learned else IGNORE) for token, label in pairs)
        reported = position * len(pairs) if position else str(tokenizer.decode([token for token, _ in pairs]))
        text += f"«{reported}»" if learned else reported
    return text


def _kind(pair: tuple[int, int]) -> tuple[bool, str]:
    token, label = pair
    return label != IGNORE, {IMAGE_TOKEN_ID: "🖼", REGION_TOKEN_ID: "✂"}.get(token, "")
