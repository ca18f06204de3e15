"""MLflow's store in seconds: the same client, but a server that is down is noticed at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

UPLOAD = 120
"""Seconds that a server may take to store a file, MLflow's own default."""


@contextmanager
def patience(seconds: int = 10, *, retries: int = 1) -> Iterator[None]:
    """How long MLflow's client waits for a server inside; by itself it tries for minutes.

    MLflow takes these from the environment alone. One that the user has set stays, and all are put back.

    Args:
        seconds: for each request.
        retries: of a request that failed.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # else two lines for each child run
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def at(tracking_uri: str) -> Iterator[None]:
    """MLflow's tracking URI for the functions that take none; the one before is put back."""
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    if before == tracking_uri:
        yield
        return
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None is MLflow's own choice again


def resolved(tracking_uri: str | os.PathLike[str] | None) -> str:
    """The tracking URI that is meant: MLflow's own choice for `None`, and a relative SQLite file from here."""
    import mlflow

    uri = mlflow.get_tracking_uri() if tracking_uri is None else tracking_uri
    if isinstance(uri, os.PathLike):
        return Path(uri).absolute().as_uri()
    found = re.fullmatch(r"sqlite:///([^/].*)", uri)
    return uri if found is None else f"sqlite:///{Path(found[1]).absolute()}"


def without_password(tracking_uri: str) -> str:
    """The URI as it may be written down and shown."""
    parts = urlsplit(tracking_uri)
    if "@" not in parts.netloc:
        return tracking_uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def refusal(error: BaseException) -> str | None:
    """Why the store did not take something, in a few words; `None` for an error that is the caller's own."""
    from mlflow.exceptions import MlflowException, RestException

    message = str(error)
    answered = isinstance(error, MlflowException)
    if answered and not isinstance(error, RestException) and not message.startswith("API request to"):
        return message if getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE" else None
    if not answered and not isinstance(error, OSError):  # `requests` raises OSErrors
        return None
    if "timed out" in message.lower():
        return "no answer in time"
    system = re.search(r"\[Errno -?\d+\] ([^'\")]+)", message)
    return system[1].strip() if system else message.splitlines()[0][:300] if message else type(error).__name__
