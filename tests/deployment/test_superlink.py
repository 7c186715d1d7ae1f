"""What a SuperLink says of a node that does not trust it: real TLS handshakes in memory."""

import ssl
from pathlib import Path

import pytest

from pilot.deployment.certificates import make_certificates
from pilot.deployment.superlink import reason


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLError:
    """The server's error when `client` connects to it by `name`."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    served = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        try:
            asking.do_handshake()
        except ssl.SSLError:
            pass  # the client's own view of it; what counts here is what the server gets to know
        try:
            served.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return error
    raise AssertionError("the handshake did not fail")


@pytest.mark.parametrize(
    ("trusts", "name", "said"),
    [
        ("other", "localhost", "TLSV1_ALERT_UNKNOWN_CA (the node's --root-certificates is not the authority"),
        ("own", "elsewhere", "SSLV3_ALERT_BAD_CERTIFICATE (this server's certificate does not name the address"),
    ],
)
def test_the_reason_says_what_to_look_at(tmp_path: Path, trusts: str, name: str, said: str) -> None:
    made = {each: make_certificates(tmp_path / each) for each in ("own", "other")}
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made["own"].certificate, made["own"].key)
    client = ssl.create_default_context(cafile=str(made[trusts].authority))
    assert reason(handshake(server, client, name)).startswith(said)


def test_a_reason_that_is_not_known_is_openssls_own() -> None:
    assert reason(ssl.SSLError(1, "[SSL] something new")) == str(ssl.SSLError(1, "[SSL] something new"))
