"""A lineage, told to a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MOST_VALUES = 12


def lineage_lines(found: Mapping[str, Any]) -> list[str]:
    """Lines that walk a prediction back, one step after another.

    Args:
        found: a :class:`~.lineage.Lineage` as it is told.
    """
    return [
        *_prediction(found["prediction"]),
        *_approval(found["approval"]),
        *_run(found["run"], found["training_data"]),
        *(line for each in found["inputs"] for line in _input(each)),
        *(line for each in found["sources"] for line in _source(each)),
        *_conclusion(found),
    ]


def _prediction(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"prediction {row['prediction_id']}"
    yield (
        f"  {row['symbol']} at {row['feature_timestamp']}, computed at {row['computed_at']}: "
        f"expected return {row['expected_return']:.6g}, interval {row['lower']:.6g} to "
        f"{row['upper']:.6g}, probability up {row['probability_up']:.4f}"
    )
    yield (
        f"  by version {row['model_version']} of {row['model_name']} ({row['role']}), bundle "
        f"{row['bundle_digest'][:12]}, as of decision {row['sequence']}"
    )


def _approval(record: Mapping[str, Any] | None) -> Iterator[str]:
    if record is None:
        return
    passed = sum(each["passed"] for each in record["criteria"])
    yield f"approval: decision {record['sequence']}, {record['action']} as {record['role']}"
    yield f"  {record['decided_by']}, {record['decided_at']}: {record['reason']}"
    yield f"  {passed} of {len(record['criteria'])} criteria passed, signed by {record['key_id']}"


def _run(run: Mapping[str, Any] | None, versions: Mapping[str, int]) -> Iterator[str]:
    if run is None:
        return
    yield f"training run {run['run_id']}: {run['family']}, {run['status']}"
    yield f"  commit {run['git_commit']}, asked for by {run['triggered_by'] or 'nobody known'}"
    yield f"  trained on {run['training_start']} to {run['training_end']}"
    yield f"  tested on {run['test_start']} to {run['test_end']}"
    for table, version in sorted(versions.items()):
        yield f"  {table}: version {version}"
    yield f"  again: {run['again']}"


def _input(each: Mapping[str, Any]) -> Iterator[str]:
    known = "known in time" if each["known_in_time"] else "NOT KNOWN IN TIME"
    when = each["event_timestamp"] or "no row"
    yield f"{each['table']}, version {each['version']}: row of {when}, {known}"
    shown = list(each["values"].items())
    for name, value in shown[:_MOST_VALUES]:
        yield f"  {name} = {_number(value)}{_now(each['revised'], name)}"
    if len(shown) > _MOST_VALUES:
        yield f"  and {len(shown) - _MOST_VALUES} more; --json lists them"
    for name in [name for name, _ in shown[_MOST_VALUES:] if name in each["revised"]]:
        yield f"  {name} = {_number(each['values'][name])}{_now(each['revised'], name)}"
    if each["null_reason"]:
        yield f"  nulls: {each['null_reason']}"


def _source(each: Mapping[str, Any]) -> Iterator[str]:
    expected = f" of {each['expected']}" if "expected" in each else ""
    revised = "; REVISED since" if each["revised"] else ""
    yield (
        f"{each['table']}, version {each['version']}: {each['rows']}{expected} rows from "
        f"{each['first']} to {each['last']}{revised}"
    )
    if each.get("newest"):
        bar = each["newest"]
        yield f"  newest bar: {bar['open_time']}, close {bar['close']:.8g}, {bar['source']}"
    if "first_block" in each:
        first, last = each["first_block"], each["last_block"]
        yield f"  blocks {first['number']} to {last['number']} {last['hash']}"


def _conclusion(found: Mapping[str, Any]) -> Iterator[str]:
    if found["inputs"]:
        known = "every input was known" if found["known_in_time"] else "NOT every input was known"
        yield f"{known} when the prediction was computed"
        yield "revised since" if found["revised"] else "nothing of it has been revised since"
    if found["same_inputs"]:
        yield "its id says that these are the very inputs it was made of"
    if found["answers_again"] is not None:
        again = "the same" if found["answers_again"] else "ANOTHER"
        yield f"from the same inputs the bundle gives {again} answer"
    for problem in found["problems"]:
        yield f"PROBLEM {problem}"


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.10g}"


def _now(revised: Mapping[str, float | None], name: str) -> str:
    return f", now {_number(revised[name])}" if name in revised else ""
