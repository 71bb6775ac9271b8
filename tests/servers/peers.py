"""Peers that accept and then say nothing for as long as they are told, plain and by TLS."""

import socket
import ssl
import threading
from pathlib import Path


class SilentPeers:
    """Two listeners on loopback; ``environment`` is what ``blocking`` needs to find them."""

    def __init__(self, folder: Path) -> None:
        import trustme  # noqa: PLC0415 - collecting the tests takes no extra

        authority = trustme.CA()
        certificates = folder / "authority.pem"
        authority.cert_pem.write_to_path(certificates)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)
        self._plain, self._tls = (
            socket.create_server(("127.0.0.1", 0)),
            socket.create_server(("127.0.0.1", 0)),
        )
        self.environment = {
            "SILENT_PORT": str(self._plain.getsockname()[1]),
            "SILENT_TLS_PORT": str(self._tls.getsockname()[1]),
            "SILENT_TLS_CA": str(certificates),
        }
        threading.Thread(target=self._accept, args=(self._plain, None), daemon=True).start()
        threading.Thread(target=self._accept, args=(self._tls, self._context), daemon=True).start()

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=_keep_silent, args=(connection, context), daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        for listener in (self._plain, self._tls):
            listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread
            listener.close()


def _keep_silent(connection: socket.socket, context: ssl.SSLContext | None) -> None:
    with connection:
        try:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                seconds = float(connection.makefile("r").readline())
                connection.settimeout(seconds)
                connection.recv(1)
        except (OSError, ValueError):
            pass  # the client has gone, or has been silent long enough
