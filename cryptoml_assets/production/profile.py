"""The profile of production on one machine: servers of its own, and settings that use them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptoml_assets.operations.world import set_environment
from cryptoml_assets.production.local.servers import STORES, local_servers
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.settings import SettingsError

if TYPE_CHECKING:
    from cryptoml_assets.settings import Settings

#: Folder below the home: what the embedded profile keeps is not mixed with what this one does.
FOLDER = "production"


@contextmanager
def production_profile(configured: Settings) -> Iterator[Settings]:
    """Servers of production, and the settings of this process and its children on them.

    Raises:
        SettingsError: the settings name a store already.
        ChildError: a server does not come up.
    """
    if chosen := [name for name in STORES if os.environ.get(name)]:
        raise SettingsError(
            f"--profile production starts servers for {', '.join(chosen)}, which you have set: "
            "leave the profile away to use yours, or unset them to use its own"
        )
    home = configured.home.expanduser().resolve() / FOLDER
    before = dict(os.environ)
    with local_servers(home / "servers") as variables:
        try:
            yield set_environment({**variables, "CRYPTOML_HOME": str(home)})
        finally:
            os.environ.clear()
            os.environ.update(before)
            settings.cache_clear()
