package txn

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// batchOf builds a batch of one record.
func batchOf(t testing.TB, key, value []byte) record.Batch {
	t.Helper()
	b, err := record.Build(record.BuildHeader{ProducerID: base.NoProducerID, ProducerEpoch: -1, BaseSequence: -1, LeaderEpoch: -1},
		[]record.Record{{Key: key, Value: value}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// partitions are data partitions as far as markers are concerned: they fence, and they remember what ended.
type partitions struct {
	mu     sync.Mutex
	t      *testing.T
	rand   *rand.Rand
	epochs map[string]int32 // of coordinators, by partition and producer
	ended  map[string]bool  // partition, producer and epoch: commit
}

func endKey(tp base.TopicPartition, id base.ProducerID, epoch int16) string {
	return fmt.Sprintf("%s %d/%d", tp, id, epoch)
}

func (ps *partitions) write(m Marker, tp base.TopicPartition) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	producer := fmt.Sprintf("%s %d", tp, m.ProducerID)
	if ps.rand.IntN(5) == 0 {
		return kerr.NotLeaderForPartition
	}
	if ps.epochs[producer] > int32(m.CoordinatorEpoch) {
		return kerr.TransactionCoordinatorFenced
	}
	ps.epochs[producer] = int32(m.CoordinatorEpoch)
	key := endKey(tp, m.ProducerID, m.ProducerEpoch)
	if commit, again := ps.ended[key]; again && commit != m.Commit {
		ps.t.Errorf("%s is both committed and aborted", key)
	}
	ps.ended[key] = m.Commit
	if ps.rand.IntN(10) == 0 {
		return kerr.RequestTimedOut // written, but the answer is lost
	}
	return nil
}

// client is a producer of transaction version 2, as simple as one can be: it takes every error as a client does.
type client struct {
	k    *cluster
	who  producer
	want map[string]bool // what was acknowledged: partition, producer and epoch of the marker
}

func retriable(code int16) bool {
	return code == codeConcurrent || code == codeNotAvailable || code == codeNotCoordinator || code == codeLoading
}

// retry asks until the answer is one.
func (c *client) retry(ctx context.Context, ask func() int16) int16 {
	for {
		code := ask()
		if !retriable(code) || ctx.Err() != nil {
			return code
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (c *client) init(ctx context.Context) int16 {
	return c.retry(ctx, func() int16 {
		r := c.k.c.InitProducerID(ctx, initRequest(c.who.txnID))
		c.who.id, c.who.epoch = base.ProducerID(r.ProducerID), r.ProducerEpoch
		return r.ErrorCode
	})
}

// transaction runs one transaction and reports whether it was acknowledged.
func (c *client) transaction(ctx context.Context, ps []string, commit bool) bool {
	for _, p := range ps {
		code := c.retry(ctx, func() int16 {
			r := kmsg.NewPtrAddPartitionsToTxnRequest()
			r.Version, r.Transactions = 5, []kmsg.AddPartitionsToTxnRequestTransaction{batched(c.who, false, p)}
			return c.k.c.AddPartitionsToTxn(ctx, r).Transactions[0].Topics[0].Partitions[0].ErrorCode
		})
		if code != 0 {
			return false
		}
	}
	var end *kmsg.EndTxnResponse
	if c.retry(ctx, func() int16 { end = c.k.end(ctx, 5, c.who, commit); return end.ErrorCode }) != 0 {
		return false
	}
	for _, tp := range scriptPartitions(ps) {
		c.want[endKey(tp, c.who.id, c.who.epoch+1)] = commit
	}
	c.who.id, c.who.epoch = base.ProducerID(end.ProducerID), end.ProducerEpoch
	return true
}

// TestCrashes: producers over a log that loses appends now and then, coordinators that move at any moment and partitions that refuse
// markers, or lose the answer. Each transaction that was acknowledged ended as it should on each of its partitions, and none ended
// in two ways.
func TestCrashes(t *testing.T) {
	for _, s := range seeds(t, 5) {
		t.Run(fmt.Sprint("seed=", s), func(t *testing.T) {
			run(t, func(t *testing.T, k *cluster) { crashes(t, k, s) })
		})
	}
}

func crashes(t *testing.T, k *cluster, seed uint64) {
	data := &partitions{t: t, rand: rand.New(rand.NewPCG(seed, 1)), epochs: map[string]int32{}, ended: map[string]bool{}}
	k.set(func() { k.mu.fail = data.write })
	k.log.Fail = func(n int) error {
		switch {
		case n%29 == 0:
			return kerr.NotEnoughReplicas
		case n%67 == 0:
			return kerr.NotLeaderForPartition
		}
		return nil
	}
	const clients, transactions = 6, 40
	var wg sync.WaitGroup
	all := make([]*client, clients)
	for i := range all {
		c := &client{k: k, who: producer{txnID: fmt.Sprint("app-", i)}, want: map[string]bool{}}
		all[i] = c
		r := rand.New(rand.NewPCG(seed, uint64(i)+2))
		wg.Go(func() {
			begun, acknowledged := false, 0
			for acknowledged < transactions && t.Context().Err() == nil {
				if !begun || r.IntN(8) == 0 {
					begun = c.init(t.Context()) == 0
					continue
				}
				if begun = c.transaction(t.Context(), []string{"a/0", fmt.Sprintf("b/%d", r.IntN(3))}, r.IntN(3) > 0); begun {
					acknowledged++
				}
			}
		})
	}
	stop, moved := make(chan struct{}), make(chan int)
	go func() {
		r, n := rand.New(rand.NewPCG(seed, 99)), 0
		for epoch := base.LeaderEpoch(2); ; epoch++ {
			select {
			case <-stop:
				moved <- n
				return
			case <-time.After(time.Duration(r.IntN(40)) * time.Millisecond):
			}
			p := r.Int32N(4)
			if r.IntN(2) == 0 {
				k.c.Resign(p)
			}
			k.c.Lead(p, epoch)
			n++
		}
	}()
	wg.Wait()
	close(stop)
	if n := <-moved; n < 10 {
		t.Errorf("coordinators moved %d times only", n)
	}
	<-time.After(time.Hour) // what is open times out, what is decided is carried out
	synctest.Wait()
	list := k.c.ListTransactions(t.Context(), kmsg.NewPtrListTransactionsRequest())
	if list.ErrorCode != 0 || len(list.TransactionStates) != clients {
		t.Errorf("list: code %d, %d ids", list.ErrorCode, len(list.TransactionStates))
	}
	for _, s := range list.TransactionStates {
		if s.TransactionState != "CompleteCommit" && s.TransactionState != "CompleteAbort" && s.TransactionState != "Empty" {
			t.Errorf("%s is %s at the end", s.TransactionalID, s.TransactionState)
		}
	}
	for _, c := range all {
		for key, commit := range c.want {
			if got, ended := data.ended[key]; !ended || got != commit {
				t.Errorf("%s: ended %v with commit=%v, acknowledged commit=%v", key, ended, got, commit)
			}
		}
	}
}
