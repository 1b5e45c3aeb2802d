"""Make what the local stack signs and asks with, where it is missing: make_keys.py FOLDER.

The private key stays in the home of the asset graph; FOLDER is read by all.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptoml_assets.deployment.signing import signing_key
from cryptoml_assets.settings import settings
from cryptoml_serving.security.keys import add_key, read_keys, revoke_key
from cryptoml_serving.security.roles import Role

#: Who asks the inference service, and as what.
CALLERS = {"graph": Role.ADMIN, "prometheus": Role.PREDICT, "you": Role.PREDICT}
#: What other users read too: Prometheus, the service, and whoever asks from outside.
PUBLIC = ("approval.pub", "prometheus.key", "you.key")


def main(folder: Path) -> None:
    """Make the keys; what is there stays as it is."""
    configured = settings()
    configured.private_key_path.parent.mkdir(parents=True, exist_ok=True)
    signing_key(configured.private_key_path, configured.public_key_path)
    records = folder / "keys.json"
    for name, role in CALLERS.items():
        key = folder / f"{name}.key"
        if key.exists():
            continue
        if records.exists() and any(each.name == name for each in read_keys(records)):
            revoke_key(records, name)
        made = add_key(records, name, roles=[role], rate=None, now=datetime.now(UTC))
        # Whole or not at all: one that is cut off would never be made again.
        fresh = key.with_suffix(".new")
        fresh.write_text(f"{made}\n")
        fresh.replace(key)
    folder.chmod(0o755)
    for name in PUBLIC:
        (folder / name).chmod(0o644)


if __name__ == "__main__":
    os.umask(0o077)
    main(Path(sys.argv[1]))
