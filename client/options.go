package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options are what a Producer and a Consumer share.
type Options struct {
	Brokers  []string // host:port of one or more brokers; 127.0.0.1:9092 when empty
	ClientID string   // shown in the broker's logs and quotas; "varve-client" when empty
	// Extra are franz-go options, for what this package has no field for (TLS, SASL, metrics); they win.
	Extra []kgo.Opt
}

// dialTimeout bounds one connection attempt.
const dialTimeout = 5 * time.Second

func (o Options) build(more ...kgo.Opt) (*kgo.Client, error) {
	if len(o.Brokers) == 0 {
		o.Brokers = []string{"127.0.0.1:9092"}
	}
	if o.ClientID == "" {
		o.ClientID = "varve-client"
	}
	base := []kgo.Opt{kgo.SeedBrokers(o.Brokers...), kgo.ClientID(o.ClientID), kgo.DialTimeout(dialTimeout)}
	cl, err := kgo.NewClient(append(append(base, more...), o.Extra...)...)
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	return cl, nil
}

// Record is a record to produce, or one that was consumed.
type Record struct {
	Topic   string
	Key     []byte // nil: none; records with one key keep their order
	Value   []byte // nil: a tombstone, which deletes the key in a compacted topic
	Headers []Header
	Time    time.Time // of creation; now when zero

	// Set by the broker.
	Partition int32
	Offset    int64
}

// Header is a name and a value that travel with a record.
type Header struct {
	Name  string
	Value []byte
}

// ErrClosed is what a call on a closed Producer or Consumer answers.
var ErrClosed = errors.New("client is closed")

func (r Record) toKgo() *kgo.Record {
	k := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Timestamp: r.Time}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
	}
	return k
}

func fromKgo(k *kgo.Record) Record {
	r := Record{Topic: k.Topic, Key: k.Key, Value: k.Value, Time: k.Timestamp, Partition: k.Partition, Offset: k.Offset}
	for _, h := range k.Headers {
		r.Headers = append(r.Headers, Header{Name: h.Key, Value: h.Value})
	}
	return r
}
