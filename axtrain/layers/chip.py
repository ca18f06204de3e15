"""Chips and noise streams: the seeds that a layer's hardware draws from."""

from __future__ import annotations

import keras
from keras import ops


class ChipSeed(keras.random.SeedGenerator):
    """A seed that stays: every draw gives the same numbers, as a chip has the same faulty cells at every read."""

    def next(self, ordered=True):
        """The current state, not advanced."""
        return self.state.value * 1


class NoiseStream(keras.random.SeedGenerator):
    """Numbers for noise that belongs to single activations.

    Replicas of one model share their seeds. That is right for a memory, which is one chip's, and wrong for
    the activations, which are each replica's own: so the replica is folded in here.
    """

    def next(self, ordered=True):
        """The next state, of this replica."""
        seed = super().next(ordered)
        replica = _replica()
        if replica is None:
            return seed
        # The odd constant (2^32 over the golden ratio) sends neighbouring replicas far apart.
        fold = ops.cast(replica, seed.dtype) * ops.cast(0x9E3779B1 >> 1, seed.dtype)
        return seed + ops.stack([fold, ops.zeros_like(fold)])


def _replica():
    """Which replica this is, or `None` outside of `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context.replica_id_in_sync_group
