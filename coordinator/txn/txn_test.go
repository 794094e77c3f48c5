package txn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/memlog"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
)

// cluster is what surrounds a coordinator: a log, producer ids, and partitions that take markers.
type cluster struct {
	log memlog.Log
	c   *Coordinator

	mu struct {
		sync.Mutex
		nextID  base.ProducerID
		noID    error
		gone    map[string]bool
		fail    func(Marker, base.TopicPartition) error // the fate of one marker
		markers []string                                // written
		ctx     context.Context                         // of the last round of markers
	}
}

// run runs a test in a bubble, with a coordinator that leads four partitions in epoch 1 and has loaded them.
func run(t *testing.T, test func(t *testing.T, k *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &cluster{}
		k.mu.nextID, k.mu.gone = 100, map[string]bool{}
		k.c = New(Options{
			Log: &k.log, Partitions: func() int32 { return 4 }, OffsetsPartitions: func() int32 { return 50 },
			NextProducerID: k.takeID, WriteMarkers: k.write,
			PartitionExists: func(topic string, _ int32) bool {
				k.mu.Lock()
				defer k.mu.Unlock()
				return !k.mu.gone[topic]
			},
			MaxMarkerWrites: 8,
		})
		for p := range int32(4) {
			k.c.Lead(p, 1)
		}
		synctest.Wait()
		test(t, k)
		if err := k.c.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func (k *cluster) takeID(context.Context) (base.ProducerID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.noID != nil {
		return base.NoProducerID, k.mu.noID
	}
	k.mu.nextID++
	return k.mu.nextID, nil
}

func (k *cluster) write(ctx context.Context, m Marker, ps []base.TopicPartition) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.ctx = ctx
	errs := make([]error, len(ps))
	for i, tp := range ps {
		if k.mu.fail != nil {
			errs[i] = k.mu.fail(m, tp)
		}
		if errs[i] == nil {
			k.mu.markers = append(k.mu.markers, fmt.Sprintf("%s %d/%d commit=%v v%d by %d", tp, m.ProducerID, m.ProducerEpoch, m.Commit,
				m.TransactionVersion, m.CoordinatorEpoch))
		}
	}
	return errs
}

// set changes what the cluster does.
func (k *cluster) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

func (k *cluster) wantMarkers(t *testing.T, want ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Sort(k.mu.markers); !slices.Equal(k.mu.markers, want) {
		t.Errorf("markers:\n%s\nwant:\n%s", strings.Join(k.mu.markers, "\n"), strings.Join(want, "\n"))
	}
	k.mu.markers = nil
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (k *cluster) init(t *testing.T, id string) producer {
	t.Helper()
	r := k.c.InitProducerID(t.Context(), initRequest(id))
	want(t, "init", r.ErrorCode, 0)
	return producer{id, base.ProducerID(r.ProducerID), r.ProducerEpoch}
}

func initRequest(id string) *kmsg.InitProducerIDRequest {
	r := kmsg.NewPtrInitProducerIDRequest()
	r.Version, r.TransactionalID, r.TransactionTimeoutMillis = 5, &id, 60_000
	return r
}

// addOne is the client form of AddPartitionsToTxn, with the codes of its partitions in order.
func (k *cluster) addOne(t *testing.T, who producer, partitions ...string) (codes []int16) {
	r := kmsg.NewPtrAddPartitionsToTxnRequest()
	r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch = 3, who.txnID, int64(who.id), who.epoch
	for _, tp := range scriptPartitions(partitions) {
		rt := kmsg.NewAddPartitionsToTxnRequestTopic()
		rt.Topic, rt.Partitions = tp.Topic, []int32{tp.Partition}
		r.Topics = append(r.Topics, rt)
	}
	for _, rt := range k.c.AddPartitionsToTxn(t.Context(), r).Topics {
		codes = append(codes, rt.Partitions[0].ErrorCode)
	}
	return codes
}

// batched is one transaction of the broker form.
func batched(who producer, verify bool, partitions ...string) kmsg.AddPartitionsToTxnRequestTransaction {
	r := kmsg.NewAddPartitionsToTxnRequestTransaction()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.VerifyOnly = who.txnID, int64(who.id), who.epoch, verify
	for _, tp := range scriptPartitions(partitions) {
		rt := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
		rt.Topic, rt.Partitions = tp.Topic, []int32{tp.Partition}
		r.Topics = append(r.Topics, rt)
	}
	return r
}

// addBatch is the broker form: "id: code, ...; ...".
func (k *cluster) addBatch(ctx context.Context, version int16, txns ...kmsg.AddPartitionsToTxnRequestTransaction) string {
	r := kmsg.NewPtrAddPartitionsToTxnRequest()
	r.Version, r.Transactions = version, txns
	var out []string
	for _, rt := range k.c.AddPartitionsToTxn(ctx, r).Transactions {
		s := rt.TransactionalID
		for _, topic := range rt.Topics {
			for _, p := range topic.Partitions {
				s += " " + showCode(p.ErrorCode)
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func (k *cluster) end(ctx context.Context, version int16, who producer, commit bool) *kmsg.EndTxnResponse {
	r := kmsg.NewPtrEndTxnRequest()
	r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = version, who.txnID, int64(who.id), who.epoch, commit
	return k.c.EndTxn(ctx, r)
}

func (k *cluster) state(t *testing.T, id string) string {
	r := kmsg.NewPtrDescribeTransactionsRequest()
	r.TransactionalIDs = []string{id}
	s := k.c.DescribeTransactions(t.Context(), r).TransactionStates[0]
	if s.ErrorCode != 0 {
		return showCode(s.ErrorCode)
	}
	return fmt.Sprintf("%s %d/%d", s.State, s.ProducerID, s.ProducerEpoch)
}

func TestOneLife(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		who := k.init(t, "x")
		want(t, "add", fmt.Sprint(k.addOne(t, who, "t/0", "u/3")), "[0 0]")
		r := kmsg.NewPtrAddOffsetsToTxnRequest()
		r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Group = 3, "x", int64(who.id), who.epoch, "g"
		want(t, "add offsets", k.c.AddOffsetsToTxn(t.Context(), r).ErrorCode, 0)
		end := k.end(t.Context(), 5, who, true)
		want(t, "end", fmt.Sprint(end.ErrorCode, end.ProducerID, end.ProducerEpoch), "0 101 1")
		synctest.Wait()
		k.wantMarkers(t, "__consumer_offsets-3 101/1 commit=true v2 by 1", "t-0 101/1 commit=true v2 by 1", "u-3 101/1 commit=true v2 by 1")
		want(t, "state", k.state(t, "x"), "CompleteCommit 101/1")

		// The next leader knows.
		k.c.Lead(PartitionFor("x", 4), 2)
		synctest.Wait()
		want(t, "state", k.state(t, "x"), "CompleteCommit 101/1")
		// Version 1, which is not told a producer.
		who.epoch = 1
		want(t, "add", fmt.Sprint(k.addOne(t, who, "t/0")), "[0]")
		end = k.end(t.Context(), 3, who, false)
		want(t, "end", fmt.Sprint(end.ErrorCode, end.ProducerID, end.ProducerEpoch), "0 -1 -1")
		synctest.Wait()
		k.wantMarkers(t, "t-0 101/1 commit=false v0 by 2")
	})
}

// TestMarkersUntilWritten: each partition is asked until it has its marker, those that have it are not asked again, a deleted topic
// drops out, and a partition that has none holds up nobody else's.
func TestMarkersUntilWritten(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		tries := map[string]int{}
		k.set(func() {
			k.mu.fail = func(_ Marker, tp base.TopicPartition) error {
				tries[tp.Topic]++
				switch {
				case tp.Topic == "slow" && tries[tp.Topic] < 4:
					return fmt.Errorf("leader: %w", kerr.NotLeaderForPartition)
				case tp.Topic == "deleted":
					return kerr.UnknownTopicOrPartition
				}
				return nil
			}
		})
		who, other := k.init(t, "x"), k.init(t, "other")
		k.addOne(t, who, "t/0", "slow/1", "deleted/0")
		want(t, "end", k.end(t.Context(), 5, who, true).ErrorCode, 0)
		k.addOne(t, other, "t/0")
		want(t, "end of another", k.end(t.Context(), 5, other, true).ErrorCode, 0)
		synctest.Wait()
		want(t, "state", k.state(t, "x"), "PrepareCommit 101/1")
		want(t, "state of another", k.state(t, "other"), "CompleteCommit 102/1")
		<-time.After(time.Second)
		k.wantMarkers(t, "slow-1 101/1 commit=true v2 by 1", "t-0 101/1 commit=true v2 by 1", "t-0 102/1 commit=true v2 by 1")
		want(t, "state", k.state(t, "x"), "PrepareCommit 101/1")
		k.set(func() { k.mu.gone["deleted"] = true })
		<-time.After(time.Second)
		want(t, "state", k.state(t, "x"), "CompleteCommit 101/1")
		k.set(func() {
			want(t, "tries", tries["slow"], 4)
			want(t, "tries", tries["t"], 2)
		})
	})
}

// TestMarkersFenced: a coordinator that was fenced stops, and the next one goes on with an epoch of its own.
func TestMarkersFenced(t *testing.T) {
	for _, fence := range []error{kerr.TransactionCoordinatorFenced, kerr.InvalidProducerEpoch} {
		run(t, func(t *testing.T, k *cluster) {
			tries := 0
			k.set(func() {
				k.mu.fail = func(m Marker, _ base.TopicPartition) error {
					tries++
					switch {
					case m.CoordinatorEpoch < 5:
						return fence
					case tries < 5:
						return kerr.NotEnoughReplicas
					}
					return nil
				}
			})
			who := k.init(t, "x")
			k.addOne(t, who, "t/0")
			want(t, "end", k.end(t.Context(), 5, who, false).ErrorCode, 0)
			<-time.After(time.Hour)
			want(t, "state", k.state(t, "x"), "PrepareAbort 101/1")
			k.set(func() { want(t, "tries", tries, 1) })
			k.c.Lead(PartitionFor("x", 4), 5)
			synctest.Wait()
			k.c.Lead(PartitionFor("x", 4), 4) // not newer: ignored
			synctest.Wait()
			<-time.After(time.Second)
			k.wantMarkers(t, "t-0 101/1 commit=false v2 by 5")
			want(t, "state", k.state(t, "x"), "CompleteAbort 101/1")
		})
	}
}

// TestResigned: whoever waits is told, nothing is written any more, and the next leadership resumes.
func TestResigned(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		p := PartitionFor("x", 4)
		tries := 0
		k.set(func() {
			k.mu.fail = func(m Marker, _ base.TopicPartition) error {
				if tries++; m.CoordinatorEpoch == 1 {
					return kerr.NotEnoughReplicas
				}
				return nil
			}
		})
		who := k.init(t, "x")
		k.addOne(t, who, "t/0")
		k.log.Hold()
		done := make(chan int16)
		go func() { done <- k.end(t.Context(), 5, who, true).ErrorCode }()
		synctest.Wait()
		k.set(func() { want(t, "tries before the decision is committed", tries, 0) })
		k.c.Resign(p)
		want(t, "parked end", <-done, codeNotCoordinator)
		want(t, "state", k.state(t, "x"), "NOT_COORDINATOR")
		// The next leadership may not answer before the append of the last one is settled (I15).
		k.c.Lead(p, 2)
		synctest.Wait()
		want(t, "state", k.state(t, "x"), "COORDINATOR_LOAD_IN_PROGRESS")
		list := k.c.ListTransactions(t.Context(), kmsg.NewPtrListTransactionsRequest())
		want(t, "list", list.ErrorCode, codeLoading)
		k.log.Release()
		<-time.After(time.Second)
		k.wantMarkers(t, "t-0 101/1 commit=true v2 by 2")
		want(t, "retry of the client", k.end(t.Context(), 5, who, true).ErrorCode, 0)

		// Markers under way end with the leadership.
		who.epoch = 1
		k.addOne(t, who, "t/0")
		k.set(func() { k.mu.fail = func(Marker, base.TopicPartition) error { tries++; return kerr.NotEnoughReplicas } })
		want(t, "end", k.end(t.Context(), 5, who, true).ErrorCode, 0)
		<-time.After(time.Second)
		k.c.Resign(p)
		synctest.Wait()
		before := 0
		k.set(func() { before = tries })
		<-time.After(time.Hour)
		k.set(func() { want(t, "tries after resigning", tries, before) })
	})
}

