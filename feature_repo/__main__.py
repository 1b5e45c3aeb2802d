"""``eval "$(python -m feature_repo)"``: sets what ``feast`` by hand needs, from the settings.

The lines hold the stores' addresses with their passwords; they are meant for a shell, not a log.
"""

from __future__ import annotations

import shlex
import sys

from cryptoml_assets.settings import settings

if __name__ == "__main__":
    stores = settings().stores
    for file in stores.files:
        file.parent.mkdir(parents=True, exist_ok=True)
    for variable, section in stores.environment().items():
        sys.stdout.write(f"export {variable}={shlex.quote(section)}\n")
