"""A model with coded layers: its training step keeps the code, mends what it finds and rolls back what it cannot."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from axtrain.coded.gradients import EVENTS
from axtrain.coded.layer import CodedLayer
from axtrain.coded.optimizers import clipped, clipping_left_out, keeps_codes, refuse
from axtrain.coded.renewal import best_interval, success
from axtrain.coded.snapshots import Snapshot
from axtrain.coded.upkeep import corrupt_memory, mend, settle
from axtrain.model_walk import all_layers
from axtrain.registration import register
from axtrain.step_model import TrainingModel

ALL_EVENTS = (*EVENTS, "rolled_back")
"""What `fit` logs: each summed over the layers and the steps of an epoch."""


@register("CodedModel")
class CodedModel(TrainingModel):
    """A Functional model whose `fit` survives soft errors in its coded layers.

    Made by `axtrain.coded.convert`. After each step shards behind wrong results are regenerated from the others; a
    step with an error beyond correction, or a loss that is not finite, is undone together with all since the last
    checkpoint in memory. `fit` logs `ALL_EVENTS`.
    """

    def __init__(self, *args, **kwargs) -> None:
        self.checkpoint_every = kwargs.pop("checkpoint_every", "auto")
        self.allow_reencode = kwargs.pop("allow_reencode", False)
        every = self.checkpoint_every
        if (
            every is not None
            and every != "auto"
            and (isinstance(every, bool) or not isinstance(every, int) or every < 1)
        ):
            raise ValueError(
                "`checkpoint_every` must be a number of steps, 'auto' or None (never roll back). "
                f"Received: checkpoint_every={every!r}"
            )
        super().__init__(*args, **kwargs)
        self._events = {name: keras.metrics.Sum(name=name) for name in ALL_EVENTS}
        self._totals = self.add_weight(shape=(len(ALL_EVENTS),), initializer="zeros", trainable=False, name="events")
        self._steps_since = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="steps_since_checkpoint"
        )
        self._kept: Snapshot | None = None
        self._plain: dict[int, Any] = {}

    @property
    def coded_layers(self) -> list[CodedLayer]:
        """In the model's order."""
        return [layer for layer in all_layers(self) if isinstance(layer, CodedLayer)]

    @property
    def events(self) -> dict[str, int]:
        """Everything counted since the model was made."""
        return {name: int(count) for name, count in zip(ALL_EVENTS, ops.convert_to_numpy(self._totals), strict=True)}

    @property
    def interval(self) -> int | None:
        """Steps between two checkpoints in memory; chosen from the rate of errors by the renewal formula if `auto`."""
        if self.checkpoint_every != "auto":
            return self.checkpoint_every
        q = 1.0
        for layer in self.coded_layers:
            if layer.faults is not None:
                q *= success(layer.code, layer.faults.seen_rate)
        return min(best_interval(q), 1000)

    def compile(self, optimizer: Any = "sgd", *args, **kwargs) -> None:
        """As Keras's, and refuses an optimizer that would leave the code.

        Raises:
            ValueError: an optimizer that is not linear in the gradients, without `allow_reencode`.
        """
        super().compile(optimizer, *args, **kwargs)
        self._kept, self._plain = None, {}
        if self.optimizer is None or keeps_codes(self.optimizer):
            return
        if not self.allow_reencode:
            refuse(self.optimizer)
        for layer in self.coded_layers:
            plain = keras.Variable(self._decoded(layer, layer.coded_kernel), trainable=True, name=f"{layer.name}_plain")
            self._plain[id(layer.coded_kernel)] = (layer, plain)
        self._build_optimizer()  # its slots are of the plain weights

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as saved; called by Keras when it loads a file."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def _build_optimizer(self) -> None:
        if not self.optimizer.built:
            self.optimizer.build([self._target(variable) for variable in self.trainable_variables])

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras's; makes room for the checkpoint first."""
        if self._kept is None and self.interval is not None and self.optimizer is not None:
            self._build_optimizer()
            own = {id(self._totals), id(self._steps_since)}
            own |= {id(part) for layer in self.coded_layers for part in (layer.step, layer.counts, layer.hopeless)}
            variables = [*self.trainable_variables, *self.non_trainable_variables, *self.optimizer.variables]
            for metric in self.metrics:
                if metric not in self._events.values():
                    variables += metric.variables
            self._kept = Snapshot([v for v in variables if id(v) not in own and v.dtype != "string"])
        return super().make_train_function(force)

    def fit(self, *args, **kwargs) -> Any:
        """As Keras's; what its first step begins with, put there by callbacks too, is its first checkpoint."""
        if self._kept is not None:
            self._kept.empty.assign(True)
            self._steps_since.assign(0)
        return super().fit(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one batch, with what happened in it."""
        import tensorflow as tf

        if self._kept is not None:
            ops.cond(self._kept.empty.value, self._kept.keep, lambda: ops.zeros(()))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        for layer in self.coded_layers:
            corrupt_memory(layer)
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
        variables = self.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        failed = self._mend(loss)
        self._apply(gradients, variables)
        rolled_back = self._go_back(failed)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(keras.tree.flatten(x)[0])[0])
        logs = self.compute_metrics(x, y, outputs, sample_weight=sample_weight)
        self._count(rolled_back)
        return {**logs, **{name: metric.result() for name, metric in self._events.items()}}

    def test_step(self, data: Any) -> dict[str, Any]:
        """As Keras's, counting too."""
        logs = super().test_step(data)
        self._count(ops.zeros(()))
        return {**logs, **{name: metric.result() for name, metric in self._events.items()}}

    def _apply(self, gradients: list, variables: list) -> None:
        layers = {id(layer.coded_kernel): layer for layer in self.coded_layers}
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        gradients, variables = [g for g, _ in pairs], [v for _, v in pairs]
        clips = any(getattr(self.optimizer, name) is not None for name in ("clipnorm", "global_clipnorm", "clipvalue"))
        if clips or self._plain:
            decoded = [self._decoded(layers[id(v)], g) if id(v) in layers else g for g, v in pairs]
            gradients = clipped(self.optimizer, decoded if self._plain else gradients, decoded)
        for layer, plain in self._plain.values():
            plain.assign(self._decoded(layer, layer.coded_kernel))
        with clipping_left_out(self.optimizer):
            self.optimizer.apply(gradients, [self._target(variable) for variable in variables])
        for layer, plain in self._plain.values():
            layer.coded_kernel.assign(layer.product.layout.encode(ops.convert_to_tensor(plain)))

    def _target(self, variable: Any) -> Any:
        """What the optimizer updates in the place of a variable."""
        return self._plain[id(variable)][1] if id(variable) in self._plain else variable

    @staticmethod
    def _decoded(layer: CodedLayer, coded: Any) -> Any:
        return layer.product.layout.decode(ops.convert_to_tensor(coded))

    def _mend(self, loss: Any) -> Any:
        """Mend what is stored; whether the step failed. Where it did not and it is time, keep a checkpoint.

        Before the update: what both passes have seen is verified, what the update makes of it is not yet. What they
        may not have seen, behind inputs that are zero, is looked at before it is kept.
        """
        failed = ops.logical_or(self._beyond(), ops.logical_not(ops.isfinite(loss)))
        due = ops.zeros((), "bool")
        if self._kept is not None:
            due = ops.logical_and(self._steps_since % self.interval == 0, ops.logical_not(failed))
        for layer in self.coded_layers:
            mend(layer, self._coded_slots(layer), due)
        failed = ops.logical_or(failed, self._beyond())
        for layer in self.coded_layers:
            layer.hopeless.assign(ops.zeros(()))
        if self._kept is not None:
            ops.cond(ops.logical_and(due, ops.logical_not(failed)), self._kept.keep, lambda: ops.zeros(()))
            self._steps_since.assign(ops.where(failed, 1, self._steps_since % self.interval + 1))
        return failed

    def _beyond(self) -> Any:
        return ops.max(ops.stack([layer.hopeless.value for layer in self.coded_layers])) > 0.5

    def _go_back(self, failed: Any) -> Any:
        """To the last checkpoint, if the step failed; 1 where it went back.

        What rounding had put between its shards is taken out: a check that found it would find it again.
        """
        if self._kept is None:
            return ops.zeros(())

        def back():
            gone = self._kept.restore()
            for layer in self.coded_layers:
                settle(layer, self._coded_slots(layer))
            return gone

        return ops.cond(failed, back, lambda: ops.zeros(()))

    def _coded_slots(self, layer: CodedLayer) -> list:
        return [] if self._plain else self._slots(layer.coded_kernel)

    def _slots(self, variable: Any) -> list:
        """The optimizer's variables of one of ours, coded as it is.

        They bear its path, which layers of one name in different models share; of each kind they come in the order
        of the optimizer's variables.
        """
        name = variable.path.replace("/", "_")
        alike = [own for own in self.optimizer._trainable_variables if own.path.replace("/", "_") == name]
        place = next((index for index, own in enumerate(alike) if own is variable), None)
        if place is None:  # the optimizer is not built yet
            return []
        kinds: dict[str, list] = {}
        for slot in self.optimizer.variables:
            if f"/{name}_" in slot.path:
                kinds.setdefault(slot.path, []).append(slot)
        return [slots[place] for slots in kinds.values() if slots[place].shape == variable.shape]

    def _count(self, rolled_back: Any) -> None:
        counts = sum(layer.counts.value for layer in self.coded_layers)
        counts = ops.concatenate([counts, ops.reshape(ops.cast(rolled_back, "float32"), (1,))])
        for index, metric in enumerate(self._events.values()):
            metric.update_state(counts[index])
        self._totals.assign_add(counts)
        for layer in self.coded_layers:
            layer.counts.assign(ops.zeros_like(layer.counts))

    def get_config(self) -> dict[str, Any]:
        """The network's, and how it goes back."""
        own = {"checkpoint_every": self.checkpoint_every, "allow_reencode": self.allow_reencode}
        return {**super().get_config(), **own}
