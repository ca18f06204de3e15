"""Other libraries' techniques on Keras 3 models: what goes in comes back as a Keras 3 model."""

from axtrain.interop import tfmot

__all__ = ["tfmot"]
