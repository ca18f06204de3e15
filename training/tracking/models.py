"""Models as `mlflow.pyfunc`: our loader module and the `.keras` file as data, without a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOADER = "axtrain.training.pyfunc"
"""The module that MLflow imports to load a logged model."""

DIGEST = "axtrain.digest"
"""Tag by which a logged model is known again."""


def packed(model, folder: Path, *, name: str, x: Any = None, registered_name: str | None = None) -> dict[str, Any]:
    """Writes a model and its example to a folder, and describes it for `Delivery`.

    Args:
        model: any Keras model.
        folder: empty.
        name: of the logged model.
        x: input samples, or by name for several inputs; the first two are the example, and of their outputs is the
            signature; `None` has neither.
        registered_name: also a version of this registered model.
    """
    import keras
    import numpy as np

    from axtrain.running_state import state_kept
    from axtrain.training.kept_figures import network_digest

    model.save(folder / "model.keras")
    signature = None
    if x is not None:
        from mlflow.models import infer_signature

        example = keras.tree.map_structure(lambda array: np.asarray(array)[:2], x)
        with state_kept(model):
            predicted = keras.tree.map_structure(np.asarray, model.predict(example, verbose=0))
        signature = infer_signature(example, predicted).to_dict()
        arrays = example if isinstance(example, dict) else {"": example}
        if any(np.asarray(array).dtype.hasobject for array in arrays.values()):  # NumPy would pickle them
            raise ValueError(f"The example must be arrays of numbers. Received: {arrays!r}")
        np.savez(folder / "example.npz", **{f"_{key}": value for key, value in arrays.items()})
    content = {"op": "model", "name": name, "digest": network_digest(model), "signature": signature}
    return {**content, "registered_name": registered_name}


def deliver_model(client, run_id: str, content: dict[str, Any], files: Path) -> Any:
    """Logs a packed model to a run of MLflow's tracking URI, unless it is there; a half logged one is logged anew.

    Returns:
        MLflow's `ModelInfo`.
    """
    import mlflow

    from axtrain import __version__

    name, registered = content["name"], content["registered_name"]
    run = client.get_run(run_id)
    for logged in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'"):
        if logged.name != name or logged.tags.get(DIGEST) != content["digest"]:
            continue
        if str(logged.status) == "READY":
            return _registered(client, logged, registered)
        client.delete_logged_model(logged.model_id)
    logged = client.create_logged_model(
        run.info.experiment_id, name, run_id, {DIGEST: content["digest"]}, dict(run.data.params)
    )
    described = content["signature"]
    return mlflow.models.Model.log(
        artifact_path=None,
        flavor=mlflow.pyfunc,
        name=name,
        run_id=run_id,
        model_id=logged.model_id,
        registered_model_name=registered,
        loader_module=LOADER,
        data_path=str(files / "model.keras"),
        signature=None if described is None else mlflow.models.ModelSignature.from_dict(described),
        input_example=_example(files / "example.npz"),
        pip_requirements=[f"axtrain=={__version__}"],
    )


def _registered(client, logged, registered_name: str | None) -> Any:
    import mlflow

    uri = f"models:/{logged.model_id}"
    if registered_name is not None:
        quoted = registered_name.replace("'", "\\'")
        versions = client.search_model_versions(f"name = '{quoted}'")
        if all(version.source != uri for version in versions):
            mlflow.register_model(uri, registered_name)
    return mlflow.models.get_model_info(uri)


def _example(path: Path) -> Any:
    if not path.is_file():
        return None
    from axtrain.noise_models.reading import read_arrays

    arrays = read_arrays(path, "an example of a model's input", "log the model again")
    found = {key[1:]: array for key, array in arrays.items()}
    return found[""] if list(found) == [""] else found
