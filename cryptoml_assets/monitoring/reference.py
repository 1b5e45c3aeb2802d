"""What the present is compared with: the rows a champion learnt from, and its own answers."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from cryptoml_assets.deployment.lineage import trained_run
from cryptoml_assets.errors import LakeError
from cryptoml_serving.contract.registry import PREDICTIONS_FILE

if TYPE_CHECKING:
    from cryptoml_assets.deployment.history import Entry
    from cryptoml_assets.resources.lake import Lake
    from cryptoml_serving.contract.manifest import Manifest

_TABLE = "training_set"


@dataclass(frozen=True)
class Learnt:
    """The rows to compare inputs with.

    Attributes:
        rows: ``symbol``, ``event_timestamp`` and the inputs.
        spans: the inputs that are judged, each with the rows that share one independent value.
        model_version: the champion that learnt from them; none without a champion.
        told: what they are, in words.
    """

    rows: pl.DataFrame
    spans: Mapping[str, int]
    model_version: str | None
    told: str


def learnt_rows(
    lake: Lake, client: Any, champion: Entry | None, newest: pl.LazyFrame, spans: Mapping[str, int]
) -> Learnt:
    """The rows a champion learnt from; without one the newest training set.

    The champion's own inputs in its own training window, from the version of the table that its
    manifest names. Where that version is gone from the lake, the newest rows of the same window.

    Args:
        lake: holds the table.
        client: of the tracker; not asked without a champion.
        champion: the decision under which a version answers.
        newest: the newest training set.
        spans: inputs of any model, see :class:`Learnt`.

    Raises:
        TrainingRecordError: the champion's training run cannot be read.
    """
    if champion is None:
        rows = newest.select("symbol", "event_timestamp", *spans).collect()
        return Learnt(rows, spans, None, f"the newest {_TABLE}: there is no champion")
    manifest = trained_run(client, champion.record.run_id).manifest
    read = {feature.name for feature in manifest.features}
    own = {name: span for name, span in spans.items() if name in read}
    version = manifest.lake_versions.get(_TABLE)
    told = f"{_TABLE} version {version}"
    stored = None if version is None else _stored(lake, version, manifest, own)
    if stored is None:
        told = f"the newest {_TABLE}, {told} is gone"
        stored = _window(newest, manifest, own).collect()
    learner = champion.record.model_version
    return Learnt(stored, own, learner, f"{told}: what version {learner} learnt from")


def daily_rows(chain: pl.LazyFrame, names: Collection[str]) -> pl.DataFrame:
    """Every day of daily inputs that the lake holds.

    A training window holds few days, and windows of days need many to be compared with: all that
    came before what a champion learnt last is its past.

    Args:
        chain: a table with one row for each symbol and day.
        names: of the inputs.

    Returns:
        ``symbol``, ``event_timestamp``, ``source`` and the inputs, less days without any.
    """
    known = pl.any_horizontal(pl.col(name).is_not_null() for name in names) if names else False
    return chain.filter(known).select("symbol", "event_timestamp", "source", *names).collect()


def promised_answers(client: Any, champion: Entry) -> pl.DataFrame:
    """A version's own answers out of sample: symbol, event_timestamp and each output.

    Raises:
        MlflowException: they cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(champion.record.run_id, PREDICTIONS_FILE, folder)
        return pl.read_parquet(path)


def _stored(
    lake: Lake, version: int, manifest: Manifest, spans: Mapping[str, int]
) -> pl.DataFrame | None:
    """The rows of one version of the table; none where it was cleaned away."""
    try:
        return _window(lake.scan(_TABLE, version=version), manifest, spans).collect()
    except (LakeError, OSError, pl.exceptions.PolarsError):
        return None


def _window(rows: pl.LazyFrame, manifest: Manifest, spans: Mapping[str, int]) -> pl.LazyFrame:
    learnt = pl.col("event_timestamp").is_between(manifest.training_start, manifest.training_end)
    return rows.filter(learnt).select("symbol", "event_timestamp", *spans)
