"""One candidate before the gate: fetched by its run, measured, and held against every rule."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from cryptoml_assets.deployment import causality, champion, criteria, gate
from cryptoml_assets.deployment.evidence import Evidence, Measuring, draws_for, gather
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.models.strategy import Costs
from cryptoml_serving.contract.bundle import load_bundle
from cryptoml_serving.contract.registry import BUNDLE_FOLDER, PREDICTIONS_FILE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cryptoml_assets.deployment.causality import Pins
    from cryptoml_assets.deployment.gate import Verdict
    from cryptoml_assets.resources.lake import Lake
    from cryptoml_assets.settings import Settings
    from cryptoml_serving.contract.approval import Criterion


class Version(Protocol):
    """A registered version: a candidate, or the champion's placement."""

    @property
    def model_version(self) -> str: ...  # noqa: D102
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def bundle_digest(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Circumstances:
    """What counts in a judgement besides the candidate and the settings.

    Attributes:
        champion: what serves, as its approval names it, or none.
        withdrawn: versions that were rolled back or withdrawn.
        trials: see `trials.trials_of`.
        pins: see `causality.Pins`.
    """

    champion: Version | None
    withdrawn: Collection[str]
    trials: int
    pins: Pins


def judge_candidate(
    client: Any,
    lake: Lake,
    candidate: Version,
    training_set: pl.DataFrame,
    *,
    configured: Settings,
    given: Circumstances,
) -> tuple[Evidence | None, Verdict]:
    """Fetch a candidate's bundle by its run and hold it against every required rule.

    Args:
        client: of the tracker.
        lake: holds the tables the candidate was made of.
        candidate: what asks to be approved.
        training_set: the rows it was trained and tested on, as they are now.
        configured: the limits, and which rules are required.
        given: what else counts.

    Returns:
        What was measured, or none where nothing could be, and the verdict. Without evidence there
        is no approval.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = _Session(
            client, lake, candidate, training_set, configured, given, Path(folder), []
        )
        verdict = gate.judge(session.measure, session.rules(), configured.gate_required)
        gathered = session.gathered
    return (gathered[0] if gathered else None), verdict


def versions_used(client: Any, candidate: Version, measured: Evidence) -> dict[str, int]:
    """Version of each lake table a candidate was made of, for its approval to name."""
    return causality.data_versions(measured.manifest, client.get_run(candidate.run_id).data.tags)


@dataclass(frozen=True)
class _Session:
    """One judgement; arguments as of `judge_candidate`, and a folder for what is fetched."""

    client: Any
    lake: Lake
    candidate: Version
    training_set: pl.DataFrame
    configured: Settings
    given: Circumstances
    folder: Path
    gathered: list[Evidence]

    def measure(self) -> Mapping[str, float]:
        """Fetch and measure the candidate; what fails here fails every rule."""
        bundle = self._fetch(self.candidate, BUNDLE_FOLDER)
        logged = pl.read_parquet(self._fetch(self.candidate, PREDICTIONS_FILE))
        digest = self.candidate.bundle_digest
        found = gather(bundle, digest, self.training_set, logged, self._measuring())
        self.gathered.append(found)
        return found.figures

    def rules(self) -> dict[str, gate.Rule]:
        """Every rule there is; those of more than figures take what they need themselves."""
        by_figures = gate.rules(
            self.configured.gate_claim, self.configured, trials=self.given.trials
        )
        return by_figures | {
            "no_worse_than_champion": lambda _: self._against_champion(),
            "parity": lambda _: causality.parity(self._data()),
            "no_look_ahead": lambda _: causality.no_look_ahead(self._data()),
            "not_withdrawn": lambda _: criteria.not_withdrawn(
                self.candidate.model_version, self.given.withdrawn
            ),
        }

    def _measuring(self) -> Measuring:
        configured = self.configured
        return Measuring(
            embargo=configured.embargo,
            costs=Costs(configured.fee_bps, configured.slippage_bps),
            seed=configured.seed,
            symbols=len(configured.symbols),
            draws=draws_for(self.given.trials, gate.level_of(configured.gate_claim, configured)),
        )

    def _against_champion(self) -> Criterion:
        configured, standing = self.configured, self.given.champion
        if standing is None:
            margin = configured.gate_champion_margin
            return criteria.no_comparable_champion("there is no champion to compare with", margin)
        bundle = load_bundle(
            self._fetch(standing, BUNDLE_FOLDER), expected_digest=standing.bundle_digest
        )
        how = champion.Comparing(
            configured.gate_claim,
            configured.gate_champion_margin,
            configured.gate_minimum_rows,
            configured.seed,
        )
        return champion.against_champion(
            self._measured(), standing.model_version, bundle, self.training_set, how
        )

    def _data(self) -> causality.DataUsed:
        configured, manifest = self.configured, self._measured().manifest
        tags, now = self.client.get_run(self.candidate.run_id).data.tags, configured.clock()
        return causality.DataUsed(
            lake=self.lake,
            manifest=manifest,
            digest=self.candidate.bundle_digest,
            versions=causality.data_versions(manifest, tags),
            pins=self.given.pins,
            delays=causality.Delays(configured.metrics_lag, configured.finality_delay),
            learnt_at=causality.learnt_at(tags, now),
            now=now,
        )

    def _measured(self) -> Evidence:
        if not self.gathered:
            message = "nothing was measured on the candidate"
            raise ApprovalError(message)
        return self.gathered[0]

    def _fetch(self, version: Version, artifact: str) -> Path:
        # A folder of its own: candidate and champion may be of the same run.
        folder = tempfile.mkdtemp(dir=self.folder)
        return Path(self.client.download_artifacts(version.run_id, artifact, folder))
