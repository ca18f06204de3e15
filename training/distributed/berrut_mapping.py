"""Any function of several inputs, approximately, from whichever workers answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from axtrain.coded.berrut import Berrut
from axtrain.training.distributed.executor import DONE, Executor
from axtrain.training.distributed.in_process import InProcess


def berrut_map(
    function: Callable[[np.ndarray], Any] | keras.Model,
    inputs: np.ndarray,
    *,
    workers: int,
    wait_for: int | None = None,
    executor: Executor | None = None,
    deadline: float | None = None,
    decoder: str = "berrut",
    degree: int = 3,
) -> np.ndarray:
    """``[function(x) for x in inputs]``, approximately, computed by workers of whom some may never answer.

    Each worker gets one coded input, a mixture of all. The error falls with the number of answers for each input and
    with the function's smoothness. Source: Jahani-Nezhad and Maddah-Ali 2020; theory page, section 9.

    Args:
        function: of one input to one array; or a Keras model, for batches of samples.
        inputs: shape (K, ...).
        workers: how many; a few times K.
        wait_for: answers that suffice; `None` for all.
        executor: where the workers are; by default in this process.
        deadline: in seconds, after which what is there must do.
        decoder, degree: as for `axtrain.coded.Berrut`.

    Returns:
        shape (K, ...).

    Raises:
        RuntimeError: nobody answered.

    Examples:
        >>> import numpy as np
        >>> x = np.linspace(-1, 1, 12).reshape(3, 4)
        >>> found = berrut_map(np.tanh, x, workers=60, wait_for=50)
        >>> found.shape, bool(np.abs(found - np.tanh(x)).max() < 0.05)
        ((3, 4), True)
    """
    inputs = np.asarray(inputs)
    code, executor = Berrut(len(inputs), workers, decoder, degree), executor or InProcess()
    shared = executor.share(function)  # Keras sends a model as its `.keras` file
    names = [f"map-{number}" for number in range(workers)]
    for name in names:
        executor.place(name, FunctionWorker, shared)
    tickets = [executor.call(name, "apply", 0, part) for name, part in zip(names, code.encode(inputs), strict=True)]
    outcomes = executor.wait(tickets, wait_for, deadline)
    received = [number for number, name in enumerate(names) if outcomes[name].status == DONE]
    if not received:
        raise RuntimeError(f"None of {workers} workers answered within the deadline. Received: {deadline} s")
    results = np.stack([executor.fetch(tickets[number]) for number in received])
    for name in names:
        executor.remove(name)
    return code.decode(results, np.array(received))


class FunctionWorker:
    """A worker that applies a function.

    Args:
        function: of one array.
    """

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        self.function = function

    def apply(self, step: int, x: np.ndarray, inputs: Any = ()) -> tuple[Any, Any]:
        """The function's value."""
        return None, np.asarray(self.function(x))
