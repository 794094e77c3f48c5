"""aiokafka."""
import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import roundtrip as rt


async def main():
    broker, prefix, rounds, records = rt.arguments()
    topics = [prefix + "-" + c for c in rt.CODECS]
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(t, 3, 1) for t in topics])
    await admin.close()
    producers = {c: AIOKafkaProducer(bootstrap_servers=broker, compression_type=None if c == "none" else c, acks="all",
                                     enable_idempotence=True, request_timeout_ms=rt.PATIENCE * 1000) for c in rt.CODECS}
    for producer in producers.values():
        await producer.start()
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=broker, group_id=prefix + "-group", auto_offset_reset="earliest",
                                enable_auto_commit=False)
    await consumer.start()
    seen = set()
    for r in range(rounds):
        if r > 0:
            await asyncio.get_running_loop().run_in_executor(None, rt.half)
        for chunk in rt.chunks(r * records, (r + 1) * records):
            for codec, producer in producers.items():
                sent = []
                for i in chunk:
                    key, value, headers = rt.record(codec, i)
                    sent.append(await producer.send(prefix + "-" + codec, value, key, headers=headers))
                await asyncio.gather(*sent)
        await consume(consumer, seen, (r + 1) * records * len(topics))
    await consumer.stop()
    for producer in producers.values():
        await producer.stop()
    print("OK records=%d" % len(seen), flush=True)


async def consume(consumer, seen, until):
    deadline = time.monotonic() + rt.PATIENCE
    while len(seen) < until:
        if time.monotonic() > deadline:
            raise RuntimeError("only %d of %d records came" % (len(seen), until))
        for messages in (await consumer.getmany(timeout_ms=500)).values():
            for m in messages:
                seen.add((m.topic, m.partition, m.offset))
                rt.show(m.topic, m.partition, m.offset, m.key, m.value, m.headers)
    await consumer.commit()


asyncio.run(main())
