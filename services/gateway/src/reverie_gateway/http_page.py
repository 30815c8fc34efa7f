"""`GET /`: one self-contained page on which a prompt becomes a picture, for whoever opens the printed address."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from litestar import Response, get

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@get("/")
async def read_page() -> Response[str]:
    """The page; its policy lets it load nothing from elsewhere and be framed by nobody."""
    html, policy = _page()
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(html, media_type="text/html", headers=headers)


@cache
def _page() -> tuple[str, str]:
    html = files("reverie_gateway").joinpath("page.html").read_text(encoding="utf-8")
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[kind].append(f"'sha256-{digest}'")
    policy = (
        "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src {' '.join(allowed['script'])}; style-src {' '.join(allowed['style'])}"
    )
    return html, policy
