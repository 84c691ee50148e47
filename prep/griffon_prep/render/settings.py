"""What rendering needs besides the record: the settings of the build and the facts of the source."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from griffon_prep.records import name_key
from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.render.templates import Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSettings:
    """Settings of a build that decide what is asked and answered.

    Attributes:
        seed: of every draw.
        boxes: one of `griffon_shards.types.BOX_STYLES`.
        det_categories: size of DET's category set, unless more are present.
        variants: how many renderings each sample gets.
        templates: the wordings.
    """

    seed: int
    boxes: str
    det_categories: int
    variants: int
    templates: Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Facts of a source that all its records share.

    Attributes:
        tag: keys the draws, with the seed.
        task: one of `griffon_shards.types.TASKS`.
        vocabulary: the sorted names that DET's negatives are drawn from.
        spellings: names of the vocabulary that differ in case or blanks alone, by what they share.
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
        """The draws of one purpose for one variant of one record."""
        return KeyedRandom(seed, self.tag, record_no, variant, purpose)
