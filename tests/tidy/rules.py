"""The rules of this repository that ruff and mypy cannot state. Standard library only.

A rule takes one file and yields (line, sentence) for what it finds. Each is short and knows nothing of the
others; RULES at the end lists them, and test_tidy.py proves for each that it can fail.
"""

from __future__ import annotations

import ast
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

PACKAGES = ("learning", "actors", "cluster", "jobs")  # each may import itself and those before it
RAY_FILES = (  # only these import ray
    "cluster/launch.py",
    "cluster/make_actors.py",
    "cluster/ray_metrics.py",  # the exporter: the metrics are Ray's, and nothing else there is
    "cluster/ray_session.py",
    "cluster/remote.py",
)

LEARNING_LIBRARIES = {"numpy", "numba", "torch", "river"}
LEARNING_NEVER = {  # clock, environment, files, network, other processes, and randomness nobody seeded
    *(
        "asyncio",
        "fcntl",
        "fileinput",
        "getpass",
        "glob",
        "http",
        "io",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
    ),
    *("platform", "sched", "secrets", "select", "shelve", "shutil", "signal", "socket", "sqlite3", "ssl"),
    *("subprocess", "tempfile", "time", "timeit", "urllib", "uuid"),
}
LEARNING_CALLS = {"open", "input", "print", "datetime.now", "datetime.utcnow", "date.today", "datetime.today"}
LEARNING_CALLS |= {
    f"{np}.{f}" for np in ("np", "numpy") for f in ("load", "save", "savez", "fromfile", "memmap")
}
LEARNING_CALLS |= {"torch.load", "torch.save"}
ACTORS_NEVER = {"ray", "kafka", "mlflow"}
UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

FILE_LINES_MAX = 250
TEST_FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60  # without its docstring; aim at 30
JOB_LINES_MAX = 80  # of code: docstrings (--help is made of them), comments and blank lines are free

CHANGELOG_SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
BOXES = range(0x2500, 0x25A0)  # lines, boxes and bars, for drawings and charts in a terminal
SYMBOLS_ALLOWED = "\t°"

Finding = tuple[int, str]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class File:
    """A file of the repository: its path from the root, and its text."""

    path: str
    text: str

    @property
    def folder(self) -> str:
        """The first part of the path: `learning`, or the file's own name in the root."""
        return PurePosixPath(self.path).parts[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed module."""
        return ast.parse(self.text, self.path)


@dataclass(frozen=True)
class Rule:
    """What is demanded, of which files, and how it is found out."""

    name: str
    of: Callable[[File], bool]
    check: Callable[[File], Iterator[Finding]]


# Which files -----------------------------------------------------------------------------------------


def _python(file: File) -> bool:
    return file.name.endswith(".py")


def _packages(file: File) -> bool:
    return _python(file) and file.folder in PACKAGES


def _tests(file: File) -> bool:
    return _python(file) and file.folder == "tests" and file.name.startswith("test_")


def _pure_tests(file: File) -> bool:
    return _python(file) and file.path.startswith(("tests/learning/", "tests/actors/"))


def _in(*folders: str) -> Callable[[File], bool]:
    return lambda file: _python(file) and file.folder in folders


# Reading a tree --------------------------------------------------------------------------------------


def _imports(file: File) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever it stands; relative ones are resolved."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = PurePosixPath(file.path).parts[: -node.level] if node.level else ()
            yield node.lineno, ".".join([*parents, *([node.module] if node.module else [])])
        elif isinstance(node, ast.Call) and _dotted(node.func) in {"importlib.import_module", "__import__"}:
            yield node.lineno, _text(node.args[0]) if node.args else ""


def _text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "a computed name"


def _roots(file: File) -> Iterator[tuple[int, str]]:
    return ((line, name.partition(".")[0]) for line, name in _imports(file))


def _dotted(node: ast.expr) -> str:
    """`a.b.c` for such an expression, with unknown parts left out."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def _functions(file: File) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(file.tree) if isinstance(node, FunctionNode))


def _docstring_lines(node: ast.Module | ast.ClassDef | FunctionNode) -> set[int]:
    if ast.get_docstring(node, clean=False) is None:
        return set()
    return set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))


# Rules -----------------------------------------------------------------------------------------------


