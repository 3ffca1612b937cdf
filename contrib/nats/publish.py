#!/usr/bin/env python3
"""JSON lines of Conntrack Monitor on standard input, each to the subject conntrack.NODE of a NATS JetStream.

    conntrack-monitor --json --node r7 --only new,destroy | python3 publish.py nats://127.0.0.1:4222

Lines may be of many nodes. A line counts when the server has stored it; until then it is sent again, under the same id,
so that the server stores it once. At most PENDING lines wait for that. Needs PyPI's nats-py.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from collections.abc import AsyncIterator

import nats
from nats.errors import Error
from nats.js.api import StreamConfig

PENDING = 1024  # lines that the server has not acknowledged: at 450 bytes, half a megabyte
ANSWER = 2.0  # seconds for an acknowledgement; then the line is sent again
LONGEST = 1 << 19  # bytes of a line; the server takes 1 MB
NODE = re.compile(rb'\{"node": ?"((?:[^"\\]|\\.)*)"')
NO_TOKEN = re.compile(r"[\s.*>\x00-\x20\x7f]")  # what a subject's token can't have


def subject_of(line: bytes) -> str:
    r"""
    >>> subject_of(b'{"node":"r7.lan","time":"..."}'), subject_of(b'{"time":"..."}')
    ('conntrack.r7_lan', 'conntrack.unknown')
    """
    found = NODE.match(line)
    return "conntrack." + (NO_TOKEN.sub("_", found[1].decode("utf-8", "replace")) if found and found[1] else "unknown")


async def lines_of_input() -> AsyncIterator[bytes]:
    if stat.S_ISREG(os.fstat(0).st_mode):  # it can always be read, and asyncio takes no files
        for line in sys.stdin.buffer:
            yield line.rstrip(b"\n")
        return
    reader = asyncio.StreamReader(LONGEST)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.rstrip(b"\n")


async def publish(url: str) -> int:
    """The number of lines that are stored, when the input has ended."""
    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=1, allow_reconnect=True)
    stream = client.jetstream(timeout=ANSWER)
    await stream.add_stream(StreamConfig(name="conntrack", subjects=["conntrack.*"], duplicate_window=600))
    room, run, stored = asyncio.Semaphore(PENDING), os.urandom(6).hex(), 0

    async def store(number: int, line: bytes) -> None:
        nonlocal stored
        while True:
            try:
                await stream.publish(subject_of(line), line, headers={"Nats-Msg-Id": f"{run}-{number}"})
            except (Error, asyncio.TimeoutError):  # the server is away, or too slow
                await asyncio.sleep(0.2)
                continue
            stored += 1
            room.release()
            return

    tasks, number = set[asyncio.Task[None]](), 0
    async for line in lines_of_input():
        await room.acquire()
        number += 1
        task = asyncio.create_task(store(number, line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.gather(*tasks)
    await client.close()
    return stored


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Usage: publish.py nats://HOST:4222 < LINES")
    print(f"publish.py: {asyncio.run(publish(sys.argv[1]))} lines stored", file=sys.stderr)


if __name__ == "__main__":
    main()
