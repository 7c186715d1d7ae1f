"""Flower's SuperLink, with failed TLS handshakes logged.

A node that does not trust the server's certificate hangs up during the handshake. Flower's web server drops such a
connection silently, so the administrator would not notice.
"""

import logging
import ssl
import sys
from collections.abc import Sequence

_LOG = logging.getLogger("pilot.superlink")
_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_REASONS = {
    "TLSV1_ALERT_UNKNOWN_CA": "the node's --root-certificates is not the authority of this server's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the node does not accept this server's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "this server's certificate does not name the address by which the node reaches it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this server's certificate is out of date, or the node's clock is wrong",
    "HTTP_REQUEST": "the node speaks HTTP without TLS",
}


class _LoggedHandshake(ssl.SSLObject):
    """TLS connection that logs a failed handshake on the server's side; everything else is unchanged."""

    def do_handshake(self) -> None:
        """Perform the handshake; log an error and raise it again."""
        try:
            super().do_handshake()
        except _WAITING:
            raise
        except ssl.SSLError as error:
            if self.server_side:
                _LOG.warning("Rejected a node, TLS handshake failed: %s", reason(error))
            raise


def reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's name of a failure, with its meaning for a deployment if known."""
    name = getattr(error, "reason", None) or str(error)
    return f"{name} ({_REASONS[name]})" if name in _REASONS else name


def run_superlink(arguments: Sequence[str]) -> None:
    """Run `flower-superlink` with these arguments in this process."""
    from flwr.superlink.cli import flower_superlink

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s :      %(message)s"))
    _LOG.addHandler(handler)
    _LOG.propagate = False
    ssl.SSLContext.sslobject_class = _LoggedHandshake
    sys.argv = ["flower-superlink", *arguments]
    flower_superlink()


if __name__ == "__main__":
    run_superlink(sys.argv[1:])
