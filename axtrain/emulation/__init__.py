"""Bit-exact emulation of approximate multipliers at the speed of matrix products.

`matmul` and `conv2d` give the int32 sums that the accelerator's accumulators hold, for any table.
"""

from __future__ import annotations

from axtrain.emulation.operations import conv2d, depthwise_conv2d, matmul

__all__ = ["conv2d", "depthwise_conv2d", "matmul"]
