"""A dream on the whole product: steered while it runs, its service killed, its best looked at, and replayed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

from reverie_testing.product import Product, until

WAIT_S = 180.0


def figures(product: Product, session: str) -> dict[str, Any]:
    view: dict[str, Any] = httpx.get(f"{product.url}/v1/dreams/{session}", timeout=10).json()
    return view


def reverie(product: Product, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("reverie")), *arguments, "--url", product.url]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT_S, env=os.environ, check=False
    )


def test_a_dream_is_steered_survives_the_kill_of_its_service_and_can_be_replayed(
    product: Product, tmp_path: Path
) -> None:
    with connect(product.ws_url, max_size=None, max_queue=None) as socket:

        def asked(kind: str, **fields: Any) -> dict[str, Any]:
            socket.send(json.dumps({"type": kind, "id": "q", **fields}))
            while True:
                message: dict[str, Any] = json.loads(socket.recv(timeout=WAIT_S))
                assert not message["type"].startswith("job:"), "drafts are nobody's jobs"
                if message.get("id") == "q":
                    return message

        def told(kind: str) -> dict[str, Any]:
            while True:
                message: dict[str, Any] = json.loads(socket.recv(timeout=WAIT_S))
                if message["type"] == kind:
                    return message

        prompt = "a red circle on a blue background"
        session = asked(
            "dream:start", prompt=prompt, duration=3600, similarity_threshold=0.3, top_k=10, strategy="slerp"
        )["sessionId"]
        found = told("dream:candidate")
        assert (found["sessionId"], found["prompt"].startswith(prompt)) == (session, True)
        picture = httpx.get(f"{product.url}{found['url']}", timeout=10)
        assert picture.headers["content-type"] == "image/png"

        guided = asked("dream:guide", params={"prompt": "a green star on a white background"})
        assert guided["type"] == "dream:guide:ok"
        while not told("dream:candidate")["prompt"].startswith("a green star"):
            continue
        assert httpx.get(f"{product.url}/v1/jobs", timeout=10).json()["total"] == 0

        scored = figures(product, session)["stats"]["scored"]
        killed = product.kill("reverie_dreams")
        until(lambda: product.pid_of("reverie_dreams") != killed, "another dreams process")
        until(
            lambda: figures(product, session)["stats"]["scored"] >= scored + 2,
            "the session to go on",
            timeout_s=WAIT_S,
        )
        stopped = asked("dream:stop")
        assert (stopped["type"], stopped["sessionId"]) == ("dream:stopped", session)

    until(lambda: figures(product, session)["state"] == "stopped", "the best in full", timeout_s=WAIT_S)
    top = httpx.get(f"{product.url}/dreams/top", timeout=30).json()
    assert top
    assert all(candidate["rendered"] and candidate["image_data"] for candidate in top)
    replayed = reverie(product, "dreams", "replay", session, "--pictures", "1")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    exported = reverie(product, "dreams", "export", session, "-o", str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"candidates.json", "contact-sheet.png"} <= names
    assert len(names) == len(top) + 2
