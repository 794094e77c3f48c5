// The kafkajs client of test/clients; the protocol is in that folder's doc.go.
'use strict';
const readline = require('readline');
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs');
const LZ4 = require('kafkajs-lz4');
const ZstdCodec = require('@kafkajs/zstd');

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');
CompressionCodecs[CompressionTypes.LZ4] = new LZ4().codec;
CompressionCodecs[CompressionTypes.ZSTD] = ZstdCodec();

const CODECS = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
};
const CHUNK = 20;
const PATIENCE_MS = 120000;
const [broker, prefix, rounds, records] = [process.argv[2], process.argv[3], Number(process.argv[4]), Number(process.argv[5])];

// expected(noNulls, codec, i) of the harness.
function record(codec, i) {
  const repeats = i % 97 === 96 ? 5000 : i % 50;
  return {
    // NB: kafkajs chooses partitions anew when it sends a request again (producer/sendMessages.js). A record without a key would
    // go to another partition than before under the same sequence number, and where the broker has the first request, Kafka's
    // answer is OUT_OF_ORDER_SEQUENCE_NUMBER, too. So these say where they belong.
    partition: i % 10 === 9 ? i % 3 : undefined,
    key: i % 10 === 9 ? null : `k${i % 17}`,
    value: i % 13 === 12 && i % 10 !== 9 ? null : `${codec}-${i}-${'varve '.repeat(repeats)}`,
    headers: { seq: String(i), bytes: Buffer.from([0, 255, i % 256]), empty: '' },
  };
}

const hex = (b) => (b === null || b === undefined ? '-' : `x${Buffer.from(b).toString('hex')}`);

async function produce(producer, from, to) {
  for (let start = from; start < to; start += CHUNK) {
    for (const codec of Object.keys(CODECS)) {
      const messages = [];
      for (let i = start; i < Math.min(start + CHUNK, to); i++) messages.push(record(codec, i));
      await producer.send({ topic: `${prefix}-${codec}`, acks: -1, compression: CODECS[codec], messages });
    }
  }
}

async function until(condition, what) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timeout: ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function main() {
  const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.WARN, retry: { retries: 20, maxRetryTime: 2000 }, logCreator: () => (e) => console.error(JSON.stringify(e)) });
  const topics = Object.keys(CODECS).map((c) => `${prefix}-${c}`);
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: topics.map((topic) => ({ topic, numPartitions: 3, replicationFactor: 1 })) });
  await admin.disconnect();
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const consumer = kafka.consumer({ groupId: `${prefix}-group` });
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  const seen = new Set();
  let committed = new Map(); // "topic partition" -> offset that a commit has taken
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      for (const m of batch.messages) {
        seen.add(`${batch.topic} ${batch.partition} ${m.offset}`);
        const headers = Object.entries(m.headers).map(([name, v]) => `${name}=${hex(v)}`).join(',');
        process.stdout.write(`R ${batch.topic} ${batch.partition} ${m.offset} ${hex(m.key)} ${hex(m.value)} ${headers}\n`);
      }
      const offset = String(BigInt(batch.lastOffset()) + 1n);
      await consumer.commitOffsets([{ topic: batch.topic, partition: batch.partition, offset }]);
      committed.set(`${batch.topic} ${batch.partition}`, BigInt(offset));
    },
  });
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  for (let round = 0; round < rounds; round++) {
    if (round > 0) {
      console.log('HALF');
      if ((await lines.next()).done) throw new Error('the harness is gone');
    }
    await produce(producer, round * records, (round + 1) * records);
    const wanted = (round + 1) * records * topics.length;
    await until(() => seen.size >= wanted, () => `only ${seen.size} of ${wanted} records came`);
    const total = () => [...committed.values()].reduce((a, b) => a + b, 0n);
    await until(() => total() >= BigInt(wanted), () => `only ${total()} of ${wanted} offsets are committed`);
  }
  await consumer.disconnect();
  await producer.disconnect();
  console.log(`OK records=${seen.size}`);
  process.exit(0);
}

main().catch((e) => { console.error(e); process.exit(1); });
