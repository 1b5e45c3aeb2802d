from __future__ import annotations

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
DIGESTS = {name: f"sha256:{number * 64}" for name, number in zip("asg", "123", strict=True)}
ASSETS = f"ghcr.io/team/cryptoml-assets@{DIGESTS['a']}"
SERVING = f"ghcr.io/team/cryptoml-serving@{DIGESTS['s']}"
GPU = f"host:5000/cryptoml-serving-gpu@{DIGESTS['g']}"


@pytest.fixture(scope="module")
def script() -> Any:
    loader = SourceFileLoader("pin_images_script", str(REPOSITORY / "scripts" / "pin-images"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def written(script: Any, folder: Path, *images: str) -> tuple[dict[str, Any], dict[str, Any]]:
    script.main(str(folder), "1.2.3", *images)
    ours, dagster = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("cryptoml", "dagster")
    )
    return ours, dagster


def test_every_image_is_named_by_its_digest(script: Any, tmp_path: Path) -> None:
    ours, dagster = written(script, tmp_path / "new", SERVING, ASSETS, GPU)
    assert ours == {
        "serving": {
            "image": {
                "registry": "ghcr.io",
                "repository": "team/cryptoml-serving",
                "tag": "1.2.3",
                "digest": DIGESTS["s"],
            }
        },
        "codeServer": {
            "image": {
                "registry": "ghcr.io",
                "repository": "team/cryptoml-assets",
                "tag": "1.2.3",
                "digest": DIGESTS["a"],
            }
        },
    }
    image = {"repository": "ghcr.io/team/cryptoml-assets", "tag": f"1.2.3@{DIGESTS['a']}"}
    assert dagster == {"dagsterWebserver": {"image": image}, "dagsterDaemon": {"image": image}}


def test_the_service_can_be_the_one_for_gpus(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVING_GPU", "true")
    ours, _ = written(script, tmp_path, SERVING, ASSETS, GPU)
    assert ours["serving"]["gpu"] == {"enabled": True, "repository": "cryptoml-serving-gpu"}
    assert ours["serving"]["image"]["digest"] == DIGESTS["g"]
    with pytest.raises(ValueError, match="no cryptoml-serving-gpu among"):
        written(script, tmp_path, SERVING, ASSETS)


def test_the_charts_read_what_is_written(script: Any, tmp_path: Path) -> None:
    defaults = yaml.safe_load((REPOSITORY / "helm/cryptoml/values.yaml").read_text())
    dagster_defaults = yaml.safe_load((REPOSITORY / "helm/dagster-values.yaml").read_text())
    for values, known in zip(
        written(script, tmp_path, SERVING, ASSETS), (defaults, dagster_defaults), strict=True
    ):
        for component, each in values.items():
            assert set(each["image"]) <= set(known[component]["image"]), component


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ((ASSETS,), "no cryptoml-serving among the images: cryptoml-assets"),
        ((ASSETS, SERVING.replace("@", ":1@")), "is no image; accepted"),
        ((ASSETS, SERVING[:-1]), "is no image; accepted"),
        ((ASSETS, "cryptoml-serving@" + DIGESTS["s"]), "is no image; accepted"),
    ],
)
def test_what_is_no_image_is_named(
    script: Any, tmp_path: Path, images: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        script.main(str(tmp_path), "1.2.3", *images)
