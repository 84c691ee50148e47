"""Flickr30k Entities as published: sentences with chains, and the boxes of the chains as XML."""

import re
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from griffon_prep.records import Record
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.resolve import find_sources
from griffon_shards.support.errors import DataError, SettingsError

from .mutations import spoilt_bytes
from .reading import read_source

SENTENCES = {
    "7": "[/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] look at [/EN#0/notvisual it] .\n"
    "[/EN#3/people/other A man] and [/EN#4/people a man] stand in [/EN#5/scene the yard] .\n"
    "[/EN#1/people Two young guys] , [/EN#4/people A man] .\n",
    "8": "Nothing is marked here .\n[/EN#9/other A  \t dog]\n",
    "9": "No phrase at all .\n",
}


def xml(objects: str, size: str = "<size><width>200</width><height>100</height><depth>3</depth></size>") -> str:
    return f"<annotation>\n<filename>x.jpg</filename>{size}{objects}</annotation>\n"


def thing(names: str, box: tuple[int, ...] = (), marks: str = "") -> str:
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
    bndbox = f"<bndbox>{''.join(f'<{edge}>{px}</{edge}>' for edge, px in edges)}</bndbox>" if box else ""
    return f"<object>{''.join(f'<name>{name}</name>' for name in names.split())}{bndbox}{marks}</object>"


ANNOTATIONS = {
    "7": xml(
        thing("1", (11, 21, 41, 61))
        + thing("1 3", (101, 1, 151, 51))
        + thing("2", (5, 6, 7, 8))
        + thing("4", (1, 1, 31, 31))
        + thing("5", marks="<scene>1</scene><nobndbox>1</nobndbox>")
    ),
    "8": xml(thing("9", (1, 2, 3, 4))),
    "9": xml(""),
}
ONE, TWO, THREE = (10.0, 20.0, 40.0, 60.0), (100.0, 0.0, 150.0, 50.0), (0.0, 0.0, 30.0, 30.0)


