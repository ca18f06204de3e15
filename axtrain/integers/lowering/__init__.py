"""From a Keras model to an `IntegerNetwork`."""
