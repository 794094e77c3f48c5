package metadata_test

import (
	"strings"
	"testing"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// What the first image lacks is taken for deleted, with its records: a broker does not start over a damaged key. One that runs goes
// on with the former value.
func TestDamagedKeyAtStart(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	running, _ := brokerStore(t, kv, 1, "a")
	if _, err := running.CreateTopic(t.Context(), metadata.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	kvs, _, err := kv.List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, pair := range kvs {
		if !strings.Contains(pair.Key, "/topic/") && !strings.Contains(pair.Key, "/partition/") {
			continue
		}
		damaged++
		f := func(value []byte) {
			if _, err := kv.Txn(t.Context(), nil, []metadata.Op{metadata.Put(pair.Key, value)}); err != nil {
				t.Fatal(err)
			}
		}
		f([]byte("{bad"))
		s, err := metadata.Open(t.Context(), metadata.Options{KV: kv, BrokerID: 2})
		if err == nil {
			_ = s.Close()
		}
		if !base.IsCorruption(err) || !strings.Contains(err.Error(), pair.Key) {
			t.Errorf("open over a damaged %s: %v", pair.Key, err)
		}
		if _, ok := running.Image().Topic("t"); !ok {
			t.Errorf("%s: a running broker has lost the topic", pair.Key)
		}
		f(pair.Value)
	}
	if damaged < 2 {
		t.Fatalf("%d keys of a topic", damaged)
	}
}
