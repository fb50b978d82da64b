from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.loopback import Loopback, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A server of what a module puts into its folder."""
    with serving(tmp_path_factory.mktemp("served")) as loopback:
        yield loopback
