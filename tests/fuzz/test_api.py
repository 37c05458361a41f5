"""The server's API under requests that its own description allows, and some that it does not.

Schemathesis reads ``/openapi.json`` and makes requests of it; whatever comes back has to be
described there, too. ``FUZZ_EXAMPLES=500`` makes more of each call.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fleet_server.app import create_app
from fleet_server.config import RequestsConfig, ServerConfig
from fleet_server.services.suite import Services

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "6"))
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
ENDLESS = "/api/v1/events/stream"
LAST = "/api/v1/tokens/{name}"
"""It may end the token that asks."""


@pytest.fixture(scope="module")
def secret() -> list[str]:
    """The operator's token, once there is a server."""
    return []


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, secret: list[str]) -> Iterator[Any]:
    config = ServerConfig(
        data_dir=str(tmp_path_factory.mktemp("api")),
        requests=RequestsConfig(per_second=1_000_000, refused_per_minute=1_000_000),
    )
    services = Services.open(config)
    secret.append(services.tokens.create("fuzz", "operator"))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(config, services))
    services.database.close()


schema = schemathesis.pytest.from_fixture("api").exclude(path=[ENDLESS, LAST])


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_every_answer_is_described(case: Any, secret: list[str]) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {secret[0]}"}, checks=CHECKS)
