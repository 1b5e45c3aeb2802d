"""Bars into the lake: ours against a bare ccxt loop and freqtrade; memory; the rate limit's use."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ccxt

from bench.ingest.peers import MissingPeerError, Outcome, pins, ready, run, worker
from bench.ingest.servers import sandbox
from bench.report import Claim, measure

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT")
_NAMES = ",".join(SYMBOLS)
_DAY_BARS = 1440
_NOW = "2025-01-10T00:00:00Z"
#: Requests of the bare loop that are on their way at once, as many as of ours.
_AT_ONCE = 16
#: ccxt's pace for Binance: milliseconds between two requests of weight 1, where a page of bars
#: weighs 0.4 by its count and 2 by the venue's.
_PACE_MS, _PAGE_WEIGHT, _PAGES_A_SECOND = 50, 2, 50


def speed_claims(days: int, runs: int) -> list[Claim]:
    """Bars per second into a fresh lake, without a rate limit."""
    bars = len(SYMBOLS) * days * _DAY_BARS
    what = f"{bars} 1-minute bars ({len(SYMBOLS)} symbols, {days} days)"
    print(f"{what} without a rate limit")
    with sandbox(now=_NOW) as url, tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        loops = measure(
            {
                "bare ccxt loop": partial(_bare_loop, url, days, bars),
                "ours": lambda: float(_ours(url, folder, days, bars).said["seconds"]),
            },
            runs,
        )
        claims = [_speed(f"{what}: bare loop of {_ccxt()}, storing nothing", loops, bars, 0.8)]
        try:
            program = ready("freqtrade") / "freqtrade"
        except MissingPeerError as error:
            print(f"  skipped: {error}")
            return claims
        commands = measure(
            {
                "freqtrade": lambda: _freqtrade(program, url, folder, days),
                "ours": lambda: _ours(url, folder, days, bars).seconds,
            },
            runs,
        )
    claim = _speed(f"{what}, whole command: {pins('freqtrade')}", commands, bars, 2.0)
    return [*claims, claim]


def memory_claim(months: int) -> Claim:
    """Peak memory of one month of 1-minute bars against that of many."""
    peaks = []
    with sandbox(now=_NOW) as url, tempfile.TemporaryDirectory() as named:
        for days in (30, 30 * months):
            bars = len(SYMBOLS) * days * _DAY_BARS
            said = _ours(url, Path(named), days, bars).said
            peaks.append(said["peak_mib"])
            print(f"  {days} days: {bars} bars, peak of {said['peak_mib']:.0f} MiB")
    of_one, of_many = peaks
    what = f"peak memory of {months} months of 1-minute bars against that of 1"
    ratio = round(of_one / of_many, 3)
    return Claim(what, round(of_many, 1), round(of_one, 1), "MiB", ratio, round(1 / 1.1, 3))


def pace_claim(seconds: int) -> Claim:
    """How much of a venue's rate limit is used, and whether it is ever passed."""
    window = 10
    allowed = _PAGES_A_SECOND * _PAGE_WEIGHT
    days = seconds * _PAGES_A_SECOND * 1000 // (len(SYMBOLS) * _DAY_BARS) + 1
    limit = {"rate_limit_weight": str(allowed * window), "rate_limit_seconds": str(window)}
    with sandbox(now=_NOW, **limit) as url, tempfile.TemporaryDirectory() as named:
        pace = {"CRYPTOML_VENUE_RATE_LIMIT": str(_PACE_MS)}
        said = _ours(url, Path(named), days, len(SYMBOLS) * days * _DAY_BARS, pace).said
        with urllib.request.urlopen(f"{url}/faults") as answer:  # noqa: S310 - a loopback address
            counted = json.load(answer)["rate_limit"]
    used = counted["used_weight"] / said["seconds"]
    refused = counted["refused"] + counted["banned"]
    what = f"{said['seconds']:.0f} s at the venue's rate limit, {refused} requests refused"
    return Claim(what, round(used, 2), allowed, "weight/s", round(used / allowed, 3), 0.95)


def _speed(what: str, spent: Mapping[str, list[float]], bars: int, target: float) -> Claim:
    theirs = next(name for name in spent if name != "ours")
    for name, seconds in spent.items():
        print(f"  {name:18} {bars / statistics.median(seconds):8.0f} bars/s")
    return Claim.of_pairs(what, spent["ours"], spent[theirs], target, work=bars, unit="bars/s")


def _ours(
    url: str, folder: Path, days: int, bars: int, more: Mapping[str, str] | None = None
) -> Outcome:
    """Our ingestion into a fresh lake, in a process of its own."""
    lake = folder / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    variables = {
        "CRYPTOML_SANDBOX_URL": url,
        "CRYPTOML_LAKE": str(lake),
        "CRYPTOML_TIMEFRAME": "1m",
        "CRYPTOML_SYMBOLS": _NAMES,
        **(more or {}),
    }
    done = worker("our_prices", days, variables=variables)
    assert done.said["bars"] == bars, done.said
    return done


def _bare_loop(url: str, days: int, bars: int) -> float:
    said = worker("bare_loop", url, _NAMES, days, _AT_ONCE).said
    assert said["bars"] >= bars, said  # its last pages run past the last day
    return float(said["seconds"])


def _freqtrade(program: Path, url: str, folder: Path, days: int) -> float:
    """``freqtrade download-data`` as a whole command, with the venue's address in its config."""
    user = folder / "freqtrade"
    shutil.rmtree(user, ignore_errors=True)
    (user / "data").mkdir(parents=True)
    config = user / "config.json"
    config.write_text(json.dumps(_freqtrade_config(url)))
    command = [
        *(str(program), "download-data", "--config", str(config), "--userdir", str(user)),
        *("--timeframes", "1m", "--timerange", f"1704067200-{1704067200 + days * 86400}"),
    ]
    seconds = run(command, {}).seconds
    files = list(user.glob("data/binance/*-1m.feather"))
    assert len(files) == len(SYMBOLS), files
    return seconds


def _freqtrade_config(url: str) -> dict[str, object]:
    client = {
        "enableRateLimit": False,
        "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
        "urls": {"api": {"public": f"{url}/api/v3"}},
    }
    return {
        "dry_run": True,
        "max_open_trades": 1,
        "stake_currency": "USDT",
        "stake_amount": 100,
        "trading_mode": "spot",
        "dataformat_ohlcv": "feather",
        "exchange": {
            "name": "binance",
            "key": "",
            "secret": "",
            # Else it downloads archives from the public site, past the server of the comparison.
            "only_from_ccxt": True,
            "pair_whitelist": list(SYMBOLS),
            "pair_blacklist": [],
            "ccxt_config": client,
        },
        "pairlists": [{"method": "StaticPairList"}],
    }


def _ccxt() -> str:
    return f"ccxt=={ccxt.__version__}"
