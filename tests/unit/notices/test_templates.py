from __future__ import annotations

from datetime import UTC, datetime

from cryptoml_assets.notices import templates
from cryptoml_assets.notices.notice import LONGEST, Notice, from_json, one_line, safe, to_json

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
NOTICE = Notice(
    kind="drift",
    severity="warning",
    title="Feature drift\r\nBcc: somebody@else.org",
    body="<!channel> 5 > 3 & more",
    key="drift:feature_drift",
    at=AT,
    facts={"share": "40 %", "a<b": "|x>"},
    links={"Dagster run": "http://127.0.0.1:3000/runs/1?a=1&b=|"},
)
HUGE = Notice(
    "k", "critical", "t" * 5000, "b" * 9000, "k" * 900, AT, {f"f{n}": "v" * 3000 for n in range(40)}
)


def test_slack_takes_nothing_for_its_own_markup() -> None:
    said = templates.slack(NOTICE)
    head, body, fields, footer = said["blocks"]
    assert head["text"]["text"] == "[warning] Feature drift Bcc: somebody@else.org"
    assert body["text"]["text"] == "&lt;!channel&gt; 5 &gt; 3 &amp; more"
    assert fields["fields"][1]["text"] == "*a&lt;b*\n|x&gt;"
    link = "<http://127.0.0.1:3000/runs/1?a=1&amp;b=%7C|Dagster run>"
    assert footer["elements"][0]["text"] == f"{link} · drift · 2024-03-01 12:00:00 UTC"


def test_slack_keeps_to_its_limits() -> None:
    head, body, fields, _ = templates.slack(HUGE)["blocks"]
    assert (len(head["text"]["text"]), len(body["text"]["text"])) == (150, 3000)
    assert len(fields["fields"]) == 10
    assert max(len(each["text"]) for each in fields["fields"]) == 2000


def test_teams_gets_one_adaptive_card() -> None:
    (attachment,) = templates.teams(NOTICE)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["body"][2]["facts"][0] == {"title": "share", "value": "40 %"}
    assert card["actions"][0]["url"] == NOTICE.links["Dagster run"]


def test_pagerduty_opens_and_closes_one_incident() -> None:
    opened = templates.pagerduty(NOTICE, "routing")
    closed = templates.pagerduty(Notice(**{**vars(NOTICE), "resolved": True}), "routing")
    assert (opened["event_action"], closed["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == closed["dedup_key"] == "drift:feature_drift"
    assert opened["payload"]["severity"] == "warning"
    assert opened["payload"]["timestamp"] == "2024-03-01T12:00:00.000000+00:00"
    assert "payload" not in closed
    huge = templates.pagerduty(HUGE, "routing")
    assert (len(huge["dedup_key"]), len(huge["payload"]["summary"])) == (64, 1024)


def test_a_mail_has_no_header_but_its_own() -> None:
    message = templates.email(NOTICE, "from@x.io", ("to@x.io",))
    assert message["Subject"] == "[warning] Feature drift Bcc: somebody@else.org"
    assert message["Bcc"] is None
    assert message["Message-ID"] == f"<{templates.identity(NOTICE)}@cryptoml>"
    assert "share: 40 %" in message.get_content()


def test_a_notice_survives_its_record() -> None:
    assert from_json(to_json(NOTICE)) == NOTICE


def test_words_of_others_are_made_safe() -> None:
    assert (
        safe("cannot open postgresql://user:pw@host/db") == "cannot open postgresql://***@host/db"
    )
    assert len(safe("x" * 9000)) == LONGEST
    assert one_line(" a\n b\t c ") == "a b c"
