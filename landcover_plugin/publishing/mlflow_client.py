"""The door to MLflow: whether it is there, which registry is meant, and its errors as sentences."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import LandcoverError

#: Variables by which MLflow itself is told where the registry is.
VARIABLES = ('MLFLOW_REGISTRY_URI', 'MLFLOW_TRACKING_URI')

#: How MLflow behaves unless the user says otherwise: a silent server is asked again 3 times (not 7, over minutes),
#: neither addresses of runs nor a bar for each file go to the terminal, and its makers are told nothing.
_HABITS = {
    'MLFLOW_HTTP_REQUEST_MAX_RETRIES': '3',
    'MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT': 'true',
    'MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR': 'false',
    'MLFLOW_DISABLE_TELEMETRY': 'true',
}


def find_registry(registry: str | None = None) -> str:
    """The address of the registry: as given, or as the environment names it.

    Raises:
        LandcoverError: If nothing names one, or what does is no address.
    """
    found = registry or next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)
    if found is None:
        raise LandcoverError(
            'no model registry is named: set MLFLOW_TRACKING_URI (or --registry of landcover register) to a server, '
            'http://HOST:5000, or to a file, sqlite:///registry.db'
        )
    if '://' not in found and found != 'databricks':
        raise LandcoverError(f'{found} is no address of a registry: expected http://HOST:5000 or sqlite:///registry.db')
    return found


def connect(registry: str) -> Any:
    """A client of the registry (``mlflow.MlflowClient``), for models and runs alike.

    Raises:
        LandcoverError: If MLflow is not installed, or there is no such registry.
    """
    for name, value in _HABITS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise LandcoverError(
            f"MLflow is not installed ({error.name} is missing): pip install 'landcover-plugin[mlflow]'"
        ) from error
    for name in ('mlflow', 'alembic'):  # tells of every table that it makes in a new file
        logging.getLogger(name).setLevel(logging.WARNING)
    with told(registry):
        return MlflowClient(tracking_uri=registry, registry_uri=registry)


@contextmanager
def told(registry: str) -> Iterator[None]:
    """Errors of MLflow as one sentence.

    Raises:
        LandcoverError: In the place of an error of MLflow or of a package that it needs for this registry.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        reason = str(error).strip().splitlines()[0]
        if 'Max retries exceeded' in reason or 'Connection' in reason:
            raise LandcoverError(
                f'the registry {without_password(registry)} does not answer: start it, or correct its address'
            ) from error
        raise LandcoverError(f'the registry {without_password(registry)} refuses: {reason.rstrip(".")}') from error
    except ImportError as error:
        raise LandcoverError(
            f"MLflow cannot open {without_password(registry)} ({error}): pip install 'landcover-plugin[mlflow]'"
        ) from error


def without_password(registry: str) -> str:
    """An address without user and password, for messages.

    Examples:
        >>> without_password('https://user:secret@models.example/x')
        'https://models.example/x'
    """
    scheme, _, rest = registry.partition('://')
    host, slash, path = rest.partition('/')
    return f'{scheme}://{host.rpartition("@")[2]}{slash}{path}' if rest else registry
