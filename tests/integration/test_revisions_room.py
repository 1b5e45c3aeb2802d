"""revision_impact over a real lake, a real registry and a real Dagster run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from cryptoml_assets.cli import app
from cryptoml_assets.monitoring import revisions_assets
from cryptoml_assets.monitoring.looks import TABLE
from cryptoml_assets.monitoring.revisions_assets import revision_impact
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import settings
from tests.decided_home import AT, DecidedHome
from tests.feature_data import BAR
from tests.serving_world import NOW, build_templates

UPSTREAM = [dg.AssetSpec("price_features"), dg.AssetSpec("onchain_features")]


@pytest.fixture
def home(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> DecidedHome:
    made = DecidedHome(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    made.enter(monkeypatch)
    return made


def materialise(instance: dg.DagsterInstance, **options: Any) -> dict[str, Any]:
    done = dg.materialize(
        [*UPSTREAM, revision_impact],
        resources={
            "lake": LakeIOManager(uri=settings().lake_uri),
            "tracker": Tracker(tracking_uri=settings().tracking_address),
        },
        instance=instance,
        **options,
    )
    if not done.success:
        return {}
    (event,) = done.asset_materializations_for_node("revision_impact")
    return {name: value.value for name, value in event.metadata.items()}


def test_revised_bars_list_the_versions_and_predictions_they_reach(
    home: DecidedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        nothing = materialise(instance)
        assert (nothing["affected_versions"], nothing["considered_versions"]) == ([], [])
        version = home.judged()
        CliRunner().invoke(app, ["approve", version, "--reason", "test"], catch_exceptions=False)
        unplaced = home.judged(version)
        made = [home.log(version, 0, at) for at in (AT - 7 * BAR, AT - 2 * BAR, AT)]
        told = materialise(instance)
        assert (told["affected_versions"], told["considered_versions"]) == ([], [version])
        # The moving average of five bars reaches the next four rows.
        home.revise(AT - 6 * BAR)
        assert materialise(instance)["prediction_ids"] == [made[1].prediction_id]
        # Revised again within the rows that were trained on, by a run that dies before it tells.
        home.revise(NOW - timedelta(hours=36))

        def die(*_: Any) -> None:
            raise ConnectionResetError

        with monkeypatch.context() as dying:
            dying.setattr(revisions_assets, "_warn", die)
            assert materialise(instance, raise_on_error=False) == {}
        told = materialise(instance)
        assert told["affected_versions"] == [version]
        assert unplaced not in told["considered_versions"]
        assert told["problems"] == []
        assert f"training | {version} | price_features | BTC/USDT" in told["impact"]
        stored = home.lake.scan("revision_impact").collect()
        (training,) = stored.filter(kind="training").to_dicts()
        first = NOW - timedelta(hours=36) + BAR
        assert (training["first_instant"], training["last_instant"]) == (first, first + 4 * BAR)
        observed = instance.fetch_observations(dg.AssetKey("validated_deployment"), limit=9).records
        assert len(observed) == 2
        # Nothing was rewritten since: nothing is told again, and no version of a table is made.
        version_of = home.lake.version("revision_impact")
        again = materialise(instance)
        assert (again["new"], again["affected_versions"]) == (0, [version])
        assert home.lake.version("revision_impact") == version_of
        assert home.lake.exists(TABLE)
