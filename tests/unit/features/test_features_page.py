import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.feature import Feature

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "feature_reference.md").read_text()


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "feature_reference", DOCS / "feature_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(reference: ModuleType) -> None:
    assert reference.render() == PAGE, "run `python docs/feature_reference.py`"


@pytest.mark.parametrize("feature", FEATURES, ids=lambda each: each.name)
def test_the_page_says_of_every_feature_what_the_catalog_says(feature: Feature) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{feature.name}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    trained_on = "yes" if feature.model_input else ""
    assert cells[1:5] == [
        feature.description,
        feature.unit,
        str(feature.window),
        str(feature.warmup),
    ]
    assert cells[5:] == [trained_on, ", ".join(feature.sources) or "time alone"]


def test_the_page_names_no_feature_that_is_gone() -> None:
    named = {line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")}
    assert named == {feature.name for feature in FEATURES}
