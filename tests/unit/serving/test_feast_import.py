from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import typeguard
from cryptoml_serving.contract.feature_store import import_feast

decorator = typeguard.typechecked
import_feast()
import feast

checked = {"check_argument_types", "check_argument_types_internal"}
print(checked.isdisjoint(feast.FeatureView.__init__.__code__.co_names))
print(typeguard.typechecked is decorator)
"""


def test_feast_is_imported_without_its_checks_and_nothing_else_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]
