"""Documents against the code: keys, defaults, commands, links, examples; and proof that each check can fail."""

from __future__ import annotations

import importlib
import re
import shlex
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel
from typer.main import get_command

from cluster.config import Pipeline, PipelineError, load_pipeline
from cluster.config_learners import LearnerConfig, default_learner
from cluster.config_watch import default_detector

ROOT = Path(__file__).resolve().parents[2]
KEYS_PAGE = ROOT / "docs" / "pipeline.md"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
COMMAND_PAGES = [page for page in PAGES if page.name != "CONTRIBUTING.md"]
EXAMPLE_PAGES = [ROOT / "README.md", KEYS_PAGE]

ROW = re.compile(r"^\| `([a-z0-9_.*]+)` \|[^|]*\|([^|]*)\|", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
JOB = re.compile(r"python -m jobs\.(\w+)([^\n]*)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Keys ------------------------------------------------------------------------------------------------


def config_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, default as JSON-like text) of every leaf; a key that each member of a union has comes once for each."""
    for name, field in model.model_fields.items():
        inner = [m for m in unwrapped(field.annotation) if is_section(m)]
        if (
            name == "experts"
        ):  # learners have tables of keys of their own, above; what is only an expert has it here
            union = typing.get_args(typing.get_args(field.annotation)[0])[0]
            inner = [m for m in unwrapped(union) if is_section(m) and not issubclass(m, LearnerConfig)]
        below = f"{prefix}{name}.*." if typing.get_origin(field.annotation) is dict else f"{prefix}{name}."
        for section in inner:
            # A kind must be given, but for those of the learner and the detector that a pipeline has if it names none.
            defaults = {type(default_learner()), type(default_detector())}
            must_be_given = "kind" in section.model_fields and section not in defaults
            for key, default in config_keys(section, below):
                yield key, "required" if must_be_given and key == f"{below}kind" else default
        if not inner:
            value = field.get_default(call_default_factory=True)
            plain = list(value) if isinstance(value, tuple) else value
            yield prefix + name, "required" if field.is_required() else repr(plain)


def unwrapped(annotation: object) -> Iterator[object]:
    """The annotation and what it is made of: members of a union, values of a mapping."""
    yield annotation
    for argument in typing.get_args(annotation):
        yield from unwrapped(argument) if typing.get_origin(argument) is typing.Annotated else [argument]


def is_section(annotation: object) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def documented_keys(text: str) -> Iterator[tuple[str, str]]:
    """(key, default) of every row of the tables of keys: those whose third column is a default."""
    section = text.partition("\n## Keys\n")[2].partition("\n## ")[0]
    for key, cell in ROW.findall(section):
        shown = cell.strip().strip("`")
        yield key, "required" if shown == "required" else repr(yaml.safe_load(shown))


def key_problems(text: str) -> list[str]:
    code, page = Counter(config_keys(Pipeline)), Counter(documented_keys(text))
    missing = [f"{key} (default {default}) is not documented so" for key, default in (code - page).elements()]
    extra = [
        f"{key} (default {default}) is not in cluster/config.py" for key, default in (page - code).elements()
    ]
    return sorted(missing + extra)


# Commands --------------------------------------------------------------------------------------------


def job_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """(job, arguments) of every `python -m jobs.X ...` in fenced blocks and in code spans."""
    blocks = [body.replace("\\\n", " ") for _, body in FENCE.findall(text)]
    spans = SPAN.findall(FENCE.sub("", text))
    for code in [*blocks, *spans]:
        for job, rest in JOB.findall(code):
            yield job, shlex.split(rest, comments=True)


def command_problems(text: str) -> list[str]:
    problems = []
    for job, arguments in job_commands(text):
        shown = f"python -m jobs.{job} {shlex.join(arguments)}".strip()
        if not (ROOT / "jobs" / f"{job}.py").is_file():
            problems.append(f"{shown}: there is no jobs/{job}.py")
        elif arguments:  # without any it only names the job
            app = typer.Typer()
            app.command()(importlib.import_module(f"jobs.{job}").main)
            try:
                get_command(app).make_context(job, list(arguments))
            except Exception as error:  # noqa: BLE001 - typer carries its own copy of click's errors
                problems.append(f"{shown}: {error}")
    return problems


# Links and examples ----------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(FENCE.sub("", text))]
    return {heading.replace(" ", "-") for heading in plain}


def link_problems(text: str, folder: Path) -> list[str]:
    problems = []
    for link in LINK.findall(FENCE.sub("", text)):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (folder / path).resolve() if path else None
        if target is not None and not (target.exists() and target.is_relative_to(ROOT)):
            problems.append(f"{link}: there is no such file in the repository")
        elif anchor and anchor not in anchors(text if target is None else target.read_text()):
            problems.append(f"{link}: there is no such heading")
    return problems


def example_problems(text: str, folder: Path) -> list[str]:
    problems = []
    for number, (language, body) in enumerate(FENCE.findall(text)):
        if language in ("yaml", "yml"):
            file = folder / f"example-{number}.yaml"
            file.write_text(body)
            try:
                load_pipeline(file)
            except PipelineError as error:
                problems.append(str(error))
    return problems


# The documents ---------------------------------------------------------------------------------------


def test_every_key_is_documented_with_its_default() -> None:
    """Somebody adds a key or changes a default: docs/pipeline.md has exactly the code's keys and defaults."""
    assert key_problems(KEYS_PAGE.read_text()) == []
    assert len(list(config_keys(Pipeline))) > 30


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=named)
def test_every_command_that_is_shown_exists_and_takes_its_options(page: Path) -> None:
    """A reader pastes a command: the job is there and knows each option and argument."""
    assert command_problems(page.read_text()) == []


