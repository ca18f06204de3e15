"""The main job from end to end on real data: `axtrain demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from axtrain.conversion import convert
from axtrain.energy_estimate import energy
from axtrain.exporting import check_target, export
from axtrain.hardware import Hardware
from axtrain.noise_models import memories, multipliers
from axtrain.noise_models.files import whole_file
from axtrain.training.callbacks import MLflow, NoiseSchedule
from axtrain.training.evaluation import Evaluation, evaluate
from axtrain.training.plots import chips_figure
from axtrain.training.progress import FitProgress
from axtrain.training.report.run import write_figures
from axtrain.training.tracking.active import log_evaluation
from axtrain.training.tracking.opening import run as run_in_mlflow

MULTIPLIER = "broken_array_5_9"
VOLTAGE = 0.5
BATCH = 64


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured.

    Attributes:
        clean: accuracy of the conventional network in float.
        before, after: over the same chips, the conventional network and the one trained for the hardware.
        saving: share of the exact machine's energy saved.
        folder: where export, plot and hardware description lie.
    """

    clean: float
    before: Evaluation
    after: Evaluation
    saving: float
    folder: Path


def demo_hardware() -> Hardware:
    """A coarse multiplier and weights in a memory far below its nominal voltage (illustrative curve)."""
    return Hardware(
        name="broken-array multiplier, SRAM at 0.50 V",
        multiplier=multipliers.get(MULTIPLIER),
        weight_memory=memories.NearThresholdSRAM(voltage=VOLTAGE),
    )


def digits_network() -> keras.Model:
    """A small CNN for 8x8 images and 10 classes; logits."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv3"),
            layers.Flatten(),
            layers.Dense(10, name="classes"),
        ],
        name="digits",
    )


def digits():
    """scikit-learn's 1,797 handwritten digits in [0, 1]: ((x, y) train, (x, y) test), 70 to 30 %."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)
    return (x_train, y_train), (x_test, y_test)


def run_demo(
    folder: Path, *, chips: int = 20, seed: int = 0, smoke: bool = False, console: Console | None = None
) -> DemoResult:
    """Trains, measures, trains for the hardware, measures again, logs, exports, prints.

    Args:
        folder: for the export, the plot, the figures and the hardware description; an earlier demo's is replaced.
        chips: how many chips to measure on.
        seed: of weights, shuffling, noise and chips.
        smoke: few epochs and chips, to see that everything runs.
        console: where to print.

    Raises:
        FileExistsError: where the export would go lies something that is no export.
    """
    check_target(folder / "export", overwrite=True)  # before a minute of training, not after
    console = console or Console()
    epochs, tuning = (3, 2) if smoke else (40, 25)
    chips = min(chips, 3) if smoke else chips
    (x_train, y_train), (x_test, y_test) = digits()
    keras.utils.set_random_seed(seed)
    hardware = demo_hardware()
    console.print(f"[bold]axtrain demo[/bold]: scikit-learn's digits on {hardware.name}")

    with run_in_mlflow("demo", experiment="axtrain demo") as run:
        network = digits_network()
        _compile(network, 2e-3)
        track = MLflow(prefix="conventional.")
        conventional = _fit(network, x_train, y_train, epochs, "1/5 train conventionally", console, track)
        in_float = evaluate(network, x_test, y_test)
        clean = in_float.mean

        console.print("2/5 put it on the hardware and measure, bit-exactly")
        noisy = convert(network, hardware, calibration=x_train[:512])
        before = evaluate(noisy, x_test, y_test, chips=chips, seed=seed)

        # Every step meets another chip, so the rate must fall for the weights to settle on what all chips share.
        steps = tuning * -(-len(x_train) // BATCH)
        _compile(noisy, keras.optimizers.schedules.CosineDecay(2e-3, steps))
        noise = NoiseSchedule(max(1, tuning // 3))
        track = MLflow(prefix="resilient.")
        resilient = _fit(noisy, x_train, y_train, tuning, "3/5 train for the hardware", console, noise, track)
        console.print("4/5 measure the same chips again")
        after = evaluate(noisy, x_test, y_test, chips=chips, seed=seed)

        console.print("5/5 estimate energy, log, export")
        spent = energy(noisy)
        figure = chips_figure(
            clean,
            before,
            after,
            {"exact\n1.0 V": spent.reference_pj / 1e3, f"described\n{VOLTAGE} V": spent.total_pj / 1e3},
            title=f"Digits on {hardware.name}: {chips} chips",
        )
        export(noisy, folder / "export", accuracy=after, overwrite=True)
        with whole_file(folder / "chips.png") as path:
            figure.savefig(path, dpi=120)
        hardware.to_json(folder / "hardware.json")
        write_figures(
            folder / "figures.json",
            evaluations={"clean": in_float, "before": before, "after": after},
            trainings={"conventional": conventional, "resilient": resilient},
        )
        run.log_metrics({"clean": clean, "energy_saving": spent.saving})
        log_evaluation(before, "before")
        log_evaluation(after, "after")
        run.artifact(folder / "chips.png")
        run.model(network, x_test, name="conventional")
        run.model(noisy, x_test, name="resilient")
        run.export(folder / "export")
        result = DemoResult(clean, before, after, spent.saving, folder)
        _print_result(result, spent.assumptions, run.run_id, console)
    return result


def _compile(model: keras.Model, learning_rate) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])


def _fit(model, x, y, epochs: int, description: str, console: Console, *callbacks) -> dict[str, list[float]]:
    with FitProgress(description, console) as shown:
        return model.fit(x, y, epochs=epochs, batch_size=BATCH, verbose=0, callbacks=[shown, *callbacks]).history


def _print_result(result: DemoResult, assumptions, run_id: str, console: Console) -> None:
    table = Table(title="Test accuracy [%]")
    for heading in ("network", "where", "mean", "spread (std)", "worst chip"):
        table.add_column(heading, justify="left" if heading in ("network", "where") else "right")
    table.add_row("conventional", "float, no faults", f"{100 * result.clean:.2f}", "-", "-")
    chips = f"hardware, {len(result.before.accuracies)} chips"
    for name, measured in (("conventional", result.before), ("trained for it", result.after)):
        spread = np.format_float_positional(100 * measured.std, precision=2, min_digits=2)
        table.add_row(name, chips, f"{100 * measured.mean:.2f}", spread, f"{100 * measured.worst:.2f}")
    console.print(table)
    console.print(
        f"Energy per inference: {100 * result.saving:.1f} % less than exact 8-bit multipliers with the memory at "
        "nominal voltage (a model; its constants are in the hardware description)."
    )
    for line in assumptions:
        console.print(f"  assumed: {line}")
    rows = (
        ("runs", f"mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}    (run {run_id})"),
        ("resilient weights", str(result.folder / "export")),
        ("plot", str(result.folder / "chips.png")),
        ("hardware", str(result.folder / "hardware.json")),
        ("all of it", f"axtrain report {result.folder}"),
    )
    for what, where in rows:
        console.print(f"  {what + ':':<18} {where}", soft_wrap=True, highlight=False)
