from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cryptoml_assets.errors import ServiceMetricsError
from cryptoml_assets.monitoring.scrape import Metrics, counters_of, figures, look, parse, scrape
from cryptoml_assets.settings import Settings
from tests.sandbox_server import free_port, serve

#: Address of a service that has one worker.
WORKER = "http://127.0.0.1:8001"
TEXT = """\
# TYPE service_ready gauge
service_ready 1
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 5e8
# TYPE prediction_requests_total counter
prediction_requests_total{model_name="m",symbol="BTC/USDT"} 150
prediction_requests_total{model_name="m",symbol="ETH/USDT"} 50
# TYPE prediction_answers_total counter
prediction_answers_total{model_version="6",role="champion"} 100
prediction_answers_total{model_version="7",role="canary"} 96
# TYPE prediction_errors_total counter
prediction_errors_total{error_type="unknown-symbol"} 70
prediction_errors_total{error_type="stale-features"} 4
# TYPE prediction_latency_seconds histogram
prediction_latency_seconds_bucket{model_name="m",le="0.001"} 98
prediction_latency_seconds_bucket{model_name="m",le="0.01"} 176.4
prediction_latency_seconds_bucket{model_name="m",le="0.1"} 194
prediction_latency_seconds_bucket{model_name="m",le="+Inf"} 196
prediction_latency_seconds_count{model_name="m"} 120
prediction_latency_seconds_sum{model_name="m"} 1
# TYPE challenger_predictions_total counter
challenger_predictions_total{model_version="7",role="shadow"} 95
challenger_predictions_total{model_version="7",role="canary"} 1000
# TYPE challenger_errors_total counter
challenger_errors_total{model_version="7",role="shadow",error_type="no_prediction"} 3
challenger_errors_total{model_version="7",role="shadow",error_type="model_refused"} 2
# TYPE model_predict_seconds histogram
model_predict_seconds_bucket{model_version="7",role="shadow",le="0.1"} 10
model_predict_seconds_bucket{model_version="7",role="shadow",le="+Inf"} 10
model_predict_seconds_bucket{model_version="6",role="champion",le="0.1"} 0
model_predict_seconds_bucket{model_version="6",role="champion",le="+Inf"} 10
"""


def test_a_service_as_plain_numbers() -> None:
    told = figures({WORKER: parse(TEXT)})
    assert told.requests == 200
    # 196 of them were answered, in fewer requests; a symbol that is not served was never one of
    # them.
    assert told.error_rate == pytest.approx(0.02)
    assert told.errors == {"unknown-symbol": 70, "stale-features": 4}
    assert told.memory_mb == 500
    # As Prometheus' histogram_quantile: linear inside a bucket, the last finite bound past it.
    assert told.latency_ms == {
        50: pytest.approx(1.0),
        95: pytest.approx(1e3 * (0.01 + 0.09 * (186.2 - 176.4) / (194 - 176.4))),
        99: pytest.approx(100.0),
    }


def test_a_challenger_is_told_by_its_role_alone() -> None:
    told = figures({WORKER: parse(TEXT)})
    shadow = told.challenger("7", "shadow")
    assert (shadow.predictions, shadow.error_rate) == (95, pytest.approx(0.05))
    assert shadow.errors == {"no_prediction": 3, "model_refused": 2}
    assert shadow.latency_ms == pytest.approx(95.0)
    assert told.challenger("7", "canary").error_rate == 0
    unknown = told.challenger("8", "shadow")
    assert (unknown.predictions, unknown.error_rate, unknown.latency_ms) == (0, None, None)


def test_a_service_that_was_asked_nothing_has_no_rates() -> None:
    told = figures({WORKER: parse("# TYPE service_ready gauge\nservice_ready 0\n")})
    assert (told.requests, told.error_rate, told.memory_mb) == (0, None, None)
    assert told.latency_ms == {50: None, 95: None, 99: None}


def test_what_is_not_the_service_is_told_apart() -> None:
    async def metrics(request: Request) -> Response:
        return {
            "/words/metrics": PlainTextResponse("no } metrics { at all"),
            "/other/metrics": PlainTextResponse("# TYPE up gauge\nup 1\n"),
            "/broken/metrics": PlainTextResponse("", status_code=500),
            "/metrics": PlainTextResponse(TEXT),
        }[request.url.path]

    app = Starlette(routes=[Route("/{path:path}", metrics)])
    with serve(app) as url:
        assert scrape(f"{url}/").requests == 200
        for path, words in (
            ("words", "no Prometheus metrics"),
            ("other", "no inference service"),
            ("broken", "HTTPStatusError"),
        ):
            with pytest.raises(ServiceMetricsError, match=words) as caught:
                scrape(f"{url}/{path}")
            assert f"{url}/{path}/metrics" in str(caught.value)
    for address in (f"http://127.0.0.1:{free_port()}", "no address"):
        with pytest.raises(ServiceMetricsError, match="CRYPTOML_INFERENCE_URL"):
            scrape(address, timeout=1.0)


