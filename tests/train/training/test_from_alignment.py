"""A run that starts from an alignment: its projector, with the other parts from where the alignment had them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import torch

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.settings import settings_as_json
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.convert import save_projector
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.training.checkpoint_folders import FORMAT, sha256_of_index
from griffon_train.training.checkpoints import sha256_of_tensor
from griffon_train.training.model_loading import load_model, unchecked_parts
from griffon_train.training.placing import placed

from ..conftest import Run
from ..model_folders import language_model_folder, tower_folder
from .conftest import checkpoint_of
from .given_folders import griffon_folder, settings


def aligned(root: Path, dtype: torch.dtype = torch.float32, /, **given: object) -> GriffonForConditionalGeneration:
    """The result of an alignment, as training stores it, and the model that it ended with."""
    begun = placed(settings(stage="alignment", **given))
    model, _ = load_model(begun, dtype)
    with torch.no_grad():
        for weight in model.projector.parameters():
            weight.add_(1.0)
    checkpoint = checkpoint_of(root, 1)
    checkpoint.mkdir(parents=True)
    frozen = {name: parameter for name, parameter in model.named_parameters() if not name.startswith("projector.")}
    index = {"format": FORMAT, "step": 1, "files": []}
    index["frozen_sha256"] = {name: sha256_of_tensor(parameter) for name, parameter in frozen.items()}
    (checkpoint / "checkpoint.json").write_bytes(orjson.dumps({**index, "sha256": sha256_of_index(index)}))
    save_projector(model, root / "mm_projector.bin")
    (root / "settings.json").write_bytes(orjson.dumps(settings_as_json(begun)))
    return model


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = model.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_alignment_continues_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model is loaded again, from the paths that it was given, which were relative to where it was started."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    language_model_folder(Path("text"), "gemma2")
    tower_folder(Path("towers/whole"))
    tower_folder(Path("towers/region"), image_size=28)
    byte_tokenizer().save_pretrained("tokenizer")
    towers = {"vision_tower": Path("towers/whole"), "region_tower": Path("towers/region")}
    ended = aligned(tmp_path / "run", model="./text", tokenizer=Path("tokenizer"), projector="linear", **towers)
    monkeypatch.chdir(tmp_path / "there")
    model, _ = load_model(settings(stage="pretrain", from_run=Path("../run")), torch.float32)
    assert same(model, ended) and model.config.projector == "linear"


def test_an_alignment_whose_folders_have_moved_takes_the_new_paths(tmp_path: Path) -> None:
    language_model_folder(tmp_path / "text", "gemma2")
    tower_folder(tmp_path / "tower")
    towers = {"vision_tower": tmp_path / "tower"}
    ended = aligned(tmp_path / "run", model=str(tmp_path / "text"), **towers)
    (tmp_path / "text").rename(tmp_path / "text2")
    run = tmp_path / "run"
    with pytest.raises(SettingsError, match=r"run was started with --model .*text, which no longer .* with --model$"):
        load_model(settings(from_run=run), torch.float32)
    assert same(load_model(settings(from_run=run, model=str(tmp_path / "text2")), torch.float32)[0], ended)
    (tmp_path / "tower").rename(tmp_path / "tower2")
    now = {"from_run": run, "model": str(tmp_path / "text2")}
    with pytest.raises(SettingsError, match=r"run was started with --vision-tower .*tower, .* --vision-tower$"):
        load_model(settings(**now), torch.float32)
    now["vision_tower"] = tmp_path / "tower2"
    assert same(load_model(settings(**now), torch.float32)[0], ended)
    with pytest.raises(SettingsError, match="--projector linear: the model was made with conv_reduce"):
        load_model(settings(**now, projector="linear"), torch.float32)
    now["model"] = str(language_model_folder(tmp_path / "wide", "gemma2", hidden_size=48))
    shutil.rmtree(run / "checkpoints")  # which told that it is another
    with pytest.raises(DataError, match=r"--from .*mm_projector.bin: not the weights of a projector.*shape: "):
        load_model(settings(**now), torch.float32)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("language model", lambda at: language_model_folder(at, "llama2")),
        ("language model", lambda at: language_model_folder(at, "gemma2", seed=7)),
        ("language model", lambda at: language_model_folder(at, "gemma2", hidden_size=48)),
        ("language model", lambda at: language_model_folder(at, "gemma2", vocab_size=300)),
        ("vision tower", lambda at: tower_folder(at, seed=7)),
        ("vision tower", lambda at: tower_folder(at, num_hidden_layers=4)),
    ],
    ids=["family", "weights", "width", "vocabulary", "tower's weights", "tower's depth"],
)
def test_parts_that_the_projector_was_not_aligned_with_are_refused(
    part: str, other: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Whether options name the other parts, or they have replaced the original ones in place."""
    folders = {"model": tmp_path / "text", "vision_tower": tmp_path / "tower"}
    language_model_folder(folders["model"], "gemma2")
    tower_folder(folders["vision_tower"])
    run = tmp_path / "run"
    aligned(run, model=str(folders["model"]), vision_tower=folders["vision_tower"])
    name = "model" if part == "language model" else "vision_tower"
    other(tmp_path / "other")
    option = f"--{name.replace('_', '-')}"
    reported = rf"^--from {run}: its projector was aligned with another {part}: .*; give .* with {option}, or"
    with pytest.raises(SettingsError, match=reported):
        load_model(settings(from_run=run, **{name: str(tmp_path / "other")}), torch.float32)
    shutil.rmtree(folders[name])
    (tmp_path / "other").rename(folders[name])
    with pytest.raises(SettingsError, match=reported):
        load_model(settings(from_run=run), torch.float32)
    assert unchecked_parts(settings(from_run=run)) is None
    shutil.rmtree(run / "checkpoints")
    assert "nobody checked that its projector" in str(unchecked_parts(settings(from_run=run)))


