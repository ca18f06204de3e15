"""What layers of several products share: a `HardwareState` for each product, walked as `products`."""

from __future__ import annotations

from axtrain.layers.base import ApproximateLayer
from axtrain.layers.playing import chosen_engine
from axtrain.layers.state import HardwareState


class SeveralProducts(ApproximateLayer):
    """Mixin for a layer that plays more than one product on its `Hardware`.

    Each product has a range, a memory and an error model of its own, in a `HardwareState`: the first is
    `hardware_state`, the product NAME after it has `NAME_state`. Formulas and gradient: `ApproximateLayer`.
    """

    _names: tuple[str, ...]  # of the products, in the order in which the layer plays them

    def _make_states(self, calibrated: bool) -> None:
        for name in self._names:
            state = HardwareState(self.hardware, calibrated, name=f"{self.name}_{name}_hardware")
            # An attribute each: their names stand in saved files.
            setattr(self, "hardware_state" if name == self._names[0] else f"{name}_state", state)

    @property
    def product_names(self) -> tuple[str, ...]:
        """What each of `products` is called within the layer."""
        return self._names if self.hardware is not None else ()

    @property
    def _states(self) -> tuple[HardwareState, ...]:
        if self.hardware is None:
            return ()
        return (self.hardware_state, *(getattr(self, f"{name}_state") for name in self._names[1:]))

    def _build_states(self) -> None:
        for state in self._states:
            if not state.built:
                state.build()

    @property
    def chosen_engines(self) -> tuple:
        """The engine of each of `products`, for its operation and size."""
        return tuple(
            chosen_engine(product.state, product.geometry, product.kernel.shape, self.playing)
            for product in self.products
        )

    def accumulator(self, inputs):
        """Refused: every product has accumulators of its own.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "A layer of several products has no single accumulator; those of one product are "
            "axtrain.layers.playing.accumulate's for its state and geometry. "
            f"Received: layer {self.name!r} with products {self.product_names}"
        )