def layers(file: File) -> Iterator[Finding]:
    """jobs -> cluster -> actors -> learning, and nothing imports tests or benchmarks."""
    above = {*PACKAGES[PACKAGES.index(file.folder) + 1 :], "tests", "benchmarks"}
    for line, name in _roots(file):
        if name in above:
            yield line, f"{file.folder} imports {name}: imports go jobs -> cluster -> actors -> learning only"


def learning_is_pure(file: File) -> Iterator[Finding]:
    """learning imports numpy, numba, torch, river and the harmless part of the standard library."""
    allowed = LEARNING_LIBRARIES | (sys.stdlib_module_names - LEARNING_NEVER) | set(PACKAGES)
    for line, name in _roots(file):
        if name not in allowed:
            yield line, f"learning imports {name}: no clock, environment, files or network; pass it in"
    for node in ast.walk(file.tree):
        called = ".".join(_dotted(node.func).split(".")[-2:]) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and called in LEARNING_CALLS:
            yield node.lineno, f"learning calls {called}: no clock and no files there; pass the value in"


def actors_are_plain(file: File) -> Iterator[Finding]:
    """actors know neither Ray nor Kafka nor MLflow."""
    for line, name in _roots(file):
        if name in ACTORS_NEVER:
            yield line, f"actors imports {name}: a plain class gets it through its constructor"


def ray_in_few_files(file: File) -> Iterator[Finding]:
    """Only the files of RAY_FILES import ray."""
    for line, name in _roots(file):
        if name == "ray" and file.path not in RAY_FILES:
            yield line, f"imports ray: only {', '.join(RAY_FILES)} do"


def remote_at_the_edge(file: File) -> Iterator[Finding]:
    """No @ray.remote on a class body."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                if _dotted(target) in {"ray.remote", "remote"}:
                    yield node.lineno, f"ray.remote on class {node.name}: wrap it in cluster/make_actors.py"


def nothing_unpickles(file: File) -> Iterator[Finding]:
    """Reading a file or a message never runs code that came with it."""
    for line, name in _roots(file):
        if name in UNPICKLERS:
            yield line, f"imports {name}: unpickling runs whatever the file says; use Arrow, npy or JSON"
    for node in (node for node in ast.walk(file.tree) if isinstance(node, ast.Call)):
        constants = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        given = {keyword.arg for keyword in node.keywords}
        name = _dotted(node.func)
        if name == "torch.load" and constants.get("weights_only") is not True:
            yield node.lineno, "torch.load without weights_only=True unpickles"
        if name.endswith("read_pickle"):
            yield node.lineno, f"{name} unpickles"
        if "allow_pickle" in given and constants.get("allow_pickle") is not False:
            yield node.lineno, "allow_pickle must be False"


def opens_well(file: File) -> Iterator[Finding]:
    """A module opens with its docstring, then the future import."""
    if ast.get_docstring(file.tree) is None:
        yield 1, "the module has no docstring"
        return
    rest = file.tree.body[1:]
    future = rest and ast.unparse(rest[0]) == "from __future__ import annotations"
    if rest and not future:
        yield rest[0].lineno, "after the docstring comes: from __future__ import annotations"


def no_silent_except(file: File) -> Iterator[Finding]:
    """No bare except, and no handler that only passes."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield node.lineno, "bare except: name what may happen"
            if all(isinstance(statement, ast.Pass) or _is_ellipsis(statement) for statement in node.body):
                yield node.lineno, "except and pass: contextlib.suppress(...) and a comment that says why"
        if isinstance(node, ast.Call) and _dotted(node.func).endswith("suppress"):
            suppressed = {_dotted(argument) for argument in node.args}
            if suppressed & {"Exception", "BaseException"}:
                yield node.lineno, "suppress(Exception) hides everything: name what may happen"


def _is_ellipsis(statement: ast.stmt) -> bool:
    return ast.unparse(statement) == "..."


def no_utils(file: File) -> Iterator[Finding]:
    """A file is named after what it does."""
    if file.name == "utils.py":
        yield 1, "utils.py says nothing: name the file after what it does"


