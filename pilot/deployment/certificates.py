"""Certificates and keys of a deployment: a private certificate authority, the server's certificate, one key per node.

Flower encrypts with TLS (clients check the server's certificate against the authority's) and identifies a node by its
elliptic-curve key (the node signs its requests; the server has the public key). `ssh-keygen -t ecdsa -b 384` of OpenSSH
makes node keys of the same kind.
"""

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilot.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1")
VALID_DAYS = 365


@dataclass(frozen=True)
class Certificates:
    """TLS files of a deployment. `authority` is distributed to all machines; `key` stays on the server's machine.

    Attributes:
        authority: certificate of the authority, PEM.
        certificate: the server's certificate, signed by the authority, PEM.
        key: the server's private key, PEM, readable by its owner only.
    """

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, hosts: Sequence[str] = ()) -> Certificates:
    """Create an authority and the certificate of a server that is reached as `localhost`, 127.0.0.1 or one of `hosts`.

    The authority's key (`ca.key`) is written to the same folder, so that certificates of other servers can be signed
    later.

    Args:
        folder: folder for `ca.pem`, `ca.key`, `server.pem` and `server.key`; created if missing.
        hosts: further names or IP addresses under which the nodes reach the server.

    Raises:
        UserError: one of the files exists (keys are never overwritten) or cannot be written, or a host is invalid.
    """
    names = [_general_name(host) for host in dict.fromkeys((*LOOPBACK, *hosts))]
    authority_key, server_key = _new_key(), _new_key()
    issuer = _name("pilot-bench authority")
    authority = _sign(
        _certificate(issuer, issuer, authority_key, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True),
        authority_key,
    )
    server = _sign(
        _certificate(_name("pilot-bench superlink"), issuer, server_key, authority_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False),
        authority_key,
    )
    files = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    pem = serialization.Encoding.PEM
    _write_new({
        folder / "ca.key": (_private_pem(authority_key), 0o600),
        files.key: (_private_pem(server_key), 0o600),
        files.certificate: (server.public_bytes(pem), 0o644),
        files.authority: (authority.public_bytes(pem), 0o644),
    })  # fmt: skip
    return files


def make_node_key(path: Path) -> Path:
    """Create a node's key pair, P-384 in OpenSSH's format: `path` (private) and `path`.pub (public).

    Returns:
        Path of the public key, which is the one that the server gets.

    Raises:
        UserError: one of the two files exists or cannot be written.
    """
    public = path.with_name(path.name + ".pub")
    key = ec.generate_private_key(ec.SECP384R1())
    private_bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public_bytes = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write_new({path: (private_bytes, 0o600), public: (public_bytes + b"\n", 0o644)})
    return public


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = _ascii_name(host)
        if not all(part and part.replace("-", "").isalnum() for part in name.split(".")):
            raise UserError(
                f"host {host!r}: expected a host name or an IP address without a port, such as superlink.example.org."
            ) from None
        return x509.DNSName(name)


def _ascii_name(host: str) -> str:
    """Convert a host name to the form of certificates and DNS: `xn--mller-kva.example` for `müller.example`.

    Names for which the two standards for such names differ (with ß, for example) must be converted by the user.
    """
    try:
        name = host.encode("idna").decode("ascii")
        same = name.encode("ascii").decode("idna") == host.lower() or name == host
    except UnicodeError:
        return ""
    if not same:
        raise UserError(f"host {host!r}: expected its ASCII form in DNS, which begins with xn--.")
    return name


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    """Build an unsigned certificate, valid from yesterday (clocks differ) for a year.

    The key identifiers are required by Python 3.13's strict verification.
    """
    today = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return builder.sign(key, hashes.SHA256())


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_new(files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Create files with their modes, all or none; a private key is never readable by other users, not even briefly.

    What a killed command left, which was never a complete set, is replaced.

    Raises:
        UserError: a file exists and is not empty, or cannot be written.
    """
    parts = {path: path.with_name(f".{path.name}.part") for path in files}
    path = next(iter(files))
    try:
        present = [path for path in files if path.exists() and path.stat().st_size]
        if present and not _is_unfinished(present, parts):
            raise UserError(f"{present[0]}: already exists, and keys are not overwritten. Choose another folder.")
        for path in present:
            os.replace(path, parts[path])  # if this is killed as well, the set is still known as unfinished
        for path, (data, mode) in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].unlink(missing_ok=True)
            with os.fdopen(os.open(parts[path], os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror}). Choose another folder.") from error


def _is_unfinished(present: Sequence[Path], parts: Mapping[Path, Path]) -> bool:
    """Check for a set whose writer was killed between its renames: all other files are still in temporary ones."""
    others = [part for path, part in parts.items() if path not in present]
    return bool(others) and all(part.is_file() for part in others)
