"""The fake as a program."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from reverie_testing.fake_comfy import RECORDED, FakeComfy


async def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m reverie_testing.fake_comfy", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188, help="0: any that is free")
    parser.add_argument("--version", default=RECORDED[0], help=f"e.g. {', '.join(RECORDED)}")
    parser.add_argument("--pace", type=float, default=1.0, help="scales every wait of a node; 0: no waits")
    parser.add_argument("--preview-method", default="none", choices=["none", "latent2rgb"])
    options = parser.parse_args()
    fake = FakeComfy(
        options.version,
        host=options.host,
        port=options.port,
        pace=options.pace,
        preview_method=options.preview_method,
    )
    async with fake:
        print(f"fake ComfyUI {options.version} on {fake.url}", flush=True)  # noqa: T201 -- a program
        await asyncio.Event().wait()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
