"""What we rely on inside fal-client, httpx and httpcore: a new version that changes it fails here, by its name."""

from __future__ import annotations

import dataclasses
import inspect
from datetime import datetime, timezone
from functools import cached_property

import fal_client
import fal_client.client
import httpcore
import httpx
import httpx_sse
import pytest
import urllib3
from httpcore._backends.sync import SyncStream
from requests.adapters import HTTPAdapter

WHY = "services/fal/fal_api.py, transport.py and connections.py stand on this; read what changed before you adapt them"

POOLS = (httpcore.ConnectionPool, httpcore.HTTPProxy)


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_fal_clients_sync_client_sends_with_what_a_subclass_gives_it():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Client(fal_client.SyncClient):
        http: object

        @cached_property
        def _client(self):
            return self.http

    marker = object()
    assert Client(http=marker)._client is marker, WHY
    client = fal_client.SyncClient(key="an-id:a-secret")
    for name in ("_client", "_token_manager", "_auth"):
        assert isinstance(inspect.getattr_static(client, name), cached_property), f"{name}: {WHY}"
    assert {"key", "default_timeout"} <= {field.name for field in dataclasses.fields(client)}, WHY
    assert client._auth.header_value == "Key an-id:a-secret", WHY
    assert "an-id" not in repr(client), WHY


@pytest.mark.parametrize(
    ("function", "needed"),
    [
        (fal_client.SyncClient.submit, {"application", "arguments", "webhook_url", "headers"}),
        (fal_client.SyncClient.upload, {"data", "content_type", "file_name"}),
        (fal_client.SyncClient.get_handle, {"application", "request_id"}),
        (fal_client.SyncClient._get_cdn_client, {"self"}),
        (fal_client.client.CDNTokenManager.__init__, {"auth"}),
        (fal_client.client.CDNTokenManager._refresh_token, {"self"}),
        (fal_client.client.CDNToken, {"token", "token_type", "base_upload_url", "expires_at"}),
        (httpx.Client.send, {"request"}),
        *((pool.__init__, {"ssl_context", "keepalive_expiry", "network_backend"}) for pool in POOLS),
        (SyncStream.__init__, {"sock"}),
        (httpcore.HTTPProxy.__init__, {"proxy_url", "proxy_auth", "proxy_headers", "proxy_ssl_context"}),
        (httpx_sse.EventSource.__init__, {"response"}),
        (HTTPAdapter.build_connection_pool_key_attributes, {"request", "verify", "cert"}),
        (HTTPAdapter.cert_verify, {"conn", "url", "verify", "cert"}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_functions_that_we_call_or_replace_take_what_we_hand_over(function, needed):
    assert needed <= parameters(function), f"{function.__qualname__}: {WHY}"


def test_fal_clients_token_manager_knows_its_url_and_headers():
    auth = fal_client.SyncClient(key="an-id:a-secret")._auth
    manager = fal_client.client.CDNTokenManager(auth)
    assert manager._url.startswith("https://rest.fal.ai/storage/auth/token"), WHY
    assert manager._headers["Authorization"] == "Key an-id:a-secret", WHY
    token = fal_client.client.CDNToken("t", "Bearer", "https://v3.fal.media", datetime.max.replace(tzinfo=timezone.utc))
    assert not token.is_expired(), WHY


def test_fal_clients_retry_loop_repeats_httpx_errors_and_not_ours():
    """Ours are raised inside that loop, so that a submit is not sent again behind our back."""
    assert not fal_client.client._should_retry(RuntimeError("ours")), WHY
    assert fal_client.client._should_retry(httpx.ReadError("theirs")), WHY


def test_a_handle_names_its_urls():
    handle = fal_client.SyncClient(key="an-id:a-secret").get_handle("openrouter/router/vision", "abc")
    assert (handle.request_id, handle.response_url, handle.status_url, handle.cancel_url) == (
        "abc",
        "https://queue.fal.run/openrouter/router/requests/abc",
        "https://queue.fal.run/openrouter/router/requests/abc/status",
        "https://queue.fal.run/openrouter/router/requests/abc/cancel",
    ), WHY


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
def test_httpcores_pools_connect_through_the_network_backend_that_they_are_given(proxy):
    class Backend(httpcore.NetworkBackend):
        def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
            raise httpcore.ConnectError(f"asked for {host}")

    options = {"network_backend": Backend()}
    with httpcore.HTTPProxy(proxy, **options) if proxy else httpcore.ConnectionPool(**options) as pool:
        with pytest.raises(httpcore.ConnectError, match="asked for"):
            pool.request("GET", "https://queue.fal.run/")
        assert pool.connections == [], WHY


def test_httpx_clients_send_every_request_through_the_method_that_we_replace():
    class Client(httpx.Client):
        def send(self, request, **_):
            return httpx.Response(418, request=request)

    with Client() as web:
        assert web.post("https://queue.fal.run/").status_code == 418, WHY


def test_httpcores_backend_and_streams_have_the_methods_that_we_wrap():
    assert {"connect_tcp"} <= set(dir(httpcore.SyncBackend)), WHY
    assert {"read", "write", "start_tls", "close", "get_extra_info"} <= set(dir(httpcore.NetworkStream)), WHY
    assert {"host", "port", "timeout", "local_address", "socket_options"} <= parameters(
        httpcore.SyncBackend.connect_tcp
    ), WHY
    assert {"ssl_context", "server_hostname", "timeout"} <= parameters(httpcore.NetworkStream.start_tls), WHY


def test_urllib3_takes_a_tls_context_and_a_connection_class():
    fields = {field.removeprefix("key_") for field in urllib3.poolmanager.PoolKey._fields}
    assert {"ssl_context", "ca_certs", "ca_cert_dir"} <= fields, WHY
    assert isinstance(urllib3.HTTPSConnectionPool.ConnectionCls, type), WHY


def test_every_request_of_a_client_passes_through_our_transport(box, client, photo_path):
    """Whatever fal-client opened by itself would miss the deadline, the retry rules and the key rules."""
    transport, seen = client._parts().api._transport, []
    send = transport.send

    def watched(call, request):
        seen.append((request.method, request.url.host, request.url.path))
        return send(call, request)

    transport.send = watched
    client.any_llm_complete("Hi")
    client.upload_file(photo_path)
    list(client.iter_any_llm("Hi"))
    assert len(seen) == 6
    assert seen == [(row["method"], row["host"], row["path"]) for row in box.journal()]
