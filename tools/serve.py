"""`make serve`: serves the site and builds it anew at every edit."""

import os
import socket
import sys


def main() -> None:
    """Serve on the address given, or say why that cannot be."""
    address = sys.argv[1]
    host, _, port = address.rpartition(":")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"Cannot serve on {address} ({error}); choose another: make serve ADDRESS=127.0.0.1:8001")
    os.execv(sys.executable, [sys.executable, "-m", "mkdocs", "serve", "--livereload", "--dev-addr", address])


if __name__ == "__main__":
    main()
