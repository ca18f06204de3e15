"""The part of a layer's hardware state that holds its error model: variables, fit, evidence, report."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from axtrain.emulation.geometry import terms
from axtrain.finite import check_finite
from axtrain.layers import noise, residual
from axtrain.layers.statistics import ErrorStatistics, fit_statistics, histogram
from axtrain.layers.windows import Windows, WindowSamples, cut_windows


class ErrorModel(NamedTuple):
    """`ErrorStatistics` as float32 tensors, and the shape of what is left.

    Attributes:
        mean_given_weight, activation_variance, weight_variance: as there.
        activation_factors, weight_factors: (r, codes), or `None` at rank 0.
        levels: (`noise.LEVELS`,), the distribution of the standardised residual.
    """

    mean_given_weight: Any
    activation_variance: Any
    weight_variance: Any
    activation_factors: Any
    weight_factors: Any
    levels: Any

    @property
    def rank(self) -> int:
        """The number r of ordinary products beside the layer's own; static."""
        return 0 if self.activation_factors is None else self.activation_factors.shape[0]


class FittedState(keras.layers.Layer):
    """Base of `HardwareState`: the statistical error model of one product.

    Calibration keeps how often each operand code occurs and some windows of the input, so that another rank or
    residual is fitted later without any data.
    """

    hardware: Any
    rank: int
    windows: np.ndarray | None = None  # int16 activation codes (M, groups, K); the first half is for fitting
    sample_shape: tuple[int, ...] = ()
    _watched: WindowSamples | None = None

    def _add_variables(self, shapes: dict[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            variable = self.add_weight(
                name=name,
                shape=shape,
                initializer="zeros",
                trainable=False,
                autocast=False,  # the parent's mixed precision would otherwise read 8 significant bits
                aggregation="mean",  # replicas that follow their own batches agree on the mean range
            )
            setattr(self, name, variable)

    def _build_error_model(self) -> None:
        rows, columns = self.hardware.code_table.products.shape
        self._add_variables(
            {
                "fitted": (),
                "mean_given_weight": (columns,),
                "activation_variance": (rows,),
                "weight_variance": (columns,),
                "activation_histogram": (rows,),
                "weight_histogram": (columns,),
                "residual_levels": (noise.LEVELS,),
            }
        )
        self.residual_levels.assign(noise.normal_levels())
        if self.rank:  # after all others: their shape is the one that a new fit changes
            self._add_variables({"activation_factors": (self.rank, rows), "weight_factors": (self.rank, columns)})

    def _change_rank(self, rank: int) -> None:
        """Makes the factors' variables anew where their shape changes."""
        if rank == self.rank:
            return
        if self.rank:
            self._untrack_variable(self.activation_factors)
            self._untrack_variable(self.weight_factors)
        self.rank = rank
        rows, columns = self.hardware.code_table.products.shape
        if rank:
            self._tracker.unlock()  # as Keras does where it adds weights to a built layer
            self._add_variables({"activation_factors": (rank, rows), "weight_factors": (rank, columns)})
            self._tracker.lock()

    @property
    def error_model(self) -> ErrorModel:
        """The fitted statistics as tensors."""
        return ErrorModel(
            self.mean_given_weight.value,
            self.activation_variance.value,
            self.weight_variance.value,
            self.activation_factors.value if self.rank else None,
            self.weight_factors.value if self.rank else None,
            self.residual_levels.value,
        )

    def watch(self, geometry, inputs, kernel) -> None:
        """Keeps windows of one batch of calibration data; a product of two activations has none.

        Args:
            geometry: of the product.
            inputs: float32 activations.
            kernel: float32 weights.
        """
        if getattr(geometry, "batched", False):
            return
        if self._watched is None:
            self._watched = WindowSamples()
        self._watched.add(geometry, inputs, kernel)

    def _keep_distributions(self, activation_codes, weight_codes) -> None:
        """Keeps how often each code occurs, padding included, and the windows as codes."""
        table = self.hardware.code_table
        rows, columns = table.products.shape
        share = histogram(activation_codes, table.activation_low, rows)
        watched, self._watched = self._watched, None
        if watched is not None:
            quantiser = self.activation_quantiser(ops.zeros((1,)), training=False)
            self.windows = ops.convert_to_numpy(quantiser.codes(watched.rows)).astype(np.int16)
            self.sample_shape = watched.sample_shape
            share *= 1 - watched.padded_share
            share[int(quantiser.zero_point) - table.activation_low] += watched.padded_share
        self.activation_histogram.assign(share)
        self.weight_histogram.assign(histogram(weight_codes, table.weight_low, columns))
        self.fitted.assign(1.0)

    @property
    def is_fitted(self) -> bool:
        """Whether calibration data were seen."""
        return bool(ops.convert_to_numpy(self.fitted))

    def fit(self, geometry, kernel, *, rank: int, shape: str) -> None:
        """Fits the error model to the distributions kept at calibration and the weights as they are now.

        Args:
            geometry: of the product.
            kernel: the weights; `None` keeps the second operand's distribution at calibration.
            rank: ordinary products for the error's systematic part.
            shape: of the residual: `"none"`, `"normal"`, `"mixture"`, or `"auto"`, which takes the mixture where it
                fits better.
        """
        table = self.hardware.code_table
        if kernel is not None:
            codes = self._weight_codes(geometry, kernel)
            self.weight_histogram.assign(histogram(codes, table.weight_low, table.products.shape[1]))
        p, q = (ops.convert_to_numpy(x) for x in (self.activation_histogram, self.weight_histogram))
        statistics = fit_statistics(table, p.astype(np.float64), q.astype(np.float64), rank)
        self._change_rank(rank)
        self.mean_given_weight.assign(statistics.mean_given_weight)
        self.activation_variance.assign(statistics.activation_variance)
        self.weight_variance.assign(statistics.weight_variance)
        if rank:
            self.activation_factors.assign(statistics.activation_factors)
            self.weight_factors.assign(statistics.weight_factors)
        levels = noise.normal_levels()
        if shape in ("mixture", "auto") and self.windows is not None and kernel is not None:
            fitted, held_out = self._predicted(geometry, kernel, self.windows)
            levels = residual.mixture_levels(fitted.standardised)
            tried = held_out.standardised
            if shape == "auto" and residual.distance(tried, levels) >= residual.distance(tried, None):
                levels = noise.normal_levels()
        self.residual_levels.assign(levels)

    def report(self, name: str, geometry, kernel, shape: str) -> residual.FidelityReport | None:
        """How well the model predicts the bit-exact error of held-out windows; `None` where none were kept.

        Args:
            name: of the product within its layer.
            geometry: of the product.
            kernel: the weights.
            shape: `"none"`, `"normal"` or `"mixture"`, whichever is drawn.

        Raises:
            ValueError: weights that are not finite.
        """
        if self.windows is None or kernel is None or not self.is_fitted:
            return None
        check_finite(f"product {name or self.name!r}", kernel)
        levels = ops.convert_to_numpy(self.residual_levels)
        mixture = None if np.array_equal(levels, noise.normal_levels()) else levels
        shape = "normal" if shape == "mixture" and mixture is None else shape
        _, held_out = self._predicted(geometry, kernel, self.windows)
        return residual.report(name, held_out, self.rank, shape, mixture)

    def _predicted(self, geometry, kernel, windows: np.ndarray) -> list[residual.Predicted]:
        """Of the windows that the residual's shape is fitted to, and of the others."""
        sample = np.zeros((1, *self.sample_shape), np.float32)
        columns = cut_windows(geometry, sample, self._weight_codes(geometry, kernel), 1).columns
        product_form = geometry.operation != "depthwise" and terms(geometry, kernel.shape) is not None
        table, statistics = self.hardware.code_table, self._statistics
        return [
            residual.predict(table, statistics, Windows(rows, columns), product_form=product_form)
            for rows in np.array_split(windows, 2)
        ]

    @property
    def _statistics(self) -> ErrorStatistics:
        rows, columns = self.hardware.code_table.products.shape
        parts = [ops.convert_to_numpy(x) for x in self.error_model[:3]]
        factors = [ops.convert_to_numpy(x) for x in self.error_model[3:5]] if self.rank else []
        return ErrorStatistics(*parts, *(factors or (np.zeros((0, rows)), np.zeros((0, columns)))))

    def _weight_codes(self, geometry, kernel) -> np.ndarray:
        axes = geometry.summed_axes(len(kernel.shape))
        return ops.convert_to_numpy(self.hardware.weight_codes(ops.convert_to_tensor(kernel), axes).codes)
