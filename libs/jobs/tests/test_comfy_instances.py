"""Where a ComfyUI instance may be, and the table that two write."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reverie_jobs.comfy_instances import COMFY_INSTANCES, change_instance, remove_instance
from reverie_jobs.instance_urls import instance_url, may_connect
from reverie_protocol.instances import ComfyInstance, ComfyStatus
from reverie_runtime.bus.memory import MemoryBus
from reverie_runtime.bus.memory_server import MemoryServer

GPU = ComfyInstance(name="gpu", url="http://10.0.0.5:8188", status=ComfyStatus.DISCONNECTED, updated_at=1.0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("http://127.0.0.1:8188/", "http://127.0.0.1:8188"),
        ("https://Comfy.example/behind/proxy/", "https://comfy.example/behind/proxy"),
        ("http://10.1.2.3", "http://10.1.2.3"),
        ("http://192.168.1.9:80", "http://192.168.1.9:80"),
        ("http://[fd12::7]:8188", "http://[fd12::7]:8188"),
        ("http://[::1]:8188", "http://[::1]:8188"),
        ("http://gpu-1", "http://gpu-1"),
        ("http://comfy_ui:8188", "http://comfy_ui:8188"),
    ],
)
def test_private_addresses_and_names_are_taken_in_one_form(given: str, kept: str) -> None:
    assert instance_url(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "gpu:8188",
        "ftp://gpu",
        "file:///etc/passwd",
        "http://",
        "http://me:secret@gpu",
        "http://me@gpu",
        "http://gpu?x=1",
        "http://gpu?",
        "http://gpu#x",
        "http://gpu:0",
        "http://gpu:99999",
        "http://gpu:port",
        "http://gpu /x",
        "http://gpu\\@evil",
        "http://gpu/%2e%2e",
        "http://gpu/../x",
        "http://gpü",
        "http://169.254.169.254",
        "http://169.254.1.1:80",
        "http://[fe80::1]",
        "http://[::ffff:169.254.169.254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[fd00:ec2::254]",
        "http://100.100.100.200",
        "http://metadata.google.internal",
        "http://METADATA.google.internal.",
        "http://2852039166",
        "http://0xa9fea9fe",
        "http://0251.0376.0251.0376",
        "http://169.254.43518",
        "http://0.0.0.0",
        "http://[::]",
        "http://224.0.0.1",
        "http://255.255.255.255",
        "http://-gpu",
        f"http://gpu/{'x' * 500}",
    ],
)
def test_what_is_no_address_of_an_instance_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="must"):
        instance_url(given)


def test_what_a_name_resolves_to_is_judged_by_the_same_rule() -> None:
    assert may_connect("10.0.0.1")
    assert may_connect("127.0.0.1")
    assert may_connect("203.0.113.7")
    for address in ("169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "no address"):
        assert not may_connect(address)


async def test_two_writers_of_one_record_keep_each_others_fields() -> None:
    bucket = await MemoryBus(MemoryServer()).bucket(COMFY_INSTANCES)
    assert await change_instance(bucket, "gpu", lambda held: held or GPU) == GPU
    seen = []

    def observe(held: ComfyInstance | None) -> ComfyInstance | None:
        seen.append(held)
        return held and replace(held, status=ComfyStatus.CONNECTED)

    original = bucket.update
    raced = False

    async def update(key: str, value: bytes, revision: int) -> int:
        nonlocal raced
        if not raced:
            raced = True
            await change_instance(bucket, "gpu", lambda held: held and replace(held, draining=True))
        return await original(key, value, revision)

    bucket.update = update  # type: ignore[method-assign]  # another writer comes first
    now = await change_instance(bucket, "gpu", observe)
    assert now is not None
    assert (now.draining, now.status) == (True, ComfyStatus.CONNECTED)
    assert len(seen) == 2


async def test_nothing_is_written_where_nothing_changes_and_what_is_gone_stays_gone() -> None:
    bucket = await MemoryBus(MemoryServer()).bucket(COMFY_INSTANCES)
    assert await change_instance(bucket, "gpu", lambda held: held) is None
    await change_instance(bucket, "gpu", lambda held: GPU)
    entry = await bucket.get("gpu")
    assert entry is not None
    await change_instance(bucket, "gpu", lambda held: held)
    assert await bucket.get("gpu") == entry
    assert await remove_instance(bucket, "gpu") == GPU
    assert await remove_instance(bucket, "gpu") is None
    assert await change_instance(bucket, "gpu", lambda held: held and replace(held, draining=True)) is None