// TestMarkersOfOldStates: markers end with the state that they were for, when a newer one takes its place: at once with a newer
// epoch, even if that has to wait for the log, and where the log makes the shard load again.
func TestMarkersOfOldStates(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		p := PartitionFor("x", 4)
		tries := 0
		k.set(func() {
			k.mu.fail = func(Marker, base.TopicPartition) error {
				tries++
				return kerr.NotEnoughReplicas
			}
		})
		same := "y"
		for i := 0; PartitionFor(same, 4) != p; i++ {
			same = fmt.Sprint("y", i)
		}
		who := k.init(t, "x")
		k.addOne(t, who, "t/0")
		want(t, "end", k.end(t.Context(), 5, who, true).ErrorCode, 0)
		synctest.Wait()
		var old context.Context
		k.set(func() { old = k.mu.ctx })
		want(t, "markers", old.Err(), nil)

		k.log.Fail = func(int) error { k.log.Fail = nil; return kerr.NotLeaderForPartition }
		want(t, "init", k.c.InitProducerID(t.Context(), initRequest(same)).ErrorCode, codeNotCoordinator)
		synctest.Wait()
		want(t, "markers after loading again", old.Err(), context.Canceled)
		k.set(func() { old = k.mu.ctx })
		want(t, "markers", old.Err(), nil)

		k.log.Hold()
		done := make(chan int16)
		go func() { done <- k.c.InitProducerID(t.Context(), initRequest(same)).ErrorCode }()
		synctest.Wait()
		k.c.Lead(p, 2)
		want(t, "parked init", <-done, codeNotCoordinator)
		want(t, "markers while the next epoch waits", old.Err(), context.Canceled)
		k.set(func() { tries, k.mu.fail = 0, nil })
		k.log.Release()
		<-time.After(time.Second)
		k.wantMarkers(t, "t-0 101/1 commit=true v2 by 2")
	})
}

