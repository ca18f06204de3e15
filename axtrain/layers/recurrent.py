"""LSTM and GRU on approximate hardware: the input's product and the recurrent one, each with its own range."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.src import backend

from axtrain.emulation.geometry import Dense
from axtrain.layers.counts import recurrent
from axtrain.layers.playing import HardwareProduct
from axtrain.layers.registry import register_layer
from axtrain.layers.several import SeveralProducts
from axtrain.layers.time_loop import LoopProduct, float32
from axtrain.registration import register


class _Recurrent(SeveralProducts):
    """The time loop around two products; a layer says what one step makes of their sums."""

    _names = ("input", "recurrent")
    _gates: int

    def _make_states(self, calibrated: bool) -> None:
        super()._make_states(calibrated)
        self.supports_jit = True  # Keras's doubt is about cuDNN, which multiplies exactly and so is not used

    def build(self, sequences_shape, initial_state_shape=None) -> None:
        """Builds the Keras layer, its cell and the states of both products."""
        super().build(sequences_shape)
        self._build_states()

    call = keras.layers.RNN.call  # its arguments are what Keras looks at

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """The input product for all time steps at once, which is the same arithmetic, then the loop."""
        if self.hardware is None:
            return super().inner_loop(sequences, initial_state, mask, training)
        training, observing = bool(training), self.hardware_state.observer is not None
        product, recurrent = self.products
        sums = self._input_sums(LoopProduct(product, self.playing, training, still=False), sequences, training)
        loop = LoopProduct(recurrent, self.playing, training, still=True)
        if "recurrent" in self.biases:
            loop.bias = recurrent.state.read_bias(self._bias(1), training)
        initial_state = [ops.cast(state, "float32") for state in keras.tree.flatten(initial_state)]
        dropped = training and self.recurrent_dropout
        masks = self.cell.get_recurrent_dropout_mask(initial_state[0]) if dropped else None
        count, follows = len(initial_state), training and recurrent.state.follows_batches and not observing
        if follows:  # the least and the greatest hidden state so far, beside the states
            initial_state = [*initial_state, initial_state[0], initial_state[0]]

        def step(sums_now, states):
            hidden, seen = states[0], states[count:]
            states = self._step(sums_now, states[:count], loop, masks)
            if follows:
                seen = (ops.minimum(seen[0], hidden), ops.maximum(seen[1], hidden))
            return states[0], [*states, *seen]

        last, outputs, states = backend.rnn(
            step,
            sums,
            initial_state,
            go_backwards=self.go_backwards,
            mask=keras.tree.flatten(mask)[0] if keras.tree.is_nested(mask) else mask,
            unroll=self.unroll or observing,  # a loop's own trial step would be observed too
            input_length=sums.shape[1],
            zero_output_for_mask=self.zero_output_for_mask,
            return_all_outputs=self.return_sequences,
        )
        if follows:
            recurrent.state.activation_quantiser(ops.stack(list(states[count:])), training=True)
        return last, outputs, list(states[:count])

    def _input_sums(self, product: LoopProduct, sequences, training: bool):
        """(B, T, columns): what each time step's inputs give, its bias added."""
        inputs, masks = ops.cast(sequences, "float32"), None
        if training and self.dropout:
            masks = self.cell.get_dropout_mask(sequences[:, 0, :])
            if not isinstance(masks, list):
                inputs, masks = inputs * ops.cast(masks, "float32")[:, None], None
            else:
                masks = [mask[:, None] for mask in masks]
        sums = product.gates(inputs, masks, self.units, 0, self._gates)
        return sums + self.hardware_state.read_bias(self._bias(0), training) if self.use_bias else sums

    def _bias(self, row: int):
        """The bias of the input (0) or the recurrent product (1)."""
        bias = float32(self.cell.bias)
        return bias[row] if len(bias.shape) == 2 else bias

    def _step(self, sums, states, recurrent: LoopProduct, masks) -> list:
        """The new states from the input's sums and the states before, all float32; the output comes first."""
        raise NotImplementedError

    @property
    def products(self) -> tuple[HardwareProduct, ...]:
        """The input's and the recurrent product; empty without hardware."""
        if self.hardware is None:
            return ()
        return (
            HardwareProduct(self.hardware_state, Dense(), self.cell.kernel),
            HardwareProduct(self.recurrent_state, Dense(), self.cell.recurrent_kernel),
        )

    @property
    def biases(self) -> dict[str, Any]:
        """The bias, added to the input's sums, and for `reset_after` the recurrent product's own."""
        if not self.use_bias:
            return {}
        rows = 2 if len(self.cell.bias.shape) == 2 else 1
        return {name: self._bias(row) for row, name in enumerate(self._names[:rows])}


