"""Scripts are read from model names; what is not in the docs is no model."""

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.providers.script import Script, parse_script


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("echo", Script("echo")),
        ("echo?delay=20ms&first=2s", Script("echo", first=2.0, delay=0.02)),
        ("count?n=200&delay=5ms&size=17", Script("count", delay=0.005, n=200, size=17)),
        ("fail?after=5&with=hang", Script("fail", after=5, fault="hang")),
        ("fail?with=rate_limited&retry=1500ms", Script("fail", fault="rate_limited", retry_after_ms=1500)),
        ("fail", Script("fail", fault="overloaded")),
    ],
)
def test_reads_shape_and_parameters(name: str, script: Script) -> None:
    assert parse_script(name) == script


@pytest.mark.parametrize(
    "name",
    [
        "", "other", "echo?n=3", "count?n=-1", "count?n=9999999", "count?n=2&n=3", "count?n", "count?n=",
        "echo?delay=20", "echo?delay=3601s", "echo?delay=1e3ms", "fail?with=magic",
        "echo?" + "&".join(f"x{i}=1" for i in range(100)),
    ],
)  # fmt: skip
def test_anything_else_is_no_model(name: str) -> None:
    with pytest.raises(GatewayError) as caught:
        parse_script(name)
    assert caught.value.reason == error_pb2.ERROR_REASON_MODEL_NOT_FOUND
    assert caught.value.metadata == {"model": f"scripted/{name}"}
