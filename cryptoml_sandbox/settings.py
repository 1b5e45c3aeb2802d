"""Every variable the sandbox world reads, typed and documented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import SettingsConfigDict

from cryptoml_sandbox.symbols import listed
from cryptoml_serving.contract.settings import Duration, EnvironmentSettings, Instant, Names

_PREFIX = "CRYPTOML_SANDBOX_"
_MOST_SIGNAL = 2.5
Rate = Annotated[float, Field(ge=0, le=1)]


class Listing(BaseModel):
    """When the venue lists one symbol; no instant means always."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    since: Instant | None = Field(None, alias="from", description="first instant it is listed")
    until: Instant | None = Field(None, description="instant from which it no longer trades")

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Listing:
        if self.since is not None and self.until is not None:
            _in_order((self.since, self.until))
        return self


def _in_order(span: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    if span[0] >= span[1]:
        message = f"[{span[0].isoformat()}, {span[1].isoformat()}] ends before it begins"
        raise ValueError(message)
    return span


#: From one instant until another, the second excluded.
Span = Annotated[tuple[Instant, Instant], AfterValidator(_in_order)]


class Regime(BaseModel):
    """Other ways of the simulated market, from one instant on until the next ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    since: Instant = Field(alias="from", description="first instant of it")
    signal: float | None = Field(
        None,
        description="strength of the planted reversal; below 0 the past hour goes on instead; "
        "none: the world's own",
        ge=-_MOST_SIGNAL,
        le=_MOST_SIGNAL,
    )
    volatility: float = Field(
        1.0, description="what the deviation of every return is multiplied by", gt=0, le=10
    )


def _ascending(regimes: list[Regime]) -> list[Regime]:
    for earlier, later in pairwise(regimes):
        if earlier.since >= later.since:
            message = f"{later.since.isoformat()} does not come after {earlier.since.isoformat()}"
            raise ValueError(message)
    return regimes


class Reorganisation(BaseModel):
    """One reorganisation of the chain, told to happen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int = Field(description="request to the node before which it happens", ge=1)
    depth: int = Field(description="newest blocks it replaces", ge=1)
    past_finality: bool = Field(
        default=False, description="whether it may replace finalized blocks"
    )
    shorter: int = Field(0, description="blocks by which the new chain is shorter at first", ge=0)


class Faults(BaseModel):
    """How often each fault happens, as a share of requests (0: never, 1: every one)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_limited: Rate = Field(0.0, description="answer 429 with Retry-After")
    banned: Rate = Field(0.0, description="answer 418 with Retry-After")
    server_error: Rate = Field(0.0, description="answer 500")
    unavailable: Rate = Field(0.0, description="answer 503")
    stall: Rate = Field(0.0, description="wait stall_seconds before the answer starts")
    truncated: Rate = Field(0.0, description="cut the JSON body in half and close")
    cut: Rate = Field(0.0, description="close the connection in the middle of the body")
    stall_mid_page: Rate = Field(
        0.0, description="give half of the body, nothing for stall_seconds, then close"
    )
    storm: Rate = Field(0.0, description="begin a storm: storm_requests in a row answered 429")
    missing_bars: Rate = Field(0.0, description="leave bars out of a page of klines")
    duplicate_bars: Rate = Field(0.0, description="repeat bars in a page of klines")
    late_bars: Rate = Field(
        0.0, description="hold back the newest closed bar of a page while it settles"
    )
    revised_bars: Rate = Field(
        0.0, description="give a bar that still settles with figures later corrected"
    )
    descending_bars: Rate = Field(0.0, description="give a page of klines newest first")

    stall_seconds: float = Field(30.0, description="length of a stall", gt=0)
    retry_after_seconds: int = Field(1, description="Retry-After of 429 and 418", ge=0)
    storm_requests: int = Field(10, description="requests in a row that a storm refuses", ge=1)
    settling_minutes: float = Field(
        30.0, description="age past its close until which a bar may come late or be revised", ge=0
    )
    limit: int = Field(0, description="faults by rate after which none happens; 0: no limit", ge=0)

    delisted_after: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="symbol to the requests after which the venue no longer knows it"
    )
    node_behind: int = Field(0, description="blocks by which the node lags its chain", ge=0)
    reorg_after: Reorganisation | None = Field(
        None, description="one reorganisation, at that request to the node"
    )
    lacks: tuple[str, ...] = Field(
        (), description="JSON-RPC methods and fields of blocks that the node does not have"
    )


class SandboxSettings(EnvironmentSettings):
    """Settings of the sandbox world."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="ignore", populate_by_name=True
    )

    host: str = Field("127.0.0.1", description="address the sandbox listens on")
    port: int = Field(8900, description="port the sandbox listens on; 0: any free", ge=0, le=65535)

    # which world
    world: Literal["simulated", "replay"] = Field(
        "simulated",
        validation_alias="CRYPTOML_WORLD",
        description="simulated, or replay of the recorded files in CRYPTOML_SANDBOX_REPLAY",
    )
    replay: Path | None = Field(
        None, description="folder of recorded files: ohlcv/*-5m.feather, onchain/*.csv"
    )
    seed: int = Field(7, description="seed of everything simulated", ge=0)
    genesis: Instant = Field(
        datetime(2024, 1, 1, tzinfo=UTC), description="UTC midnight at which the world begins"
    )

    # clock
    now: Instant | None = Field(
        None,
        validation_alias="CRYPTOML_NOW",
        description="ISO instant at which the world's clock stands still; empty: it runs",
    )
    clock_file: Path | None = Field(
        None,
        validation_alias="CRYPTOML_CLOCK_FILE",
        description="file that holds the world's ISO instant, read anew each time; empty: none",
    )
    start: Instant | None = Field(
        None, description="ISO instant from which the world's clock runs; empty: the real time"
    )
    speed: float = Field(1.0, description="seconds of the world in one real second", gt=0)

    # market
    symbols: Names = Field(
        (),
        description="comma-separated symbols the venue lists, e.g. BTC/USDT; empty: all it knows",
    )
    signal: float = Field(
        1.0,
        description="strength of the planted predictability: 0 none, 1 an hourly correlation "
        "of about 0.17, at most 2.5",
        ge=0,
        le=_MOST_SIGNAL,
    )
    regimes: Annotated[list[Regime], AfterValidator(_ascending)] = Field(
        [],
        description="JSON list of when the simulated market changes its ways, e.g. "
        '[{"from": "2024-03-01", "signal": -1.0, "volatility": 2.0}]',
    )

    listings: dict[str, Listing] = Field(
        {},
        description='JSON object of when symbols are listed, e.g. {"SOL/USDT": '
        '{"from": "2024-02-01", "until": "2024-03-01"}}',
    )
    outages: list[Span] = Field(
        [],
        description="JSON list of [from, until] in which the venue traded nothing: no bar opens",
    )
    quiet: dict[str, list[Span]] = Field(
        {}, description="JSON object of symbol to [from, until] in which it alone did not trade"
    )

    # rate limit
    rate_limit_weight: int = Field(
        0, description="request weight the venue allows in one window; 0: no limit", ge=0
    )
    rate_limit_seconds: int = Field(60, description="real seconds of a window of weight", ge=1)
    rate_limit_patience: int = Field(
        10, description="refused requests of one window after which the venue bans", ge=0
    )
    rate_limit_ban_seconds: int = Field(3, description="real seconds of such a ban", ge=1)

    # network metrics
    metrics_lag: Duration = Field(
        timedelta(hours=4), description="time after day end at which metrics are published"
    )

    # chain
    chain_id: int = Field(1, description="chain id of the node", ge=1)
    block_seconds: int = Field(600, description="seconds between two blocks", ge=1)
    transactions_per_block: int = Field(20, description="mean transactions in a block", ge=0)
    safe_seconds: int = Field(384, description="age at which a block is safe", ge=0)
    finality_seconds: int = Field(768, description="age at which a block is finalized", ge=0)
    reorg_depth: int = Field(0, description="blocks a chain reorganisation replaces", ge=0)

    faults: Faults = Field(
        Faults(), description='JSON object of fault rates, e.g. {"rate_limited": 0.1}'
    )

    @model_validator(mode="after")
    def _is_one_world(self) -> SandboxSettings:
        if self.world == "replay" and self.replay is None:
            message = f"replay needs {_PREFIX}REPLAY, the folder of recorded files"
            raise ValueError(message)
        runs = self.start is not None or self.speed != 1.0
        if self.clock_file is not None and (self.now is not None or runs):
            message = f"CRYPTOML_CLOCK_FILE is the clock; CRYPTOML_NOW, {_PREFIX}START and _SPEED "
            message += "are other ones"
            raise ValueError(message)
        if self.now is not None and runs:
            message = f"CRYPTOML_NOW freezes the clock; {_PREFIX}START and _SPEED make it run"
            raise ValueError(message)
        if self.genesis.astimezone(UTC).time() != datetime.min.time():
            message = f"{_PREFIX}GENESIS={self.genesis.isoformat()} is not midnight UTC"
            raise ValueError(message)
        if self.world == "simulated" and self.now is not None and self.now < self.genesis:
            message = f"CRYPTOML_NOW={self.now.isoformat()} lies before the world begins"
            raise ValueError(message)
        listed(self.symbols)
        return self
