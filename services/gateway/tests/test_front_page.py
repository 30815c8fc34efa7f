"""`GET /` is one self-contained page under a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_page_loads_nothing_from_elsewhere_and_its_policy_allows_just_its_own_code(gateway):
    answer = await gateway.http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    html, policy = answer.text, answer.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    for kind in ("script", "style"):
        [text] = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert html.count("\n") <= 150
