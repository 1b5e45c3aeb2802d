"""How a notice reads on each channel.

Slack: incoming webhooks with blocks (docs.slack.dev, block kit). Teams: an adaptive card 1.4 as the
attachment of a message, which workflow webhooks take. PagerDuty: Events API v2. Mail: RFC 5322.
"""

from __future__ import annotations

import hashlib
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from cryptoml_assets.notices.notice import Notice, instant, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Longest texts, in characters, that the channels accept.
_SLACK_HEADER, _SLACK_TEXT, _SLACK_FIELD, _SLACK_FIELDS = 150, 3000, 2000, 10
_PAGERDUTY_SUMMARY = 1024
_TEAMS_TEXT = 5000
_TEAMS_COLOURS = {"info": "Accent", "warning": "Warning", "critical": "Attention"}
_PAGERDUTY_ACTIONS = {False: "trigger", True: "resolve"}


def slack(notice: Notice) -> dict[str, Any]:
    """Body of an incoming webhook: blocks, and a plain text for previews."""
    fields = [
        _slack_text(f"*{_slack_escaped(name)}*\n{_slack_escaped(value)}", _SLACK_FIELD)
        for name, value in list(notice.facts.items())[:_SLACK_FIELDS]
    ]
    # The delimiters of a link's address and of its name.
    links = " · ".join(
        f"<{_slack_escaped(address).replace('|', '%7C')}|{_slack_escaped(name)}>"
        for name, address in notice.links.items()
    )
    footer = " · ".join(filter(None, (links, _slack_escaped(notice.kind), _moment(notice))))
    title = {"type": "plain_text", "text": _cut(notice.headline, _SLACK_HEADER)}
    body = _slack_text(_slack_escaped(notice.body) or "—", _SLACK_TEXT)
    return {
        "text": _cut(_slack_escaped(notice.headline), _SLACK_TEXT),
        "blocks": [
            {"type": "header", "text": title},
            {"type": "section", "text": body},
            *([{"type": "section", "fields": fields}] if fields else []),
            {"type": "context", "elements": [_slack_text(footer, _SLACK_TEXT)]},
        ],
    }


def teams(notice: Notice) -> dict[str, Any]:
    """Body of a workflow webhook: a message with one adaptive card."""
    colour = "Good" if notice.resolved else _TEAMS_COLOURS[notice.severity]
    heading = {"size": "Large", "weight": "Bolder", "color": colour}
    facts = [{"title": name, "value": value} for name, value in notice.facts.items()]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            _teams_text(notice.headline, **heading),
            _teams_text(notice.body),
            *([{"type": "FactSet", "facts": facts}] if facts else []),
            _teams_text(f"{notice.kind} · {_moment(notice)}", isSubtle=True),
        ],
        "actions": [
            {"type": "Action.OpenUrl", "title": name, "url": address}
            for name, address in notice.links.items()
        ],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    attachment = {"contentType": kind, "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def pagerduty(notice: Notice, routing_key: str) -> dict[str, Any]:
    """An event that triggers or resolves the incident of the notice's key."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": _PAGERDUTY_ACTIONS[notice.resolved],
        "dedup_key": notice.key if len(notice.key) <= 255 else _digest(notice.key),  # noqa: PLR2004
    }
    if notice.resolved:
        return event
    return {
        **event,
        "payload": {
            "summary": _cut(one_line(notice.title), _PAGERDUTY_SUMMARY),
            "source": "cryptoml",
            "severity": notice.severity,
            "timestamp": instant(notice.at),
            "class": notice.kind,
            "custom_details": {**notice.facts, "what": notice.body},
        },
        "links": [{"href": address, "text": name} for name, address in notice.links.items()],
    }


def webhook(notice: Notice) -> dict[str, Any]:
    """Everything the notice holds, for programs; ``id`` is the same at every try."""
    return {
        "id": identity(notice),
        "kind": notice.kind,
        "severity": notice.severity,
        "resolved": notice.resolved,
        "title": notice.title,
        "body": notice.body,
        "key": notice.key,
        "at": instant(notice.at),
        "facts": dict(notice.facts),
        "links": dict(notice.links),
    }


def email(notice: Notice, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """A plain mail, whose ``Message-ID`` is the same at every try."""
    message = EmailMessage()
    message["Subject"] = notice.headline
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Date"] = format_datetime(notice.at)
    message["Message-ID"] = f"<{identity(notice)}@cryptoml>"
    message["Auto-Submitted"] = "auto-generated"
    lines = [notice.body, ""]
    lines += [f"{name}: {value}" for name, value in notice.facts.items()]
    lines += ["", *(f"{name}: {address}" for name, address in notice.links.items())]
    message.set_content("\n".join([*lines, "", f"{notice.kind} · {_moment(notice)}", ""]))
    return message


def identity(notice: Notice) -> str:
    """What tells this notice from all others."""
    return _digest(f"{notice.key}\0{instant(notice.at)}\0{notice.resolved}")[:32]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _moment(notice: Notice) -> str:
    return f"{notice.at:%Y-%m-%d %H:%M:%S} UTC"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _slack_escaped(text: str) -> str:
    """The three characters that Slack reads as its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_text(text: str, longest: int) -> dict[str, str]:
    return {"type": "mrkdwn", "text": _cut(text, longest)}


def _teams_text(text: str, **look: object) -> dict[str, Any]:
    return {"type": "TextBlock", "text": _cut(text, _TEAMS_TEXT), "wrap": True, **look}
