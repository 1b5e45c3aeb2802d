"""What the decisions add up to: which version may do what, now or at any instant before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptoml_assets.deployment import history
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.approval import load_public_key
from cryptoml_serving.contract.deployment import MOST_WITHDRAWN, Deployment, Placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from cryptoml_assets.deployment.history import Entry, Subject
    from cryptoml_assets.settings import Settings


@dataclass(frozen=True)
class Standing:
    """Which versions of a model may do what.

    Attributes:
        champion: the decision under which a version answers, if one does.
        challengers: those under which versions are scored beside it, or answer a share.
        withdrawn: versions that were taken back and have not been approved since, the last one at
            the end.
        before: the champion before the present one, where it may be put back.
    """

    champion: Entry | None = None
    challengers: tuple[Entry, ...] = ()
    withdrawn: tuple[str, ...] = ()
    before: Entry | None = None

    @property
    def champion_version(self) -> str | None:
        """The version that answers."""
        return self.champion.record.model_version if self.champion else None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The decisions in force, the champion's first."""
        return (*((self.champion,) if self.champion else ()), *self.challengers)

    def entry_of(self, subject: Subject) -> Entry | None:
        """The decision in force about exactly this subject, if there is one."""
        return next((entry for entry in self.entries if entry.subject == subject), None)


def standing(entries: Iterable[Entry], model_name: str, when: datetime | None = None) -> Standing:
    """Add up decisions.

    Args:
        entries: oldest first.
        model_name: whose to count.
        when: count those decided until then; all when not given. A decision never counts before
            those it follows, even if the clock of who signed it was behind.
    """
    champions: list[Entry] = []
    challengers: dict[str, Entry] = {}
    #: A dictionary for its order.
    withdrawn: dict[str, None] = {}
    for entry in entries:
        record = entry.record
        if when is not None and record.decided_at > when:
            break
        if record.model_name != model_name:
            continue
        version = record.model_version
        challengers.pop(version, None)
        withdrawn.pop(version, None)
        if record.action == "rollback" and champions:
            withdrawn[champions[-1].record.model_version] = None
        if record.role == "none":
            withdrawn[version] = None
            champions = [each for each in champions if each.record.model_version != version]
        elif record.role == "champion":
            champions = [each for each in champions if each.record.model_version != version]
            champions.append(entry)
        else:
            champions = [each for each in champions if each.record.model_version != version]
            challengers[version] = entry
    standing_ones = [each for each in champions if each.record.model_version not in withdrawn]
    return Standing(
        champion=standing_ones[-1] if standing_ones else None,
        challengers=tuple(challengers.values()),
        withdrawn=tuple(withdrawn),
        before=standing_ones[-2] if len(standing_ones) > 1 else None,
    )


def served_at(entries: Iterable[Entry], model_name: str, when: datetime) -> Standing:
    """What stood at an instant."""
    return standing(entries, model_name, when)


def current(configured: Settings) -> Standing:
    """What stands now by the lake's verified history; nothing where nothing was ever decided.

    Raises:
        ApprovalError: the history is not sound.
        ApprovalInvalidError: the key that verifies it cannot be read.
    """
    lake = Lake(configured.lake_uri)
    if not lake.exists(history.TABLE):
        return Standing()
    entries = history.read(lake, load_public_key(configured.public_key_path))
    return standing(entries, configured.model_name)


def deployment(entries: Sequence[Entry], model_name: str) -> Deployment | None:
    """The document that serving follows; none before the first decision."""
    own = [entry for entry in entries if entry.record.model_name == model_name]
    if not own:
        return None
    now = standing(own, model_name)
    return Deployment(
        model_name=model_name,
        sequence=own[-1].record.sequence,
        head=own[-1].digest,
        champion=_placement(now.champion) if now.champion else None,
        challengers=tuple(_placement(entry) for entry in now.challengers),
        withdrawn=_named(now.withdrawn, own),
    )


def _named(withdrawn: tuple[str, ...], entries: Iterable[Entry]) -> tuple[str, ...]:
    """Those withdrawn versions that a deployment has room for.

    A version that once answered may answer still, in a service that has not looked since. So the
    oldest of those that never did are left out first.
    """
    answered = {each.record.model_version for each in entries if each.record.role == "champion"}
    spare = max(len(withdrawn) - MOST_WITHDRAWN, 0)
    out = {*[version for version in withdrawn if version not in answered][:spare]}
    return tuple(version for version in withdrawn if version not in out)[-MOST_WITHDRAWN:]


def _placement(entry: Entry) -> Placement:
    record = entry.record
    return Placement.model_validate(
        {name: getattr(record, name) for name in Placement.model_fields}
    )
