"""Keras layers that play a piece of hardware in their forward pass."""

from __future__ import annotations

from axtrain.layers.attention import ApproxMultiHeadAttention
from axtrain.layers.base import ApproximateLayer
from axtrain.layers.convolutional import ApproxConv1D, ApproxConv2D, ApproxDepthwiseConv2D
from axtrain.layers.dense import ApproxDense
from axtrain.layers.einsum import ApproxEinsumDense
from axtrain.layers.recurrent import ApproxGRU, ApproxLSTM
from axtrain.layers.separable import ApproxSeparableConv2D
from axtrain.layers.transposed import ApproxConv2DTranspose

__all__ = [
    "ApproxConv1D",
    "ApproxConv2D",
    "ApproxConv2DTranspose",
    "ApproxDense",
    "ApproxDepthwiseConv2D",
    "ApproxEinsumDense",
    "ApproxGRU",
    "ApproxLSTM",
    "ApproxMultiHeadAttention",
    "ApproxSeparableConv2D",
    "ApproximateLayer",
]
