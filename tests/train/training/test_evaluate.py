"""`evaluate`: the same results at any number of ranks and any batch size, killed or not, of any form of a model."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from griffon_shards.frozen_set import open_set
from griffon_train.data.images import decode
from griffon_train.evaluation.generation import Prompt
from griffon_train.evaluation.matching import NAMED_TASKS
from griffon_train.evaluation.predictions import decode_prediction, encode_prediction
from griffon_train.evaluation.questions import chosen_rows, questions_of

from ..evaluation.conftest import learn
from .conftest import Options, checkpoint_of, command
from .launcher import Ended, Launcher

pytestmark = pytest.mark.xdist_group("evaluate")  # one process makes the fixtures, which take long

LIMIT, TOKENS = 3, 50
OPTIONS: Options = ("--limit", LIMIT, "--max-new-tokens", TOKENS, "--device", "cpu", "--dtype", "float32")

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def trained(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a checkpoint after each, of a model that has almost learned to write boxes."""
    folder = tmp_path_factory.mktemp("evaluate")
    learn(folder / "model", "tiny-gemma2", first_boxes(frozen_set), loss_below=0.15)
    steps = ("--steps", 2, "--save-steps", 1, "--keep", 9, "--global-batch", 2, "--workers", 0)
    ended = launcher.run(*command(frozen_set, folder / "run", *steps, "--model", folder / "model"), world_size=2)
    assert ended.codes == [0, 0], ended.said
    return folder / "run"


def first_boxes(root: Path) -> list[tuple[Prompt, str]]:
    """Questions that are answered with boxes, and the first box of each answer."""
    frozen = open_set(root)
    rows = chosen_rows([frozen], tasks=("RANDDET", "VG", "VISJ"), sources=(), limit=LIMIT)
    asked = [each for set_no, row in rows for each in questions_of(frozen[row], frozen.lock.digest, set_no, row)]
    return [
        (each.prompt(decode(frozen[each.row], each.question.key)), each.question.truth.split("&")[0]) for each in asked
    ]


@pytest.fixture(scope="module")
def evaluated(launcher: Launcher, frozen_set: Path) -> Callable[..., Files]:
    """Evaluates into a folder, and returns what is then in it."""

    def evaluate(model: Path, out: Path, *options: object, world_size: int = 1) -> Files:
        arguments = ("evaluate", model, "--shards", frozen_set, "--out", out, *OPTIONS, *options)
        ended = launcher.run(*arguments, world_size=world_size)
        assert set(ended.codes) == {0}, ended.said
        return results_of(out)

    return evaluate


@pytest.fixture(scope="module")
def reference(evaluated: Callable[..., Files], trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return evaluated(trained, tmp_path_factory.mktemp("reference") / "out", "--batch", 1)


def results_of(out: Path) -> Files:
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.json",
        "lock",
        "metrics.json",
        "predictions.jsonl",
    ]
    return {name: (out / name).read_bytes() for name in ("metrics.json", "predictions.jsonl")}


