"""Bit-exact emulation of approximate multipliers at the speed of matrix products.

`matmul` and `conv2d` give the int32 sums that the accelerator's accumulators hold, for any table. `register_engine`
adds a way to compute them.
"""

from __future__ import annotations

from axtrain.emulation.engine import Engine, register_engine
from axtrain.emulation.operations import conv2d, depthwise_conv2d, matmul

__all__ = ["Engine", "conv2d", "depthwise_conv2d", "matmul", "register_engine"]
