"""Keys and certificates: what they vouch for, who may read them, and that they are never overwritten."""

import ipaddress
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from pilot.deployment.certificates import make_certificates, make_node_key
from pilot.errors import UserError


def test_certificate_names_its_hosts_and_loopback(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["superlink.example.org", "10.0.0.7"])
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "superlink.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.0.0.7"),
    ]  # fmt: skip


def test_private_halves_are_for_their_owner_only(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    make_node_key(tmp_path / "node-0")
    private = (made.key, tmp_path / "ca.key", tmp_path / "node-0")
    assert [path.stat().st_mode & 0o777 for path in private] == [0o600] * 3


def test_node_key_is_a_p384_pair_in_openssh_format(tmp_path: Path) -> None:
    public = make_node_key(tmp_path / "node-0")
    private_key = load_ssh_private_key((tmp_path / "node-0").read_bytes(), None)
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    assert private_key.curve.name == "secp384r1"
    assert load_ssh_public_key(public.read_bytes()) == private_key.public_key()


def handshake(authority: Path, certificate: Path, key: Path) -> None:
    """A TLS client that trusts `authority` meets a server with `certificate`, as strictly as Python can."""
    server_side, client_side = socket.socketpair()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    def answer() -> None:
        try:
            server.wrap_socket(server_side, server_side=True).close()
        except OSError:  # the client has hung up
            server_side.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        client.wrap_socket(client_side, server_hostname="127.0.0.1").close()
    finally:
        client_side.close()
        thread.join()


def test_only_the_own_authority_vouches_for_the_server(tmp_path: Path) -> None:
    own, other = make_certificates(tmp_path / "own"), make_certificates(tmp_path / "other")
    handshake(own.authority, own.certificate, own.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(other.authority, own.certificate, own.key)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    before = made.key.read_bytes()
    with pytest.raises(UserError, match=r"ca\.key: exists already, and keys are not overwritten"):
        make_certificates(tmp_path)
    make_node_key(tmp_path / "node-0")
    with pytest.raises(UserError, match="node-0: exists already"):
        make_node_key(tmp_path / "node-0")
    assert made.key.read_bytes() == before


@pytest.mark.parametrize("host", ["", "server:8000", "a..b", "https://server"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError, match="expected a host name or an IP address without a port"):
        make_certificates(tmp_path, [host])
    assert not any(tmp_path.iterdir())