// TestTell: what slow work came to waits for a shard that loads, and is dropped where the state is another by then.
func TestTell(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		p := PartitionFor("x", 4)
		k.log.Hold()
		go k.c.InitProducerID(t.Context(), initRequest("x"))
		synctest.Wait()
		k.c.Lead(p, 2) // waits for the append
		synctest.Wait()
		c := &courier{opts: k.c.opts, rt: k.c.rt, ctx: t.Context(), partition: p}
		var told, returned atomic.Bool
		go func() {
			c.tell(newMachine(k.c.opts, k.c.inst, p, 1, c), func(*runtime.Effects) { told.Store(true) })
			returned.Store(true)
		}()
		<-time.After(time.Minute)
		want(t, "returned while loading", returned.Load(), false)
		k.log.Release()
		<-time.After(time.Minute)
		want(t, "returned", returned.Load(), true)
		want(t, "told another state", told.Load(), false)
	})
}

// TestTimeoutWithoutProducerIDs: a timed-out transaction whose epochs are used up is aborted when there is a producer id again.
func TestTimeoutWithoutProducerIDs(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		p := PartitionFor("x", 4)
		x := &transaction{id: "x", nextID: base.NoProducerID}
		x = x.initialised(50, lastEpoch, noEpoch, 60_000, time.Now().UnixMilli())
		k.log.Put(p, batchOf(t, recordKey("x"), recordValue(x)))
		k.c.Lead(p, 2)
		synctest.Wait()
		k.set(func() { k.mu.noID = errors.New("no ids") })
		want(t, "add", fmt.Sprint(k.addOne(t, producer{"x", 50, lastEpoch}, "t/0")), "[0]")
		want(t, "commit without an id", k.end(t.Context(), 5, producer{"x", 50, lastEpoch}, true).ErrorCode, codeNotAvailable)
		want(t, "init without an id", k.c.InitProducerID(t.Context(), initRequest("new")).ErrorCode, codeNotAvailable)
		<-time.After(5 * time.Minute)
		want(t, "state", k.state(t, "x"), "Ongoing 50/32766")
		k.set(func() { k.mu.noID = nil })
		<-time.After(time.Minute)
		k.wantMarkers(t, "t-0 50/32767 commit=false v2 by 2")
		want(t, "state", k.state(t, "x"), "CompleteAbort 101/0")
	})
}

