"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import axtrain


def test_examples_in_docstrings():
    attempted = 0
    for module in pkgutil.walk_packages(axtrain.__path__, "axtrain."):
        if module.name.endswith("__main__"):
            continue
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0, module.name
        attempted += result.attempted
    assert attempted > 30  # statements; fewer would mean that the search for examples broke
