"""Settings of what is watched, and of what is told to whom."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from cryptoml_serving.contract.settings import Duration, EnvironmentSettings, Names


class MonitoringSettings(EnvironmentSettings):
    """When something counts as drifted, worse, stale or late, and who hears of it."""

    # drift
    drift_threshold: float = Field(
        0.25, description="population stability index above which a feature has drifted", gt=0
    )
    drift_significance: float = Field(
        0.05,
        description="largest probability that a report finds any drift where there is none; the "
        "recent window is as short as that asks for",
        gt=0,
        lt=1,
    )
    drift_minimum: int = Field(
        10,
        description="least number of recent rows that allow a judgement; of daily inputs two days "
        "do",
        ge=1,
    )
    drift_share: float = Field(
        0.3, description="share of drifted features that asks for a retrain", gt=0, le=1
    )

    # performance
    trade_notional_usd: float = Field(
        1000.0, description="amount of one trade in the profit and loss of predictions, USD", gt=0
    )
    performance_minimum: int = Field(
        200, description="least number of outcomes that performance is judged on", ge=1
    )
    performance_significance: float = Field(
        0.01,
        description="largest p-value at which live performance counts as below what was promised",
        gt=0,
        lt=1,
    )
    challenger_minimum: int = Field(
        500, description="least number of outcomes of a challenger and the champion together", ge=1
    )
    challenger_significance: float = Field(
        0.05,
        description="largest probability that an equally good challenger is promoted or withdrawn "
        "for its quality",
        gt=0,
        lt=1,
    )
    challenger_error_rate: float = Field(
        0.01, description="share of failed readings above which a challenger is withdrawn", ge=0
    )
    challenger_latency: Duration = Field(
        timedelta(milliseconds=100),
        description="95th percentile of the time of a prediction above which a challenger is "
        "withdrawn",
    )

    # retraining
    retrain_cooldown: Duration = Field(
        timedelta(hours=6), description="least time between two retrains that a sensor asks for"
    )
    retrain_budget: int = Field(
        4, description="retrains that sensors may ask for in 24 hours", ge=0
    )
    retrain_reports: int = Field(
        2, description="reports in a row that must agree before a retrain is asked for", ge=1
    )

    retrain_weekly_trials: int = Field(
        8,
        description="configurations that the weekly retrain tries for each family, like "
        "search_trials",
        ge=1,
    )

    # quality
    quality_success_rate: float = Field(
        0.95, description="least share of runs that succeed", ge=0, le=1
    )
    quality_run_seconds: float = Field(
        3600.0, description="longest mean time of a run, seconds", gt=0
    )
    quality_accuracy: float = Field(0.5, description="least live directional accuracy", ge=0, le=1)
    quality_mse: float = Field(
        0.1, description="largest live mean squared error of the predicted log return", gt=0
    )
    quality_accuracy_trend: float = Field(
        -0.01, description="least change of live accuracy, newest day against the week"
    )
    quality_drift: float = Field(0.1, description="largest share of drifted features", ge=0, le=1)
    quality_latency_ms: float = Field(
        100.0, description="largest 95th percentile of the time of an answer, milliseconds", gt=0
    )
    quality_memory_mb: float = Field(
        2048.0, description="most memory of the inference service, megabytes", gt=0
    )
    quality_error_rate: float = Field(
        0.01, description="largest share of requests answered with an error", ge=0, le=1
    )

    # addresses
    inference_url: str = Field(
        "http://127.0.0.1:8000", description="address of the inference service"
    )
    inference_admin_urls: Names = Field(
        ("http://127.0.0.1:8001",),
        description="comma-separated addresses of the inference service's admin routes, one a "
        "worker, where its metrics are read too; a name with several addresses is a worker at "
        "each; empty: it is not told of decisions, sees them by itself, and the metrics are those "
        "of one worker, at CRYPTOML_INFERENCE_URL",
    )
    inference_key: str = Field(
        "",
        repr=False,
        description="API key of the inference service with the role admin; empty: none",
    )
    inference_ca_file: str = Field(
        "",
        description="PEM file of the authorities that may vouch for the inference service's "
        "certificate; empty: public authorities",
    )
    exporter_host: str = Field(
        "127.0.0.1", description="address on which the metrics of the asset graph are told"
    )
    exporter_port: int = Field(
        9108, description="port of the metrics of the asset graph", ge=1, le=65535
    )
    dagster_url: str = Field(
        "", description="address of the Dagster UI in notices; empty: this machine's"
    )
    grafana_url: str = Field("", description="address of Grafana; empty: no dashboard is pushed")
    grafana_token: str = Field("", repr=False, description="token of a Grafana service account")

    # notices
    notify_slack_url: str = Field(
        "", repr=False, description="address of a Slack incoming webhook; empty: none"
    )
    notify_teams_url: str = Field(
        "", repr=False, description="address of a Teams workflow webhook; empty: none"
    )
    notify_pagerduty_key: str = Field(
        "", repr=False, description="routing key of a PagerDuty service; empty: none"
    )
    notify_pagerduty_url: str = Field(
        "https://events.pagerduty.com/v2/enqueue", description="address of PagerDuty's events API"
    )
    notify_webhook_url: str = Field(
        "", repr=False, description="address that gets every notice as JSON; empty: none"
    )
    notify_webhook_secret: str = Field(
        "",
        repr=False,
        description="key of the HMAC-SHA256 in the header X-Cryptoml-Signature-256 of that JSON; "
        "empty: not signed",
    )
    notify_smtp: str = Field(
        "",
        repr=False,
        description="mail server, smtp://user:password@host:587 or smtps://...; empty: no mail",
    )
    notify_email_from: str = Field("", description="sender of mail")
    notify_email_to: Names = Field((), description="comma-separated recipients of mail")
    notify_quiet: Duration = Field(
        timedelta(hours=1), description="time in which the same notice is sent once"
    )

    @model_validator(mode="after")
    def _mail_has_recipients(self) -> Self:
        if self.notify_smtp and not self.notify_email_to:
            message = (
                "CRYPTOML_NOTIFY_SMTP is set and CRYPTOML_NOTIFY_EMAIL_TO is empty: no mail would "
                "be sent; accepted: one or more recipients, or neither of the two"
            )
            raise ValueError(message)
        return self
