"""kafka-python."""
import time

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

import roundtrip as rt


def main():
    broker, prefix, rounds, records = rt.arguments()
    topics = [prefix + "-" + c for c in rt.CODECS]
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(t, 3, 1) for t in topics])
    admin.close()
    producers = {c: KafkaProducer(bootstrap_servers=broker, compression_type=None if c == "none" else c, acks="all",
                                  enable_idempotence=True) for c in rt.CODECS}
    consumer = KafkaConsumer(*topics, bootstrap_servers=broker, group_id=prefix + "-group", auto_offset_reset="earliest",
                             enable_auto_commit=False)
    seen = set()
    for r in range(rounds):
        if r > 0:
            rt.half()
        for chunk in rt.chunks(r * records, (r + 1) * records):
            for codec, producer in producers.items():
                sent = []
                for i in chunk:
                    key, value, headers = rt.record(codec, i, nulls=False)
                    sent.append(producer.send(prefix + "-" + codec, value, key, headers))
                producer.flush(rt.PATIENCE)
                for future in sent:
                    future.get(rt.PATIENCE)
        consume(consumer, seen, (r + 1) * records * len(topics))
    consumer.close()
    for producer in producers.values():
        producer.close()
    print("OK records=%d" % len(seen), flush=True)


def consume(consumer, seen, until):
    deadline = time.monotonic() + rt.PATIENCE
    while len(seen) < until:
        if time.monotonic() > deadline:
            raise RuntimeError("only %d of %d records came" % (len(seen), until))
        for messages in consumer.poll(500).values():
            for m in messages:
                seen.add((m.topic, m.partition, m.offset))
                rt.show(m.topic, m.partition, m.offset, m.key, m.value, m.headers)
    consumer.commit()


main()
