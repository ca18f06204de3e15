"""The weight memory's image, for a testbench."""
