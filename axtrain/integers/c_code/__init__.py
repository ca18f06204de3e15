"""An `IntegerNetwork` as C99."""
