"""Multi-head attention on approximate hardware: its projections and both products of activations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from axtrain.emulation.geometry import Dense
from axtrain.layers.activation_pair import ActivationPairState
from axtrain.layers.counts import attention
from axtrain.layers.einsum import ApproxEinsumDense
from axtrain.layers.equations import EinsumProduct
from axtrain.layers.playing import HardwareProduct, Playing, chosen_engine, play
from axtrain.layers.registry import register_layer
from axtrain.layers.several import SeveralProducts
from axtrain.registration import register

# In the order in which Keras makes them, so that the weights keep their order.
_PROJECTIONS = ("query", "key", "gate", "value")


@register("ApproxMultiHeadAttention")
class ApproxMultiHeadAttention(SeveralProducts, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` whose products all run on a `Hardware`; arguments and call as there.

    - The projections of query, key, value (and gate), and the output's: `ApproxEinsumDense`.
    - `scores`: ``q k' / sqrt(key_dim)``, the scaled query in the activations' role, the key in the weights'.
    - `combine`: ``softmax(scores) v``, the probabilities in the activations' role, the value in the weights'.

    Each operand of the last two has one scale for the whole tensor, from a range of its own
    (`ActivationPairState`); no weight memory stands behind them. Masks, softmax and dropout are float, as in
    Keras; the fused attention of a backend multiplies exactly, so it is not used. Formulas and gradient of each
    product: `ApproximateLayer`, to both operands.

    Raises:
        TypeError, ValueError: arguments of the wrong kind.

    Examples:
        >>> import axtrain as ax
        >>> layer = ax.layers.ApproxMultiHeadAttention(2, 4, hardware=ax.Hardware())
        >>> layer.build((None, 5, 8), (None, 5, 8))
        >>> layer.product_names
        ('scores', 'combine', 'query', 'key', 'value', 'attention_output')
    """

    _names = ("scores", "combine")

    def _make_states(self, calibrated: bool) -> None:
        self.hardware_state = ActivationPairState(self.hardware, calibrated, name=f"{self.name}_scores_hardware")
        self.combine_state = ActivationPairState(self.hardware, calibrated, name=f"{self.name}_combine_hardware")

    def build(self, query_shape, value_shape, key_shape=None) -> None:  # type: ignore[override]
        """Builds the Keras layer, its projections on the hardware, and the states of both other products."""
        keras.layers.MultiHeadAttention.build(self, query_shape, value_shape, key_shape)
        if self.hardware is None:
            return
        self._build_states()
        output_shape = (*self._query_dense.compute_output_shape(query_shape)[:-1], self._value_dim)
        shapes = {"key": value_shape if key_shape is None else key_shape, "value": value_shape}
        for name in self._projection_names:
            shape = output_shape if name == "output" else shapes.get(name, query_shape)
            self._put_on_hardware(f"_{name}_dense", shape)

    def _put_on_hardware(self, attribute: str, shape) -> None:
        """Replaces one of Keras's projections by the same one on hardware, with the weights it was given."""
        plain = getattr(self, attribute)
        described = {"hardware": self.hardware, "calibrated": self.hardware_state.calibrated, **asdict(self.playing)}
        projection = ApproxEinsumDense.from_config({**plain.get_config(), **described})
        projection.build(shape)
        for old, new in zip(plain.weights, projection.trainable_weights, strict=True):
            new.assign(old)
        self._tracker.untrack(plain)
        setattr(self, attribute, projection)

    call = keras.layers.MultiHeadAttention.call  # its arguments are what Keras looks at

    def _compute_attention(
        self,
        query,
        key,
        value,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
        use_causal_mask=False,
    ):
        if self.hardware is None:
            asked = {"use_causal_mask": True} if use_causal_mask else {}
            return super()._compute_attention(
                query, key, value, attention_mask, training, return_attention_scores, **asked
            )
        if use_causal_mask and attention_mask is None:
            attention_mask = self._compute_causal_mask(query, value)
        query = ops.cast(query, "float32") * self._inverse_sqrt_key_dim
        sums = self._play_pair(self.hardware_state, self._scores_equation, query, key, training)
        probabilities = self._masked_softmax(ops.cast(sums, self.compute_dtype), attention_mask)
        kept = self._dropout_layer(probabilities, training=training) if self._dropout > 0 else probabilities
        combined = self._play_pair(self.combine_state, self._combine_equation, kept, value, training)
        return ops.cast(combined, self.compute_dtype), probabilities

    @property
    def _scores_equation(self) -> str:
        """Keras writes the key first; the query is the operand in the activations' role."""
        operands, output = self._dot_product_equation.split("->")
        key, query = operands.split(",")
        return f"{query},{key}->{output}"

    def _play_pair(self, state: ActivationPairState, equation: str, first, second, training):
        """An einsum of two activations, float32."""
        product = EinsumProduct.parse(equation)
        first, second = ops.cast(first, "float32"), ops.cast(second, "float32")
        if state.second.observer is not None:
            state.second.observer.add(ops.convert_to_numpy(second))
        sums = play(
            state,
            Dense(batched=True),
            product.first_matrix(first),
            product.second_matrix(second),
            self.playing,
            bool(training),
        )
        return product.restored(sums, ops.shape(first), ops.shape(second))

    @property
    def playing(self) -> Playing:
        """How the hardware is played, the same in every product."""
        return self._playing

    @playing.setter
    def playing(self, value: Playing) -> None:
        self._playing = value
        for projection in self._projections:
            projection.playing = value

    @property
    def _projection_names(self) -> list[str]:
        return [name for name in (*_PROJECTIONS, "output") if hasattr(self, f"_{name}_dense")]

    @property
    def _projections(self) -> list[ApproxEinsumDense]:
        found = [getattr(self, f"_{name}_dense") for name in self._projection_names]
        return [projection for projection in found if isinstance(projection, ApproxEinsumDense)]

    @property
    def products(self) -> tuple[HardwareProduct, ...]:
        """The scores', the combination's and the projections'; empty without hardware."""
        if self.hardware is None:
            return ()
        pairs = [HardwareProduct(state, Dense(batched=True), None) for state in self._states]
        return (*pairs, *(product for projection in self._projections for product in projection.products))

    @property
    def product_names(self) -> tuple[str, ...]:
        """What each of `products` is called; a projection has Keras's name for it."""
        if self.hardware is None:
            return ()
        return (*self._names, *(projection.name for projection in self._projections))

    @property
    def chosen_engines(self) -> tuple:
        """The engine of each of `products`; how many values are combined is open until a sequence comes."""
        shapes = ((self._key_dim, None), (None, self._value_dim))
        pairs = [
            chosen_engine(product.state, product.geometry, shape, self.playing)
            for product, shape in zip(self.products, shapes, strict=False)
        ]
        return (*pairs, *(projection.chosen_engine for projection in self._projections))

    @property
    def biases(self) -> dict[str, Any]:
        """The projections' biases by name."""
        return {projection.name: projection.bias for projection in self._projections if projection.use_bias}


register_layer(keras.layers.MultiHeadAttention, ApproxMultiHeadAttention, count=attention)
