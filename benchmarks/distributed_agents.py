"""Agents without a centre on three data sets: NEXT beside decentralised gradient descent and the optimum."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import networkx as nx
import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.preprocessing import scale

from axtrain.training.distributed import NetworkTrainer
from axtrain.training.distributed.gradient_worker import GradientFunction

AGENTS, STEPS, TUNING, LOOKS = (10, 25, 50), 200, 100, 20
SURROGATES, TAUS, STRENGTH = ("full", "partial", "descent"), (0.1, 0.3, 1.0, 3.0), 1e-3


def problems() -> dict:
    """Name -> (model maker, x, y)."""
    ridge, classes, digits = load_diabetes(), load_breast_cancer(), load_digits()

    def network(inputs: int, hidden: int, outputs: int, loss) -> keras.Model:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(hidden, "tanh"), keras.layers.Dense(outputs)]
        model = keras.Sequential([keras.Input((inputs,)), *layers])
        model.compile("sgd", loss, metrics=[] if loss == "mse" else ["accuracy"])
        return model

    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pixels = digits.data.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)  # 8 x 8 averaged to 4 x 4
    target = scale(ridge.target)[:, None].astype("float32")
    return {
        "diabetes": (lambda: network(10, 6, 1, "mse"), scale(ridge.data).astype("float32"), target),
        "breast cancer": (lambda: network(30, 4, 2, entropy), scale(classes.data).astype("float32"), classes.target),
        "digits": (lambda: network(16, 8, 10, entropy), scale(pixels).astype("float32"), digits.target),
    }


class Objective:
    """The mean loss of all data and the penalty, with its gradient, at flat weights."""

    def __init__(self, model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
        self.function, self.x, self.y = GradientFunction(model), x, y

    def __call__(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        """Both."""
        loss, gradient = self.function(self.function.parts(w.astype("float32")), self.x, self.y)
        return float(loss + STRENGTH * w @ w), gradient.astype(float) + 2 * STRENGTH * w

    def optimum(self, model: keras.Model) -> float:
        """By L-BFGS from a model's weights, all data in one place."""
        return float(minimize(self, flat(model), jac=True, method="L-BFGS-B", options={"maxiter": 3000}).fun)


class Look(keras.callbacks.Callback):
    """The objective at the agents' mean weights, after each epoch."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective, self.values = objective, []

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Look."""
        self.values.append(self.objective(flat(self.model))[0])


def flat(model: keras.Model) -> np.ndarray:
    """All weights as one vector."""
    return np.concatenate([w.reshape(-1) for w in model.get_weights()]).astype(float)


def by_label(x: np.ndarray, y: np.ndarray, agents: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Samples dealt in the order of their labels: each agent sees a part of what there is to learn."""
    parts = np.array_split(np.argsort(y.reshape(-1), kind="stable"), agents)
    return [(x[part], y[part]) for part in parts]


def train(make: Callable, x, y, agents: int, surrogate: str, tau: float, steps: int) -> tuple[list[float], dict]:
    """The objective as training went, and its logs."""
    graph = nx.random_regular_graph(4, agents, seed=0)
    regularizer = keras.regularizers.L2(STRENGTH)
    trainer = NetworkTrainer(make(), graph, surrogate, regularizer, tau=tau, step=0.3, decay=0.003)
    look, epochs = Look(Objective(make(), x, y)), min(LOOKS, steps)
    data = by_label(x, y, agents)
    history = trainer.fit(data, epochs=epochs, steps_per_epoch=steps // epochs, verbose=0, callbacks=[look]).history
    return look.values, history


def tuned(make: Callable, x, y, agents: int, surrogate: str, smoke: bool) -> float:
    """The tau with the smallest objective after a short training: fewer samples for each agent want a larger one."""
    if smoke:
        return 1.0
    found = {}
    for tau in TAUS:
        try:
            with np.errstate(all="ignore"):
                last = train(make, x, y, agents, surrogate, tau, TUNING)[0][-1]
        except np.linalg.LinAlgError:  # it has diverged
            last = np.inf
        found[tau] = last if np.isfinite(last) else np.inf
    return min(found, key=lambda tau: found[tau])


def without_a_centre(smoke: bool) -> list[dict]:
    """Each surrogate on each data set and number of agents."""
    rows = []
    steps = LOOKS if smoke else STEPS
    for name, (make, x, y) in problems().items():
        best = Objective(make(), x, y).optimum(make())
        for surrogate in SURROGATES:
            for agents in AGENTS[:1] if smoke else AGENTS:
                tau = tuned(make, x, y, agents, surrogate, smoke)
                begun = time.perf_counter()
                curve, logs = train(make, x, y, agents, surrogate, tau, steps)
                row = {"data": name, "agents": agents, "surrogate": surrogate, "tau": tau, "optimum": best}
                row |= {"curve": curve, "disagreement": logs["disagreement"][-1], "tracking": max(logs["tracking"])}
                rows.append({**row, "steps": steps, "seconds": time.perf_counter() - begun})
                print(f"{name:<14}{agents:>3} {surrogate:<8} tau {tau:<4g} {curve[-1]:.4f}, "
                      f"the optimum {best:.4f}", flush=True)  # fmt: skip
    return rows
