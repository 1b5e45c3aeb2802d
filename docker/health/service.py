"""Exit with 0 where the inference service of this container answers: health.py [PATH].

The path is /health (alive) unless another is given, as /ready (serves predictions). Nothing but the
standard library: this runs every few seconds beside the service.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

_SECONDS = 2.0


def main(path: str) -> int:
    """Ask the service; returns the exit status."""
    port = int(os.environ.get("CRYPTOML_SERVING_PORT") or 8000)
    if os.environ.get("CRYPTOML_SERVING_TLS_CERTIFICATE"):
        # The certificate is for the name callers use, not for this address.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{path}: {type(error).__name__}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(f"{path}: {status}\n")
    return int(status != http.HTTPStatus.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "/health"))
