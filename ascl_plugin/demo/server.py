"""An application served on a socket that is already bound."""

from __future__ import annotations

import socket
from contextlib import suppress

try:
    import uvicorn
    from starlette.applications import Starlette
except ImportError as error:
    raise ImportError('the demo needs `pip install "ascl-plugin[demo]"`') from error


def make_server(app: Starlette) -> uvicorn.Server:
    """Return a server that trusts no proxy and logs warnings only."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
    )


def serve(app: Starlette, listener: socket.socket) -> None:
    """Answer requests until interrupted."""
    with suppress(KeyboardInterrupt):  # uvicorn ends well, then raises the signal again
        make_server(app).run(sockets=[listener])
