"""The top floor: loops and evidence. Evaluation over chips, callbacks, tracking, the command line."""

if __name__ != "axtrain.training":
    raise ImportError(
        "This folder is the package `axtrain.training`; imported on its own it would make a second copy "
        f"of every class. Use `import axtrain.training`. Received: import of {__name__!r}."
    )
