"""Arrays of a river model that are damaged or hostile: they build nothing of anybody else's, and end in a sentence."""

from __future__ import annotations

import contextlib
import json
import random
from collections import deque
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.river_decode import decoded
from learning.river_encode import encoded
from learning.river_expert import RiverExpert
from learning.river_names import RiverError
from tests.learning.river_models import CLASSIFIERS, records

pytestmark = pytest.mark.filterwarnings("ignore")


def arrays(nodes: Any, data: bytes = b"") -> dict[str, np.ndarray]:
    text = nodes if isinstance(nodes, bytes) else json.dumps(nodes).encode()
    return {"graph": np.frombuffer(text, np.uint8), "data": np.frombuffer(data, np.uint8)}


DOUBLING = {
    levels: [*(["tuple", [at + 1], [at + 1]] for at in range(1, levels)), ["tuple"]] for levels in (12, 18)
}
"""Node 1 is a tuple of one tuple twice, which is one of another twice, and so on: hashed, 2^levels of them are met."""

HOSTILE = {
    "no JSON": b"[[",
    "deep JSON": b"[" * 100_000,
    "no list": {"a": 1},
    "no nodes": [],
    "no node": [1],
    "unknown kind": [["pickle", "cos\nsystem"]],
    "a function of os": [["function", "os:system"]],
    "os by way of river": [["function", "river.utils.pretty:os.system"]],
    "an import of river's": [["class", "river.tree.hoeffding_tree:math"]],
    "a class of river's that reads files": [["object", "river.datasets.phishing:Phishing", {}]],
    "a function of river's that reads files": [["function", "river.stream.iter_csv:iter_csv"]],
    "a builtin that runs": [["function", "builtins:eval"]],
    "subprocess": [["object", "subprocess:Popen", {"args": "true"}]],
    "a module": [["function", "river.optim:adam"]],
    "a class that is none": [["object", "river.optim.adam:annotations", {}]],
    "attributes with two underscores": [["object", "river.optim.adam:Adam", {"__class__": 1}]],
    "a plain class as object": [["object", "builtins:dict", {}]],
    "compiled as object": [["object", "river._river_rust.drift:AdaptiveWindowing", {}]],
    "compiled that is none": [["compiled", "river.optim.adam:Adam", [], 0, 0]],
    "bytes that are not there": [["bytes", 0, 1000]],
    "negative bytes": [["bytes", -4, 2]],
    "an array larger than its bytes": [["array", "<f8", [10**12], "C", 0, 0]],
    "an array of objects": [["array", "|O", [1], "C", 0, 8]],
    "a reference beyond the end": [["list", [7]]],
    "a reference to nothing": [["list", [-1]]],
    "a reference of a list": [["list", [0, 1]]],
    "a tuple of itself": [["tuple", [0]]],
    "a key that doubles with each level": [["dict", [1], 0], *DOUBLING[12]],
    "a member that doubles with each level": [["set", [1]], *DOUBLING[12]],
    "a frozen member that doubles with each level": [["frozenset", [1]], *DOUBLING[12]],
    "a key of a vector that doubles": [["defaultdict", None, [1], 0], *DOUBLING[12]],
    "a wide key, shared and shared again": [
        ["dict", [1], 0], ["tuple", *[[2]] * 20], ["tuple", *[[3]] * 20], ["tuple"]
    ],
    "a tuple that doubles, to be hashed later": [["list", [1]], *DOUBLING[18]],
    "unhashable in a set": [["set", [1]], ["list"]],
    "half a pair": [["dict", 1]],
    "a default that cannot be called": [["defaultdict", 3]],
    "a partial of a number": [["partial", 3, [1], [2]], ["tuple"], ["dict"]],
    "a method of a list": [["method", [1], "append"], ["list"]],
    "a generator without numbers": [["random", 0, 0, None]],
    "a generator's place": [["random_state", 0, 0, 9999, 0, 0.0]],
    "an odd PCG64": [["generator", "x", "1", 0, 0]],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused(name: str) -> None:
    """Whoever can write snapshots writes names, references and sizes of their own: RiverError, and nothing ran."""
    with pytest.raises(RiverError):
        decoded(arrays(HOSTILE[name]))


def test_damaged_bytes_of_compiled_parts_are_refused() -> None:
    """River's compiled statistics panic at bytes that are not theirs: that ends in a sentence too."""
    expert = RiverExpert(CLASSIFIERS["adwin bagging"])
    expert.learn(records(50))
    saved = encoded(expert.model)
    nodes = json.loads(saved["graph"].tobytes())
    compiled = next(node for node in nodes if node[0] == "compiled")
    compiled[-1] = 3
    with pytest.raises(RiverError, match="are not those of its state"):
        decoded(arrays(nodes, saved["data"].tobytes()))


def test_another_model_is_refused() -> None:
    """The arrays of a tree where a logistic regression is expected."""
    with pytest.raises(RiverError, match=r"expected a model of river\.linear_model"):
        RiverExpert.of(CLASSIFIERS["logistic"], RiverExpert(CLASSIFIERS["hoeffding"]).arrays())
    with pytest.raises(ValueError, match="expected arrays"):
        RiverExpert.of(CLASSIFIERS["logistic"], {})


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_a_damaged_graph_ends_in_a_sentence(seed: int) -> None:
    """Numbers, texts and references of a real graph are exchanged at random: a model comes, or a RiverError."""
    rng = random.Random(seed)
    saved = SAVED
    nodes = json.loads(saved["graph"].tobytes())
    for _ in range(rng.randint(1, 4)):
        node = rng.choice(nodes)
        other = rng.choice(nodes)
        node[rng.randrange(len(node))] = rng.choice(
            [None, -1, 10**30, "x", [3], [10**9], {}, rng.choice(other)]
        )
    with contextlib.suppress(RiverError):  # any other error fails the test
        decoded(arrays(nodes, saved["data"].tobytes()))


def saved_bagging() -> dict[str, np.ndarray]:
    expert = RiverExpert(CLASSIFIERS["adwin bagging"])
    expert.learn(records(200))
    return encoded(expert.model)


SAVED = saved_bagging()

PLAIN: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(), inner)
        | st.frozensets(st.integers())
        | st.sets(st.text())
        | st.builds(deque, st.lists(inner), st.integers(0, 5) | st.none())
    ),
)


