"""ONNX files of an `IntegerNetwork`."""
