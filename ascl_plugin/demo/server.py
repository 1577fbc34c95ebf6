"""An application served on a socket that is already bound."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

try:
    import uvicorn
except ImportError as error:
    raise ImportError('the demo needs `pip install "ascl-plugin[demo]"`') from error


def make_server(app: Any) -> uvicorn.Server:
    """A server that believes no proxy and logs warnings alone."""
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


def serve(app: Any, listener: socket.socket) -> None:
    """Answers until it is interrupted."""
    with suppress(KeyboardInterrupt):  # uvicorn ends well, then raises the signal again
        make_server(app).run(sockets=[listener])
