"""The catalog: what an entry must be, what holds it, and that it is all a feature takes."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cryptoml_assets.features import catalog, formulas
from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.entries import checked
from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.terms import column
from tests.feature_data import make_bars
from tests.feature_textbook import onchain_textbook, textbook

FIRST = FEATURES[0]
BY_NAME = {feature.name: feature for feature in FEATURES}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Price"}, r"feature name 'Price': accepted are lower-case words"),
        ({"name": "price__5"}, r"feature name 'price__5': accepted are"),
        ({"name": "date"}, r"feature name 'date': accepted are .* not symbol, event_timestamp"),
        ({"unit": " "}, r"feature price has no unit or no description"),
        ({"description": ""}, r"feature price has no unit or no description"),
        ({"window": 0}, r"feature price has a window of 0 rows; accepted are 1 to 1,"),
        ({"window": 2}, r"feature price has a window of 2 rows; accepted are 1 to 1,"),
        ({"term": column("nvt_ratio")}, r"feature price is made of nvt_ratio; price_features sees"),
        ({"term": column("colse")}, r"feature price is made of colse; price_features sees open, "),
    ],
)
def test_an_entry_that_no_table_can_hold_is_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        checked(dataclasses.replace(FIRST, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"term": formulas.log_return().lag(2)},
        {"term": formulas.CLOSE.lag(1)},
        {"lag_of": ("log_return_1", 2)},
        {"lag_of": ("log_return_3", 1)},
        {"lag_of": ("log_return_1", 0), "term": formulas.log_return()},
        {"lag_of": ("price", 1), "term": formulas.CLOSE.lag(1)},
        {"lag_of": ("log_return_12", 1)},
    ],
    ids=["other lag", "other term", "other steps", "of another", "no lag", "no input", "unknown"],
)
def test_a_lag_is_one_of_a_model_input_before_it(change: dict[str, Any]) -> None:
    lag = BY_NAME["log_return_1_lag_1"]
    before = [BY_NAME[name] for name in ("price", "log_return_1", "log_return_3")]
    assert checked(*before, lag)[-1] is lag
    other = dataclasses.replace(lag, **{"window": 1, **change})
    with pytest.raises(ValueError, match=r"feature log_return_1_lag_1 is no \w+ of \d rows before"):
        checked(*before, other)


@pytest.mark.parametrize("gone", ["log_return_1_lag_15", "high_low_range_lag_7"])
def test_every_channel_holds_each_bar_of_a_window(gone: str) -> None:
    left = [feature for feature in FEATURES if feature.name != gone]
    name, _, _ = gone.partition("_lag_")
    with pytest.raises(ValueError, match=f"feature {name} has the lags 1, 2, .* accepted are 1 to"):
        checked(*left)
    assert len(catalog.window_channels()) == 2
    for channel in catalog.window_channels():
        newest = BY_NAME[channel[-1]]
        assert [BY_NAME[each].term for each in channel] == [
            newest.term.lag(catalog.LAGS - place) for place in range(catalog.LAGS + 1)
        ]


def test_models_of_a_row_read_no_lag_and_models_of_windows_read_all() -> None:
    row, window = catalog.row_inputs(), catalog.window_inputs()
    lags = [each for each in FEATURES if each.lag_of is not None]
    assert [each for each in window if each not in lags] == list(row)
    assert [each for each in window if each not in row] == lags
    assert len(lags) == 30
    assert catalog.model_features() == tuple(each.name for each in window)
    assert catalog.input_sets() == (row, window)


def test_there_is_one_set_of_inputs_where_nothing_is_a_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(each for each in FEATURES if each.lag_of is None)
    monkeypatch.setattr(catalog, "FEATURES", rows)
    assert catalog.input_sets() == (catalog.window_inputs(),)
    assert catalog.window_channels() == ()


def test_a_name_stands_for_one_feature() -> None:
    with pytest.raises(ValueError, match="feature price is in the catalog more than once"):
        checked(FIRST, *FEATURES)


def test_every_entry_is_held_by_a_formula_that_is_not_ours() -> None:
    bars = make_bars(2, ["BTC/USDT"])
    blocks = [
        [
            {
                "gas_used": 1,
                "gas_limit": 2,
                "base_fee_per_gas": 1,
                "transaction_count": 1,
                "active_addresses": 1,
            }
        ]
    ] * 8
    days = [
        dict.fromkeys(
            ("active_addresses", "transaction_count", "hash_rate", "nvt_ratio", "mvrv_ratio"), 1.0
        )
    ] * 8
    ranks = {feature.name for feature in FEATURES if feature.name.startswith("rank_")}
    held = {*textbook(bars, bars, 500), *onchain_textbook(days, blocks), *ranks}
    assert held == {feature.name for feature in FEATURES}


@pytest.mark.parametrize("feature", FEATURES, ids=lambda each: each.name)
def test_an_entry_says_what_it_is(feature: Feature) -> None:
    assert feature.description[0].isupper() or feature.description.split()[0] in {
        each.name for each in FEATURES
    }
    assert feature.description.endswith(".")
    assert "{" not in feature.description
    assert feature.sources or feature.name.startswith(("hour_", "weekday_"))


def test_the_version_of_a_table_changes_with_its_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {catalog.version_of("price_features"), catalog.version_of("onchain_features")}
    other = dataclasses.replace(FIRST, term=formulas.OPEN)
    monkeypatch.setattr(catalog, "FEATURES", (other, *FEATURES[1:]))
    assert catalog.version_of("price_features") not in versions
    assert catalog.version_of("onchain_features") in versions


#: Runs with one entry more in the catalog's text and nothing else, and looks for it everywhere.
ONE_MORE = '''
import importlib.abc, importlib.util, pathlib, runpy, sys

ENTRY = """    price("cubed", f.CLOSE * f.CLOSE * f.CLOSE.lag(2), "USD", "One more.", model=True),
"""

class WithOneMore(importlib.abc.SourceLoader):
    def __init__(self, path): self.path = path
    def get_filename(self, name): return self.path
    def get_data(self, path):
        text = pathlib.Path(self.path).read_text()
        head = "FEATURES: tuple[Feature, ...] = checked(\\n"
        assert head in text
        return text.replace(head, head + ENTRY).encode()
    def path_stats(self, path): raise OSError

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "cryptoml_assets.features.catalog":
            return None
        file = str(pathlib.Path(path[0]) / "catalog.py")
        return importlib.util.spec_from_loader(name, WithOneMore(file))

sys.meta_path.insert(0, Finder())

from tests.feature_data import BAR, make_bars, some_days
from cryptoml_assets.features.catalog import features_of, model_features, version_of
from cryptoml_assets.features.compute import feature_schema, price_features

bars, days = make_bars(3), some_days(3)
rows = price_features(bars, days, BAR)
close = bars["close"].to_list()
assert rows["cubed"].to_list()[2] == close[2] * close[2] * close[0]
assert rows["cubed"].to_list()[:2] == [None, None]
assert feature_schema(features_of("price_features"))["cubed"].is_float()
assert "cubed" in model_features()

from cryptoml_assets.features import proofs
from cryptoml_assets.features.remake import OfPrices
again = price_features(bars, days[1:2], BAR)
tampered = again.with_columns(cubed=again["cubed"] * 2)
found = proofs.warm_up(OfPrices(BAR), {"raw_prices": bars}, days[1], expected=tampered)
assert [each.feature for each in found] == ["cubed"], found

from cryptoml_assets.features.views import view
assert "cubed" in [field.name for field in view("price_features", "/lake").features]

page = runpy.run_path(sys.argv[1])["render"]()
assert "| `cubed` | One more. | USD | 3 | 2 | yes | raw_prices |" in page
print(version_of("price_features"))
'''


def test_a_new_feature_is_one_entry_and_nothing_else() -> None:
    page = Path(__file__).parents[3] / "docs" / "feature_reference.py"
    done = subprocess.run(
        [sys.executable, "-c", ONE_MORE, str(page)],
        capture_output=True,
        text=True,
        check=False,
        cwd=page.parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != catalog.version_of("price_features")
