// Command sarama is the sarama client of test/clients; the protocol is in that folder's doc.go. It has a module of its own, so
// that Varve does not depend on sarama.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

const (
	chunk    = 20
	patience = 2 * time.Minute
)

func main() {
	rounds, err1 := strconv.Atoi(os.Args[3])
	records, err2 := strconv.Atoi(os.Args[4])
	if err := errors.Join(err1, err2); err != nil {
		panic(err) // the harness is wrong
	}
	if err := roundTrip(os.Args[1], os.Args[2], rounds, records); err != nil {
		fmt.Fprintln(os.Stderr, "sarama:", err)
		os.Exit(1)
	}
}

func config(codec sarama.CompressionCodec) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.Idempotent, c.Net.MaxOpenRequests = true, 1
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.Compression = codec
	c.Producer.Retry.Max, c.Producer.Retry.Backoff = 100, 200*time.Millisecond
	c.Metadata.Retry.Max = 100
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	return c
}

func roundTrip(broker, prefix string, rounds, records int) error {
	producers, topics := map[string]sarama.SyncProducer{}, []string{}
	admin, err := sarama.NewClusterAdmin([]string{broker}, config(sarama.CompressionNone))
	if err != nil {
		return err
	}
	for name, codec := range codecs {
		topic := prefix + "-" + name
		topics = append(topics, topic)
		if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false); err != nil {
			return fmt.Errorf("create %s: %w", topic, err)
		}
		if producers[name], err = sarama.NewSyncProducer([]string{broker}, config(codec)); err != nil {
			return err
		}
	}
	c, stop, err := startConsumer(broker, prefix+"-group", topics)
	if err != nil {
		return err
	}
	stdin := bufio.NewReader(os.Stdin)
	for round := range rounds {
		if round > 0 {
			c.print("HALF")
			if _, err := stdin.ReadString('\n'); err != nil {
				return err
			}
		}
		if err := produce(producers, prefix, round*records, (round+1)*records); err != nil {
			return err
		}
		if err := c.wait((round + 1) * records * len(codecs)); err != nil {
			return err
		}
	}
	if err := stop(); err != nil {
		return err
	}
	c.print(fmt.Sprintf("OK records=%d", len(c.seen)))
	return errors.Join(admin.Close(), closeAll(producers))
}

func closeAll(producers map[string]sarama.SyncProducer) error {
	var err error
	for _, p := range producers {
		err = errors.Join(err, p.Close())
	}
	return err
}

func produce(producers map[string]sarama.SyncProducer, prefix string, from, to int) error {
	for start := from; start < to; start += chunk {
		for name, p := range producers {
			var batch []*sarama.ProducerMessage
			for i := start; i < min(start+chunk, to); i++ {
				batch = append(batch, record(prefix, name, i))
			}
			if err := p.SendMessages(batch); err != nil {
				return fmt.Errorf("produce %s: %w", name, err)
			}
		}
	}
	return nil
}

// record is expected(full, codec, i) of the harness.
func record(prefix, codec string, i int) *sarama.ProducerMessage {
	repeats := i % 50
	if i%97 == 96 {
		repeats = 5000
	}
	m := &sarama.ProducerMessage{Topic: prefix + "-" + codec, Headers: []sarama.RecordHeader{
		{Key: []byte("seq"), Value: []byte(strconv.Itoa(i))}, {Key: []byte("bytes"), Value: []byte{0, 255, byte(i)}},
		{Key: []byte("empty"), Value: []byte{}}, {Key: []byte("null")},
	}}
	if i%10 != 9 {
		m.Key = sarama.StringEncoder("k" + strconv.Itoa(i%17))
	}
	if i%13 != 12 || i%10 == 9 {
		m.Value = sarama.StringEncoder(fmt.Sprintf("%s-%d-%s", codec, i, strings.Repeat("varve ", repeats)))
	}
	return m
}

// consumer is the group's one member; sarama calls it from one goroutine for each partition.
type consumer struct {
	mu        sync.Mutex // guards all below
	seen      map[string]bool
	committed int64 // records that a commit covers
	ends      map[string]int64
	changed   chan struct{} // of size 1: seen or ends have grown
}

func startConsumer(broker, group string, topics []string) (*consumer, func() error, error) {
	g, err := sarama.NewConsumerGroup([]string{broker}, group, config(sarama.CompressionNone))
	if err != nil {
		return nil, nil, err
	}
	c := &consumer{seen: map[string]bool{}, ends: map[string]int64{}, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := g.Consume(ctx, topics, c); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "consume:", err) // the broker restarts: again
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return c, func() error { cancel(); <-done; return g.Close() }, nil
}

func (c *consumer) print(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Println(line)
}

func (c *consumer) wait(until int) error {
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		seen, committed := len(c.seen), c.committed
		c.mu.Unlock()
		if seen >= until && committed >= int64(until) {
			return nil
		}
		select {
		case <-c.changed:
		case <-deadline:
			return fmt.Errorf("only %d of %d records came, %d are committed", seen, until, committed)
		}
	}
}

// Setup is part of sarama.ConsumerGroupHandler.
func (c *consumer) Setup(sarama.ConsumerGroupSession) error { return nil }

// Cleanup is part of sarama.ConsumerGroupHandler.
func (c *consumer) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim is part of sarama.ConsumerGroupHandler.
func (c *consumer) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for m := range claim.Messages() {
		c.show(m)
		s.MarkMessage(m, "")
		if m.Offset+1 == claim.HighWaterMarkOffset() {
			s.Commit() // again with the next session, where it does not come through
			c.note(m)
		}
	}
	return nil
}

func (c *consumer) show(m *sarama.ConsumerMessage) {
	var headers []string
	for _, h := range m.Headers {
		headers = append(headers, string(h.Key)+"="+hex(h.Value))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[fmt.Sprintf("%s %d %d", m.Topic, m.Partition, m.Offset)] = true
	fmt.Printf("R %s %d %d %s %s %s\n", m.Topic, m.Partition, m.Offset, hex(m.Key), hex(m.Value), strings.Join(headers, ","))
}

func (c *consumer) note(m *sarama.ConsumerMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := fmt.Sprintf("%s %d", m.Topic, m.Partition)
	c.committed += max(m.Offset+1-c.ends[log], 0)
	c.ends[log] = max(c.ends[log], m.Offset+1)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func hex(b []byte) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprintf("x%x", b)
}
