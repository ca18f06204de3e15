"""A run below another one."""

from __future__ import annotations

import uuid
from typing import Any

from axtrain.training.tracking.open_run import OpenedRun, take_over
from axtrain.training.tracking.runs import Run
from axtrain.training.tracking.store import refusal


class ChildRun(OpenedRun):
    """What `Run.child` gives."""

    def __init__(self, parent: Run, name: str | None, tags: dict[str, Any]) -> None:
        super().__init__()
        self._parent, self._asked, self._tags = parent, name, tags

    def _open(self) -> None:
        import mlflow

        known_as = f"child-{self._asked}" if self._asked is not None else uuid.uuid4().hex
        tags = {key: str(value) for key, value in self._tags.items()}
        made = self._parent.make(self._asked or f"{self._parent.name}-{uuid.uuid4().hex[:4]}", known_as, tags)
        self._sender, self.name, self.run_id = made.sender, made.name, made.run_id
        if made.made_offline:  # it is not on MLflow's stack then: MLflow would ask the server for it
            return
        try:
            with self.sender.impatient():
                take_over(self, self.sender.delivery.client.get_run(self.run_id))
                mlflow.start_run(run_id=self.run_id, nested=True)
        except Exception as error:
            if refusal(error) is None:
                raise
        self.resumed = self._parent.resumed
