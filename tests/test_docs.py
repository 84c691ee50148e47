"""The README and the docs are true: links resolve, commands have the options named, examples come out as printed."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from griffon_prep.cli import main as prep
from griffon_prep.readers import COMMON_OPTIONS, FORMATS
from griffon_prep.records import REASONS
from griffon_shards.cli import main as shards
from griffon_train.cli.main import main as train
from griffon_train.config.settings import RESUME_FREE, option_name

from .waiting import TIMEOUT_S

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/RESULTS.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
PROGRAMS = {"griffon-prep": prep, "griffon-shards": shards, "griffon-train": train}
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_resolve(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked_from_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    assert [named(page) for page in PAGES if page != README and f"({named(page)})" not in text] == []


def test_the_readme_is_short_and_images_are_small() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 170
    assert all(image.stat().st_size < 150_000 for image in (ROOT / "docs" / "images").iterdir())


def commands(text: str) -> Iterator[str]:
    """Command lines of ours: in code blocks, continued lines joined, and between backticks."""
    joined = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"^\s*(?:\$ )?(griffon-(?:prep|shards|train)(?: .*)?)$", joined, re.MULTILINE):
        yield line
    for line in re.findall(r"`(griffon-(?:prep|shards|train)(?: [^`\n]*)?)`", joined):
        yield line


def refuse_unknown(line: str) -> None:
    """Raise click's error if a command, or one of its options, does not exist. Values are not looked at."""
    name, *words = (word for word in shlex.split(line, comments=True) if word != "...")
    command: click.Command = PROGRAMS[name]
    context = click.Context(command, info_name=name, **command.context_settings)
    while isinstance(command, click.Group) and words:
        below = command.get_command(context, words[0])
        if below is None:
            raise click.UsageError(f"no command {words[0]}", context)
        command, words = below, words[1:]
        context = click.Context(command, info_name=command.name, parent=context, **command.context_settings)
    _, surplus, _ = command.make_parser(context).parse_args(list(words))
    if surplus:
        raise click.UsageError(f"surplus arguments: {surplus}", context)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=named)
def test_commands_and_options_exist(page: Path) -> None:
    faults = []
    mentioned = list(commands(page.read_text(encoding="utf-8")))
    for line in mentioned:
        try:
            refuse_unknown(line)
        except (click.UsageError, ValueError) as error:
            faults.append(f"{line}: {error}")
    assert faults == []
    assert mentioned or page != README


@pytest.mark.parametrize(
    "line",
    ["griffon-prep biuld", "griffon-shards show D K --drew x", "griffon-train run --lr", "griffon-shards info D E"],
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        refuse_unknown(line)


def test_the_command_reference_is_that_of_the_commands() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))["page"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made, "run python docs/make_cli.py"


def first_column(page: str, header: str) -> set[str]:
    """The code in the first column of the table with this header, without a closing `=`."""
    table = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n| {header} |\n")[1].split("\n\n")[0]
    return {name.rstrip("=") for name in re.findall(r"^\| `([\w=-]+)` \|", table, re.MULTILINE)}


def test_tables_name_every_format_option_and_reason() -> None:
    options = {*COMMON_OPTIONS, *(option for module in FORMATS.values() for option in module.OPTIONS)}
    assert first_column("annotations.md", "option | meaning") == options
    assert first_column("annotations.md", "format | files | gives") == set(FORMATS)
    assert first_column("troubleshooting.md", "reason | what it means | what to do") == set(REASONS)


def test_every_setting_that_may_change_when_a_run_is_resumed_is_named() -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    sentence = page.split("Settings may change only if")[1].split("All others are an error")[0]
    paths = {"--shards", "--val-shards", "--output-dir"}
    assert set(re.findall(r"--[a-z-]+", sentence)) == {option_name(name) for name in RESUME_FREE} - paths


def test_the_example_of_the_data_order_comes_out_as_printed(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data-order.md").read_text(encoding="utf-8")
    sums = [(f"What is {i} plus 1?", str(i + 1)) for i in range(5)]
    colours = [("Name a colour.", colour) for colour in ("red", "green", "blue", "black")]
    for name, turns in (("sums", sums), ("colours", colours)):
        lines = [
            json.dumps(
                {"id": at, "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]}
            )
            for at, (asked, answer) in enumerate(turns)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert all(f"\n    {line}\n" in page for line in lines[:2])
    (tmp_path / "manifest.txt").write_text("\n".join(printed(page, "$ cat manifest.txt")) + "\n", encoding="utf-8")
    build = next(line for line in commands(page) if line.startswith("griffon-prep build"))
    plan = next(line for line in commands(page) if line.startswith("griffon-train plan example"))
    output(build, tmp_path)
    assert output(plan, tmp_path) == printed(page, f"$ {plan}")


def test_the_examples_of_comparing_and_searching_come_out_as_printed(tmp_path: Path) -> None:
    """Digests and sizes depend on the Pillow that draws and checks the sample data; they are not compared."""

    def stable(lines: list[str]) -> list[str]:
        return [re.sub(r"[0-9a-f]{64}| +[\d,]+ B", "*", line) for line in lines]

    page = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)
    steps = [step for block in blocks for step in re.split(r"^    \$ ", block, flags=re.MULTILINE)[1:]]
    for command, *lines in (step.rstrip().splitlines() for step in steps):
        expected = [line.removeprefix("    ") for line in lines]
        if command.startswith("cat "):
            (tmp_path / command.removeprefix("cat ")).write_text("\n".join(expected) + "\n", encoding="utf-8")
        elif command.startswith("griffon-"):
            code = int(command.startswith("griffon-shards diff"))
            got = output(command, tmp_path, code)
            assert not expected or stable(got) == stable(expected), command
        else:
            subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert len(steps) == 10


def printed(page: str, command: str) -> list[str]:
    """The lines of a code block below a command."""
    below = page.split(f"    {command}\n")[1].split("\n\n")[0]
    return [line.removeprefix("    ") for line in below.splitlines()]


def output(line: str, folder: Path, code: int = 0) -> list[str]:
    """Run one of our commands in a folder, and return what it prints. It has to exit with `code`."""
    name, *words = shlex.split(line)
    command = [sys.executable, "-m", name.replace("-", "_"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines()
