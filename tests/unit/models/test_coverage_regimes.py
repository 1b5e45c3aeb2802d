from __future__ import annotations

import numpy as np
import pytest

from cryptoml_assets.models.coverage import COVERAGE_COLUMNS, coverage_table, regimes
from cryptoml_assets.models.evaluation import Answered, baseline, evaluate
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.strategy import Costs

START = np.datetime64("2024-01-01T00:00", "us")
HOUR = np.timedelta64(1, "h")


def rows(symbols: list[str], values: list[float], labels: np.ndarray | None = None) -> Rows:
    events = START + np.arange(len(symbols)) * HOUR
    features = np.column_stack([np.zeros(len(symbols)), values]).astype(np.float32)
    told = np.zeros(len(symbols)) if labels is None else labels
    return Rows(np.array(symbols), events, events + HOUR, features, told)


def test_regimes_are_thirds_of_each_symbols_own_past() -> None:
    past = rows(["A"] * 9 + ["B"] * 9 + ["A"], [*range(9), *range(0, 900, 100), np.nan])
    # Thirds of A end at 8/3 and 16/3, those of B at a hundred times that.
    test = rows(list("AAAABBBBAC"), [2.6, 2.7, 5.3, 5.4, 260, 270, 540, -1, np.nan, 1.0])
    assert regimes(past, test, 1).tolist() == [0, 1, 1, 2, 0, 1, 2, 0, -1, -1]


def test_a_wild_test_part_is_all_wild() -> None:
    past = rows(["A"] * 30, list(range(30)))
    assert regimes(past, rows(["A"] * 5, [50, 60, 70, 80, 90]), 1).tolist() == [2] * 5


def sample() -> list[Answered]:
    rng, parts = np.random.default_rng(0), []
    for count in (300, 500):
        labels = rng.standard_t(4, count)
        width = rng.uniform(1, 5, count)
        answers = {
            "expected_return": np.zeros(count),
            "lower": -width,
            "upper": width,
            "probability_up": rng.random(count),
        }
        own = rows(list(rng.choice(["A", "B"], count)), [0.0] * count, labels)
        parts.append(
            Answered(
                own,
                {name: np.float32(values) for name, values in answers.items()},
                baseline(rng.normal(0.1 * len(parts), 1, 900)),
                rng.integers(-1, 3, count).astype(np.int8),
            )
        )
    return parts


def test_each_cell_is_what_its_rows_say() -> None:
    parts = sample()
    table = coverage_table(parts)
    assert table.columns == list(COVERAGE_COLUMNS)
    assert table.select("symbol", "regime").rows() == [
        (symbol, regime)
        for symbol in ("A", "B", "all")
        for regime in ("calm", "usual", "wild", "unknown", "all")
    ]
    places = {"calm": 0, "usual": 1, "wild": 2, "unknown": -1}
    for symbol, regime, count, *figures in table.rows():
        picked = []
        for part in parts:
            chosen = np.full(len(part.rows), fill_value=True)
            if symbol != "all":
                chosen &= part.rows.symbols == symbol
            if regime != "all":
                chosen &= part.regimes == places[regime]
            answers = {name: values[chosen] for name, values in part.answers.items()}
            picked.append(Answered(part.rows.take(chosen), answers, part.base))
        expected = evaluate(picked, horizon=HOUR, seed=1, costs=Costs(1, 1))
        assert count == expected["test_rows"]
        names = ("coverage", "interval_width", "log_loss_skill", "crps_skill")
        assert figures == pytest.approx([expected[name] for name in names], abs=1e-6)


def test_without_regimes_symbols_are_still_told_apart() -> None:
    parts = [Answered(part.rows, part.answers, part.base) for part in sample()]
    table = coverage_table(parts)
    assert set(table["regime"]) == {"unknown", "all"}
    assert table.filter(symbol="all", regime="all")["rows"].item() == 800
