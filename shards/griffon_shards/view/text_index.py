"""Text as the full-text index has it, and what people type as a query of it."""

import re

from griffon_shards.support.errors import SettingsError
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN

TABLE = "CREATE VIRTUAL TABLE text USING fts5(body, content='', tokenize='unicode61 remove_diacritics 2')"
"""Contentless: texts are read from the shards. Upper and lower case, and accents, are alike."""
_NUMBERS = re.compile(
    r"\[[0-9]\.[0-9]{3}(?:,[0-9]\.[0-9]{3}){3}\]|(?:<bin_[0-9]{1,4}>)+|"
    + f"{re.escape(IMAGE_TOKEN)}|{re.escape(REGION_TOKEN)}"
)
# Chinese, Japanese and Thai are written without spaces: each character is a word of its own, and a word is a phrase.
_UNSPACED = re.compile("([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_ITEM = re.compile(r'"([^"]*)"?|(\S+)')
_MAX_WORDS = 32


def indexed(text: str) -> str:
    """A text without coordinates and placeholders, which are in nearly every text, and with a space between words."""
    text = _NUMBERS.sub(" ", text)
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", text)


def match_expression(query: str) -> str:
    """The FTS5 expression of what somebody typed: every word and every "phrase" occurs. No syntax of FTS5 gets through.

    Raises:
        SettingsError: it has no word, or too many.
    """
    items = [quoted or word for quoted, word in _ITEM.findall(query.replace("\0", " "))]
    phrases = [indexed(item).replace('"', " ") for item in items]
    phrases = [phrase for phrase in phrases if any(map(str.isalnum, phrase))]
    if not phrases:
        raise SettingsError("q: has no word to search for; give words, or a phrase in quotes")
    if sum(len(phrase.split()) for phrase in phrases) > _MAX_WORDS:
        raise SettingsError(f"q: has more than {_MAX_WORDS} words; give fewer")
    return " ".join(f'"{phrase}"' for phrase in phrases)