@pytest.mark.parametrize(("then", "now"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_an_alignment_continues_in_another_dtype(then: torch.dtype, now: torch.dtype, tmp_path: Path) -> None:
    """The weights are those in the files of its parts, not those that the alignment had rounded."""
    given = {"model": str(language_model_folder(tmp_path / "text", "gemma2")), "vision_tower": tmp_path / "tower"}
    tower_folder(tmp_path / "tower")
    aligned(tmp_path / "run", then, **given)
    model, _ = load_model(settings(from_run=tmp_path / "run"), now)
    assert {weight.dtype for weight in model.parameters()} == {now}
    fresh, _ = load_model(settings(**given), now)
    assert same(model.language_model, fresh.language_model) and same(model.vision_tower, fresh.vision_tower)
    model.save_pretrained(tmp_path / "saved")
    stored = orjson.loads((tmp_path / "saved/config.json").read_bytes())
    assert {item["dtype"] for item in (stored, stored["text_config"], stored["vision_config"])} == {str(now)[6:]}


def test_a_saved_model_keeps_its_own_projector(tmp_path: Path) -> None:
    """An alignment's projector replaces it only if the alignment started from that model, wherever it is now."""
    text, plain = language_model_folder(tmp_path / "text", "llama2"), griffon_folder(tmp_path / "plain")
    aligned(tmp_path / "run", model=str(text), vision_tower=tower_folder(tmp_path / "tower"))
    aligned(tmp_path / "preset", model="tiny-llama2")
    for run in (tmp_path / "run", tmp_path / "preset"):
        with pytest.raises(SettingsError, match=r"--from .* in the place of .* --model .*plain .*; leave out --from"):
            load_model(settings(from_run=run, model=str(plain)), torch.float32)
    ended = aligned(tmp_path / "again", model=str(plain))
    plain.rename(tmp_path / "moved")
    given = {"from_run": tmp_path / "again", "model": str(tmp_path / "moved")}
    assert same(load_model(settings(**given), torch.float32)[0], ended)


def test_a_preset_beside_an_earlier_run_is_refused(tmp_path: Path, train_cli: Run) -> None:
    run = tmp_path / "run"
    aligned(run, model="tiny-llama2")
    message = f"--model tiny-llama2: --from {run} already decides the model; leave out --model, or "
    with pytest.raises(SettingsError, match=f"^{message}"):
        load_model(settings(from_run=run, model="tiny-llama2"), torch.float32)
    said = train_cli("memory", "--stage", "custom", "--from", run, "--model", "tiny-llama2")
    assert said.returncode == 2 and message in said.stderr


def test_a_second_alignment_continues_from_the_first(tmp_path: Path) -> None:
    language_model_folder(tmp_path / "text", "gemma2")
    aligned(tmp_path / "first", model=str(tmp_path / "text"), vision_tower=tower_folder(tmp_path / "tower"))
    ended = aligned(tmp_path / "second", from_run=tmp_path / "first")
    (tmp_path / "text").rename(tmp_path / "text2")
    given = {"from_run": tmp_path / "second", "model": str(tmp_path / "text2")}
    assert same(load_model(settings(**given), torch.float32)[0], ended)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "settings.json").unlink(), "settings.json: no such file"),
        (lambda run: (run / "settings.json").write_bytes(b"{"), "settings.json: not valid JSON"),
        (lambda run: (run / "settings.json").write_bytes(b'{"stage": 1}'), "stored settings: "),
        (
            lambda run: (run / "mm_projector.bin").write_bytes(b"PK"),
            "mm_projector.bin: contains more than tensors, or is d",
        ),
        (
            lambda run: (run / "mm_projector.bin").unlink(),
            "holds neither model/, adapter/ nor mm_projector.bin; the run has not ended, or",
        ),
    ],
)
def test_a_damaged_run_is_named(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    aligned(tmp_path / "run", model="tiny-llama2")
    load_model(settings(from_run=tmp_path / "run"), torch.float32)
    damage(tmp_path / "run")
    with pytest.raises((DataError, SettingsError), match=message) as caught:
        load_model(settings(from_run=tmp_path / "run"), torch.float32)
    assert str(caught.value).startswith(f"--from {tmp_path / 'run'}") and "\n" not in str(caught.value)
