"""The API's description is true: requests made from it, and requests that break it, get a reply that it describes.

Two thousand requests: make test-more ROUNDS=50 ARGS=tests/serve/test_openapi.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema_rs import validator_for

from multimodal.serve.app import make_app
from multimodal.serve.served import Stores

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, photo_store: Path) -> Iterator[TestClient]:
    copied = shutil.copytree(photo_store, tmp_path_factory.mktemp("described") / "store")
    with TestClient(make_app(Stores.open([str(copied)])), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="module")
def description(client: TestClient) -> dict[str, Any]:
    return client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def operations(description: dict[str, Any]) -> list[Any]:
    return [found.ok() for found in schemathesis.openapi.from_dict(description).get_all_operations()]


@pytest.mark.parametrize("is_valid", [True, False])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_reply_is_one_that_the_description_has(
    client: TestClient, description: dict[str, Any], operations: list[Any], is_valid: bool, data: st.DataObject
) -> None:
    mode = schemathesis.GenerationMode.POSITIVE if is_valid else schemathesis.GenerationMode.NEGATIVE
    operation = data.draw(st.sampled_from(operations))
    case = data.draw(operation.as_strategy(generation_mode=mode))
    request = {name: value for name, value in case.as_transport_kwargs(base_url="http://testserver").items() if value is not None}
    request.pop("cookies", None)
    if isinstance(request.get("data"), bytes):
        request["content"] = request.pop("data")
    reply = client.request(**request)
    described = operation.definition.raw["responses"]
    assert str(reply.status_code) in described or reply.status_code == 405, (request, reply.status_code, reply.text[:500])
    if str(reply.status_code) not in described:
        return
    content = described[str(reply.status_code)].get("content", {})
    if "application/json" in content and reply.headers["content-type"] == "application/json":
        schema = {**content["application/json"]["schema"], "components": description["components"]}
        validator_for(schema).validate(json.loads(reply.content))
