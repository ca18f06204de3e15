"""Every example in a docstring runs."""

import doctest
import importlib
import inspect
import pkgutil

import axtrain


def test_examples_in_docstrings():
    attempted = 0
    for module in pkgutil.walk_packages(axtrain.__path__, "axtrain."):
        if module.name.endswith("__main__"):
            continue
        found = importlib.import_module(module.name)
        if ">>>" not in inspect.getsource(found):  # the search for examples takes longer than to see that
            continue
        result = doctest.testmod(found)
        assert result.failed == 0, module.name
        attempted += result.attempted
    assert attempted > 30  # statements; fewer would mean that the search for examples broke
