"""Accuracy and energy at every voltage or rate, over chips."""