def test_commands_are_found_at_all() -> None:
    """The pages of a new user show how to train, evaluate and produce."""
    shown = {job for page in COMMAND_PAGES for job, _ in job_commands(page.read_text())}
    assert {"train", "evaluate", "produce"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """A file is renamed: no page still points to its old place, or to a heading that is gone."""
    assert link_problems(page.read_text(), page.parent) == []


@pytest.mark.parametrize("page", EXAMPLE_PAGES, ids=named)
def test_every_example_pipeline_loads(page: Path, tmp_path: Path) -> None:
    """A reader copies an example: it is a whole pipeline without an error in it."""
    text = page.read_text()
    assert any(language == "yaml" for language, _ in FENCE.findall(text))
    assert example_problems(text, tmp_path) == []


# Proof that each can fail ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        ("| `cluster.shards` |", "| `cluster.shard` |", ["cluster.shard ", "cluster.shards "]),
        ("| `4096` |", "| `1024` |", ["batch_records ", "batch_records "]),
        ("| `snapshots.path` |", "| snapshots.path |", ["snapshots.path "]),
        ("| `source.topic` | text | required |", "| `source.topic` | text | `null` |", ["source.topic "] * 2),
        ("\n### `mlflow`", "\n| `extra` | text | `x` | no such key |\n\n### `mlflow`", ["extra "]),
    ],
)
def test_a_wrong_table_of_keys_is_reported(old: str, new: str, problems: list[str]) -> None:
    """A misspelt, missing or invented key, or another default: the page is not accepted."""
    text = KEYS_PAGE.read_text()
    assert text.count(old) >= 1
    found = key_problems(text.replace(old, new, 1))
    assert len(found) == len(problems)
    assert all(sentence.startswith(start) for sentence, start in zip(found, problems, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "`python -m jobs.retrain PIPELINE.yaml`",
        "`python -m jobs.train PIPELINE.yaml --workers 4`",
        "`python -m jobs.produce FILE.csv`",
        "```\n.venv/bin/python -m jobs.produce FILE.csv TOPIC --format xml  # a format\n```",
        "```\npython -m jobs.produce FILE.csv \\\n  TOPIC --nope 1\n```",
    ],
)
def test_a_command_that_would_not_run_is_reported(text: str) -> None:
    """A job that is gone, an unknown option, a missing argument, a wrong choice, on a continued line too."""
    assert len(command_problems(text)) == 1


def test_a_command_that_runs_is_not_reported() -> None:
    """A job that is only named, and one with all that it needs, comment and all."""
    assert command_problems("`python -m jobs.train`") == []
    assert command_problems("```\npython -m jobs.train P.yaml --set a=b --local  # go\n```") == []


@pytest.mark.parametrize(
    "link", ["nowhere.md", "../../etc/hosts", "README.md#no-such-heading", "#no-such-heading"]
)
def test_a_dead_link_is_reported(link: str) -> None:
    """No such file, one outside of the repository, no such heading."""
    assert len(link_problems(f"# A page\n\n[here]({link})\n", ROOT)) == 1
    assert link_problems("# A page\n\n[a](#a-page) [b](README.md) [c](https://example.com/x)\n", ROOT) == []


@pytest.mark.parametrize("body", ["name: a\n", "name: a\nsource: {kind: kafka, topc: t}\n", "name: [\n"])
def test_a_broken_example_is_reported(body: str, tmp_path: Path) -> None:
    """A missing source, a misspelt key, no YAML."""
    assert len(example_problems(f"```yaml\n{body}```\n", tmp_path)) == 1
