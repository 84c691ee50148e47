"""`griffon-train tokens`: the tokens of samples, and which of them the model learns."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import click
import orjson

from griffon_shards.frozen_set import open_set
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.command_line import guard
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import printable
from griffon_shards.types import Rendering, Sample
from griffon_train.text.chat_templates import CHATS, check_tokenizer, encode
from griffon_train.text.tokenization import IGNORE, IMAGE_TOKEN_ID, REGION_TOKEN_ID, Encoded

_PLACES = {IMAGE_TOKEN_ID: "image", REGION_TOKEN_ID: "region"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive tokens of one kind.

    Attributes:
        kind: `learned`, `given`, `image` or `region`.
        ids: token ids; those of an image and a region are placeholders.
        text: the text that they stand for.
    """

    kind: str
    ids: list[int]
    text: str


@click.command("tokens")
@click.argument("root", metavar="DIR", type=LOCATION)
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--tokenizer", "folder", required=True, metavar="FOLDER", help="Folder of a tokenizer or a model.")
@click.option("--chat", type=click.Choice(list(CHATS)), required=True, help="Chat template.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, with the ids of the tokens.")
@guard
def tokens_command(root: Location, keys: tuple[str, ...], folder: str, chat: str, as_json: bool) -> None:
    """Show the tokens of samples as the model is given them, and which of them it learns to write.

    DIR is a shard folder made by griffon-prep build, or its URL; griffon-shards ls lists its keys. Images stand as one
    token each, and nothing is truncated.
    """
    from griffon_train.text.tokenizer import load_tokenizer  # transformers takes seconds to import

    frozen, tokenizer = open_set(root), load_tokenizer(folder)
    check_tokenizer(chat, tokenizer)
    for key in keys:
        row = frozen.row(key)
        sample = frozen[row]
        for variant, rendering in enumerate(sample.renderings):
            spans = list(_spans(_encoded(sample, rendering, frozen.where(row), tokenizer, chat), tokenizer))
            name = key if len(sample.renderings) == 1 else f"{key}, variant {variant}"
            if as_json:
                fields = [{"kind": span.kind, "ids": span.ids, "text": span.text} for span in spans]
                click.echo(orjson.dumps({"key": key, "variant": variant, "spans": fields}))
            else:
                _print(f"{name}  {sample.task}", spans)


def _encoded(sample: Sample, rendering: Rendering, where: str, tokenizer: Any, chat: str) -> Encoded:  # noqa: ANN401 - of transformers
    images, regions = int(sample.image is not None), int(rendering.region_xyxy_px is not None)
    try:
        return encode(chat, rendering.turns, tokenizer, images=images, regions=regions)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _spans(encoded: Encoded, tokenizer: Any) -> Iterator[Span]:  # noqa: ANN401 - of transformers
    """Yield the spans of a conversation.

    Text is decoded from the start of its stretch, as the first token of a text may lose a space.
    """

    def kind(place: int) -> str:
        token, label = encoded.ids[place], encoded.labels[place]
        return _PLACES.get(token, "given" if label == IGNORE else "learned")

    begin, before = 0, ""
    for name, group in groupby(range(len(encoded.ids)), kind):
        places = list(group)
        ids = encoded.ids[places[0] : places[-1] + 1]
        if name in _PLACES.values():
            yield Span(kind=name, ids=ids, text=f"<{name}>")
            begin, before = places[-1] + 1, ""
        else:
            decoded = tokenizer.decode(encoded.ids[begin : places[-1] + 1], clean_up_tokenization_spaces=False)
            yield Span(kind=name, ids=ids, text=decoded[len(before) :])
            before = decoded


def _print(title: str, spans: list[Span]) -> None:
    counts = {name: sum(len(span.ids) for span in spans if span.kind == name) for name in ("given", "learned")}
    click.echo(f"{title}  {sum(counts.values()):,} text tokens, {counts['learned']:,} of them learned")
    for span in spans:
        line = f"  {span.kind:8}{len(span.ids):>6}  {printable(span.text)}"
        click.echo(click.style(line, bold=True) if span.kind == "learned" else line)