func TestAddPartitions(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		x, y := k.init(t, "x"), k.init(t, "y")
		k.set(func() { k.mu.gone["gone"] = true })
		want(t, "one is missing", fmt.Sprint(k.addOne(t, x, "t/0", "gone/0", "t/1")), fmt.Sprint([]int16{codeNotAttempted, codeUnknownTopicOrPart, codeNotAttempted}))
		want(t, "state", k.state(t, "x"), "Empty 101/0")
		fenced := y
		fenced.epoch = 9
		want(t, "batch", k.addBatch(t.Context(), 5, batched(x, false, "t/0", "t/1"), batched(fenced, false, "t/0"), batched(producer{"nobody", 1, 0}, false, "t/0"),
			batched(producer{}, false, "t/0"), batched(y, false, "t/0", "gone/1")),
			"x ok ok; y PRODUCER_FENCED; nobody INVALID_PRODUCER_ID_MAPPING;  INVALID_REQUEST; y OPERATION_NOT_ATTEMPTED UNKNOWN_TOPIC_OR_PARTITION")
		want(t, "verify", k.addBatch(t.Context(), 4, batched(x, true, "t/0", "t/7"), batched(y, true, "t/0"), batched(y, true, "gone/0", "t/0")),
			"x ok TRANSACTION_ABORTABLE; y TRANSACTION_ABORTABLE; y UNKNOWN_TOPIC_OR_PARTITION OPERATION_NOT_ATTEMPTED")
		want(t, "nothing was begun by asking", k.state(t, "y"), "Empty 102/0")
		// Version 4 is from brokers whose client does not bump epochs, version 5 from those whose does.
		k.addBatch(t.Context(), 4, batched(y, false, "t/0"))
		for id, version := range map[string]int16{"x": version2, "y": version0} {
			var last *transaction
			for _, b := range k.log.Batches(PartitionFor(id, 4)) {
				m := newMachine(k.c.opts, k.c.inst, 0, 0, nil)
				if err := m.Replay(b); err != nil {
					t.Fatal(err)
				}
				if m.txns[id] != nil {
					last = m.txns[id]
				}
			}
			want(t, "version of "+id, last.version, version)
		}
	})
}

