package ingest_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

// BenchmarkAppend appends 16 KiB batches to 16 partitions from 16 producers on the machine's disk, synced, while somebody
// plays the archiver.
func BenchmarkAppend(b *testing.B) {
	ctx := context.Background()
	meta, err := metadata.Open(ctx, metadata.Options{KV: memkv.New(memkv.Options{}), BrokerID: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer meta.Close()
	_, err = meta.RegisterBroker(ctx, metadata.Broker{ID: 1, Host: "h", Port: 1})
	if err != nil {
		b.Fatal(err)
	}
	const partitions, producers = 16, 16
	if _, err := meta.CreateTopic(ctx, metadata.TopicSpec{Name: "t", Partitions: partitions, ReplicationFactor: 1}, false); err != nil {
		b.Fatal(err)
	}
	store, err := hot.Open(hot.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	in, err := ingest.New(ingest.Options{Store: store, Meta: meta, Broker: 1})
	if err != nil {
		b.Fatal(err)
	}
	in.Start()
	defer in.Stop()
	done := make(chan struct{})
	var archiver sync.WaitGroup
	archiver.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-in.SealedC():
			}
			for _, r := range in.Sealed(1 << 30) {
				in.Tiered(r.Log, r.End)
			}
		}
	})
	built, err := record.Build(record.BuildHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, []record.Record{{Value: make([]byte, 16<<10)}})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(built)))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := p; i < b.N; i += producers {
				tp := base.TopicPartition{Topic: "t", Partition: int32(i % partitions)}
				r := in.Append(ctx, -1, 30000, []ingest.AppendRequest{{TP: tp, Records: bytes.Clone(built)}})
				<-r.Done()
				if err := r.Results()[0].Err; err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	close(done)
	archiver.Wait()
}
