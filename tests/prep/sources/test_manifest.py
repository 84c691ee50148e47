"""Manifest lines: what is read of them, and what a user is told of a wrong one."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffon_prep.sources.manifest import ManifestLine, read_manifest, single_line
from griffon_shards.support.errors import SettingsError

REPOSITORY = Path(__file__).parents[3]
REFERENCE = REPOSITORY.parent / "shared/data/reference/manifests"
# All but the list of machines, which stands there for DeepSpeed's launcher.
OURS = sorted(path for path in (REPOSITORY / "manifests").glob("*.txt") if path.name != "hostfile.txt")
LINE_ENDS = ("\n", "\r\n", "\r")

# What a path may hold: anything but a line end, and no ampersand with spaces round it, for that parts the fields.
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1).filter(
    lambda path: path == path.strip() and not re.search(r"(^|\s)&|&(\s|$)", path)
)


def parse(folder: Path, text: str | bytes) -> list[ManifestLine]:
    path = folder / "m.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(path)


def faults_of(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(folder, text)
    return [line.removeprefix(f"{folder / 'm.txt'}:") for line in str(caught.value).splitlines()]


def test_fields_are_as_written(tmp_path: Path) -> None:
    text = (
        "# a comment & not a line\n\n   \t\n"
        "DET_0 & a folder/标注 1.json & 图片/训练集 2\n"
        "   # another\n"
        "LAZY\t&\tx.json\t&\t.\t&\tformat=llava,weight = 0.5 ,  limit=10, split=train\n"
        "VG_R_and_D & R&D/a.jsonl & /abs/R&D/"
    )
    first, second, last = parse(tmp_path, text)
    assert (first.line_no, first.tag, first.task) == (4, "DET_0", "DET")
    assert (first.annotation, first.image_root) == ("a folder/标注 1.json", "图片/训练集 2")
    assert first.options == {}
    assert (first.weight, first.limit) == (Fraction(1), None)
    assert (second.line_no, second.tag, second.task) == (6, "LAZY", "LAZY")
    assert second.options == {"format": "llava", "weight": "0.5", "limit": "10", "split": "train"}
    assert (second.weight, second.limit) == (Fraction(1, 2), 10)
    assert (last.tag, last.task, last.annotation, last.image_root) == ("VG_R_and_D", "VG", "R&D/a.jsonl", "/abs/R&D/")


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", ["", "end"])
def test_line_ends_and_bom(tmp_path: Path, end: str, bom: bytes, last: str) -> None:
    text = f"DET & a & b{end}# c{end}{end}REG & c & d{end if last else ''}"
    assert [(line.line_no, line.tag, line.image_root) for line in parse(tmp_path, bom + text.encode())] == [
        (1, "DET", "b"),
        (4, "REG", "d"),
    ]


@settings(deadline=None)
@given(annotation=paths, image_root=paths, end=st.sampled_from(LINE_ENDS))
def test_any_path_comes_back(
    annotation: str, image_root: str, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    text = f"# comment{end}VISJ_x & {annotation} & {image_root}{end}REG & a & b"
    first, second = parse(folder, text)
    assert (first.line_no, first.annotation, first.image_root) == (2, annotation, image_root)
    assert (second.line_no, second.tag) == (3, "REG")


@settings(deadline=None)
@given(weight=st.fractions(min_value=0).filter(lambda weight: weight > 0))
def test_weights_are_exact(weight: Fraction, tmp_path_factory: pytest.TempPathFactory) -> None:
    (line,) = parse(tmp_path_factory.mktemp("weight"), f"DET & a & b & weight={weight}")
    assert line.weight == weight


@pytest.mark.parametrize(
    ("text", "weight"), [("2", 2), ("0.1", Fraction(1, 10)), ("1/3", Fraction(1, 3)), ("1e2", 100)]
)
def test_weights_as_people_write_them(tmp_path: Path, text: str, weight: Fraction) -> None:
    (line,) = parse(tmp_path, f"DET & a & b & weight={text}")
    assert line.weight == weight


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "DET & a.json",
            ["2 field(s)", "'DET & a.json'", "TAG & annotation & image root", "put spaces around each '&'"],
        ),
        ("DET&a.json&b", ["1 field(s)", "put spaces around each '&'"]),
        ("DET &a.json & b", ["2 field(s)", "put spaces around each '&'"]),
        ("DET & a.json & ", ["expected TAG & annotation & image root", "put spaces"]),
        ("DET &  & b", ["expected TAG & annotation & image root"]),
        ("DET & a & b & ", ["expected TAG & annotation & image root"]),
        ("DET & a & b & weight=1 & limit=2", ["5 field(s)"]),
        ("DETECT & a & b", ["'DETECT'", "TASK or TASK_name", "LAZY, DET, RANDDET, REG, VG, VISJ"]),
        ("det_0 & a & b", ["'det_0'", "LAZY, DET, RANDDET, REG, VG, VISJ"]),
        ("DET-0 & a & b", ["'DET-0'", "letters, digits and underscores"]),
        ("DET_é & a & b", ["'DET_é'", "letters, digits and underscores"]),
        ("DET_ & a & b", ["'DET_'", "TASK_name"]),
        ("DET_../x & a & b", ["letters, digits and underscores"]),
        (f"DET_{'x' * 77} & a & b", ["at most 80 characters"]),
        ("DET & a & b & colour=red", ["unknown option 'colour'", "format, weight, limit, split"]),
        ("DET & a & b & weight", ["'weight'", "key=value"]),
        ("DET & a & b & weight=", ["'weight='", "key=value"]),
        ("DET & a & b & limit=3,", ["''", "key=value"]),
        ("DET & a & b & weight=1, weight=2", ["'weight' is given twice"]),
        *(
            (f"DET & a & b & weight={bad}", [f"weight={bad}", "above 0", "1/3"])
            for bad in ("0", "-1", "x", "1/0", "nan")
        ),
        *(
            (f"DET & a & b & limit={bad}", [f"limit={bad}", "a whole number above 0"])
            for bad in ("0", "-1", "2.5", "1e3")
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: list[str]) -> None:
    (fault,) = faults_of(tmp_path, f"# a comment\n\nVG & a & b\n{line}\n")
    assert fault.startswith("4: ")
    assert [words for words in message if words not in fault] == []


def test_all_wrong_lines_are_named_at_once(tmp_path: Path) -> None:
    text = "DET & a & b\nREG & a\nDET & c & d\n\nVG & a & b & weight=-1\nLAZY & a & b\n"
    faults = faults_of(tmp_path, text)
    assert [fault.partition(":")[0] for fault in faults] == ["2", "3", "5"]
    assert "'DET' is already used in line 1; choose another name" in faults[1]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_manifest_without_sources(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"m\.txt: the manifest has no sources; expected lines of the form TAG"):
        parse(tmp_path, text)


def test_not_utf8_is_reported_with_the_byte(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"m\.txt: not UTF-8 at byte 8; save the manifest as UTF-8"):
        parse(tmp_path, "DET & 训练 & b".encode("gbk"))


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.txt: .*No such file.*give --manifest a file"):
        read_manifest(tmp_path / "gone.txt")
    with pytest.raises(SettingsError, match="Is a directory"):
        read_manifest(tmp_path)


def test_one_annotation_stands_for_a_lazy_line() -> None:
    line = single_line("some where/a.json", "图片")
    assert (line.tag, line.task, line.annotation, line.image_root) == ("LAZY", "LAZY", "some where/a.json", "图片")
    assert line.options == {}
    assert (line.weight, line.limit) == (Fraction(1), None)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_our_manifests_parse(path: Path) -> None:
    lines = read_manifest(path)
    assert lines
    assert [
        line.tag for line in lines if Path(line.annotation).is_absolute() or Path(line.image_root).is_absolute()
    ] == []


def test_our_manifests_are_all_there() -> None:
    assert {path.stem for path in OURS} >= {"pretrain", "sft", "visual_referring", "alignment", "custom", "demo"}


def test_the_references_manifests_parse() -> None:
    if not REFERENCE.is_dir():
        pytest.skip(f"the reference's manifests are not in {REFERENCE}")
    files = sorted(REFERENCE.iterdir())
    assert files
    actual = [line for path in files for line in read_manifest(path)]
    written = [line for path in files for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert [(line.tag, line.annotation, line.image_root) for line in actual] == [
        tuple(field.strip() for field in line.split("&")) for line in written
    ]
    assert any("工业" in line.image_root for line in actual)  # folders with Chinese names
    assert any(not path.read_bytes().endswith(b"\n") for path in files)  # the last line of one
