"""What a conversion made of a model, and a summary in the units of the field."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import ops

from axtrain.energy_estimate import EnergyEstimate, energy
from axtrain.layers import ApproximateLayer
from axtrain.layers.residual import FidelityReport
from axtrain.model_walk import all_layers, labels

# These hold weights and yet sum no products of them; an accelerator folds them into scales, or looks them up.
FLOAT_BY_DESIGN = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.Normalization,
    keras.layers.Embedding,
)


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes:
        name: the layer's name; its path, as in `left/proj`, where another one bears the name too.
        was: its class before.
        became: its class after.
        on_hardware: whether it runs on hardware now.
        reason: why a layer with weights stayed in float; `None` elsewhere.
    """

    name: str
    was: str
    became: str
    on_hardware: bool
    reason: str | None = None


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did.

    Attributes:
        layers: one `LayerReport` per layer, in the model's order.
        compile_dropped: the input model was compiled; the converted one is not, so compile it.
    """

    layers: tuple[LayerReport, ...]
    compile_dropped: bool

    @property
    def converted(self) -> tuple[LayerReport, ...]:
        """The layers on hardware."""
        return tuple(layer for layer in self.layers if layer.on_hardware)

    @property
    def skipped(self) -> tuple[LayerReport, ...]:
        """The layers with weights that stayed in float though products run in them."""
        return tuple(layer for layer in self.layers if layer.reason is not None)

    def __str__(self) -> str:
        lines = [f"{len(self.converted)} of {len(self.layers)} layers run on hardware."]
        lines += [f"  {layer.name}: {layer.was} -> {layer.became}" for layer in self.converted]
        lines += [f"  {layer.name}: {layer.was} stays in float ({layer.reason})" for layer in self.skipped]
        if self.compile_dropped:
            lines.append("The compile state of the input model was not carried over: compile the new model.")
        return "\n".join(lines)


@dataclass(frozen=True)
class ProductSummary:
    """How one product of a layer is played.

    Attributes:
        name: within its layer; empty where the layer has no other.
        engine: in words.
        activation_range: of the first operand.
        second_range: of the second operand where it is an activation too, else `None`.
    """

    name: str
    engine: str
    activation_range: tuple[float, float]
    second_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class LayerSummary:
    """How one layer plays its hardware: every choice that a default made is here.

    `engine` and `activation_range` are those of the first of `products`; `memory` is the weights'; `fidelity_report`
    says how well a statistical fidelity predicts the bit-exact one, and is empty for that one.
    """

    name: str
    kind: str
    multiplier: str
    mean_relative_error: float
    engine: str
    fidelity: str
    activations: str
    activation_range: tuple[float, float]
    weights: str
    memory: str
    products: tuple[ProductSummary, ...] = ()
    fidelity_report: tuple[FidelityReport, ...] = ()
    activation_memory: str = "never fails"
    bias_memory: str = "never fails"
    accumulation: str = "exact in 32 bits"


@dataclass(frozen=True)
class Summary:
    """A model on its hardware.

    Attributes:
        layers: one `LayerSummary` per hardware layer.
        skipped: names of layers with weights that run in float.
        energy: an `EnergyEstimate`, or `None` where there is no figure: sizes are open, no layer is on hardware, or
            a voltage lies below the energy model's threshold. What is printed says which.
    """

    layers: tuple[LayerSummary, ...]
    skipped: tuple[str, ...]
    energy: EnergyEstimate | None


def summary(model: keras.Model, *, console=None) -> Summary:
    """Prints how each layer plays its hardware, what stays in float, and the energy; returns the same.

    Args:
        model: a model from `convert`, or any Keras model.
        console: a `rich.console.Console` to print on; default the terminal.
    """
    layers, skipped, told = [], [], labels(model)
    for layer in all_layers(model):
        if isinstance(layer, ApproximateLayer) and layer.hardware is not None:
            layers.append(_summarise(layer, told[id(layer)]))
        elif layer.weights and not isinstance(layer, FLOAT_BY_DESIGN):
            skipped.append(told[id(layer)])
    estimate, reason = None, ""
    try:
        estimate = energy(model)
    except ValueError as error:
        reason = str(error)
    result = Summary(tuple(layers), tuple(skipped), estimate)
    _print(result, model.name, reason, console)
    return result


_SCALES = {"per_channel": "per channel", "per_tensor": "one scale for the kernel"}


def _summarise(layer: ApproximateLayer, name: str) -> LayerSummary:
    hardware, state = layer.hardware, layer.hardware_state
    quantisation, encodings = hardware.quantisation, hardware.operand_encodings
    range_of = f"the calibration data's {quantisation.activation_range}"
    if state.follows_batches:
        range_of = "a moving average of the batches"
    elif quantisation.activation_range == "percentile":
        range_of = f"{quantisation.percentile:g} % of the calibration data"
    products = _products(layer)
    return LayerSummary(
        name=name,
        kind=type(layer).__name__,
        multiplier=hardware.circuit.name,
        mean_relative_error=hardware.circuit.metrics().mre,
        engine=products[0].engine,
        fidelity=layer.fidelity,
        activations=f"{hardware.activation_bits} bits {hardware.activations} ({encodings[0]}), range from {range_of}",
        activation_range=products[0].activation_range,
        weights=f"{hardware.weight_bits} bits symmetric {_SCALES[quantisation.weight_scale]} ({encodings[1]})",
        memory=_memory_in_words(hardware.weight_memory),
        products=products,
        fidelity_report=layer.fidelity_report,
        activation_memory=_memory_in_words(hardware.activation_store),
        bias_memory=_memory_in_words(hardware.bias_memory),
        accumulation=_accumulation_in_words(hardware.datapath),
    )


def _products(layer: ApproximateLayer) -> tuple[ProductSummary, ...]:
    parts = zip(layer.product_names, layer.products, layer.chosen_engines, strict=True)
    return tuple(
        ProductSummary(
            name,
            engine.description,
            _range(product.state),
            _range(product.state.second) if product.kernel is None else None,
        )
        for name, product, engine in parts
    )


def _range(state) -> tuple[float, float]:
    return float(ops.convert_to_numpy(state.low)), float(ops.convert_to_numpy(state.high))


def _hardware_in_words(layer: LayerSummary) -> str:
    return (
        f"{layer.multiplier} (MRE {100 * layer.mean_relative_error:.2f} %); activations {layer.activations}; "
        f"weights {layer.weights}; weight memory {layer.memory}; activation memory {layer.activation_memory}; "
        f"bias memory {layer.bias_memory}; accumulation {layer.accumulation}"
    )


def _ranges_in_words(product: ProductSummary) -> str:
    ranges = (product.activation_range, product.second_range)
    return " by ".join(f"{low:.3g} .. {high:.3g}" for low, high in (r for r in ranges if r is not None))


def _memory_in_words(memory) -> str:
    if memory is None:
        return "never fails"
    voltage = "" if memory.voltage is None else f"{memory.voltage:g} V, "
    protection = "" if memory.protection is None else f", {memory.protection.label} protection"
    return f"{voltage}BER {memory.rate:.2g}, {memory.fault}, {memory.encoding}{protection}"


def _accumulation_in_words(datapath) -> str:
    if datapath is None:
        return "exact in 32 bits"
    voltage = "" if datapath.voltage is None else f" at {datapath.voltage:g} V"
    return f"by a datapath that fails ({datapath.label}{voltage})"


def _print(result: Summary, name: str, no_energy: str, console) -> None:
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    table = Table(title=f"{name} on its hardware")
    for heading in ("layer", "class", "engine", "activation range", "hardware", "energy"):
        table.add_column(heading, justify="right" if heading == "energy" else "left")
    spent: dict[str, float] = {}
    for part in result.energy.layers if result.energy else ():
        spent[part.name] = spent.get(part.name, 0.0) + part.total_pj
    described = list(dict.fromkeys(_hardware_in_words(layer) for layer in result.layers))
    for layer in result.layers:
        which = f"#{described.index(_hardware_in_words(layer)) + 1}"
        energy_spent = f"{spent[layer.name] / 1e3:.3g} nJ" if layer.name in spent else "-"
        for product in layer.products:
            own = product is layer.products[0]
            first = (layer.name, layer.kind) if own else ("", "")
            last = (which, energy_spent) if own else ("", "")
            where = ": ".join(words for words in (product.name, _ranges_in_words(product)) if words)
            table.add_row(*first, f"{product.engine}, {layer.fidelity}", where, *last)
    console.print(table)
    for number, words in enumerate(described, start=1):
        console.print(f"#{number}: {words}", highlight=False)
    for layer in result.layers:
        for report in layer.fidelity_report:
            name = f"{layer.name} {report.product}".strip()
            console.print(f"{name}, {layer.fidelity}: {report}", highlight=False)
    if result.skipped:
        console.print(f"In float: {', '.join(result.skipped)}")
    if result.energy:
        console.print(str(result.energy), highlight=False, markup=False)
    elif result.layers:
        console.print(f"No energy estimate: {no_energy}", highlight=False, markup=False)
