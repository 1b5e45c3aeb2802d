"""Network metrics in process, over a temporary lake: from the sandbox and from a failing API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from cryptoml_assets.onchain import network_metrics as network
from cryptoml_assets.onchain.metrics_assets import network_metrics
from cryptoml_assets.onchain.metrics_checks import (
    metric_days_are_complete,
    metric_figures_are_sound,
    metric_keys_are_unique,
    ratios_agree,
)
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from tests.sandbox_server import sandbox, serve

NOW = "2024-01-04T12:00:00Z"
DAYS = [date(2024, 1, n) for n in (1, 2, 3, 4)]
CHECKS = [
    metric_days_are_complete,
    metric_figures_are_sound,
    metric_keys_are_unique,
    ratios_agree,
]
WARNINGS = {"metric_days_are_complete", "ratios_agree"}
NEWER_COLUMNS = ["supply", "market_cap_usd", "realised_cap_usd", "adjusted_transfer_usd"]


@dataclass
class Api:
    """Answers with ``rows``, figures by asset and day; ``source`` is what it declares."""

    rows: dict[tuple[str, date], dict[str, str]]
    source: str | None = "simulated"
    asked: list[str] = field(default_factory=list)

    async def __call__(self, request):
        query = request.query_params
        self.asked.append(query["assets"])
        wanted = [
            {"asset": asset, "time": f"{day}T00:00:00.000000000Z"} | figures
            for (asset, day), figures in sorted(self.rows.items())
            if asset == query["assets"] and query["start_time"] <= f"{day}" <= query["end_time"]
        ]
        headers = {"X-Cryptoml-Source": self.source} if self.source else {}
        return JSONResponse({"data": wanted}, headers=headers)


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def materialize(lake, instance):
    def run(first=DAYS[0], last=DAYS[-1], *, fails=False, selection=None):
        tags = {
            "dagster/asset_partition_range_start": first.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        }
        return dg.materialize(
            [network_metrics, *CHECKS],
            selection=selection,
            resources={"lake": LakeIOManager(uri=lake.uri)},
            instance=instance,
            tags=tags,
            raise_on_error=not fails,
        )

    return run


def configure(monkeypatch, **variables):
    defaults = {"NOW": NOW, "RETRY_DELAYS": "0.01", "SYMBOLS": "BTC/USDT,ETH/USDT"}
    for name, value in (defaults | variables).items():
        monkeypatch.setenv(f"CRYPTOML_{name}", value)
    settings.cache_clear()


@contextmanager
def simulated(monkeypatch, **fields):
    with sandbox(now=NOW, transactions_per_block=0, **fields) as server:
        configure(monkeypatch, SANDBOX_URL=server.url)
        yield server


@contextmanager
def answering(api, monkeypatch, **variables):
    async def endpoint(request):
        return await api(request)

    with serve(Starlette(routes=[Route("/v4/timeseries/asset-metrics", endpoint)])) as url:
        configure(monkeypatch, METRICS_URL=url, **variables)
        yield url


def every_day(*assets, days=DAYS[:3], **figures):
    return {(asset, day): {"TxCnt": f"{day.day}", **figures} for asset in assets for day in days}


def evaluations(result):
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def metadata_of(result):
    told = result.asset_materializations_for_node("network_metrics")[0].metadata
    return {name: entry.value for name, entry in told.items()}


def data_versions(instance):
    """The newest data version of each day."""
    key = "dagster/data_version"
    found = {}
    for day in DAYS:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=network_metrics.key, asset_partitions=[day.isoformat()]
            ),
            limit=1,
        ).records
        if records:
            found[day] = records[0].asset_materialization.tags[key]
    return found


def test_a_run_stores_every_published_day_and_a_second_changes_nothing(
    lake, materialize, monkeypatch
):
    with simulated(monkeypatch):
        result = materialize()
        assert {name: e.passed for name, e in evaluations(result).items()} == {
            "metric_days_are_complete": True,
            "metric_figures_are_sound": True,
            "metric_keys_are_unique": True,
            "ratios_agree": True,
        }
        stored = lake.scan("network_metrics").collect()
        assert stored.schema == network.SCHEMA
        assert stored["day"].unique().sort().to_list() == DAYS[:3]  # today's is not published
        assert stored["asset"].unique().sort().to_list() == ["btc", "eth"]
        version = lake.version("network_metrics")
        assert metadata_of(materialize())["days_changed"] == 0
    assert lake.version("network_metrics") == version
    ratios = evaluations(result)["ratios_agree"].metadata
    assert ratios["compared"].value == 3 * (3 + 2)
    assert ratios["worst_difference"].value == 0


def test_a_run_tells_which_metrics_an_asset_lacks(materialize, monkeypatch):
    with simulated(monkeypatch):
        configure(monkeypatch, SYMBOLS="BTC/USDT,ETH/USDT,SOL/USDT,PEPE/USDT")
        told = metadata_of(materialize())
    mined = ["hash_rate", "mvrv_ratio", "realised_cap_usd"]
    moved = ["hash_rate", "nvt_ratio", "mvrv_ratio", "realised_cap_usd", "adjusted_transfer_usd"]
    assert told["lacks"] == {"eth": mined, "sol": moved}
    assert told["assets_absent"] == ["pepe"]
    assert (told["rows_answered"], told["rows_kept"]) == (9, 0)
    assert told["plot"].startswith("![plot](data:image/png;base64,")


def test_days_one_by_one_give_the_same_table_as_a_range(lake, materialize, monkeypatch):
    with simulated(monkeypatch):
        for day in DAYS:
            assert materialize(day, day).success
        one_by_one = lake.scan("network_metrics").collect()
        assert metadata_of(materialize())["days_changed"] == 0
    assert lake.scan("network_metrics").collect().equals(one_by_one)


@pytest.mark.parametrize("fault", ["rate_limited", "unavailable", "truncated"])
def test_a_passing_fault_leaves_the_table_of_an_undisturbed_run(
    lake, materialize, monkeypatch, fault
):
    with simulated(monkeypatch):
        materialize()
    undisturbed = lake.scan("network_metrics").collect()
    lake.replace_days("network_metrics", undisturbed.clear(), DAYS)
    with simulated(monkeypatch, faults={fault: 1.0, "retry_after_seconds": 0, "limit": 1}):
        materialize()
    assert lake.scan("network_metrics").collect().equals(undisturbed)


def test_an_answer_that_forgets_rows_and_figures_erases_nothing(lake, materialize, monkeypatch):
    whole = Api(every_day("btc", "eth", PriceUSD="100", SplyCur="5"))
    with answering(whole, monkeypatch):
        materialize()
    before = lake.scan("network_metrics").collect()
    poor = Api(every_day("btc", days=DAYS[1:2]))
    with answering(poor, monkeypatch):
        told = metadata_of(materialize())
    assert lake.scan("network_metrics").collect().equals(before)
    assert (told["rows_answered"], told["rows_kept"], told["assets_absent"]) == (1, 5, ["eth"])


def test_a_revised_figure_replaces_and_only_its_day_is_another_version(
    lake, instance, materialize, monkeypatch
):
    api = Api(every_day("btc", "eth"))
    with answering(api, monkeypatch):
        materialize()
        before = data_versions(instance)
        api.rows["eth", DAYS[1]] = {"TxCnt": "77"}
        told = metadata_of(materialize())
    after = data_versions(instance)
    assert told["days_changed"] == 1
    assert {day for day in DAYS if before[day] != after[day]} == {DAYS[1]}
    stored = lake.scan("network_metrics", DAYS[1:2]).collect()
    assert stored.select("asset", "transaction_count").rows() == [("btc", 2), ("eth", 77)]


def test_rows_that_another_run_wrote_meanwhile_are_not_lost(lake, materialize, monkeypatch):
    """A row of eth comes in between the answer and the commit of a run that knows btc only."""
    api = Api(every_day("btc", "eth"))
    with answering(api, monkeypatch) as url:
        materialize()
        other = lake.scan("network_metrics").filter(pl.col("asset") == "eth").collect()
        lake.replace_days("network_metrics", other.clear(), DAYS)
        read = network.read_metrics

        def read_and_be_overtaken(*given, **named):
            answered = read(*given, **named)
            lake.replace_days("network_metrics", other, DAYS)
            return answered

        monkeypatch.setattr(network, "read_metrics", read_and_be_overtaken)
        configure(monkeypatch, SYMBOLS="BTC/USDT", METRICS_URL=url)
        materialize()
    assert lake.scan("network_metrics").collect()["asset"].to_list() == ["btc", "eth"] * 3


@pytest.mark.parametrize(("stored_as", "answered_as"), [("simulated", None), (None, "replay")])
def test_live_rows_and_others_do_not_share_a_lake(
    lake, materialize, monkeypatch, stored_as, answered_as
):
    with answering(Api(every_day("btc"), stored_as), monkeypatch):
        materialize()
    before = lake.scan("network_metrics").collect()
    with answering(Api(every_day("btc"), answered_as), monkeypatch):
        failed = materialize(fails=True)
    error = str(failed.failure_data_for_node("network_metrics").error)
    assert "do not go together: give each world its own CRYPTOML_LAKE" in error
    assert lake.scan("network_metrics").collect().equals(before)


def test_replayed_and_simulated_rows_stand_together(lake, materialize, monkeypatch):
    with answering(Api(every_day("btc"), "replay"), monkeypatch):
        materialize()
    with answering(Api(every_day("eth"), "simulated"), monkeypatch):
        materialize()
    pairs = lake.scan("network_metrics").select("asset", "source").unique().collect()
    assert set(pairs.rows()) == {("btc", "replay"), ("eth", "simulated")}


def test_a_table_of_fewer_columns_gains_them_and_keeps_its_rows(lake, materialize, monkeypatch):
    with simulated(monkeypatch):
        materialize()
        whole = lake.scan("network_metrics").collect()
        older = Lake(f"{lake.uri}-older")
        older.replace_days("network_metrics", whole.drop(NEWER_COLUMNS), DAYS)
        before = older.scan("network_metrics").collect()
        resources = {"lake": LakeIOManager(uri=older.uri)}
        day = DAYS[2].isoformat()
        for _ in range(2):
            run = dg.materialize([network_metrics, *CHECKS], resources=resources, partition_key=day)
            assert all(e.passed for e in run.get_asset_check_evaluations())
    stored = older.scan("network_metrics").select(whole.columns).collect()
    assert stored.filter(pl.col("day") == DAYS[2]).equals(whole.filter(pl.col("day") == DAYS[2]))
    kept = stored.filter(pl.col("day") < DAYS[2])
    assert kept.drop(NEWER_COLUMNS).equals(before.filter(pl.col("day") < DAYS[2]))
    assert kept.select(pl.col(NEWER_COLUMNS).is_null().all()).row(0) == (True,) * 4


def test_unsound_rows_fail_the_checks_that_name_them(lake, materialize, monkeypatch):
    sound = {"PriceUSD": "10", "SplyCur": "30", "TxTfrValAdjUSD": "60", "NVTAdj": "5"}
    api = Api(every_day("btc", "eth", **sound))
    api.rows["btc", DAYS[0]] |= {"NVTAdj": "6"}
    api.rows["btc", DAYS[1]] |= {"HashRate": "-1"}
    del api.rows["eth", DAYS[2]]
    with answering(api, monkeypatch):
        found = evaluations(materialize(fails=True))
    assert {name for name, e in found.items() if not e.passed} == {
        "metric_days_are_complete",
        "metric_figures_are_sound",
        "ratios_agree",
    }
    for name, evaluation in found.items():
        assert evaluation.blocking == (name not in WARNINGS)
        assert (evaluation.severity == dg.AssetCheckSeverity.WARN) == (name in WARNINGS)
    assert (
        "| btc | 2024-01-01 | nvt_ratio | 6 | 5 |"
        in found["ratios_agree"].metadata["disagreeing"].value
    )
    assert found["ratios_agree"].metadata["worst_difference"].value == pytest.approx(1 / 6)
    assert "| btc | 2024-01-02 | hash_rate | -1 |" in (
        found["metric_figures_are_sound"].metadata["unsound"].value
    )
    assert "| eth | 2024-01-03 |" in found["metric_days_are_complete"].metadata["missing"].value


def test_a_key_stored_twice_blocks_what_follows(lake, materialize, monkeypatch):
    with answering(Api(every_day("btc")), monkeypatch):
        materialize()
        rows = lake.scan("network_metrics").collect()
        lake.replace_days("network_metrics", pl.concat([rows, rows.head(1)]), DAYS)
        checks = dg.AssetSelection.checks(metric_keys_are_unique)
        result = materialize(selection=checks, fails=True)
    (found,) = evaluations(result).values()
    assert (found.passed, found.blocking) == (False, True)
    assert "| btc | 2024-01-01 | 2 |" in found.metadata["repeated"].value


def test_nothing_published_yet_asks_nothing_and_makes_an_empty_table(
    lake, materialize, monkeypatch
):
    api = Api(every_day("btc"))
    with answering(api, monkeypatch, NOW="2024-01-02T03:59:59Z"):
        assert materialize(DAYS[0], DAYS[0]).success
    assert api.asked == []
    assert lake.scan("network_metrics").collect().equals(pl.DataFrame(schema=network.SCHEMA))


def test_a_row_appears_with_its_publication(lake, materialize, monkeypatch):
    available = datetime(2024, 1, 2, 4, tzinfo=UTC)
    for late, rows in ((timedelta(microseconds=-1), 0), (timedelta(0), 1)):
        api = Api(every_day("btc"))
        with answering(api, monkeypatch, NOW=(available + late).isoformat()):
            materialize(DAYS[0], DAYS[0])
        assert lake.row_count("network_metrics") == rows
    assert lake.scan("network_metrics").collect()["available_at"].to_list() == [available]
