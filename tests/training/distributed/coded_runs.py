"""Trainings on coded nodes, step by step, beside Keras's own on the same samples."""

import keras
import numpy as np

from axtrain.coded import CodeNet
from axtrain.training.distributed import CodedTrainer

CODE = CodeNet(1, 2, 1)  # eight nodes
FIT = {"batch_size": 16, "epochs": 3, "verbose": 0, "seed": 2}


_KNOWN = {}


def plain_losses(network, data, steps=12):
    """Of Keras's own training steps on the same samples; the same network and data are trained once."""
    values = [*network.get_weights(), *data]
    key = (str(network.get_compile_config()), steps, *(value.tobytes() for value in values))
    if key not in _KNOWN:
        _KNOWN[key] = _trained(network, data, steps)
    losses, weights = _KNOWN[key]
    return list(losses), [weight.copy() for weight in weights]


def _trained(network, data, steps):
    model = keras.models.clone_model(network)
    model.set_weights(network.get_weights())
    model.compile_from_config(network.get_compile_config())
    losses = []
    for step in range(steps):
        order = np.random.default_rng([2, step // 4]).permutation(64)[16 * (step % 4) :][:16]
        losses.append(float(model.train_on_batch(data[0][order], data[1][order], return_dict=True)["loss"]))
        model.reset_metrics()
    return losses, model.get_weights()


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.means = []

    def on_train_batch_end(self, batch, logs=None):
        self.means.append(logs["loss"])

    @property
    def each(self):
        """Of single steps, from an epoch's running means."""
        count = np.arange(len(self.means)) % 4 + 1
        sums = np.array(self.means) * count
        return np.where(count == 1, sums, np.diff(sums, prepend=0))


def fitted(network, data, executor, code=CODE, **options):
    losses = Losses()
    trainer = CodedTrainer(network, code, executor, **{"deadline": None, **options.pop("trainer", {})})
    history = trainer.fit(*data, callbacks=[losses], **{**FIT, **options})
    return trainer, losses.each, history
