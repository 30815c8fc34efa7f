"""What is said to a peer whose bytes are no HTTP: the same JSON as every other error."""

from __future__ import annotations

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from reverie_protocol.errors import ErrorCode
from reverie_protocol.http_bodies import ErrorBody

_BODY = msgspec.json.encode(
    ErrorBody(detail="this is not a valid HTTP request", code=ErrorCode.INVALID_MESSAGE, request_id="")
)
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"cache-control", b"no-store"),
    (b"connection", b"close"),
]


class HttpParser(H11Protocol):
    """uvicorn's own parser; only its answer to what cannot be parsed is ours."""

    def send_400_response(self, msg: str) -> None:
        """Answer and hang up; there is no request that could have an id."""
        for event in (
            h11.Response(status_code=400, headers=_HEADERS, reason=b"Bad Request"),
            h11.Data(data=_BODY),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
