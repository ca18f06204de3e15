"""What coded layers share: a coded kernel, products that are checked forward and backward, and their record."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from axtrain.coded.code import Code
from axtrain.coded.corruption import Corruption
from axtrain.coded.faults import SoftErrors
from axtrain.coded.gradients import EVENTS, decoded_kernel, in_place_of, with_coded_gradient
from axtrain.coded.products import CodedProduct
from axtrain.coded.voting import voted


class CodedLayer(keras.layers.Layer):
    """Base of the coded layers. The trainable variable is the coded kernel; the bias is its last input row.

    Subclasses say how their input becomes a matrix (`_operand`) and the product their output (`_output`).

    Args:
        code: how the kernel is spread over nodes.
        faults: what goes wrong; `None` for nothing.
        adversarial: trust only corrections that are right whatever the errors are.
        input_gradient: whether anybody needs the gradient of the input; a first layer saves its backward product.
        kernel_initializer, bias_initializer, kernel_regularizer, use_bias, activation: as for the Keras layer.
        kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: a code or faults of another kind.
        ValueError: a dtype that cannot decode the code.
    """

    def __init__(
        self,
        *,
        code: Code,
        faults: SoftErrors | None = None,
        adversarial: bool = False,
        input_gradient: bool = True,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        code, faults = _revived(code), _revived(faults)
        if not isinstance(code, Code):
            raise TypeError(f"`code` must be one of axtrain.coded's codes. Received: code={code!r}")
        if not isinstance(faults, (SoftErrors, type(None))):
            raise TypeError(f"`faults` must be axtrain.coded.SoftErrors or None. Received: faults={faults!r}")
        code.check_dtype(self.compute_dtype)
        self.code, self.faults, self.adversarial = code, faults, adversarial
        self.input_gradient = input_gradient
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def _build(self, inputs: int, outputs: int) -> None:
        """Make the variables for a kernel of that shape."""
        self._sizes = inputs, outputs
        self.product = CodedProduct(self.code, inputs + self.use_bias, outputs, adversarial=self.adversarial)
        self.stored = self.product.layout.stored(self.adversarial)
        if self.faults is not None:
            self.corruption = Corruption(self.faults, self.name, self.code.nodes)
        self.coded_kernel = self.add_weight(
            shape=self.product.layout.shape, initializer=self._initial, name="coded_kernel", trainable=True
        )
        state = {"initializer": "zeros", "trainable": False}
        self.step = self.add_weight(shape=(), dtype="int32", name="step", **state)
        self.counts = self.add_weight(shape=(len(EVENTS),), dtype="float32", name="counts", **state)
        self.hopeless = self.add_weight(shape=(), dtype="float32", name="hopeless", **state)
        stages = {"forward": self.code.forward, "backward": self.code.backward}
        self.wrong = {
            name: self.add_weight(shape=(stage.results,), dtype="float32", name=f"wrong_{name}", **state)
            for name, stage in stages.items()
        }

    def _initial(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        inputs, outputs = self._sizes
        kernel = self.kernel_initializer(self._kernel_shape(inputs, outputs), dtype=dtype)
        kernel = ops.reshape(kernel, (inputs, outputs))
        if self.use_bias:
            kernel = ops.concatenate([kernel, self.bias_initializer((1, outputs), dtype=dtype)], axis=0)
        return self.product.layout.encode(kernel)

    def _kernel_shape(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """Of the Keras layer's kernel."""
        return inputs, outputs

    @property
    def kernel(self) -> Any:
        """The decoded kernel, in the Keras layer's shape. Its gradient is encoded, so penalties of it train rightly."""
        inputs, outputs = self._sizes
        layout = self.product.layout
        decoded = decoded_kernel(layout, ops.reshape(self.coded_kernel, layout.shape))
        return ops.reshape(decoded[:inputs], self._kernel_shape(inputs, outputs))

    @property
    def bias(self) -> Any:
        """The decoded bias, or `None`."""
        return self.product.layout.decode(ops.convert_to_tensor(self.coded_kernel))[-1] if self.use_bias else None

    def corrected_matrix(self) -> Any:
        """The kernel with the bias below it, decoded with what is wrong in the shards corrected: (inputs, outputs).

        The product with the identity, checked as any other.

        Raises:
            ValueError: more shards are wrong than the code corrects.
        """
        layout = self.product.layout
        identity = ops.eye(layout.inputs, dtype=self.variable_dtype)
        matrix, found = self.product.forward(ops.convert_to_tensor(self.coded_kernel), identity)
        if ops.convert_to_numpy(found.uncorrectable) > 0:
            raise ValueError(
                f"More of layer {self.name!r}'s shards are wrong than its code corrects, so its weights are lost; go "
                f"back to a checkpoint, or use a code with more redundancy. Received: {self.code!r}"
            )
        return matrix

    def set_kernel(self, kernel: Any, bias: Any = None) -> None:
        """Encode and store a kernel of the Keras layer's shape, and its bias."""
        inputs, outputs = self._sizes
        matrix = ops.reshape(ops.cast(kernel, self.variable_dtype), (inputs, outputs))
        if self.use_bias:
            matrix = ops.concatenate([matrix, ops.reshape(ops.cast(bias, self.variable_dtype), (1, outputs))], axis=0)
        self.coded_kernel.assign(self.product.layout.encode(matrix))

    def _products(self, x: Any) -> Any:
        """``x W + b`` for x of shape (rows, inputs), checked, with a gradient that is checked too."""
        if self.use_bias:
            x = ops.concatenate([x, ops.ones_like(x[:, :1])], axis=1)
        step = ops.convert_to_tensor(self.step) * 1
        self.step.assign_add(1)
        coded = ops.reshape(self.coded_kernel, self.product.layout.shape)  # read here: a gradient of ours knows tensors
        y, record, wrong = with_coded_gradient(self, step)(x, coded)
        self.note("forward", wrong, record)
        if self.kernel_regularizer is not None:
            self.add_loss(self.kernel_regularizer(self.kernel))
        return self._replicated(y, step, "decode")

    def strikes(self, stage: str) -> bool:
        """Whether anything can go wrong in a stage."""
        return self.faults is not None and self.faults.strikes(stage)

    def _activated(self, y: Any) -> Any:
        """The activation, computed twice and compared where faults may strike it."""
        if self.activation is keras.activations.linear:
            return y
        return self._replicated(self.activation(y), ops.convert_to_tensor(self.step), "nonlinear")

    def _replicated(self, values: Any, step: Any, stage: str) -> Any:
        """Two replicas compared; a third decides where they differ."""
        if not self.strikes(stage):
            return values
        vote = voted(values, self.corruption, step, stage)
        corrected = vote.detected * (1.0 - vote.hopeless)
        self.counts.assign_add(ops.stack([vote.injected, vote.detected, corrected, ops.zeros(()), vote.missed]))
        self.hopeless.assign(ops.maximum(self.hopeless, vote.hopeless))
        return in_place_of(vote.taken, values)

    def note(self, stage: str, wrong: Any, record: Any) -> None:
        """Keep what the check of a product said."""
        self.wrong[stage].assign(ops.maximum(self.wrong[stage], wrong))
        self.counts.assign_add(record[: len(EVENTS)])
        self.hopeless.assign(ops.maximum(self.hopeless, record[-1]))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, with code and faults as Keras objects."""
        serialized = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "code": serialized(self.code),
            "faults": serialized(self.faults),
            "adversarial": self.adversarial,
            "input_gradient": self.input_gradient,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _revived(described: Any) -> Any:
    """From its Keras configuration, where a layer's own configuration holds one."""
    if isinstance(described, dict):
        return keras.saving.deserialize_keras_object(described)
    return described
