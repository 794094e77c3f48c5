"""confluent-kafka (librdkafka)."""
import time

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

import roundtrip as rt


def main():
    broker, prefix, rounds, records = rt.arguments()
    topics = [prefix + "-" + c for c in rt.CODECS]
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.create_topics([NewTopic(t, 3, 1) for t in topics]).values():
        future.result()
    producers = {c: Producer({"bootstrap.servers": broker, "compression.type": c, "enable.idempotence": True,
                              "message.max.bytes": 2000000}) for c in rt.CODECS}
    consumer = Consumer({"bootstrap.servers": broker, "group.id": prefix + "-group", "auto.offset.reset": "earliest",
                         "enable.auto.commit": False})
    consumer.subscribe(topics)
    seen = set()
    for r in range(rounds):
        if r > 0:
            rt.half()
        for chunk in rt.chunks(r * records, (r + 1) * records):
            for codec, producer in producers.items():
                produce(producer, prefix + "-" + codec, codec, chunk)
        consume(consumer, seen, (r + 1) * records * len(topics))
    consumer.close()
    print("OK records=%d" % len(seen), flush=True)


def produce(producer, topic, codec, chunk):
    failures = []
    for i in chunk:
        key, value, headers = rt.record(codec, i)
        producer.produce(topic, value, key, headers=headers, on_delivery=lambda err, msg: failures.append(err) if err else None)
    if producer.flush(rt.PATIENCE) or failures:
        raise RuntimeError("not delivered: %s" % failures)


def consume(consumer, seen, until):
    deadline = time.monotonic() + rt.PATIENCE
    while len(seen) < until:
        if time.monotonic() > deadline:
            raise RuntimeError("only %d of %d records came" % (len(seen), until))
        for m in consumer.consume(500, 0.5):
            if m.error():
                raise RuntimeError(m.error())
            seen.add((m.topic(), m.partition(), m.offset()))
            rt.show(m.topic(), m.partition(), m.offset(), m.key(), m.value(), m.headers())
    consumer.commit(asynchronous=False)


main()
