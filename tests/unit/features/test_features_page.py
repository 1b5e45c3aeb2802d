from pathlib import Path

import pytest

from cryptoml_assets.features.catalog import FEATURES, Feature

PAGE = (Path(__file__).parents[3] / "docs" / "features.md").read_text()


@pytest.mark.parametrize("feature", FEATURES, ids=lambda each: each.name)
def test_the_page_says_of_every_feature_what_the_catalog_says(feature: Feature) -> None:
    trained_on = "yes" if feature.model_input else ""
    row = (f"`{feature.name}`", feature.unit, feature.warmup, trained_on, feature.description)
    assert f"| {' | '.join(map(str, row))} |" in PAGE


def test_the_page_names_no_feature_that_is_gone() -> None:
    named = {line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")}
    assert named == {feature.name for feature in FEATURES}
