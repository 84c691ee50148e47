"""Templates: ours, the reference's, and what is said of a folder that cannot be used."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from griffon_shards.support.errors import SettingsError
from griffon_shards.templates import Templates, fill, load_templates, placeholder_of
from griffon_shards.types import BOX_STYLES, BoxXYXY

from ..rendering import record_of, rendered, texts

REFERENCE = Path(__file__).parents[4] / "shared/data/reference/templates"
BOX: BoxXYXY = (100.0, 50.0, 200.0, 250.0)
RENDERED_TASKS = ("DET", "RANDDET", "REG", "VG", "VISJ")
GOOD: dict[str, Any] = {
    "1vn.json": ["Where is <expr>?"],
    "nvn.json": ["Find <category set>."],
    "REG.json": ["What is <objs>?"],
    "visual_search.json": ["Like <region>."],
    "answer_format.json": {"DET": " D", "VISJ": " V"},
}


def write(folder: Path, **changes: Any) -> Path:  # noqa: ANN401
    """A folder of good templates with some files changed; None leaves one out."""
    for name, content in {**GOOD, **{f"{name}.json": content for name, content in changes.items()}}.items():
        if content is not None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (folder / name).write_bytes(data)
    return folder


def question(task: str, templates: Templates, style: str = "text") -> str:
    return texts(rendered(task, record_of(("axolotl", BOX)), style=style, templates=templates)[0])[0]


def test_our_templates_are_many_and_distinct() -> None:
    ours = load_templates(None)
    for task in RENDERED_TASKS:
        assert len(set(ours.questions[task])) == len(ours.questions[task]) >= 20
        assert all(text == text.strip() for text in ours.questions[task])


def test_ours_are_not_the_references() -> None:
    if not REFERENCE.is_dir():
        pytest.skip(f"the reference's templates are not in {REFERENCE}")
    ours, theirs = load_templates(None), load_templates(REFERENCE)
    for task in RENDERED_TASKS:
        assert not set(ours.questions[task]) & set(theirs.questions[task])


@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize("origin", ["ours", "reference"])
@pytest.mark.parametrize("task", RENDERED_TASKS)
def test_every_template_asks_with_one_image(task: str, origin: str, style: str) -> None:
    if origin == "reference" and not REFERENCE.is_dir():
        pytest.skip(f"the reference's templates are not in {REFERENCE}")
    templates = load_templates(REFERENCE if origin == "reference" else None)
    box = {"text": "[0.100,0.100,0.200,0.500]", "bin": "<bin_100><bin_100><bin_200><bin_500>"}[style]
    filled = {"REG": box, "VISJ": "<region>"}.get(task, "axolotl")
    for template in templates.questions[task]:
        alone = Templates(questions={task: (template,)}, answer_format=templates.answer_format, sha256="")
        text = question(task, alone, style)
        assert text.count("<image>") == 1
        assert text.startswith("<image>\n") or "<image>" in template
        assert text.count(filled) == 1
        tokens = set(re.findall("<[^<>]+>", text)) - {"<image>", "<region>" if task == "VISJ" else ""}
        assert all(token.startswith("<bin_") for token in tokens)
        assert not re.search(r"<bin_", text) or style == "bin"


def test_the_references_files_are_used_as_they_are() -> None:
    if not REFERENCE.is_dir():
        pytest.skip(f"the reference's templates are not in {REFERENCE}")
    theirs = load_templates(REFERENCE)
    for task, name in (("DET", "nvn"), ("RANDDET", "1vn"), ("VG", "1vn"), ("REG", "REG"), ("VISJ", "visual_search")):
        assert list(theirs.questions[task]) == json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))
    lines = json.loads((REFERENCE / "answer_format.json").read_text(encoding="utf-8"))
    for style in BOX_STYLES:
        for task in ("DET", "VISJ"):
            assert question(task, theirs, style).endswith(lines[task])


def test_all_templates_of_a_task_are_drawn() -> None:
    texts_seen = {
        texts(item)[0] for i in range(15) for item in rendered("VG", record_of(("cat", BOX)), seed=i, variants=40)
    }
    assert len(texts_seen) == len(load_templates(None).questions["VG"])


def test_only_det_and_visj_end_with_the_answer_format(tmp_path: Path) -> None:
    templates = load_templates(write(tmp_path))
    assert {task: question(task, templates) for task in RENDERED_TASKS} == {
        "DET": "<image>\nFind axolotl. D",
        "RANDDET": "<image>\nWhere is axolotl?",
        "REG": "<image>\nWhat is [0.100,0.100,0.200,0.500]?",
        "VG": "<image>\nWhere is axolotl?",
        "VISJ": "<image>\nLike <region>. V",
    }


def test_bins_have_their_own_answer_format_where_the_folder_has_one(tmp_path: Path) -> None:
    plain = load_templates(write(tmp_path))
    assert question("DET", plain, "bin").endswith("Find axolotl. D")
    own = load_templates(write(tmp_path, answer_format={"DET": " D", "VISJ": " V", "DET_bin": " B"}))
    assert question("DET", own, "bin").endswith("Find axolotl. B")
    assert question("DET", own, "text").endswith("Find axolotl. D")
    assert question("VISJ", own, "bin").endswith("Like <region>. V")


def test_our_answer_format_where_the_folder_has_none(tmp_path: Path) -> None:
    assert load_templates(write(tmp_path, answer_format=None)).answer_format == load_templates(None).answer_format


def test_the_image_stays_where_the_template_has_it() -> None:
    assert fill("In <image>, where is <expr>?", "<expr>", "it") == "In <image>, where is it?"
    assert fill("<expr>", placeholder_of("VG"), "<expr> \\1") == "<image>\n<expr> \\1"


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = load_templates(write(tmp_path / "a"))
    (tmp_path / "b" / "1v1.json").write_text("not used")
    pretty = json.dumps(GOOD["REG.json"], indent=4).encode()
    assert load_templates(write(tmp_path / "b", REG=pretty)).sha256 == first.sha256
    for changes in ({"REG": ["What's <objs>?"]}, {"answer_format": {"DET": " d", "VISJ": " V"}}):
        assert load_templates(write(tmp_path / "b", **changes)).sha256 != first.sha256
        shutil.copytree(tmp_path / "a", tmp_path / "b", dirs_exist_ok=True)
    assert load_templates(None).sha256 == load_templates(None).sha256 != first.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"REG": None},
            r"REG\.json: cannot be read \(No such file.*\); --templates takes a folder with the files 1vn\.json, REG",
        ),
        ({"nvn": b"["}, r"nvn\.json: not valid JSON"),
        ({"nvn": b'["\xff <category set>"]'}, r"nvn\.json: not valid JSON"),
        ({"nvn": {}}, r"nvn\.json: expected a JSON list of templates, got \{\}"),
        ({"nvn": []}, r"nvn\.json: expected a JSON list of templates, got \[\]"),
        ({"1vn": ["Where is <expr>?", 5]}, r"1vn\.json: template 2 must be text"),
        ({"1vn": ["Where is it?"]}, r"1vn\.json: template 1 must be text with <expr> once"),
        ({"1vn": ["<expr> or <expr>?"]}, r"1vn\.json: template 1 must be text with <expr> once"),
        ({"1vn": ["<image> <expr> <image>"]}, r"1vn\.json: template 1 .* <image> at most once, got"),
        (
            {"visual_search": ["<region> and <objs>"]},
            r"visual_search\.json: template 1 has <objs>, a placeholder of another",
        ),
        ({"answer_format": []}, r"answer_format\.json: expected a JSON object with the keys DET and VISJ"),
        ({"answer_format": {"DET": "x"}}, r"answer_format\.json: expected a JSON object with the keys DET and VISJ"),
        ({"answer_format": {"DET": "x", "VISJ": 5}}, r"answer_format\.json: VISJ: expected text, got 5"),
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_templates(write(tmp_path, **changes))


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone.*cannot be read .*--templates takes a folder with"):
        load_templates(tmp_path / "gone")