def lines_of(data: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize(("world_size", "batch"), [(1, 4), (2, 16), (3, 4)])
def test_ranks_and_batches_do_not_change_the_results(
    world_size: int, batch: int, evaluated: Callable[..., Files], trained: Path, reference: Files, tmp_path: Path
) -> None:
    lines = lines_of(reference["predictions.jsonl"])
    assert len({line["answer"] for line in lines}) > 5  # else equal results would say little
    assert {"RANDDET", "VG"} <= {line["task"] for line in lines if line["boxes_px"]}
    assert len({score for line in lines for score in line["box_scores"]}) > 1
    assert evaluated(trained, tmp_path / "out", "--batch", batch, world_size=world_size) == reference


def test_a_killed_evaluation_resumes_on_another_number_of_ranks(
    launcher: Launcher,
    evaluated: Callable[..., Files],
    trained: Path,
    frozen_set: Path,
    reference: Files,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", trained, "--shards", frozen_set, "--out", out, *OPTIONS, "--batch", 1)
    running = launcher.start(arguments, 2)
    running.wait_until(lambda: answered(out) >= 5)
    running.signal(signal.SIGKILL)
    running.wait()
    before = answered(out)
    with (out / "answers-00001.jsonl").open("ab") as file:
        file.write(b'{"set":"half a li')
    ended = launcher.run(*arguments[:-1], 3, world_size=3)
    assert set(ended.codes) == {0}, ended.said
    total = len(lines_of(reference["predictions.jsonl"]))
    assert 5 <= before < total
    assert f"{total} questions, {before} of them answered before" in ended.said[0]
    assert "answers-00001.jsonl: 1 damaged or incomplete line, the first at line" in ended.said[0]
    assert results_of(out) == reference
    again = launcher.run(*arguments, world_size=1)  # nothing is left to ask
    assert f"{total} questions, {total} of them answered before" in again.said[0]
    assert results_of(out) == reference


def answered(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("answers-*.jsonl"))


def test_metrics_name_what_they_depend_on(reference: Files, trained: Path, frozen_set: Path) -> None:
    metrics = orjson.loads(reference["metrics.json"])
    assert metrics["sets"] == [orjson.loads((frozen_set / "griffon.lock.json").read_bytes())["digest"]]
    assert len(metrics["weights_sha256"]) == 64
    assert metrics["settings"]["max_new_tokens"] == TOKENS
    assert {"torch", "transformers", "griffon-pipeline"} <= metrics["versions"].keys()
    assert set(metrics["tasks"]) == {"LAZY", "DET", "RANDDET", "REG", "VG", "VISJ"}
    assert str(trained).encode() not in reference["metrics.json"]
    lines = lines_of(reference["predictions.jsonl"])
    assert all(line["loss"] > 0 and line["targets"] > 0 for line in lines if line["task"] == "LAZY")
    assert all(line["loss"] is None for line in lines if line["task"] != "LAZY")
    assert not any(line["complete"] for line in lines if len(line["answer"]) > TOKENS)


def test_another_evaluation_is_refused_and_another_convention_is_not(
    launcher: Launcher, evaluated: Callable[..., Files], trained: Path, frozen_set: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    only_vg = ("--task", "VG", "--limit", 2)
    evaluated(trained, out, *only_vg)

    def refused(*options: object) -> Ended:
        arguments = ("evaluate", trained, "--shards", frozen_set, "--out", out, *OPTIONS, *only_vg, *options)
        return launcher.run(*arguments, world_size=1)

    for options, change in [
        (("--max-new-tokens", 9), f"'max_new_tokens': {TOKENS}"),
        (("--from", 1), "weights_sha256"),
        (("--dtype", "bfloat16"), "'dtype': 'float32'"),
    ]:
        ended = refused(*options)
        assert ended.codes == [2]
        assert f"--out {out} holds another evaluation" in ended.said[0]
        assert change in ended.said[0]
    ge = orjson.loads(evaluated(trained, out, *only_vg, "--convention", "ge")["metrics.json"])
    assert ge["convention"] == "ge"
    more = orjson.loads(evaluated(trained, out, "--task", "VG", "--task", "DET", "--limit", 2)["metrics.json"])
    assert set(more["tasks"]) == {"VG", "DET"}


def test_answers_that_are_right_score_so_and_others_can_read_them(
    launcher: Launcher, evaluated: Callable[..., Files], trained: Path, frozen_set: Path, tmp_path: Path
) -> None:
    """The answers on disk are replaced by the true ones, which the rerun takes for the model's."""
    out = tmp_path / "out"
    right = []
    for line in evaluated(trained, out)["predictions.jsonl"].splitlines():
        prediction = decode_prediction(line)
        truth, task = prediction.question.truth, prediction.question.task
        scores = (0.5,) * truth.count("[") if task in NAMED_TASKS else ()
        right.append(replace(prediction, answer=truth, complete=True, box_scores=scores))
    (out / "predictions.jsonl").write_bytes(b"".join(encode_prediction(each, {}) for each in right))
    metrics = orjson.loads(evaluated(trained, out, "--coco-json", tmp_path / "boxes.json")["metrics.json"])
    tasks = metrics["tasks"]
    assert tasks["VG"]["one_box"]["accuracy@0.9"] == tasks["VG"]["sets"]["exact"] == 1
    assert tasks["DET"]["f1@0.75"] == tasks["RANDDET"]["f1@0.75"] == 1
    assert tasks["VISJ"]["count_exact"] == tasks["REG"]["exact_match"] == 1
    assert all(line["right"] for line in lines_of((out / "predictions.jsonl").read_bytes()) if line["task"] != "LAZY")
    truth = COCO(tmp_path / "boxes.truth.json")
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "boxes.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_a_run_its_checkpoints_and_its_exported_model_are_the_same_model(
    evaluated: Callable[..., Files], trained: Path, tmp_path: Path
) -> None:
    only = ("--task", "REG", "--limit", 1)

    def weights(model: Path, *options: object) -> str:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        digest: str = orjson.loads(evaluated(model, out, *only, *options)["metrics.json"])["weights_sha256"]
        return digest

    last = {
        weights(trained),
        weights(trained / "model"),
        weights(trained, "--from", "last"),
        weights(trained, "--from", "step-00000002"),
        weights(checkpoint_of(trained, 2)),
    }
    assert len(last) == 1
    assert weights(trained, "--from", 1) not in last


def test_a_set_with_the_boxes_of_another_style_is_warned_of(
    launcher: Launcher, trained: Path, frozen_set: Path, bin_set: Path
) -> None:
    warning = "writes boxes as bin, and the model as text"
    for shards, warned in ((frozen_set, False), (bin_set, True)):
        ended = launcher.run("evaluate", trained, "--shards", shards, *OPTIONS, "--task", "REG", world_size=1)
        assert ended.codes == [0], ended.said
        assert (warning in ended.said[0]) == warned


def test_checkpoints_that_are_not_there_or_damaged(launcher: Launcher, trained: Path, frozen_set: Path) -> None:
    def said(model: Path, name: object) -> tuple[int, str]:
        ended = launcher.run("evaluate", model, "--shards", frozen_set, *OPTIONS, "--from", name, world_size=1)
        return ended.codes[0], ended.said[0]

    assert said(trained, "latest")[0] == 2
    code, line = said(trained, 7)
    assert code == 2
    assert "has no such checkpoint; there are checkpoints after these steps: 1, 2" in line
    assert said(trained / "model", 1)[0] == 2
    path = next(checkpoint_of(trained, 1).glob("*.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        code, line = said(trained, 1)
    finally:
        path.write_bytes(whole)
    assert code == 1
    assert "SHA-256 is not the recorded one" in line


def test_an_alignment_is_its_parts_and_its_projector_and_losses_are_those_of_validation(
    launcher: Launcher, small_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    steps = ("--steps", 1, "--global-batch", 4, "--workers", 0, "--lr", 1e-2, "--tune-mm-mlp-adapter")
    validation = ("--val-shards", small_set, "--val-steps", 1)
    ended = launcher.run(*command(small_set, run, *steps, *validation), world_size=1)
    assert ended.codes == [0], ended.said
    (losses,) = (line["validation_loss"] for line in lines_of((run / "validation.jsonl").read_bytes()))
    metrics: list[dict[str, Any]] = []
    for options in ((), ("--from", "last")):
        out = tmp_path / f"out-{len(metrics)}"
        once = ("--task", "LAZY", "--max-new-tokens", 1, "--device", "cpu", *options)
        ended = launcher.run("evaluate", run, "--shards", small_set, "--out", out, *once, world_size=1)
        assert ended.codes == [0], ended.said
        metrics.append(orjson.loads((out / "metrics.json").read_bytes()))
    assert metrics[0] == metrics[1]
    by_source = {tag: scores["loss_per_token"] for tag, scores in metrics[0]["sources"].items()}
    expected = {"LAZY_text": losses["text"], "LAZY_caption": losses["general"]}
    assert by_source == pytest.approx(expected, abs=2e-5)
