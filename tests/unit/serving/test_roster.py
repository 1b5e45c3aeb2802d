"""Who may predict while roles change: what is taken counts at once, what is given once verified."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoml_serving.contract.deployment import Deployment, Placement
from cryptoml_serving.runtime import canary
from cryptoml_serving.runtime.registry import ApprovedModel
from cryptoml_serving.runtime.roster import Roster
from cryptoml_serving.runtime.snapshot import Snapshot
from cryptoml_serving.runtime.state import State

SYMBOL = "BTC/USDT"
IDS = [f"request-{number}" for number in range(400)]


def placement(version: str, role: Any, percent: float = 0.0, digest: str = "") -> Placement:
    return Placement(
        model_version=version,
        bundle_digest=digest or version * 64,
        run_id="r",
        role=role,
        percent=percent,
    )


def deployment(champion: str, *challengers: Placement, withdrawn: tuple[str, ...] = ()) -> Any:
    return Deployment(
        model_name="m",
        sequence=0,
        head="a" * 64,
        champion=placement(champion, "champion"),
        challengers=challengers,
        withdrawn=withdrawn,
    )


def model(placed: Placement) -> ApprovedModel:
    bundle: Any = SimpleNamespace(digest=placed.bundle_digest)
    return ApprovedModel(placed, SimpleNamespace(), bundle)  # type: ignore[arg-type]


def snapshot(of: ApprovedModel) -> Snapshot:
    answer: Any = SimpleNamespace(version=of.placement.model_version, feature_second=0.0)
    now = datetime(2024, 3, 1, tzinfo=UTC)
    return Snapshot(of, {}, {SYMBOL: answer}, {}, now, 0, 0.0)


class Served:
    """Version 1 as champion, version 2 beside it."""

    def __init__(self, role: str, percent: float = 0.0) -> None:
        self.state = State()
        self.roster = Roster(self.state)
        beside = placement("2", role, percent)
        self.deploy(deployment("1", beside))
        champion = model(placement("1", "champion"))
        assert self.roster.add(champion)
        assert self.roster.publish(snapshot(champion))
        self.bring(beside)

    def deploy(self, given: Deployment) -> None:
        self.roster.follow(given)

    def bring(self, *placed: Placement) -> None:
        """What the thread of challengers has loaded for these, and scored."""
        models = [model(each) for each in placed]
        self.roster.challenge(models, [snapshot(each) for each in models])

    def role(self, version: str) -> str | None:
        """Told to whoever asks for a version; none: it is not served."""
        found = self.state.models.get(version)
        return None if found is None else found.placement.role

    def answered(self) -> set[str]:
        """Requests that the canary answers."""
        champion = self.state.snapshot
        assert champion is not None
        answers = {each: canary.choose(self.state, champion, SYMBOL, each) for each in IDS}
        return {each for each, answer in answers.items() if answer and answer.version == "2"}  # type: ignore[attr-defined]


def share(percent: float) -> set[str]:
    """Requests in the first percents."""
    return {each for each in IDS if canary.position(each, SYMBOL) < percent}


def test_a_canary_is_served_while_it_is_promoted() -> None:
    served = Served("canary", 20)
    served.deploy(deployment("2"))
    # It is no champion before it is loaded as one.
    assert served.role("2") == "canary"
    assert served.answered() == set()
    assert served.state.challengers == ()
    # A turn of the challengers meanwhile has nothing of it.
    served.bring()
    assert served.role("2") == "canary"
    champion = model(placement("2", "champion"))
    assert served.roster.add(champion)
    assert served.role("2") == "champion"
    assert served.role("1") == "champion"
    served.roster.publish(snapshot(champion))
    assert served.state.models == {"2": champion}
    served.deploy(deployment("1", withdrawn=("2",)))
    assert "2" not in served.state.models


def test_a_champion_that_becomes_a_shadow_is_served_on() -> None:
    served = Served("canary", 20)
    served.deploy(deployment("2", placement("1", "shadow")))
    # It answers until its successor does.
    assert served.role("1") == "champion"
    champion = model(placement("2", "champion"))
    assert served.roster.add(champion)
    served.roster.publish(snapshot(champion))
    assert (served.role("1"), served.role("2")) == ("shadow", "champion")
    served.deploy(deployment("2"))
    assert served.state.models == {"2": champion}


def test_a_share_that_is_lowered_counts_at_once_and_one_raised_once_it_is_loaded() -> None:
    served = Served("canary", 20)
    assert served.answered() == share(20)
    served.deploy(deployment("1", placement("2", "canary", 10)))
    assert (served.role("2"), served.answered()) == ("canary", share(10))
    assert [each.model.placement.percent for each in served.state.challengers] == [10]
    served.bring(placement("2", "canary", 10))
    served.deploy(deployment("1", placement("2", "canary", 60)))
    assert (served.role("2"), served.answered()) == ("canary", share(10))
    served.bring(placement("2", "canary", 60))
    assert served.answered() == share(60)
    # The range is the newest deployment's, also of what was loaded for another.
    served.deploy(deployment("1", placement("3", "canary", 30), placement("2", "canary", 60)))
    assert served.answered() == share(90) - share(30)


def test_a_canary_that_becomes_a_shadow_answers_no_more_at_once() -> None:
    served = Served("canary", 50)
    served.deploy(deployment("1", placement("2", "shadow")))
    assert (served.role("2"), served.answered()) == ("shadow", set())
    assert [each.model.placement.role for each in served.state.challengers] == ["shadow"]
    served.bring(placement("2", "shadow"))
    assert served.role("2") == "shadow"


def test_a_shadow_answers_nothing_before_it_is_loaded_as_a_canary() -> None:
    served = Served("shadow")
    served.deploy(deployment("1", placement("2", "canary", 50)))
    assert (served.role("2"), served.answered()) == ("shadow", set())
    served.bring(placement("2", "canary", 50))
    assert (served.role("2"), served.answered()) == ("canary", share(50))


@pytest.mark.parametrize(
    "then",
    [
        deployment("1"),
        deployment("1", withdrawn=("2",)),
        deployment("1", placement("2", "canary", 20, digest="f" * 64)),
        deployment("1", placement("3", "canary", 20, digest="2" * 64)),
    ],
    ids=["placed no more", "withdrawn", "another digest", "another version"],
)
def test_what_is_placed_no_more_ends_at_once(then: Deployment) -> None:
    served = Served("canary", 20)
    served.deploy(then)
    assert served.state.models.keys() == {"1"}
    assert (served.answered(), served.state.challengers) == (set(), ())
    # Nor does a turn that began before bring it back.
    served.bring(placement("2", "canary", 20))
    assert served.state.models.keys() == {"1"}
    assert served.answered() == set()


def test_what_is_refused_for_its_new_placement_ends_and_for_an_old_one_stays() -> None:
    served = Served("canary", 20)
    raised = placement("2", "canary", 60)
    served.deploy(deployment("1", raised))
    served.roster.refuse(placement("2", "canary", 30))
    assert served.role("2") == "canary"
    served.roster.refuse(raised)
    assert served.role("2") is None
    assert served.answered() == set()
    served = Served("canary", 20)
    served.deploy(deployment("2"))
    served.roster.refuse(placement("2", "champion"))
    assert served.role("2") is None
    assert served.role("1") == "champion"


def test_a_turn_that_began_before_gives_nothing_back_that_was_taken_meanwhile() -> None:
    served = Served("canary", 50)
    served.deploy(deployment("1", placement("2", "canary", 10)))
    served.bring(placement("2", "canary", 50))
    assert served.answered() == share(10)
    served.deploy(deployment("1", placement("2", "shadow")))
    served.bring(placement("2", "canary", 50))
    assert (served.role("2"), served.answered()) == ("shadow", set())
