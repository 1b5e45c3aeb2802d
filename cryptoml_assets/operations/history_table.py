"""The history of decisions, whether it is sound, and what served at an instant."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from cryptoml_assets.deployment import history
from cryptoml_assets.deployment.standing import served_at
from cryptoml_assets.errors import ApprovalError, TrainingRecordError
from cryptoml_assets.operations.decisions import public_key, sound_entries, told
from cryptoml_assets.operations.tracking import tracking_client
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.approval import ApprovalInvalidError
from cryptoml_serving.contract.deployment import Deployment, read_deployment
from cryptoml_serving.contract.registry import DEPLOYMENT_TAG
from cryptoml_serving.contract.served import SERVED_PREDICTIONS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

#: Time before and after an instant in which predictions count as made around then.
AROUND = timedelta(hours=1)
_SHOWN = (
    "sequence",
    "decided_at",
    "action",
    "role",
    "percent",
    "model_name",
    "model_version",
    "bundle_digest",
    "decided_by",
    "reason",
    "key_id",
)


def history_rows(configured: Settings) -> list[dict[str, Any]]:
    """The table's own columns, oldest first; nothing is verified."""
    rows = history.rows(Lake(configured.lake_uri)).select(_SHOWN)
    when = pl.col("decided_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return rows.with_columns(when).to_dicts()


def history_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same as a table for people."""
    if not rows:
        return ["nothing was ever decided"]
    header = ("sequence", "when (UTC)", "action", "role", "version", "who", "why")
    cells = [header, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    return [
        "  ".join([*(text.ljust(w) for text, w in zip(row, widths, strict=False)), row[-1]])
        for row in cells
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    share = f" {row['percent']:g} %" if row["role"] == "canary" and row["percent"] else ""
    role = f"{row['role']}{share}"
    # Nothing is verified here: a cell can be null, and `--verify` says so.
    at = row["decided_at"]
    when = f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}" if at else "None"
    reason = " ".join(str(row["reason"]).split())
    who = (str(row["model_version"]), str(row["decided_by"]))
    return (str(row["sequence"]), when, str(row["action"]), role, *who, reason)


def history_faults(configured: Settings) -> list[str]:
    """Everything that is wrong with the history, held against the registry; empty when sound.

    Signatures, the chain, the columns beside the signed record, and the registry's signed
    deployment, without which a history that lacks its newest rows would look whole.
    """
    stored = history.rows(Lake(configured.lake_uri))
    try:
        key = public_key(configured)
    except ApprovalError as error:
        return [f"nothing can be verified: {error}"] if stored.height else []
    found = history.faults(stored, key)
    known = set(stored["model_name"].drop_nulls())
    for name in sorted({*known, configured.model_name}):
        try:
            deployment = _deployment(configured, name, key)
        except ApprovalInvalidError as error:
            found.append(f"{name}: the deployment in the registry is not to be trusted: {error}")
            continue
        if isinstance(deployment, Deployment):
            found += [x for x in history.faults(stored, key, deployment) if x not in found]
            found += _behind(stored, deployment)
        elif name in known:
            found.append(f"{name}: the newest rows may be missing: {deployment}")
    return found


def _deployment(configured: Settings, name: str, key: Ed25519PublicKey) -> Deployment | str:
    """What the registry says is deployed, or why it does not say it.

    Raises:
        ApprovalInvalidError: what it says was not signed by this platform.
    """
    try:
        client = tracking_client(configured)
    except TrainingRecordError as error:
        return f"the registry cannot be asked: {error}"
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    try:
        text = client.get_registered_model(name).tags.get(DEPLOYMENT_TAG)
    except MlflowException as error:
        return f"the registry cannot be asked: {error}"
    if text is None:
        return "the registry holds no signed deployment"
    return read_deployment(text, key)


def _behind(stored: pl.DataFrame, deployment: Deployment) -> list[str]:
    own = stored.filter(pl.col("model_name") == deployment.model_name)
    last = own["sequence"].max()
    if not isinstance(last, int) or last <= deployment.sequence:
        return []
    message = (
        f"the registry follows decision {deployment.sequence}, the newest is {last}: a run died in "
        "between; materialise validated_deployment, which brings it in step"
    )
    return [message]


def served_then(configured: Settings, when: datetime) -> dict[str, Any]:
    """What stood at an instant, under which decisions, and what was predicted around then.

    Raises:
        ApprovalError: the history is not sound, so that nothing may be concluded from it.
    """
    stood = served_at(sound_entries(configured), configured.model_name, when)
    return {
        "at": when.isoformat(),
        "model_name": configured.model_name,
        "champion": told(stood.champion) if stood.champion else None,
        "challengers": [told(entry) for entry in stood.challengers],
        "withdrawn": sorted(stood.withdrawn, key=int),
        "predictions": _predictions(configured, when),
    }


def served_lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    placed = [each for each in (found["champion"], *found["challengers"]) if each is not None]
    lines = [
        f"{each['role']}: version {each['model_version']}, by decision {each['sequence']} "
        f"({each['action']}) of {each['decided_by']}, {each['decided_at']}: {each['reason']}"
        for each in placed
    ] or [f"no version of {found['model_name']} had a role at {found['at']}"]
    if found["predictions"] is None:
        return [*lines, "no predictions have been logged"]
    return lines + [
        f"{each['predictions']} predictions of version {each['model_version']} ({each['role']}) "
        f"from {each['first']} to {each['last']}"
        for each in found["predictions"]
    ]


def _predictions(configured: Settings, when: datetime) -> list[dict[str, Any]] | None:
    """Predictions logged around an instant by version and role; none where none are logged."""
    lake = Lake(configured.lake_uri)
    if not lake.exists(SERVED_PREDICTIONS):
        return None
    made = pl.col("computed_at")
    near = (
        lake.scan(SERVED_PREDICTIONS)
        .filter(
            pl.col("date").is_between(
                (when - AROUND).date() - timedelta(days=1), (when + AROUND).date()
            ),
            pl.col("model_name") == configured.model_name,
            made.is_between(when - AROUND, when + AROUND),
        )
        .group_by("model_version", "role")
        .agg(predictions=pl.len(), first=made.min(), last=made.max())
        .sort("role", "model_version")
        .collect()
    )
    return [
        {**row, "first": row["first"].isoformat(), "last": row["last"].isoformat()}
        for row in near.iter_rows(named=True)
    ]
