"""Keys and certificates: what they vouch for, who may read them, and that they are never overwritten."""

import errno
import ipaddress
import os
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
    with pytest.raises(UserError, match=r"ca\.key: already exists, and keys are not overwritten"):
        make_certificates(tmp_path)
    make_node_key(tmp_path / "node-0")
    with pytest.raises(UserError, match="node-0: already exists"):
        make_node_key(tmp_path / "node-0")
    assert made.key.read_bytes() == before


@pytest.mark.parametrize("host", ["", "server:8000", "a..b", "https://server"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError, match="expected a host name or an IP address without a port"):
        make_certificates(tmp_path, [host])
    assert not any(tmp_path.iterdir())


def test_a_name_with_letters_of_other_alphabets_is_written_as_dns_has_it(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["müller.example", "10.0.0.7"])
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "xn--mller-kva.example"]
    with pytest.raises(UserError, match=r"host 'straße\.example': expected its ASCII form .* begins with xn--"):
        make_certificates(tmp_path / "other", ["straße.example"])


def test_a_file_in_place_of_a_folder_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file")
    with pytest.raises(UserError, match=r"tls/ca\.key: cannot be written \((Not a directory|File exists)\)"):
        make_certificates(tmp_path / "tls")
    with pytest.raises(UserError, match=r"tls/node: cannot be written"):
        make_node_key(tmp_path / "tls" / "node")


@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_leaves_nothing_and_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    count, flush = [0], os.fsync

    def full(descriptor: int) -> None:
        count[0] += 1
        if count[0] == failing + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        make_certificates(tmp_path)
    assert not any(tmp_path.iterdir())
    assert make_certificates(tmp_path).key.is_file()


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_set_of_a_command_killed_between_its_files_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    count, replace = [0], os.replace

    def killed(part: Path, path: Path) -> None:
        count[0] += 1
        if count[0] > done:
            raise SystemExit
        replace(part, path)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(os, "replace", killed)
        make_certificates(tmp_path)
    assert sum(not path.name.startswith(".") for path in tmp_path.iterdir()) == done
    made = make_certificates(tmp_path, ["superlink.example.org"])
    handshake(made.authority, made.certificate, made.key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem", "server.key", "server.pem"]
    with pytest.raises(UserError, match=r"ca\.key: already exists"):
        make_certificates(tmp_path)
    (tmp_path / "server.pem").unlink()
    with pytest.raises(UserError, match=r"ca\.key: already exists"):
        make_certificates(tmp_path)


def test_an_empty_key_of_a_killed_command_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "ca.key").touch()
    (tmp_path / ".ca.key.part").write_text("torn")
    make_certificates(tmp_path)
    assert (tmp_path / "ca.key").read_bytes().startswith(b"-----BEGIN PRIVATE KEY")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem", "server.key", "server.pem"]
