"""The inputs of rendering besides the record: build settings and facts about the source."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from griffon_prep.records import name_key
from griffon_prep.render.keyed_random import KeyedRandom
from griffon_shards.templates import Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSettings:
    """Build settings that determine questions and answers.

    Attributes:
        seed: seed of every draw.
        boxes: one of `griffon_shards.types.BOX_STYLES`.
        det_categories: size of DET's category set, unless more categories are present.
        variants: number of renderings of each sample.
        templates: the question templates.
    """

    seed: int
    boxes: str
    det_categories: int
    variants: int
    templates: Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Facts about a source that all its records share.

    Attributes:
        tag: key of the draws, together with the seed.
        task: one of `griffon_shards.types.TASKS`.
        vocabulary: sorted names from which negatives are drawn.
        spellings: names of the vocabulary that differ only in case or whitespace, by their common key.
    """

    tag: str
    task: str
    vocabulary: tuple[str, ...] = ()
    spellings: Mapping[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_key: dict[str, tuple[str, ...]] = {}
        for name in self.vocabulary:
            by_key[name_key(name)] = (*by_key.get(name_key(name), ()), name)
        object.__setattr__(self, "spellings", {key: names for key, names in by_key.items() if len(names) > 1})

    def draws(self, seed: int, record_no: int, variant: int, purpose: str) -> KeyedRandom:
        """Return the draws for one purpose, for one variant of one record."""
        return KeyedRandom(seed, self.tag, record_no, variant, purpose)
