"""Settings of the gate and of approvals."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from cryptoml_serving.contract.settings import Duration, EnvironmentSettings, Names

#: Name of the criterion about what was rolled back or withdrawn.
NOT_WITHDRAWN = "not_withdrawn"
#: Names of all criteria of the gate, in the order in which a verdict tells them.
CRITERIA = (
    "minimum_rows",
    "beats_base_rate",
    "significance",
    "no_worse_than_champion",
    "coverage",
    "net_result",
    "parity",
    "no_look_ahead",
    "no_suspected_leak",
    "same_answers",
    "latency",
    NOT_WITHDRAWN,
)


class GateSettings(EnvironmentSettings):
    """What a model must show before it may serve, and who lets it."""

    gate_required: Names = Field(
        CRITERIA,
        description=f"comma-separated criteria that a model must pass: {', '.join(CRITERIA)}",
        min_length=1,
    )
    gate_claim: Literal["direction", "distribution"] = Field(
        "direction",
        description="skill a model must prove to be approved: direction or distribution",
    )
    gate_significance: float = Field(
        0.05,
        description="largest one-sided block-bootstrap p-value of the skill that a claim of "
        "distribution passes with, deflated by the number of trials",
        gt=0,
        lt=1,
    )
    gate_direction_significance: float = Field(
        0.025,
        description="the same for a claim of direction; stricter, as the other criteria turn less "
        "of its luck away",
        gt=0,
        lt=1,
    )
    gate_champion_margin: float = Field(
        0.005,
        description="share of the base rate's loss by which a model may be worse than the champion "
        "on the same rows",
        ge=0,
        lt=1,
    )
    gate_coverage_tolerance: float = Field(
        0.05,
        description="largest distance of the 90 % interval's coverage from 0.90, sampling error "
        "apart",
        gt=0,
        lt=1,
    )
    gate_net_floor_bps: float = Field(
        0.0,
        description="least result of the threshold strategy after costs, basis points of the "
        "amount traded, sampling error apart",
    )
    gate_suspected_leak: float = Field(
        0.65, description="directional accuracy above which a leak is suspected", gt=0.5, le=1
    )
    gate_minimum_rows: int = Field(
        1000, description="least number of out-of-sample rows a verdict needs", ge=1
    )
    gate_latency_budget: Duration = Field(
        timedelta(milliseconds=50),
        description="longest median time in which the loaded bundle answers all symbols",
    )
    gate_approval: Literal["policy", "person"] = Field(
        "policy",
        description="who lets a model serve that passed: policy, at once, or person, with "
        "`cryptoml approve`",
    )
    gate_role: Literal["champion", "shadow", "canary"] = Field(
        "champion",
        description="role of a model that the policy lets in where there is a champion: champion, "
        "shadow (scored beside it) or canary (answers a share of the requests)",
    )
    gate_canary_percent: float = Field(
        10.0, description="requests that a canary of the policy answers, percent", gt=0, lt=100
    )
    oidc_issuer: str = Field(
        "",
        description="address of the OpenID provider whose tokens say who approves; empty: the "
        "user of the operating system",
    )
    oidc_audience: str = Field(
        "cryptoml", description="audience that a token of that provider must name"
    )
    identity_token: str = Field(
        "", repr=False, description="token of that provider, for commands that decide something"
    )

    @field_validator("gate_required")
    @classmethod
    def _are_criteria(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in CRITERIA]:
            message = f"{', '.join(unknown)}: no such criterion"
            raise ValueError(message)
        if len(set(value)) < len(value):
            message = "it names a criterion twice"
            raise ValueError(message)
        return value
