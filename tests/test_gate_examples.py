"""The configurations of examples/gate that the suite does not run: their syntax, and what the gate needs of them."""

from typing import Any

import yaml

from latchkey.service.gate.decision import IDENTITY
from latchkey.service.gate.original import ENVOY_CLIENT, ENVOY_URI
from latchkey.service.routes import ROUTES
from tests.proxies import EXAMPLES

PATHS = {one.path for one in ROUTES if one.any_request}


def read(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def find(name: str, place: Any) -> list[Any]:
    """Return the values of a name, at any depth."""
    if isinstance(place, list):
        return [found for one in place for found in find(name, one)]
    if not isinstance(place, dict):
        return []
    own = [place[name]] if name in place else []
    return own + [found for one in place.values() for found in find(name, one)]


def test_traefik_replaces_all_headers_of_the_gate() -> None:
    http = read("traefik-services.yaml")["http"]
    (forward_auth,) = find("forwardAuth", http)

    assert "/" + forward_auth["address"].split("/", 3)[3] in PATHS
    assert forward_auth["trustForwardHeader"] is False
    assert "authRequestHeaders" not in forward_auth
    assert [name.lower() for name in forward_auth["authResponseHeaders"]] == list(IDENTITY)


def test_traefik_asks_the_gate_first_for_every_router() -> None:
    static, http = read("traefik.yaml"), read("traefik-services.yaml")["http"]

    assert static["providers"]["file"]["filename"] == "traefik-services.yaml"
    assert not find("trustedIPs", static)
    assert not find("insecure", static)
    for router in http["routers"].values():
        assert "forwardAuth" in http["middlewares"][router["middlewares"][0]]
        assert set(router["middlewares"]) <= set(http["middlewares"])
        assert router["service"] in http["services"]
        assert set(router["entryPoints"]) <= set(static["entryPoints"])


def test_envoy_asks_the_gate_before_it_routes() -> None:
    (manager,) = find("filters", read("envoy.yaml")["static_resources"]["listeners"])[0]
    config = manager["typed_config"]
    names = [one["name"] for one in config["http_filters"]]
    clusters = {one["name"] for one in read("envoy.yaml")["static_resources"]["clusters"]}

    assert names == ["envoy.filters.http.ext_authz", "envoy.filters.http.router"]
    assert (config["normalize_path"], config["merge_slashes"]) == (False, False)
    assert config["path_with_escaped_slashes_action"] == "KEEP_UNCHANGED"
    assert config["use_remote_address"] is True
    assert set(find("cluster", config)) <= clusters
    (latchkey,) = (
        one for one in read("envoy.yaml")["static_resources"]["clusters"] if one["name"] == "latchkey"
    )
    assert find("idle_timeout", latchkey) == ["3s"]


def test_envoy_describes_the_request_and_refuses_without_an_answer() -> None:
    (manager,) = find("filters", read("envoy.yaml")["static_resources"]["listeners"])[0]
    authz = manager["typed_config"]["http_filters"][0]["typed_config"]
    service = authz["http_service"]
    path, mark, query = service["path_prefix"].partition("?")

    assert path in PATHS
    assert mark + query == "?" + ENVOY_URI.decode()
    assert (authz["failure_mode_allow"], authz["status_on_error"]) == (False, {"code": "ServiceUnavailable"})
    assert authz["allowed_headers"]["patterns"] == [{"safe_regex": {"regex": ".*"}}]
    assert service["authorization_request"]["headers_to_add"] == [
        {"key": ENVOY_CLIENT.decode(), "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}
    ]
    (pattern,) = service["authorization_response"]["allowed_upstream_headers"]["patterns"]
    assert all(name.startswith(pattern["prefix"]) for name in IDENTITY)
    # Without this list the client gets all headers of a refusal, such as Retry-After.
    assert "allowed_client_headers" not in service["authorization_response"]