@given(PLAIN)
def test_plain_values_come_back(value: object) -> None:
    """Whatever nests of lists, tuples, mappings, sets, texts, bytes and numbers: equal, and of the same types."""
    again = decoded(encoded([value]))[0]
    assert again == value
    assert form_of(again) == form_of(value)


def form_of(value: Any) -> Any:
    """A value as types and texts all through, the members of sets in an order that no insertion changes."""
    if isinstance(value, dict):
        return type(value), [(form_of(key), form_of(of)) for key, of in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(form_of(member)) for member in value)
    if isinstance(value, (list, tuple, deque)):
        return type(value), getattr(value, "maxlen", None), [form_of(part) for part in value]
    return type(value), repr(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"{": 1}, {"{": True}), ({"a": [1]}, {"a": [1.0]}), ({1}, {True}), ({1}, frozenset({1})),
     (deque([1], 2), deque([1], 3)), ({"{": 0.0}, {"{": -0.0})],
)  # fmt: skip
def test_the_form_of_a_value_tells_equal_ones_of_other_types_apart(one: object, other: object) -> None:
    """What == and a look for braces let pass: the check above would see it."""
    assert form_of(one) == form_of(deepcopy(one))
    assert form_of(one) != form_of(other)


def test_shared_parts_stay_shared_and_cycles_close() -> None:
    """A list that holds itself and one thing twice, numbers without end, arrays of all kinds, in either order."""
    inner: list[Any] = [1.5]
    thing = {
        "twice": [inner, inner],
        "inf": float("inf"),
        "array": np.arange(6).reshape(2, 3).T,
        "one": np.float32(0.1),
    }
    inner.append(thing)
    again = decoded(encoded(thing))
    assert again["twice"][0] is again["twice"][1]
    assert again["twice"][0][1] is again
    assert again["inf"] == float("inf")
    assert again["array"].tolist() == thing["array"].tolist()  # type: ignore[attr-defined]
    assert again["array"].flags.f_contiguous
    assert type(again["one"]) is np.float32


def test_what_is_not_rivers_is_refused_with_the_way_to_it() -> None:
    """A model whose attribute holds a file or a lock."""
    expert = RiverExpert(CLASSIFIERS["logistic"])
    expert.model.optimizer.lock = memoryview(b"")
    with pytest.raises(RiverError, match=r"LogisticRegression\.optimizer\.lock is of builtins\.memoryview"):
        expert.arrays()
