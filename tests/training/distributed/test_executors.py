"""One interface, two implementations: what is promised of calls, deadlines, deaths and replacements."""

import os
import signal
import time

import numpy as np
import pytest

from axtrain.coded.latency import MeasuredLatency
from axtrain.training.distributed import InProcess, Trouble
from axtrain.training.distributed.executor import CANCELLED, DEAD, DONE, LATE


def counter():
    """A state that counts; made in a function, so that it goes to another process whole."""

    class Counter:
        def __init__(self, start):
            self.total = start

        def add(self, step, number, inputs=()):
            self.total += number + sum(0 if value is None else int(value.sum()) for value in inputs)
            return {"step": step, "total": self.total}, np.full(4, self.total)

        def fail(self, step, inputs=()):
            raise KeyError("mine")

    return Counter


def placed(make, troubles=(), names="abc"):
    executor = make(troubles)
    kind = counter()
    for name in names:
        executor.place(name, kind, 10)
    return executor, kind


def test_values_go_from_worker_to_worker_and_notes_to_the_driver(make):
    executor, _ = placed(make)
    first = {name: executor.call(name, "add", 0, number) for number, name in enumerate("abc")}
    outcomes = executor.wait(first.values())
    assert {name: outcome.note for name, outcome in outcomes.items()} == {
        "a": {"step": 0, "total": 10}, "b": {"step": 0, "total": 11}, "c": {"step": 0, "total": 12},
    }  # fmt: skip
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    second = executor.call("a", "add", 1, 1, inputs=[first["b"], None, first["c"]])
    assert executor.wait([second])["a"].note["total"] == 10 + 1 + 4 * 11 + 4 * 12
    np.testing.assert_array_equal(executor.fetch(second), [103] * 4)
    assert executor.bytes_moved == 3 * 4 * 8
    shared = executor.share(np.arange(3))
    executor.place("d", lambda array: counter()(int(array.sum())), shared)
    assert executor.wait([executor.call("d", "add", 0, 0)])["d"].note["total"] == 3


def test_what_a_worker_raises_reaches_the_driver(make):
    executor, _ = placed(make, names="a")
    with pytest.raises(KeyError, match="mine"):
        executor.wait([executor.call("a", "fail", 0)])
    assert executor.wait([executor.call("a", "add", 1, 1)])["a"].note["total"] == 11  # it lives on


def test_a_killed_worker_is_dead_at_once_and_replaced_without_its_state(make):
    executor, kind = placed(make, [Trouble("b", "kill", method="add", step=1)])
    for step in range(2):
        outcomes = executor.wait([executor.call(name, "add", step, 1) for name in "abc"])
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"a": DONE, "b": DEAD, "c": DONE}
    assert outcomes["a"].note["total"] == 12  # nobody was called twice
    assert executor.wait([executor.call("b", "add", 2, 1)])["b"].status == DEAD
    executor.place("b", kind, 50)
    assert executor.wait([executor.call("b", "add", 1, 1)])["b"].note["total"] == 51  # and trouble struck once


def test_who_sleeps_is_late_and_done_later(make):
    executor, _ = placed(make, [Trouble("c", "sleep", step=1, seconds=1.5)])
    executor.wait([executor.call(name, "add", 0, 0) for name in "abc"])
    calls = {name: executor.call(name, "add", 1, 1) for name in "abc"}
    outcomes = executor.wait(calls.values(), deadline=0.7)
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"a": DONE, "b": DONE, "c": LATE}
    assert executor.wait([calls["c"]], deadline=0.0)["c"].status == LATE
    outcome = executor.wait([calls["c"]])["c"]
    assert (outcome.status, outcome.note["total"]) == (DONE, 11)
    assert outcome.seconds >= 1.5


def test_the_first_answers_suffice(make):
    executor, _ = placed(make, [Trouble("a", "sleep", step=1, seconds=2.0)])
    executor.wait([executor.call(name, "add", 0, 0) for name in "abc"])
    before = executor.seconds
    outcomes = executor.wait([executor.call(name, "add", 1, 1) for name in "abc"], count=2)
    assert outcomes["a"].status == LATE
    assert executor.seconds - before < 1.9


def test_corrupt_values_come_back_as_other_numbers(make):
    executor = make([Trouble("a", "corrupt", step=1, steps=2)])

    def state():
        class State:
            def give(self, step, inputs=()):
                return None, {"x": np.ones(1000, np.float32), "name": "same"}

        return State()

    executor.place("a", state)
    found = []
    for step in range(4):
        call = executor.call("a", "give", step)
        executor.wait([call])
        found.append(executor.fetch(call))
    assert [bool((values["x"] == 1).all()) for values in found] == [True, False, False, True]
    assert np.isfinite(found[1]["x"]).all() and found[1]["name"] == "same"


def test_a_simulated_clock_gives_the_same_times_again():
    found = []
    for _ in range(2):
        executor = InProcess(latency=MeasuredLatency((1.0, 2.0, 7.0)), seed=3)
        kind = counter()
        for number in range(20):
            executor.place(str(number), kind, 0)
        calls = [executor.call(str(number), "add", 0, 1) for number in range(20)]
        outcomes = executor.wait(calls, deadline=2.5)
        assert executor.seconds == 2.5
        assert {outcome.status for outcome in outcomes.values()} == {DONE, LATE}
        late = [outcome.ticket for outcome in outcomes.values() if outcome.status == LATE]
        executor.cancel(late[:1])
        assert executor.wait(late[:1])[late[0].worker].status == CANCELLED
        executor.wait(late[1:])
        assert executor.seconds == 7.0
        found.append([outcome.seconds for outcome in outcomes.values()])
    assert found[0] == found[1]


def test_a_process_that_is_killed_from_outside_is_noticed(ray):
    from axtrain.training.distributed import RayActors

    with RayActors() as executor:
        executor.place("a", counter(), 0)
        executor.wait([executor.call("a", "add", 0, 1)])
        os.kill(executor.process_of("a"), signal.SIGKILL)
        call = executor.call("a", "add", 1, 1)
        begun = time.perf_counter()
        assert executor.wait([call], deadline=30)["a"].status == DEAD
        assert time.perf_counter() - begun < 30


@pytest.mark.parametrize("bad", [{"kind": "explode"}, {"steps": 0}, {"seconds": -1.0}])
def test_troubles_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="Received"):
        Trouble(**{"worker": "a", "kind": "kill", **bad})
