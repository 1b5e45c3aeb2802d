"""Proofs, repeated for one candidate on the very table versions it was made of.

The features room proves parity and the absence of look-ahead whenever a table changes, on the days
of that run. A candidate was learnt from many runs. So the gate does not look for the absence of a
failure among their records: it proves anew, on the versions in the candidate's own manifest and
run, on days and rows drawn by its digest. What cannot be read, or has nothing to compare, fails.

A day of features is made again from the raw versions its event names, else from those of the
training set, else from the newest. Which of them gives the same bits is no matter: the stored rows
are those the candidate read, and a function of its own past gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.deployment import criteria
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.features import audit, proofs
from cryptoml_assets.features.catalog import features_of, model_features
from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.features.inputs import bars_of_settings
from cryptoml_assets.features.remake import OfChain, OfPrices
from cryptoml_assets.features.training_set import model_inputs, with_labels
from cryptoml_serving.contract.registry import AS_OF_TAG

if TYPE_CHECKING:
    from cryptoml_assets.features.feature import Table
    from cryptoml_assets.features.remake import Recipe
    from cryptoml_assets.resources.lake import Lake
    from cryptoml_serving.contract.approval import Criterion
    from cryptoml_serving.contract.manifest import Manifest

#: Of a table and some days: the version of each raw table that a day was made of, where known.
Pins = Callable[[str, Sequence[date]], Mapping[date, Mapping[str, int]]]
#: Where making a day again gives other values.
_Proof = Callable[[proofs.Case], Iterable[object]]

#: How the tags of a run begin that name the version of a table its training set was made of.
TAG_PREFIX = "lake."
_TRAINING_SET, _PRICES = "training_set", "raw_prices"
#: Tables a training set is made of, beside itself.
UPSTREAM = (*TABLES, _PRICES)
_SAMPLED_DAYS = 3
_SAMPLED_ROWS = 100


def data_versions(manifest: Manifest, tags: Mapping[str, str]) -> dict[str, int]:
    """Version of each lake table a candidate was made of, as its bundle and its run say.

    Args:
        manifest: of its bundle; names the training set.
        tags: of its run; name what that was made of.

    Raises:
        ValueError: a tag that is no version.
    """
    upstream = {
        name.removeprefix(TAG_PREFIX): int(value)
        for name, value in tags.items()
        if name.startswith(TAG_PREFIX)
    }
    return upstream | manifest.lake_versions


def learnt_at(tags: Mapping[str, str], now: datetime) -> datetime:
    """The world's instant at which a candidate's training set was read.

    Args:
        tags: of its run; say it, unless older code has trained it.
        now: the present instant, which it is then.

    Raises:
        ValueError: a tag that is no instant, or of no zone.
    """
    if AS_OF_TAG not in tags:
        return now
    found = datetime.fromisoformat(tags[AS_OF_TAG])
    if found.tzinfo is None:
        message = f"{AS_OF_TAG}={tags[AS_OF_TAG]}: an instant names its zone"
        raise ValueError(message)
    return found.astimezone(UTC)


@dataclass(frozen=True)
class Delays:
    """When things became known; see the settings of these names."""

    metrics_lag: timedelta
    finality_delay: timedelta


@dataclass(frozen=True)
class DataUsed:
    """What a candidate was made of, and how to make it again.

    Attributes:
        lake: where the tables are.
        manifest: of its bundle.
        digest: of its bundle; draws the samples.
        versions: see `data_versions`.
        pins: says what a day of features was made of, where it is known.
        delays: of what the chains say.
        learnt_at: see the function of that name.
        now: the present instant.
    """

    lake: Lake
    manifest: Manifest
    digest: str
    versions: Mapping[str, int]
    pins: Pins
    delays: Delays
    learnt_at: datetime
    now: datetime

    @property
    def seed(self) -> int:
        """Draws samples: another candidate's are others, a repeated judgement's the same."""
        return int(self.digest[:8], 16)

    @property
    def told(self) -> str:
        """The versions in words."""
        return ", ".join(f"{name}@{self.versions[name]}" for name in (_TRAINING_SET, *UPSTREAM))

    def scan(self, table: str) -> pl.LazyFrame:
        """Rows of a table at the version that was used.

        Raises:
            ApprovalError: nothing says which that was.
            LakeError: it is not there any more.
        """
        if table not in self.versions:
            message = f"nothing says which version of {table} the candidate was made of"
            raise ApprovalError(message)
        return self.lake.scan(table, version=self.versions[table])

    def bars(self, version: int | None) -> pl.LazyFrame:
        """Bars of the configured venue and length."""
        return bars_of_settings(self.lake.scan(_PRICES, version=version))


def parity(used: DataUsed) -> Criterion:
    """Training rows are what the feature store gives, features what their raw rows give.

    A sample of rows is asked of Feast, through the views that serving reads; a sample of days of
    each feature table is computed again, each alone and with a day more of warm-up.

    Raises:
        ApprovalError: nothing says what the candidate was made of.
        LakeError: that is not there any more.
        ValueError: nothing was there to compare.
    """
    stored = _training_rows(used)
    sample = audit.drawn_rows(stored, _SAMPLED_ROWS, used.seed)
    inputs = model_inputs(*(used.scan(table) for table in TABLES))
    again = audit.through_feast(sample, inputs, used.versions, used.lake.uri)
    found = [audit.told([each], "Feast") for each in audit.apart(sample, again)]
    remade = _remade(used, _same_alone)
    found += [each for day in remade for each in day.different]
    compared = sample.height * len(model_features()) + sum(day.compared for day in remade)
    return criteria.parity(
        compared, found, f"by Feast and computed again, to the bit, of {used.told}"
    )


def no_look_ahead(used: DataUsed) -> Criterion:
    """No input or training label was unknown at its instant.

    Every row's inputs are the newest known by then, by another as-of join; every label is the
    return over exactly one horizon, known when the rows were read, and by the bundle's date; no
    training label reaches into the test part; and on a sample of days, changing all that came
    later changes nothing.

    Raises:
        ApprovalError: nothing says what the candidate was made of.
        LakeError: that is not there any more.
        ValueError: nothing was there to compare.
    """
    stored = _training_rows(used)
    again = audit.by_asof_join(stored, model_inputs(*(used.scan(table) for table in TABLES)))
    found = [audit.told([each], "an as-of join") for each in audit.apart(stored, again)]
    found += _labels_apart(used, stored)
    remade = _remade(used, _known_then)
    found += [each for day in remade for each in day.different]
    compared = stored.height * (len(model_features()) + 1) + sum(day.compared for day in remade)
    return criteria.no_look_ahead(
        compared, found, f"inputs, labels and what later rows change, to the bit, of {used.told}"
    )


def _training_rows(used: DataUsed) -> pl.DataFrame:
    for table in UPSTREAM:
        used.scan(table)
    return used.scan(_TRAINING_SET).collect()


def _labels_apart(used: DataUsed, stored: pl.DataFrame) -> list[str]:
    """Labels that are not the return over a horizon, not known yet, or within the test part."""
    manifest = used.manifest
    # The bundle's date alone would prove nothing: it is the newest label's own.
    known_by = min(manifest.created_at, used.learnt_at, used.now)
    horizon = timedelta(seconds=manifest.horizon_seconds)
    keys = ["symbol", "event_timestamp"]
    bars = used.bars(used.versions[_PRICES])
    again = with_labels(stored.lazy().select(keys), bars, horizon).collect()
    both = stored.join(again, on=keys, how="left", suffix="_again", validate="1:1")
    wrong = {
        "labels are not the return of their bars": both.filter(
            pl.col("label").ne_missing(pl.col("label_again"))
        ),
        "labels are not one horizon ahead": stored.filter(
            pl.col("label_timestamp") != pl.col("event_timestamp") + horizon
        ),
        "labels were not known": stored.filter(pl.col("label_timestamp") > known_by),
    }
    found = [f"{rows.height} {what}" for what, rows in wrong.items() if rows.height]
    if manifest.training_end + horizon > manifest.test_start:
        found.append(f"training labels reach past {manifest.test_start}, into the test part")
    return found


@dataclass(frozen=True)
class _Remade:
    """A day of a feature table, made again: its values, and where a proof finds others."""

    compared: int
    different: tuple[str, ...]


def _remade(used: DataUsed, proof: _Proof) -> list[_Remade]:
    """What a proof finds on a sample of the days of each feature table.

    Raises:
        ApprovalError: no price features in the candidate's window.
    """
    found: list[_Remade] = []
    for table in TABLES:
        days = _days_of(used, table)
        if not days:
            if table == TABLES[0]:
                message = f"{table} has no rows in the candidate's window"
                raise ApprovalError(message)
            # That every row of the training set has none of its values either, the joins prove.
            continue
        chosen, seconds = proofs.drawn(days, used.seed, _SAMPLED_DAYS)
        pins = used.pins(table, chosen)
        for day, second in zip(chosen, seconds, strict=True):
            rows = used.scan(table).filter(pl.col("date") == day).collect()
            different = _first_sound(
                proof(_case(used, table, rows, (day, second), pin))
                for pin in _raw_versions(used, table, pins.get(day))
            )
            found.append(_Remade(rows.height * len(features_of(table)), different))
    return found


def _first_sound(attempts: Iterable[Iterable[object]]) -> tuple[str, ...]:
    """No difference where one attempt finds none; else those of the first."""
    first: tuple[str, ...] | None = None
    for attempt in attempts:
        found = tuple(str(each) for each in attempt)
        if not found:
            return ()
        first = first or found
    return first or ("nothing to make it of",)


def _same_alone(case: proofs.Case) -> tuple[object, ...]:
    alone = proofs.partitions(case.recipe, case.raw, [case.day], expected=case.rows)
    return alone + proofs.warm_up(case.recipe, case.raw, case.day, expected=case.rows)


def _known_then(case: proofs.Case) -> tuple[object, ...]:
    return proofs.look_ahead(
        case.recipe, case.raw, case.day, cuts=case.cuts, seed=case.seed, expected=case.rows
    )


def _case(
    used: DataUsed,
    table: Table,
    rows: pl.DataFrame,
    when: tuple[date, int],
    versions: Mapping[str, int],
) -> proofs.Case:
    day, second = when
    recipe = _recipe(used, table, rows, versions)
    around = proofs.days_around(day, recipe.days_before)
    raw = {
        name: recipe.narrowed(name, used.lake.scan(name, around, versions.get(name))).collect()
        for name in recipe.tables
    }
    return proofs.Case(recipe, raw, rows, day, recipe.cuts(rows, day, second), used.seed)


def _recipe(
    used: DataUsed, table: Table, rows: pl.DataFrame, versions: Mapping[str, int]
) -> Recipe:
    if table == "price_features":
        bar = timedelta(seconds=used.manifest.bar_seconds)
        history = used.bars(versions.get(_PRICES))
        return OfPrices(bar, features_of(table), history, bars_of_settings)
    lag, final = used.delays.metrics_lag, used.delays.finality_delay
    return OfChain(
        # Which symbols were configured when the day was computed, its rows say.
        tuple(rows["symbol"].unique().sort()),
        delay=max(lag, final),
        metrics_lag=lag,
        finality_delay=final,
        now=used.now,
        features=features_of(table),
    )


def _raw_versions(
    used: DataUsed, table: Table, pinned: Mapping[str, int] | None
) -> list[Mapping[str, int]]:
    """Versions of the raw tables that a day may have been made of, the likeliest first."""
    last = {_PRICES: used.versions[_PRICES]} if table == "price_features" else {}
    return [pinned, last] if pinned else [last]


def _days_of(used: DataUsed, table: Table) -> tuple[date, ...]:
    """The days of a feature table whose rows the candidate's window holds, oldest first."""
    manifest = used.manifest
    within = pl.col("event_timestamp").is_between(manifest.training_start, manifest.test_end)
    days = used.scan(table).filter(within).select(pl.col("date").unique().sort()).collect()["date"]
    return tuple(days.to_list())
