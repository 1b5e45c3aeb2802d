"""Looking for revisions bit by bit: each look goes on from the table versions of the one before.

Training rows are compared as a model learnt from them with what they are now. What a prediction was
made of is compared commit by commit, because a row may come, be used and be revised within one
hour: of each commit that changed a row, the predictions are affected that were logged before it.

A model of which something could not be compared, because tracker or lake did not answer, stays
where it was: the next look compares it from there. Only what is gone for good is given up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from itertools import pairwise

import polars as pl

from cryptoml_assets.errors import LakeError, TrainingRecordError
from cryptoml_assets.features.catalog import TTL, features_of
from cryptoml_assets.features.feature import TABLES, Table
from cryptoml_assets.features.point_in_time import LONGEST_LAG
from cryptoml_assets.monitoring.commits import Commit, commits, version_by
from cryptoml_assets.monitoring.gone import version_gone
from cryptoml_assets.monitoring.revisions import (
    ROWS,
    SCHEMA,
    Learnt,
    prediction_impact,
    revised_rows,
    training_impact,
)
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.served import SERVED_PREDICTIONS

#: Lake table: up to which version of each table was looked, and which models were considered.
TABLE = "revision_looks"
_STATE = pl.Schema(
    {
        "table": pl.String(),
        "version": pl.Int64(),
        "models": pl.String(),
        "behind": pl.String(),
    }
)
#: Most commits of a table that one look compares one by one; older ones it compares in one step.
MOST_STEPS = 500
#: A table whose files or log cannot be read: cleaned away, or in a store that does not answer.
_UNREAD = (LakeError, OSError, pl.exceptions.PolarsError)
_BEGIN = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Since:
    """From where on a model is compared.

    Attributes:
        versions: table to the version up to which everything of it was compared.
        known: whether its training rows were compared at all; where not, they are compared from
            the versions it learnt from.
    """

    versions: Mapping[str, int]
    known: bool


@dataclass(frozen=True)
class Looked:
    """Up to where was looked.

    Attributes:
        versions: table to the version that was its newest.
        models: model versions that were considered.
        behind: those of them of which something could not be compared, and from where on.
    """

    versions: Mapping[str, int] = field(default_factory=dict)
    models: frozenset[str] = frozenset()
    behind: Mapping[str, Since] = field(default_factory=dict)

    def since(self, model: str) -> Since:
        """From where on a model is compared next."""
        return self.behind.get(model) or Since(self.versions, model in self.models)

    def within(self, versions: Mapping[str, int]) -> Looked:
        """This without what is past ``versions``: such a table was made anew since."""
        behind = {
            model: Since(_within(each.versions, versions), each.known)
            for model, each in self.behind.items()
        }
        return Looked(_within(self.versions, versions), self.models, behind)


@dataclass(frozen=True)
class Found:
    """What a look found.

    Attributes:
        impact: the affected versions and predictions; see :mod:`~.revisions`.
        looked: where the next look goes on.
        problems: what could not be compared, in words.
    """

    impact: pl.DataFrame
    looked: Looked
    problems: tuple[str, ...]


def read_looked(lake: Lake) -> Looked:
    """Up to where was looked; nowhere where no look was kept."""
    if not lake.exists(TABLE):
        return Looked()
    rows = lake.scan(TABLE).collect()
    models = {name for text in rows["models"] for name in text.split(",") if name}
    behind: dict[str, Since] = {}
    if "behind" in rows.columns:
        for text in rows["behind"].unique():
            behind |= {model: Since(**each) for model, each in json.loads(text).items()}
    versions = dict(zip(rows["table"], rows["version"], strict=True))
    return Looked(versions, frozenset(models), behind)


def keep_looked(lake: Lake, looked: Looked) -> None:
    """Remember a look, once what it found is stored: else its findings would never be told."""
    models = ",".join(sorted(looked.models, key=int))
    behind = json.dumps({name: asdict(looked.behind[name]) for name in sorted(looked.behind)})
    rows = [(table, at, models, behind) for table, at in sorted(looked.versions.items())]
    lake.overwrite(TABLE, pl.DataFrame(rows, schema=_STATE, orient="row"))


def look(
    lake: Lake,
    learnt_of: Callable[[str], Learnt | None],
    placed: Iterable[str],
    before: Looked,
    noticed_at: datetime,
) -> Found:
    """Look for revisions since the look before.

    Args:
        lake: holds feature tables and served predictions.
        learnt_of: what a model version learnt from; none where that is gone for good, and a
            :class:`TrainingRecordError` where it cannot be told now.
        placed: model versions that serve in any role.
        before: the look before.
        noticed_at: the present instant.
    """
    served = lake.version(SERVED_PREDICTIONS) if lake.exists(SERVED_PREDICTIONS) else None
    # After the log of predictions: every one of them was made before what a later look compares.
    newest: dict[str, int] = {each: lake.version(each) for each in TABLES if lake.exists(each)}
    versions = newest if served is None else {**newest, SERVED_PREDICTIONS: served}
    before = before.within(versions)
    models = {*placed, *before.models, *_served_models(lake, before, served)}
    session = _Look(lake, {name: before.since(name) for name in models}, noticed_at)
    session.learn(learnt_of)
    impact = [SCHEMA.to_frame()]
    for table, now in newest.items():
        impact += session.training(table, now)
        if served is not None:
            impact += session.predictions(table, now)
    behind = {name: session.since[name] for name in session.behind}
    looked = Looked(versions, frozenset(models), behind)
    return Found(pl.concat(impact), looked, tuple(session.problems))


@dataclass
class _Look:
    lake: Lake
    since: Mapping[str, Since]
    noticed_at: datetime
    learnt: dict[str, Learnt | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    behind: set[str] = field(default_factory=set)

    def learn(self, learnt_of: Callable[[str], Learnt | None]) -> None:
        """Read what each model learnt from; of one that cannot be told now nothing is compared."""
        for version in sorted(self.since, key=int):
            what = f"version {version}: what it learnt from cannot be read"
            try:
                self.learnt[version] = learnt_of(version)
            except TrainingRecordError as error:
                self.behind.add(version)
                self.problems.append(f"{what} now, the next look tries again: {error}")
            else:
                if self.learnt[version] is None:
                    self.problems.append(f"{what} any more")

    def training(self, table: str, now: int) -> Iterator[pl.DataFrame]:
        """What of the training rows of each model is another since it, or a look, was there."""
        for version, learnt in self.learnt.items():
            if learnt is None:
                continue
            since = self.since[version]
            then = since.versions.get(table) if since.known else learnt.versions.get(table)
            if then is not None and then < now:
                first = (learnt.start - TTL - LONGEST_LAG).date()
                rows = self._revised(table, then, now, first, [version])
                yield training_impact(rows, table, learnt, self.noticed_at)

    def predictions(self, table: str, now: int) -> Iterator[pl.DataFrame]:
        """What of the rows that served predictions were made of is another since then."""
        for versions in self._together():
            since = self.since[versions[0]].versions
            known = ((version, self.learnt[version]) for version in versions)
            inputs = {
                version: each.inputs if each is not None else _everything()
                for version, each in known
            }
            log = None
            for older, newer in pairwise(self._steps(table, now, since)):
                rows = self._revised(table, older.version, newer.version, date.min, versions)
                if rows.is_empty():
                    continue
                log = log if log is not None else self._log(since)
                version = version_by(log, newer.at)
                if version is not None:
                    made = self._made(rows, version)
                    yield prediction_impact(rows, table, made, inputs, self.noticed_at)

    def _together(self) -> list[list[str]]:
        """The models whose predictions are compared from the same versions on, together."""
        groups: dict[frozenset[tuple[str, int]], list[str]] = {}
        for version in self.learnt:
            key = frozenset(self.since[version].versions.items())
            groups.setdefault(key, []).append(version)
        return list(groups.values())

    def _revised(
        self, table: str, then: int, now: int, first: date, models: Sequence[str]
    ) -> pl.DataFrame:
        """The rows that differ; where they cannot be read now, ``models`` stay where they were."""
        try:
            return revised_rows(self.lake, table, then, now, first)
        except _UNREAD as error:
            told = f"{table}: versions {then} and {now} were not compared"
            if any(version_gone(self.lake, table, version) for version in (then, now)):
                self.problems.append(f"{told}: {error}")
            else:
                self.behind.update(models)
                self.problems.append(f"{told}, the next look tries again: {error}")
            return ROWS.to_frame()

    def _steps(self, table: str, now: int, since: Mapping[str, int]) -> list[Commit]:
        """The versions to compare, each with the next."""
        start = since.get(table)
        if start is None:
            known = commits(self.lake, table)
            first = self._log(since)[0].at
            start = version_by(known, first)
            steps = [each for each in known if start is None or each.version >= start]
        else:
            steps = [Commit(start, _BEGIN), *commits(self.lake, table, start)]
        steps = [each for each in steps if each.version <= now]
        return steps if len(steps) <= MOST_STEPS else [steps[0], *steps[-MOST_STEPS:]]

    def _log(self, since: Mapping[str, int]) -> list[Commit]:
        """The versions of the log of predictions; that of the look before stands for all older."""
        known = since.get(SERVED_PREDICTIONS)
        older = [] if known is None else [Commit(known, _BEGIN)]
        return [*older, *commits(self.lake, SERVED_PREDICTIONS, known)]

    def _made(self, rows: pl.DataFrame, version: int) -> pl.DataFrame:
        """The predictions, logged by a version, that may be made of ``rows``."""
        first, last = rows["event_timestamp"].min(), rows["until"].max()
        stored = self.lake.day_versions(SERVED_PREDICTIONS, version=version)
        span = pl.Series([first, last]).dt.date()
        days = [day for day in stored if span[0] <= day <= span[1]]
        columns = ("prediction_id", "model_version", "symbol", "feature_timestamp")
        return self.lake.scan(SERVED_PREDICTIONS, days, version).select(columns).collect()


def _within(known: Mapping[str, int], versions: Mapping[str, int]) -> dict[str, int]:
    return {table: at for table, at in known.items() if at <= versions.get(table, -1)}


def _served_models(lake: Lake, before: Looked, served: int | None) -> set[str]:
    """Model versions among the predictions logged since the look before."""
    if served is None:
        return set()
    known = before.versions.get(SERVED_PREDICTIONS)
    older = {} if known is None else lake.day_versions(SERVED_PREDICTIONS, version=known)
    newer = lake.day_versions(SERVED_PREDICTIONS, version=served)
    days = [day for day, text in newer.items() if older.get(day) != text]
    rows = lake.scan(SERVED_PREDICTIONS, days, served).select("model_version").unique()
    return set(rows.collect()["model_version"])


def _everything() -> dict[str, frozenset[str]]:
    """The inputs of a model of which nothing is known: any feature may be among them."""
    return {table: _names(table) for table in TABLES}


def _names(table: Table) -> frozenset[str]:
    return frozenset(feature.name for feature in features_of(table))
