"""A network in integers alone: what LiteRT, a C program and a testbench compute, code for code."""
