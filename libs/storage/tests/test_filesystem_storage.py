"""The filesystem store keeps what it promised, whatever it is asked for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reverie_storage import filesystem
from reverie_storage.filesystem import FilesystemStorage
from reverie_storage.port import StorageUnavailable, content_key


async def read_all(storage: FilesystemStorage, key: str, start: int, stop: int) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, start=start, stop=stop)])


async def test_concurrent_puts_of_one_content_leave_one_file_and_no_temporary(tmp_path: Path) -> None:
    storage = FilesystemStorage(tmp_path)
    content = os.urandom(300_000)
    keys = await asyncio.gather(*(storage.put(content, content_type="image/png") for _ in range(16)))
    assert len(set(keys)) == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == [keys[0]]


async def test_a_file_cut_short_by_a_crash_is_written_again(tmp_path: Path) -> None:
    storage = FilesystemStorage(tmp_path)
    key = await storage.put(b"whole", content_type="image/png")
    (tmp_path / key[:2] / key).write_bytes(b"wh")
    await storage.put(b"whole", content_type="image/png")
    assert await read_all(storage, key, 0, 5) == b"whole"


@pytest.mark.parametrize(
    "key",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "a" * 64 + ".png/../../x",
        "a" * 64 + ".exe",
        "a" * 64 + ".png\n",
        "A" * 64 + ".png",
        "",
        "\0",
    ],
)
async def test_a_hostile_key_is_simply_not_there(tmp_path: Path, key: str) -> None:
    storage = FilesystemStorage(tmp_path / "store")
    assert await storage.stat(key) is None
    with pytest.raises(StorageUnavailable):
        await read_all(storage, key, 0, 1)


async def test_a_store_that_cannot_be_written_says_so_without_naming_the_path(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    storage = FilesystemStorage(blocked)
    with pytest.raises(StorageUnavailable) as refused:
        await storage.check()
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(StorageUnavailable):
        await storage.put(b"x", content_type="image/png")


_WRITER = """
import asyncio, os, sys
from pathlib import Path
from reverie_storage.filesystem import FilesystemStorage
async def main():
    storage = FilesystemStorage(Path(sys.argv[1]))
    while True:
        key = await storage.put(os.urandom(2_000_000), content_type="image/png")
        print(key, flush=True)
asyncio.run(main())
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_objects(tmp_path: Path) -> None:
    for wanted in (1, 2, 3):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().strip() for _ in range(wanted)]
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for key in acknowledged:
            content = (tmp_path / key[:2] / key).read_bytes()
            assert content_key(content, content_type="image/png") == key
        for path in tmp_path.rglob("*.png"):
            assert content_key(path.read_bytes(), content_type="image/png") == path.name


async def test_a_file_that_is_put_in_its_place_while_leftovers_are_looked_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FilesystemStorage(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f".incoming-{name}").write_bytes(b"half")
    entries = filesystem._entries

    def entries_of_a_busy_folder(folder: Path) -> Iterator[os.DirEntry[str]]:
        for entry in entries(folder):
            if entry.name == ".incoming-a":
                os.rename(entry.path, tmp_path / "whole")
            yield entry

    monkeypatch.setattr(filesystem, "_entries", entries_of_a_busy_folder)
    await storage.tidy(before=time.time() + 60.0)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


async def test_a_file_that_may_not_be_removed_stays_and_is_no_failure_of_the_store(tmp_path: Path) -> None:
    storage = FilesystemStorage(tmp_path)
    key = await storage.put(b"theirs", content_type="image/png")
    folder = tmp_path / key[:2]
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        assert not await storage.delete(key, unless_used_since=time.time() + 60.0)
    finally:
        folder.chmod(0o755)
    assert await storage.stat(key) is not None