@register("ApproxLSTM")
class ApproxLSTM(_Recurrent, keras.layers.LSTM):
    """`keras.layers.LSTM` whose two products run on a `Hardware`; all else, also dropout and masks, as there.

    At each time step ``z = x W + h U + b``, ``i, f, g, o = z``, ``c = sigmoid(f) c + sigmoid(i) tanh(g)``,
    ``h = sigmoid(o) tanh(c)``: x W and h U are integer sums with ranges of their own (h lies in [-1, 1] under
    tanh); gates, the cell c and the sums' addition are float. The weights are read from their memory once per
    call. Formulas and gradient of each product: `ApproximateLayer`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind.

    Examples:
        >>> import axtrain as ax
        >>> ax.layers.ApproxLSTM(4, hardware=ax.Hardware()).product_names
        ('input', 'recurrent')
    """

    _gates = 4

    def _step(self, sums, states, recurrent: LoopProduct, masks) -> list:
        hidden, cell = states
        sums = sums + recurrent.gates(hidden, masks, self.units, 0, 4)
        i, f, g, o = ops.split(sums, 4, axis=-1)
        cell = self.recurrent_activation(f) * cell + self.recurrent_activation(i) * self.activation(g)
        return [self.recurrent_activation(o) * self.activation(cell), cell]


@register("ApproxGRU")
class ApproxGRU(_Recurrent, keras.layers.GRU):
    """`keras.layers.GRU` whose two products run on a `Hardware`; all else, also dropout and masks, as there.

    At each time step ``z, r = sigmoid(x W + h U + b)``, ``g = tanh(x W_g + r (h U_g + b_g))``, or with
    `reset_after=False` ``g = tanh(x W_g + (r h) U_g)``, and ``h = z h + (1 - z) g``: x W, h U and (r h) U are
    integer sums, the input's and the recurrent ones each with a range of its own (h and r h lie in [-1, 1] under
    tanh). The weights are read from their memory once per call. Formulas and gradient of each product:
    `ApproximateLayer`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind.

    Examples:
        >>> import axtrain as ax
        >>> ax.layers.ApproxGRU(4, hardware=ax.Hardware()).product_names
        ('input', 'recurrent')
    """

    _gates = 3

    def _step(self, sums, states, recurrent: LoopProduct, masks) -> list:
        hidden, units = states[0], self.units
        at_once = 3 if self.reset_after else 2
        inner = recurrent.gates(hidden, masks, units, 0, at_once)
        if recurrent.bias is not None:
            inner = inner + recurrent.bias
        z = self.recurrent_activation(sums[:, :units] + inner[:, :units])
        r = self.recurrent_activation(sums[:, units : 2 * units] + inner[:, units : 2 * units])
        inner = r * inner[:, 2 * units :] if self.reset_after else recurrent.gates(r * hidden, masks, units, 2, 3)
        g = self.activation(sums[:, 2 * units :] + inner)
        return [z * hidden + (1 - z) * g]


register_layer(keras.layers.LSTM, ApproxLSTM, count=recurrent)
register_layer(keras.layers.GRU, ApproxGRU, count=recurrent)
