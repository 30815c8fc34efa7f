"""Who serves an instance, whatever happens to its worker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from reverie_comfy_bridge.instance.registry import Registry
from reverie_comfy_bridge.settings import GivenInstance
from reverie_protocol.instances import ComfyInstance
from reverie_runtime.bus.port import BusUnavailable
from reverie_runtime.clock import SystemClock


class Post:
    """A worker whose life may break at its beginning."""

    def __init__(self, wish: ComfyInstance, *, breaks: bool) -> None:
        self.wish = wish
        self.works = False
        self._breaks = breaks

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        if self._breaks:
            raise BusUnavailable("gone")
        self.works = True
        yield

    def fill(self, record: ComfyInstance) -> ComfyInstance:
        return record

    def changed(self) -> None:
        pass

    async def drain(self, deadline_s: float) -> None:
        self.works = False

    async def retire(self) -> None:
        self.works = False

    async def abandon(self) -> None:
        self.works = False


async def test_an_instance_whose_worker_could_not_begin_is_served_by_another(world: Any) -> None:
    posts: list[Post] = []

    def serve(wish: ComfyInstance) -> Post:
        posts.append(Post(wish, breaks=not posts))
        return posts[-1]

    registry = Registry(
        world.bus, world.table, world.instances, key="bridge.1", serve=serve, clock=SystemClock()
    )
    await registry.enter([GivenInstance("a", "http://127.0.0.1:9")])
    async with registry.running(0.0):
        await world.eventually(lambda: posts and posts[-1].works, "a worker that works")
        assert registry.served == (posts[-1],)
    assert not posts[-1].works
