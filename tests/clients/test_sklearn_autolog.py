"""`mlflow.sklearn.autolog()` behind the prefix; `check_clients.py` has the large libraries."""

import pytest

from same_contents import Comparison

NAME = "sklearn_autolog"


def test_sqlite_holds_what_it_holds_without_the_prefix(compared: Comparison) -> None:
    assert compared.on_sqlite(NAME) == []


@pytest.mark.server
def test_a_server_that_was_killed_and_restarted_holds_the_same(compared: Comparison) -> None:
    assert compared.on_a_server(NAME) == []
