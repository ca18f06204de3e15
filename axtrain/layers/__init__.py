"""Keras layers that play a piece of hardware in their forward pass."""

from __future__ import annotations

from axtrain.layers.base import ApproximateLayer
from axtrain.layers.convolutional import ApproxConv1D, ApproxConv2D, ApproxDepthwiseConv2D
from axtrain.layers.dense import ApproxDense

__all__ = ["ApproxConv1D", "ApproxConv2D", "ApproxDense", "ApproxDepthwiseConv2D", "ApproximateLayer"]
