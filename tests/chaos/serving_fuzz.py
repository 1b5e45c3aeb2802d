"""Malformed requests against a real service: none may be answered with a 5xx, or with nothing.

    python -m tests.chaos.serving_fuzz --requests 10000

Half of them schemathesis makes from the service's own OpenAPI document, half Hypothesis by damaging
bodies that are as they should be. What was answered is counted from the service's log.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.chaos.serving_stage import Stage
from tests.serving_world import FEATURES, MODEL, build_templates

SEED = 20240301
#: Where `make` installs callers that nobody here wrote.
CLIENTS = Path(__file__).parents[2] / ".venv-clients"
#: Operations that take a body, over which schemathesis spreads most of its requests.
_OPERATIONS = 5
_COLUMNS = [feature.name for feature in FEATURES]
_SOUND = [
    ("/predict", b'{"symbol": "BTC/USDT"}'),
    ("/predict", b'{"symbols": ["BTC/USDT", "ETH/USDT"]}'),
    ("/predict/features", json.dumps({"rows": [dict.fromkeys(_COLUMNS, 0.5)]}).encode()),
    (
        "/predict/features",
        json.dumps({"columns": _COLUMNS, "matrix": [[0.1, None, 0.2]]}).encode(),
    ),
    (
        f"/v2/models/{MODEL}/infer",
        json.dumps(
            {
                "inputs": [
                    {
                        "name": "features",
                        "shape": [1, len(_COLUMNS)],
                        "datatype": "FP32",
                        "data": [0.0] * len(_COLUMNS),
                    }
                ]
            }
        ).encode(),
    ),
]
_JUNK = st.sampled_from(
    [
        b"\0",
        b"\xff\xfe",
        b"[" * 200,
        b"1e999",
        b"-0",
        b"NaN",
        b'"\\ud800"',
        b"{",
        b"}" * 9,
        b"9" * 400,
    ]
) | st.binary(max_size=40)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "inference-header-content-length",
            "x-request-id",
            "accept",
            "authorization",
            "content-encoding",
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30),
    max_size=2,
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers of a request that is not as it should be, or hardly."""
    path, body = draw(st.sampled_from(_SOUND))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 30)))
        body = body[:start] + draw(_JUNK) + body[end:]
    headers = {"content-type": "application/json", **draw(_HEADERS)}
    method = draw(st.sampled_from(["POST"] * 9 + ["PUT"]))
    return method, path, body, headers


def fuzz(stage: Stage, requests: int) -> Counter[int]:
    """Ask, and count the answers by status; 0 counts those that never came.

    Args:
        stage: its service runs.
        requests: at least so many.
    """
    told = stage.folder / "service.log"
    before = told.stat().st_size
    lost = 0

    @settings(
        max_examples=requests // 2,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged())
    def ask(request: tuple[str, str, bytes, dict[str, str]]) -> None:
        nonlocal lost
        method, path, body, headers = request
        try:
            client.request(method, path, content=body, headers=headers)
        except httpx.TransportError:
            lost += 1

    with httpx.Client(base_url=stage.address, trust_env=False, timeout=20) as client:
        ask()
    _schemathesis(stage, requests - requests // 2)
    stage.terminate()  # which has the log written out
    with told.open("rb") as log:
        log.seek(before)
        lines = [json.loads(line) for line in log]
    statuses: Counter[int] = Counter(
        200 if line["event"] == "prediction" else line["status"]
        for line in lines
        if line["event"] in {"prediction", "request"}
    )
    statuses[0] = lost
    return statuses


def _schemathesis(stage: Stage, requests: int) -> None:
    """Have schemathesis ask; that it finds a 5xx is seen in the log as well."""
    done = subprocess.run(
        [
            *(str(CLIENTS / "bin" / "schemathesis"), "run", f"{stage.address}/openapi.json"),
            *("--checks", "not_a_server_error", "--mode", "all", "--phases", "examples,fuzzing"),
            *("--max-examples", str(max(1, requests // _OPERATIONS)), "--seed", str(SEED)),
            # It never ends.
            *("--exclude-path", "/predictions/stream"),
            *("--generation-database", "none", "--warnings", "off", "--no-color", "--no-shrink"),
            *("--suppress-health-check", "all"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=stage.folder,
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-2000:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    given_arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stage = Stage(folder / "stage", build_templates(folder))
        try:
            stage.start()
            statuses = fuzz(stage, given_arguments.requests)
        finally:
            stage.close()
    sys.stdout.write(
        json.dumps(
            {
                "requests": statuses.total(),
                "by_status": {str(status): statuses[status] for status in sorted(statuses)},
                "server_errors": server_errors(statuses),
            }
        )
        + "\n"
    )
    return int(server_errors(statuses) > 0 or statuses.total() < given_arguments.requests)


def server_errors(statuses: Counter[int]) -> int:
    """Answers with a 5xx, and those that never came."""
    return statuses[0] + sum(count for status, count in statuses.items() if status >= 500)


if __name__ == "__main__":
    sys.exit(main())
