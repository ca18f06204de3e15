"""LiteRT files of an `IntegerNetwork`, and how they compare."""
