"""How a layer plays its hardware, as attributes that one reads and sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axtrain.emulation.geometry import terms
from axtrain.layers.playing import STATISTICAL, Playing
from axtrain.layers.residual import FidelityReport


class Dials:
    """Mixin: the parts of a layer's `Playing`, each by its name; static, compiled functions keep what they saw."""

    playing: Playing
    built: bool
    products: Any  # of the layer, each a HardwareProduct
    product_names: Any

    @property
    def fidelity(self) -> str:
        """How the layer plays the hardware. Static: change it with `axtrain.set_fidelity`."""
        return self.playing.fidelity

    @fidelity.setter
    def fidelity(self, value: str) -> None:
        self.play_as(replace(self.playing, fidelity=value))

    def play_as(self, playing: Playing) -> None:
        """Plays the hardware in another way from now on; where calibration data were seen, fits what it needs.

        Compiled functions keep what they were traced with: `axtrain.set_fidelity` makes them anew.
        """
        self.playing = playing
        for product in self.products if self.built else ():
            if product.state.is_fitted:
                count = None if product.kernel is None else terms(product.geometry, product.kernel.shape)
                shape = playing.residual if playing.residual_of(count) == "mixture" else "normal"
                product.state.fit(product.geometry, product.kernel, rank=playing.fitted_rank, shape=shape)

    @property
    def fidelity_report(self) -> tuple[FidelityReport, ...]:
        """How well the error model predicts the bit-exact errors of calibration data that it was not fitted to.

        One report for each of `products` that sums activations with a kernel; empty without calibration data and
        for the exact fidelity, which predicts nothing.
        """
        if self.fidelity not in STATISTICAL:
            return ()
        reports = []
        for name, (state, geometry, kernel, *_) in zip(self.product_names, self.products, strict=True):
            count = None if kernel is None else terms(geometry, kernel.shape)
            reports.append(state.report(name, geometry, kernel, self.playing.residual_of(count)))
        return tuple(report for report in reports if report is not None)

    @property
    def engine(self) -> str | None:
        """The engine that was forced, or `None`."""
        return self.playing.engine

    @engine.setter
    def engine(self, value: str | None) -> None:
        self.playing = replace(self.playing, engine=value)

    @property
    def gradient(self) -> str:
        """`"straight_through"` or `"table"`. Static: compiled functions keep the one they were traced with."""
        return self.playing.gradient

    @gradient.setter
    def gradient(self, value: str) -> None:
        self.playing = replace(self.playing, gradient=value)

    @property
    def gradient_window(self) -> int:
        """Half window in codes of the `"table"` gradient; static."""
        return self.playing.gradient_window

    @gradient_window.setter
    def gradient_window(self, value: int) -> None:
        self.playing = replace(self.playing, gradient_window=value)
