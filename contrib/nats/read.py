#!/usr/bin/env python3
"""Prints what a NATS JetStream has stored of a node, or of all, in the order in which it was stored, and ends.

    python3 read.py nats://127.0.0.1:4222 r7 | conntrack-monitor --replay - --once --json

Needs PyPI's nats-py.
"""

from __future__ import annotations

import asyncio
import sys

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

BATCH = 1000  # messages asked for at once


async def read(url: str, subject: str) -> None:
    client = await nats.connect(url)
    stream = client.jetstream()
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, inactive_threshold=60)
    consumer = await stream.pull_subscribe(subject, stream="conntrack", config=config)
    left = (await consumer.consumer_info()).num_pending or 0  # what comes later is for the next time
    while left:
        messages = await consumer.fetch(min(BATCH, left), timeout=30)
        sys.stdout.buffer.write(b"".join(message.data + b"\n" for message in messages))
        await messages[-1].ack_sync()
        for message in messages[:-1]:
            await message.ack()
        left -= len(messages)
    sys.stdout.flush()
    await client.close()


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit("Usage: read.py nats://HOST:4222 [NODE]")
    asyncio.run(read(sys.argv[1], f"conntrack.{(sys.argv[2:] or ['*'])[0]}"))


if __name__ == "__main__":
    main()