def counted(
    requests: int, fast: int, slow: int, *, started: float = 1.0, answered: int | None = None
) -> Metrics:
    """A service that answered `fast` requests within 10 ms and `slow` ones within 1 s."""
    total = fast + slow if answered is None else answered
    lines = [
        f"process_start_time_seconds {started}",
        f'prediction_requests_total{{symbol="BTC/USDT"}} {requests}',
        f'prediction_latency_seconds_bucket{{le="0.01"}} {fast}',
        f'prediction_latency_seconds_bucket{{le="1.0"}} {fast + slow}',
        f'prediction_latency_seconds_bucket{{le="+Inf"}} {fast + slow}',
        f"prediction_answers_total {total}",
    ]
    kinds = (
        "# TYPE prediction_requests_total counter\n# TYPE prediction_latency_seconds histogram\n"
        "# TYPE prediction_answers_total counter\n"
    )
    return parse(kinds + "\n".join(lines) + "\n")


def test_a_good_month_hides_no_bad_hour() -> None:
    month = counted(1_000_000, 1_000_000, 0)
    before = figures({WORKER: month}).counters
    written = json.dumps({address: asdict(each) for address, each in before.items()})
    assert counters_of(json.loads(written)) == before
    now = counted(1_000_200, 1_000_000, 100)
    hour = figures({WORKER: now}, before)
    assert (hour.requests, hour.error_rate) == (200, 0.5)
    assert hour.latency_ms[95] == pytest.approx(1e3 * (0.01 + 0.99 * 0.95))
    whole = figures({WORKER: now})
    assert whole.error_rate == pytest.approx(1e-4, rel=1e-3)
    assert whole.latency_ms[95] is not None
    assert whole.latency_ms[95] < 10
    idle = figures({WORKER: month}, before)
    assert (idle.requests, idle.error_rate, idle.latency_ms[95]) == (0, None, None)


@pytest.mark.parametrize(("started", "requests"), [(2.0, 2000), (1.0, 50)])
def test_a_service_that_started_again_counts_from_nothing(started: float, requests: int) -> None:
    before = figures({WORKER: counted(1000, 1000, 0)}).counters
    now = counted(requests, requests // 2, 0, started=started)
    again = figures({WORKER: now}, before)
    assert (again.requests, again.error_rate) == (requests, 0.5)
    # Of no worker: as one was written before there was an address with it.
    for other in ({"started": 1.0, "requests": 2.0, "answered": 2.0, "buckets": {}}, "words", 1):
        assert counters_of(other) == {}


def test_each_worker_counts_for_itself() -> None:
    """Two began in the same moment, one began anew, one is new: none is taken for another."""
    earlier = {
        "http://a": counted(1000, 1000, 0),
        "http://b": counted(10, 10, 0),
        "http://c": counted(50, 50, 0),
    }
    before = figures(earlier).counters
    workers = {
        "http://a": counted(1100, 1050, 0),
        "http://b": counted(1210, 1010, 200),
        "http://c": counted(60, 0, 60, started=3.0),
        "http://d": counted(40, 0, 40, started=3.0),
    }
    lately = figures(workers, before)
    assert lately.requests == 100 + 1200 + 100
    assert lately.error_rate == pytest.approx(50 / 1400)
    assert lately.latency_ms[50] == pytest.approx(10 * 675 / 1050)
    assert set(lately.counters) == set(workers)


@pytest.fixture
def workers() -> Iterator[tuple[str, str, list[bool]]]:
    """Address of a service of two workers' admin ports, another's, and whether both answer."""
    up = [True]

    async def metrics(request: Request) -> Response:
        if request.url.path.startswith("/second") and not up[0]:
            return PlainTextResponse("", status_code=503)
        return PlainTextResponse(TEXT)

    with serve(Starlette(routes=[Route("/{path:path}", metrics)])) as url:
        yield f"{url}/first", f"{url}/second/", up


def test_the_service_is_what_all_its_workers_counted(
    workers: tuple[str, str, list[bool]],
) -> None:
    first, second, up = workers
    nobody = f"http://127.0.0.1:{free_port()}"
    two = Settings(inference_url=nobody, inference_admin_urls=(first, second))
    told = look(two)
    assert (told.requests, told.memory_mb, told.errors["stale-features"]) == (400, 1000, 8)
    assert told.error_rate == pytest.approx(0.02)
    shadow = told.challenger("7", "shadow")
    assert (shadow.predictions, shadow.errors["no_prediction"]) == (190, 6)
    assert look(two, told.counters).requests == 0
    # The public port is one of them: read only where no other is known.
    public = two.model_copy(update={"inference_url": first, "inference_admin_urls": ()})
    assert look(public).requests == 200
    up[0] = False
    with pytest.raises(ServiceMetricsError, match=r"CRYPTOML_INFERENCE_ADMIN_URLS: .*/second/"):
        look(two)


def test_a_password_of_the_address_is_told_to_nobody() -> None:
    address = f"http://user:s3cret@127.0.0.1:{free_port()}"
    with pytest.raises(ServiceMetricsError) as refused:
        scrape(address, timeout=1.0)

    async def metrics(_: Request) -> Response:
        return PlainTextResponse("", status_code=500)

    with (
        serve(Starlette(routes=[Route("/metrics", metrics)])) as url,
        pytest.raises(ServiceMetricsError, match="500") as broken,
    ):
        scrape(url.replace("http://", "http://user:s3cret@"))
    for told in (refused, broken):
        assert "http://***@127.0.0.1" in str(told.value)
        # Nor along with it: Dagster keeps the whole chain of an error.
        assert "s3cret" not in str(told.value)
        assert (told.value.__cause__, told.value.__context__) == (None, None)
