"""Tokenizer folders as people have them that cannot be used: what is wrong, and what to do, in one line."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.text.tokenizer import load_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 25183\n"
CODE = """\
from pathlib import Path
from transformers import PreTrainedTokenizerFast
class Own(PreTrainedTokenizerFast):
    Path(r"{ran}").touch()
"""


def pointer(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(POINTER)


def of_a_newer_version(folder: Path) -> None:
    file = folder / "tokenizer.json"
    stored = json.loads(file.read_text())
    stored["model"]["type"] = "NotYetKnown"
    file.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pointer("tokenizer.json"), "tokenizer.json is a Git LFS pointer, not the file; run `git lfs pull`"),
        (pointer("tokenizer.model"), "tokenizer.model is a Git LFS pointer"),
        (pointer("vocab.json"), "vocab.json is a Git LFS pointer"),
        (of_a_newer_version, "written by a newer version: pip install -U tokenizers"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "the folder has no tokenizer.json or tokenizer.model"),
    ],
)
def test_what_cannot_be_loaded_is_reported_with_the_remedy(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(SettingsError) as refused:
        load_tokenizer(tmp_path)
    assert str(refused.value).startswith(f"--tokenizer {tmp_path}: ") and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_code_in_a_tokenizer_folder_is_not_run_without_a_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ran = tmp_path / "given", tmp_path / "ran"
    byte_tokenizer().save_pretrained(folder)
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    stored |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(stored))
    (folder / "own.py").write_text(CODE.format(ran=ran))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # what a user at a terminal might answer
    with pytest.raises(SettingsError, match="custom code of a tokenizer is not run"):
        load_tokenizer(folder)
    assert not ran.exists()
