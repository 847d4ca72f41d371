"""What the tests of real clients share: programs run once with the plain URI."""

from pathlib import Path

import pytest

from same_contents import Comparison


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Comparison:
    """Compares what a program leaves in stores, with the prefix and without."""
    return Comparison(tmp_path_factory.mktemp("clients"), empty_store)
