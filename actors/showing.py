"""What a coordinator shows to people of what its brain knows: further figures by group, and events as sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from actors.status import JobEvent
from learning.feature_stats import FeatureStats
from learning.mixer import Mixer
from learning.plain import plain
from learning.slice_values import MISSING_KEY, MISSING_TEXT
from learning.slices import ALL, OTHER, PARTITION, VALUE, Slices, kind_of_slices
from learning.state_arrays import section
from learning.worker_state import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from learning.drift_blocks import Shift
    from learning.ensemble import Ensemble
    from learning.learner import Metrics
    from learning.watching import Notice
    from learning.worker_state import Arrays

    Groups = dict[str, dict[str, dict[str, float]]]

__all__ = ["event_of", "groups_of"]

_OTHER = "(other)"
_FEATURES_SHOWN, _MOVED_SHOWN, _METRICS_SHOWN = 30, 3, 2


def groups_of(
    states: Sequence[Arrays], metrics: Metrics, names: Mapping[int, str], ensemble: Ensemble | None = None
) -> Groups:
    """Figures of experts, partitions, slices and features, out of what workers know.

    `names` are those of features by key.
    """
    groups: Groups = {}
    if ensemble is not None:
        groups |= _experts([state for state in states if section(state, "mixer")], ensemble)
    if parts := [found for state in states if (found := section(state, "slices"))]:
        texts: dict[int, str] = {}
        for state in states:
            texts |= texts_of(state["slice_texts"]) if "slice_texts" in state else {}
        groups |= _slices(parts, kind_of_slices(type(metrics)), texts)
    if parts := [found for state in states if (found := section(state, "statistics"))]:
        told: dict[int, str] = {}
        for state in states:
            told |= texts_of(state["feature_names"]) if "feature_names" in state else {}
        groups |= _features(parts, told | dict(names))
    return groups


def _slices(parts: Iterable[Arrays], kind: Any, texts: Mapping[int, str]) -> Groups:
    """By partition and value: records, the most telling metrics of the recent window, and the first since the start."""
    first, *others = (Slices.of(part, kind, slices_max=1000) for part in parts)
    for other in others:
        first.merge(other)
    found: Groups = {"partitions": {}, "slices": {}}
    for what, key in first.groups:
        if what == ALL:
            continue
        group = "partitions" if what == PARTITION else "slices"
        told = {PARTITION: str(key), OTHER: _OTHER, VALUE: texts.get(key)}[what]
        theirs = {} if what != VALUE or key == MISSING_KEY else dict.fromkeys((_OTHER, MISSING_TEXT))
        name = _row_name(told, key, found[group] | theirs)
        total, recent = first.total(what, key), first.recent(what, key).summary()
        telling = list(recent)[:_METRICS_SHOWN]
        row = {"records": float(total.records)} | {f"window_{metric}": recent[metric] for metric in telling}
        row[telling[0]] = total.summary()[telling[0]]
        found[group][name] = row
    return {group: rows for group, rows in found.items() if rows}


def _experts(parts: Sequence[Arrays], ensemble: Ensemble) -> Groups:
    """By expert: its weight, in the mean over the workers, its mean loss since the start, and for a model outside of
    the tables the records on which it failed; the mixture's loss beside.
    """
    mixers = [
        Mixer.of(ensemble.mixing, ensemble.names, section(of, "mixer"), squared=ensemble.of_ratings)
        for of in parts
    ]
    records = sum(mixer.records for mixer in mixers)
    if not records:
        return {}
    rows: dict[str, dict[str, float]] = {}
    for name in mixers[0].expert_losses():
        rows[name] = {"loss": sum(mixer.expert_losses()[name] for mixer in mixers) / records}
        if name in ensemble.names:
            rows[name]["weight"] = sum(mixer.weights()[name] for mixer in mixers) / len(mixers)
    for name in ensemble.outside:
        rows[name]["failed"] = float(sum(of[f"experts.{name}.records"][1] for of in parts))
    return {"experts": rows}


def _features(parts: Iterable[Arrays], names: Mapping[int, str]) -> Groups:
    first, *others = (FeatureStats.of(part) for part in parts)
    for other in others:
        first.merge(other)
    rows: dict[str, dict[str, float]] = {}
    for key, one in first.summary(_FEATURES_SHOWN).items():
        figures = {
            "missing": one.missing_rate, "distinct": one.distinct, "mean": one.mean, "deviation": one.deviation,
        }  # fmt: skip
        rows[_row_name(names.get(key), key, rows)] = {
            n: value for n, value in figures.items() if not math.isnan(value)
        }
    return {"features": rows} if rows else {}


def _row_name(told: str | None, key: int, rows: Mapping[str, Any]) -> str:
    """A row's name for people: what was told of it, that of no other row; 16 digits of its key where nothing was."""
    digits = f"{key:016x}"
    name = digits if told is None else plain(told) or '""'
    return f"{name} ({digits})" if name in rows else name


def event_of(notice: Notice) -> JobEvent:
    """A notice in one sentence: what, where, since when, between which levels, what moved with it, what was done."""
    event = notice.event
    several = len(event.partitions) > 1
    where = f"partition{'s' * several} {', '.join(map(str, event.partitions))}"
    levels = "" if math.isnan(event.before) else f" from {event.before:.4g} to {event.after:.4g}"
    told = f"the loss {'rose' if event.rose else 'fell'}{levels} in {where}"
    if event.age_records:
        told += f", about {event.age_records:,} of its records ago"
    if event.moved:
        told += "; with it: " + ", ".join(map(_moved, event.moved[:_MOVED_SHOWN]))
    return JobEvent(event.records, event.kind, "; ".join((told, *notice.reactions)))


def _moved(shift: Shift) -> str:
    return f"{shift.name} {shift.before:.4g} to {shift.after:.4g}"