func TestInvalidRequests(t *testing.T) {
	run(t, func(t *testing.T, k *cluster) {
		code := func(change func(*kmsg.InitProducerIDRequest)) int16 {
			r := initRequest("x")
			change(r)
			resp := k.c.InitProducerID(t.Context(), r)
			want(t, "producer of a failure", resp.ProducerID, -1)
			return resp.ErrorCode
		}
		empty := ""
		long := strings.Repeat("x", 1<<15)
		want(t, "no id", code(func(r *kmsg.InitProducerIDRequest) { r.TransactionalID = nil }), codeInvalidRequest)
		want(t, "empty id", code(func(r *kmsg.InitProducerIDRequest) { r.TransactionalID = &empty }), codeInvalidRequest)
		want(t, "long id", code(func(r *kmsg.InitProducerIDRequest) { r.TransactionalID = &long }), codeInvalidRequest)
		want(t, "id without epoch", code(func(r *kmsg.InitProducerIDRequest) { r.ProducerID = 1 }), codeInvalidRequest)
		want(t, "epoch without id", code(func(r *kmsg.InitProducerIDRequest) { r.ProducerEpoch = 1 }), codeInvalidRequest)
		want(t, "timeout 0", code(func(r *kmsg.InitProducerIDRequest) { r.TransactionTimeoutMillis = 0 }), codeInvalidTimeout)
		want(t, "timeout too long", code(func(r *kmsg.InitProducerIDRequest) { r.TransactionTimeoutMillis = 900_001 }), codeInvalidTimeout)
		want(t, "end of nothing", k.end(t.Context(), 5, producer{}, true).ErrorCode, codeInvalidRequest)
		want(t, "add to nothing", fmt.Sprint(k.addOne(t, producer{}, "t/0")), fmt.Sprint([]int16{codeInvalidRequest}))
		want(t, "state", k.state(t, ""), "INVALID_REQUEST")
		want(t, "state", k.state(t, "x"), "TRANSACTIONAL_ID_NOT_FOUND")

		k.init(t, "x")
		r, bad := kmsg.NewPtrListTransactionsRequest(), "("
		r.Version, r.StateFilters = 2, []string{"Empty", "Nonsense"}
		list := k.c.ListTransactions(t.Context(), r)
		want(t, "list", fmt.Sprint(list.ErrorCode, list.UnknownStateFilters, len(list.TransactionStates)), "0 [Nonsense] 1")
		r.TransactionalIDPattern = &bad
		want(t, "bad pattern", k.c.ListTransactions(t.Context(), r).ErrorCode, codeInvalidRegex)

		k.c.opts.Partitions = func() int32 { return 0 }
		k.c.opts.OffsetsPartitions = func() int32 { return 0 }
		want(t, "no topic", k.end(t.Context(), 5, producer{txnID: "x"}, true).ErrorCode, codeNotAvailable)
		want(t, "no offsets topic", k.c.AddOffsetsToTxn(t.Context(), kmsg.NewPtrAddOffsetsToTxnRequest()).ErrorCode, codeNotAvailable)
	})
}

func TestCodeOf(t *testing.T) {
	for err, code := range map[error]int16{
		kerr.NotEnoughReplicas: 15, kerr.RequestTimedOut: 15, kerr.NotLeaderForPartition: 16, kerr.KafkaStorageError: 16,
		kerr.MessageTooLarge: -1, kerr.NotCoordinator: 16, kerr.CoordinatorLoadInProgress: 14, kerr.ProducerFenced: 90, context.Canceled: 15,
	} {
		want(t, err.Error(), codeOf(fmt.Errorf("append: %w", err)), code)
	}
}
