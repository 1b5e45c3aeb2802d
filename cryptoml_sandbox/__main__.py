"""``python -m cryptoml_sandbox``: serve the world that the environment describes."""

from __future__ import annotations

import sys

import uvicorn

from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.settings import SandboxSettings


def main() -> int:
    """Serve until interrupted; 2 when a setting cannot be used."""
    try:
        settings = SandboxSettings.load()
        app = create_app(settings)
    except ValueError as error:  # SettingsError and ReplayError among them: said, not traced
        sys.stderr.write(f"cryptoml-sandbox: {error}\n")
        return 2
    sys.stdout.write(f"cryptoml-sandbox: {settings.world} world on port {settings.port}\n")
    sys.stdout.flush()
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