def write(folder: Path, sentences: Mapping[str, str] = SENTENCES, annotations: Mapping[str, str] = ANNOTATIONS) -> Path:
    for name, texts, ending in (("Sentences", sentences, "txt"), ("Annotations", annotations, "xml")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for image, text in texts.items():
            (folder / name / f"{image}.{ending}").write_text(text, encoding="utf-8")
    return folder


def found(records: list[Record | tuple[str, str]]) -> list[tuple[str | None, str, list[tuple[float, ...]]] | str]:
    return [
        (record.image_path, record.regions[0].phrase, [region.box_xyxy_px for region in record.regions])
        if isinstance(record, Record)
        else record[0]
        for record in records
    ]


def test_each_phrase_of_an_image_is_a_record_with_all_boxes_of_its_chain(tmp_path: Path) -> None:
    """Phrases without boxes are not asked for; a phrase of two chains has the boxes of both."""
    records, scan = read_source(write(tmp_path / "entities"), "VG", rounds="4")
    assert found(records) == [
        ("7.jpg", "Two young guys", [ONE, TWO]),
        ("7.jpg", "shaggy hair", [(4.0, 5.0, 6.0, 7.0)]),
        ("7.jpg", "A man", [TWO, THREE]),
        ("7.jpg", "a man", [THREE]),
        ("8.jpg", "A dog", [(0.0, 1.0, 2.0, 3.0)]),
    ]
    assert {(record.width_px, record.height_px) for record in records if isinstance(record, Record)} == {(200, 100)}
    assert scan.notes == ("2 phrases skipped for lack of a box",)
    assert scan.round_keys is not None
    assert len(set(scan.round_keys.images)) == 2


def test_a_folder_is_recognised_and_a_split_chosen(tmp_path: Path) -> None:
    write(tmp_path / "entities")
    (tmp_path / "train.txt").write_text("8\n9\n")
    line = ManifestLine(
        line_no=1, tag="VG", task="VG", annotation="entities", image_root=".", options={"split": "train"}
    )
    (source,) = find_sources([line], tmp_path, "m.txt")
    assert (source.format, list(source.companions.values())) == ("flickr30k", [tmp_path / "train.txt"])
    records, _ = read_source(tmp_path / "entities", "VG", split="train.txt")  # or the name of the list without ending
    assert found(records) == [("8.jpg", "A dog", [(0.0, 1.0, 2.0, 3.0)])]
    with pytest.raises(SettingsError, match=r"split=val: there is no val\.txt in this folder or beside it"):
        read_source(tmp_path / "entities", "VG", split="val")


@pytest.mark.parametrize(
    ("sentences", "annotation", "detail"),
    [
        ("[/EN#1/people A man sits .", None, "line 1: expected phrases like"),
        ("[EN#1/people A man] sits .", None, "line 1: expected phrases like"),
        ("[/EN#1 A man] sits .", None, "line 1: expected phrases like"),
        ("[/EN#1/people A [/EN#2/people man]] .", None, "line 1: expected phrases like"),
        ("ok\n[/EN#x/people A man]", None, "line 2: expected phrases like"),
        (None, "", "there is no Annotations/8.xml"),
        (None, "<annotation>", "not XML that can be read"),
        (None, '<!DOCTYPE a [<!ENTITY b "c">]>' + xml(""), "has a document type or entities"),
        (None, xml(thing("9", (1, 2, 3))), "ymax: expected a number"),
        (None, xml(thing("9")), "object 9 has neither bndbox nor nobndbox"),
        (None, xml(thing("dog", (1, 2, 3, 4))), "expected numbers of chains"),
        (None, xml(thing("", (1, 2, 3, 4))), "expected numbers of chains"),
        (None, xml("", "<size><width>1.5</width><height>9</height></size>"), "size: expected whole numbers"),
    ],
)
def test_an_image_that_cannot_be_read_is_rejected_alone(
    tmp_path: Path, sentences: str | None, annotation: str | None, detail: str
) -> None:
    texts = {**SENTENCES, "8": sentences or SENTENCES["8"]}
    annotations = {**ANNOTATIONS, "8": ANNOTATIONS["8"] if annotation is None else annotation}
    folder = write(tmp_path / "entities", texts, {name: text for name, text in annotations.items() if text})
    records, _ = read_source(folder, "VG")
    assert found(records)[:4] == found(read_source(write(tmp_path / "intact"), "VG")[0])[:4]
    assert len(records) == 5
    assert records[4][0] == "bad_record"  # type: ignore[index]
    assert records[4][1].startswith("8.txt: ") and detail in records[4][1]  # type: ignore[index]


def test_a_size_that_is_missing_is_read_from_the_image(tmp_path: Path) -> None:
    folder = write(tmp_path / "entities", {"8": SENTENCES["8"]}, {"8": xml(thing("9", (1, 2, 3, 4)), "")})
    (record,), _ = read_source(folder, "VG")
    assert isinstance(record, Record)
    assert record.needs_size


def oracle(sentences: str, annotation: str) -> set[tuple[str, tuple[tuple[float, ...], ...]]]:
    """Phrases and boxes, by plain searching."""
    boxes: dict[str, list[tuple[float, ...]]] = {}
    for item in re.findall(r"<object>(.*?)</object>", annotation, re.DOTALL):
        for numbers in re.findall(
            r"<xmin>([^<]*)<.*?<ymin>([^<]*)<.*?<xmax>([^<]*)<.*?<ymax>([^<]*)<", item, re.DOTALL
        ):
            for name in re.findall(r"<name>([^<]*)</name>", item):
                boxes.setdefault(str(int(name)), []).append(tuple(float(number) - 1 for number in numbers))
    chains: dict[str, list[str]] = {}
    for chain, phrase in re.findall(r"\[/EN#(\d+)/\S+ ([^]]*)]", sentences):
        chains.setdefault(" ".join(phrase.split()), []).append(str(int(chain)))
    of_phrases = {
        phrase: dict.fromkeys(box for chain in dict.fromkeys(of_phrase) for box in boxes.get(chain, ()))
        for phrase, of_phrase in chains.items()
    }
    return {(phrase, tuple(of_phrase)) for phrase, of_phrase in of_phrases.items() if of_phrase}


CASES = 400


def test_no_spoilt_file_gives_a_wrong_answer(tmp_path: Path) -> None:
    folder = write(tmp_path / "entities")
    intact = found(read_source(folder, "VG")[0])
    assert {(item[1], tuple(item[2])) for item in intact[:4] if not isinstance(item, str)} == oracle(
        SENTENCES["7"], ANNOTATIONS["7"]
    )
    read = 0
    for case in range(CASES):
        random = Random(f"flickr30k {case}")
        files = {"Sentences/7.txt": SENTENCES["7"].encode(), "Annotations/7.xml": ANNOTATIONS["7"].encode()}
        name = random.choice(list(files))
        files[name] = spoilt_bytes(random, files[name])
        for file, data in files.items():
            (folder / file).write_bytes(data)
        try:
            records, _ = read_source(folder, "VG")
        except (DataError, SettingsError) as error:
            assert str(error)
            continue
        answers = found(records)
        assert intact[-1] in answers, case
        of_seven = [item for item in answers if not isinstance(item, str) and item[0] == "7.jpg"]
        if of_seven:
            read += 1
            right = oracle(*(data.decode() for data in files.values()))
            assert {(item[1], tuple(item[2])) for item in of_seven} <= right, (case, files)
    assert read > CASES // 4
