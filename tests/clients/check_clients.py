"""`make test-integrations`: what the large libraries log to MLflow, unmodified, behind the prefix.

Each program of `support/programs` leaves in the store what it leaves there with the plain URI:
points, params, tags, status, datasets, artifacts and logged models. `make test` does not collect
this file, because of its name.
"""

import pytest

from same_contents import Comparison

CLIENTS = [
    pytest.param(name, marks=pytest.mark.xdist_group(name))
    for name in (
        "transformers_callback",
        "lightning_logger",
        "accelerate_tracker",
        "optuna_callback",
    )
]


@pytest.mark.parametrize("name", CLIENTS)
def test_sqlite_holds_what_it_holds_without_the_prefix(name: str, compared: Comparison) -> None:
    assert compared.on_sqlite(name) == []


@pytest.mark.server
@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_that_was_killed_and_restarted_holds_the_same(
    name: str, compared: Comparison
) -> None:
    assert compared.on_a_server(name) == []
