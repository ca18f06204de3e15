"""The ground floor: the physics of approximate multipliers and unreliable memories.

No Keras layer and no model is known here. Multipliers and tables need NumPy alone;
memory faults are written in ``keras.ops``.
"""

if __name__ != "axtrain.noise_models":
    raise ImportError(
        "This folder is the package `axtrain.noise_models`; imported on its own it would make a second copy "
        f"of every class. Use `import axtrain.noise_models`. Received: import of {__name__!r}."
    )
