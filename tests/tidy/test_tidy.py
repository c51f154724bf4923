"""Every rule of rules.py, on every file of the repository; and a proof that each can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tidy.rules import RULES, File

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("learning", "actors", "cluster", "jobs", "tests", "benchmarks", "docs", ".ci")  # may be missing
SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".sh"}
NAMES = {"Makefile", "run", ".gitignore"}  # files without a suffix
BY_NAME = {rule.name: rule for rule in RULES}

OPENING = '"""A module."""\n\nfrom __future__ import annotations\n'
LONG = "def f():\n" + "    x = 1\n" * 60

# rule, path, text: each is one case that the rule must report.
BAD = [
    ("layers", "learning/a.py", "import actors.shard\n"),
    ("layers", "actors/a.py", "def f():\n    from cluster import store\n"),
    ("layers", "cluster/broker/a.py", "from jobs.train import main\n"),
    ("layers", "cluster/a.py", "import importlib\nimportlib.import_module('jobs.train')\n"),
    ("layers", "jobs/a.py", "from tests.cluster import fakes\n"),
    ("learning_is_pure", "learning/a.py", "import time\n"),
    ("learning_is_pure", "learning/a.py", "from os import environ\n"),
    ("learning_is_pure", "learning/a.py", "import pandas as pd\n"),
    ("learning_is_pure", "learning/a.py", "import datetime\nnow = datetime.datetime.now()\n"),
    ("learning_is_pure", "learning/a.py", "x = open('x').read()\n"),
    ("learning_is_pure", "learning/a.py", "import numpy as np\nx = np.load('x.npy')\n"),
    ("actors_are_plain", "actors/a.py", "import ray\n"),
    ("actors_are_plain", "actors/a.py", "from kafka.errors import KafkaError\n"),
    ("ray_in_few_files", "cluster/snapshots.py", "import ray.util.queue\n"),
    ("ray_in_few_files", "jobs/train.py", "def f():\n    from ray import get\n"),
    ("remote_at_the_edge", "cluster/launch.py", "@ray.remote\nclass Shard:\n    pass\n"),
    ("remote_at_the_edge", "benchmarks/a.py", "@ray.remote(num_cpus=1)\nclass Shard:\n    pass\n"),
    ("nothing_unpickles", "cluster/a.py", "import pickle\n"),
    ("nothing_unpickles", "cluster/a.py", "from joblib import load\n"),
    ("nothing_unpickles", "cluster/a.py", "torch.load(path)\n"),
    ("nothing_unpickles", "cluster/a.py", "torch.load(path, weights_only=False)\n"),
    ("nothing_unpickles", "cluster/a.py", "np.load(path, allow_pickle=True)\n"),
    ("nothing_unpickles", "cluster/a.py", "np.load(path, allow_pickle=flag)\n"),
    ("nothing_unpickles", "cluster/a.py", "pd.read_pickle(path)\n"),
    ("opens_well", "learning/a.py", ""),
    ("opens_well", "learning/a.py", "from __future__ import annotations\n"),
    ("opens_well", "learning/a.py", '"""A module."""\n\nimport numpy\n'),
    ("no_silent_except", "cluster/a.py", "try:\n    f()\nexcept:\n    g()\n"),
    ("no_silent_except", "cluster/a.py", "try:\n    f()\nexcept OSError:\n    pass\n"),
    ("no_silent_except", "cluster/a.py", "try:\n    f()\nexcept OSError:\n    ...\n"),
    ("no_silent_except", "cluster/a.py", "with contextlib.suppress(Exception):\n    f()\n"),
    ("no_utils", "cluster/utils.py", OPENING),
    ("file_length", "cluster/a.py", "x = 1\n" * 251),
    ("file_length", "tests/test_a.py", "x = 1\n" * 401),
    ("function_length", "learning/a.py", LONG),
    ("jobs_are_thin", "jobs/a.py", OPENING + "x = 1\n" * 80),
    ("tests_tell", "tests/test_a.py", "def test_a():\n    assert True\n"),
    ("tests_tell", "tests/test_a.py", "class TestA:\n    def test_a(self):\n        assert True\n"),
    ("pure_tests_stay_pure", "tests/learning/test_a.py", "from time import sleep\n"),
    ("pure_tests_stay_pure", "tests/actors/test_a.py", "import ray\n"),
    ("plain_characters", "README.md", "Fast \N{ROCKET}\n"),
    ("plain_characters", "learning/a.py", "x =\N{NO-BREAK SPACE}1\n"),
    ("plain_characters", "learning/a.py", "# a\N{ZERO WIDTH SPACE}b\n"),
    ("plain_characters", "README.md", "done \N{HEAVY CHECK MARK}\n"),
    ("changelog_form", "CHANGELOG.md", "# Changelog\n\n## [0.1.0]\n"),
    ("changelog_form", "CHANGELOG.md", "## [Unreleased]\n\n### Improvements\n"),
]

# The nearest code that is in order: a rule that reports it would be noise.
GOOD = [
    ("layers", "jobs/a.py", "from cluster import launch\nfrom learning.batch import Batch\n"),
    ("layers", "cluster/broker/a.py", "from . import wire\nfrom ..config import Config\n"),
    (
        "learning_is_pure",
        "learning/a.py",
        "import math\nimport numpy as np\nfrom river import drift\nimport learning.b\n",
    ),
    ("learning_is_pure", "learning/a.py", "table.load(rows)\n"),
    ("actors_are_plain", "actors/a.py", "import threading\n"),
    ("ray_in_few_files", "cluster/launch.py", "import ray\n"),
    (
        "remote_at_the_edge",
        "cluster/launch.py",
        "@dataclass\nclass Shard:\n    pass\n\nremote = ray.remote(Shard)\n",
    ),
    (
        "nothing_unpickles",
        "cluster/a.py",
        "torch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)\n",
    ),
    ("opens_well", "learning/a.py", OPENING),
    ("opens_well", "learning/__init__.py", '"""Pure."""\n'),
    ("no_silent_except", "cluster/a.py", "try:\n    f()\nexcept OSError:\n    continued = True\n"),
    ("no_silent_except", "cluster/a.py", "with contextlib.suppress(FileNotFoundError):\n    f()\n"),
    ("file_length", "cluster/a.py", "x = 1\n" * 250),
    ("function_length", "learning/a.py", 'def f():\n    """' + "\n" * 100 + '    """\n    return 1\n'),
    ("jobs_are_thin", "jobs/a.py", OPENING + "\n# why\n" * 200 + "x = 1\n" * 79),
    ("tests_tell", "tests/test_a.py", 'def test_a():\n    """A situation, and its promise."""\n'),
    ("pure_tests_stay_pure", "tests/learning/test_a.py", "import time\n"),
    ("plain_characters", "docs/a.md", "p = σ(wᵀx) − 1, x ≤ 2·10⁻³ → “so” … é – — ∑ ├─ █\n"),
    (
        "changelog_form",
        "CHANGELOG.md",
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n## [0.1.0] - 2026-01-01\n",
    ),
]


def _files() -> list[File]:
    """What people wrote: the files in the root and in FOLDERS, without caches and what runs leave behind."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    written = (path for path in paths if path.suffix in SUFFIXES or path.name in NAMES)
    return [
        File(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(written)
        if "__pycache__" not in path.parts
    ]


FILES = _files()


@pytest.mark.parametrize("name", BY_NAME)
def test_the_repository_keeps_the_rule(name: str) -> None:
    """Whatever is written in this repository keeps each rule; a finding names file, line and the way out."""
    rule = BY_NAME[name]
    concerned = [file for file in FILES if rule.of(file)]
    found = [f"{file.path}:{line}: {why}" for file in concerned for line, why in rule.check(file)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(("name", "path", "text"), BAD)
def test_the_rule_reports_what_it_forbids(name: str, path: str, text: str) -> None:
    """Given a file that breaks it, the rule applies to the file and says where and why."""
    rule, file = BY_NAME[name], File(path, text)
    assert rule.of(file)
    assert list(rule.check(file))


@pytest.mark.parametrize(("name", "path", "text"), GOOD)
def test_the_rule_lets_the_nearest_good_code_pass(name: str, path: str, text: str) -> None:
    """Given the closest code that is in order, the rule stays silent."""
    assert not list(BY_NAME[name].check(File(path, text)))


def test_every_rule_has_a_case_that_breaks_it() -> None:
    """A rule that was added without proof that it can fail is itself reported."""
    assert {name for name, _, _ in BAD} == set(BY_NAME)
