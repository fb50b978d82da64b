"""MLflow's store: where it is, whether it answers, and MLflow without its patience and messages."""

from __future__ import annotations

import logging
import os
import re
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from fdta.errors import InputError

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own switches while it works here."""
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
"""Likewise, where the user did not set them: MLflow would try again for minutes."""
CONNECT_SECONDS = 5
SCHEMES = ("http", "https", "sqlite", "file", "databricks", "")
SQLITE = "sqlite:///"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def without_password(uri: str) -> str:
    """`uri` as it may be printed."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        raise InputError(f"{re.sub('//.*@', '//***@', uri)}: no address of a tracking server") from None
    return uri if parts.password is None else uri.replace(f":{parts.password}@", ":***@", 1)


def check_reachable(uri: str) -> None:
    """Raise at once where MLflow itself would try again for minutes.

    Raises:
        InputError: MLflow has no such addresses.
        OSError: nothing answers at `uri`.
        HTTPException: what answers is no HTTP.
        sqlite3.Error: the file of `uri` is no database, or cannot be one.
    """
    place = urlsplit(uri)
    scheme = place.scheme.partition("+")[0]
    if scheme not in (*SCHEMES, *DATABASE_PORTS):
        raise InputError(
            f"{without_password(uri)}: no address of a tracking server; give http://, https:// or sqlite:///"
        )
    if scheme in ("http", "https"):
        # Somebody answers with or without the password.
        bare = place._replace(netloc=place.netloc.rpartition("@")[2])
        try:
            urllib.request.urlopen(bare.geturl(), timeout=CONNECT_SECONDS).close()
        except urllib.error.HTTPError:
            return  # Somebody answers; MLflow reports better what is wrong.
    elif scheme in DATABASE_PORTS and place.hostname:
        address = place.hostname, place.port or DATABASE_PORTS[scheme]
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    elif uri.startswith(SQLITE):
        with closing(sqlite3.connect(uri.removeprefix(SQLITE))) as database:
            database.execute("PRAGMA schema_version")


@contextmanager
def quietly() -> Iterator[None]:
    """MLflow without its messages, its telemetry and its patience."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [one.level for one in loggers]
    before = {name: os.environ.get(name) for name in (*QUIET, *IMPATIENT)}
    os.environ.update(QUIET | {name: value for name, value in IMPATIENT.items() if name not in os.environ})
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