def file_length(file: File) -> Iterator[Finding]:
    """Files fit into a head."""
    lines = file.text.count("\n")
    lines_max = FILE_LINES_MAX if file.folder in PACKAGES else TEST_FILE_LINES_MAX
    if lines > lines_max:
        yield lines_max, f"{lines} lines, and {lines_max} are the most: split the file by what it does"


def function_length(file: File) -> Iterator[Finding]:
    """Functions fit on a screen."""
    for node in _functions(file):
        lines = (node.end_lineno or 0) - node.lineno + 1 - len(_docstring_lines(node))
        if lines > FUNCTION_LINES_MAX:
            yield node.lineno, f"{node.name} has {lines} lines; {FUNCTION_LINES_MAX} are the most, aim at 30"


def jobs_are_thin(file: File) -> Iterator[Finding]:
    """An entry point parses, builds, runs and returns an exit code."""
    texts = enumerate(file.text.splitlines(), 1)
    code = {line for line, text in texts if text.strip() and not text.strip().startswith("#")}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Module | ast.ClassDef | FunctionNode):
            code -= _docstring_lines(node)
    if len(code) > JOB_LINES_MAX:
        yield 1, f"{len(code)} lines of code; {JOB_LINES_MAX} are the most: move the work to cluster/"


def tests_tell(file: File) -> Iterator[Finding]:
    """The docstring of a test says which situation it is, and what is promised."""
    for node in _functions(file):
        if node.name.startswith("test") and not ast.get_docstring(node):
            yield node.lineno, f"{node.name} has no docstring: say when it happens and what is promised"


def pure_tests_stay_pure(file: File) -> Iterator[Finding]:
    """Tests of learning and actors do not get around the fixture that switches the world off."""
    for line, name in _roots(file):
        if name in ACTORS_NEVER:
            yield line, f"imports {name}: what needs it is tested in tests/cluster"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node.lineno, "from time import ...: gets around the fixture that forbids the clock"


def plain_characters(file: File) -> Iterator[Finding]:
    """Letters, digits, punctuation and mathematics; no emoji, no invisible characters, no odd spaces."""
    for number, line in enumerate(file.text.splitlines(), 1):
        for character in sorted(set(line)):
            if _odd(character):
                yield number, f"U+{ord(character):04X} {unicodedata.name(character, '(control character)')}"


def _odd(character: str) -> bool:
    if " " <= character <= "~" or character in SYMBOLS_ALLOWED or ord(character) in BOXES:
        return False
    kind = unicodedata.category(character)  # C: invisible, Z: spaces, M: combining, So and Sk: pictures
    return kind[0] in "CZM" or kind in {"So", "Sk"}


def changelog_form(file: File) -> Iterator[Finding]:
    """The changelog opens with Unreleased, and its sections are named as Keep a Changelog names them."""
    releases = re.findall(r"^## \[?([^\]\n]+)", file.text, re.MULTILINE)
    if releases[:1] != ["Unreleased"]:
        yield 1, "the first section is to be: ## [Unreleased]"
    for number, line in enumerate(file.text.splitlines(), 1):
        if line.startswith("### ") and line[4:].strip() not in CHANGELOG_SECTIONS:
            yield number, f"{line[4:].strip()} is none of {', '.join(sorted(CHANGELOG_SECTIONS))}"


RULES = (
    Rule("layers", _packages, layers),
    Rule("learning_is_pure", _in("learning"), learning_is_pure),
    Rule("actors_are_plain", _in("actors"), actors_are_plain),
    Rule("ray_in_few_files", _packages, ray_in_few_files),
    Rule("remote_at_the_edge", _python, remote_at_the_edge),
    Rule("nothing_unpickles", _packages, nothing_unpickles),
    Rule("opens_well", _packages, opens_well),
    Rule("no_silent_except", _python, no_silent_except),
    Rule("no_utils", _python, no_utils),
    Rule("file_length", _python, file_length),
    Rule("function_length", _python, function_length),
    Rule("jobs_are_thin", _in("jobs"), jobs_are_thin),
    Rule("tests_tell", _tests, tests_tell),
    Rule("pure_tests_stay_pure", _pure_tests, pure_tests_stay_pure),
    Rule("plain_characters", lambda _: True, plain_characters),
    Rule("changelog_form", lambda file: file.path == "CHANGELOG.md", changelog_form),
)
