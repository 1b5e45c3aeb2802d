"""The predictions of the last while, by id, with the approval each was made under."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from cryptoml_serving.contract.approval import ApprovalRecord
    from cryptoml_serving.contract.prediction import Prediction
    from cryptoml_serving.runtime.snapshot import Snapshot

#: Predictions kept, at about 1 kB each: of 5 symbols and 2 models on 5-minute bars, a week.
MOST = 20_000


@dataclass(frozen=True)
class Remembered:
    """A prediction as it was when it was first in a snapshot.

    Attributes:
        prediction: what a model answered; ages as of then.
        record: the verified approval of that model.
    """

    prediction: Prediction
    record: ApprovalRecord


class Recent:
    """Remembers what snapshots held, the oldest forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        """Remember ``most`` predictions at most."""
        self._most = most
        self._held: OrderedDict[UUID, Remembered] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, snapshot: Snapshot) -> None:
        """Remember what is new in a snapshot of any model; safe from any thread."""
        record = snapshot.model.record
        with self._lock:
            for prediction in snapshot.predictions.values():
                self._held.setdefault(prediction.prediction_id, Remembered(prediction, record))
            while len(self._held) > self._most:
                self._held.popitem(last=False)

    def find(self, prediction_id: UUID) -> Remembered | None:
        """The prediction of that id, if it is still remembered."""
        return self._held.get(prediction_id)
