package txn

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/group"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
)

// offsetsTopic is where a transaction commits the offsets of consumer groups.
const offsetsTopic = "__consumer_offsets"

// Versions from which AddPartitionsToTxn behaves differently (KIP-890).
const (
	addByBrokers = 4
	addBumped    = 5 // the client bumps its epoch at each end
)

// Coordinator serves the transaction APIs for the partitions of __transaction_state that this broker leads. Every method may
// block until the answer is due and ends early with ctx. Requests of any version are answered with a response of the same
// version; the caller has authorised. Methods may be called from any goroutine; a request must not be changed after the call.
type Coordinator struct {
	opts  *Options
	inst  *instruments
	rt    *runtime.Runtime[*machine]
	group *service.Group // the couriers' goroutines
	slots chan struct{}

	mu struct {
		sync.Mutex
		led map[int32]*leadership
	}
}

// leadership is a partition that this broker leads.
type leadership struct {
	epoch  base.LeaderEpoch
	cancel context.CancelFunc // of the newest machine's courier
}

// New returns a coordinator that leads nothing yet.
func New(o Options) *Coordinator {
	o.EnsureDefaults()
	c := &Coordinator{
		opts: &o, inst: newInstruments(o.Meter), group: service.NewGroup(context.Background()),
		slots: make(chan struct{}, o.MaxMarkerWrites),
	}
	c.mu.led = map[int32]*leadership{}
	c.rt = runtime.New(runtime.Options[*machine]{
		Name: "txn", Log: o.Log, Clock: o.Clock, Logger: o.Logger, Meter: o.Meter,
		MailboxRequests: o.MailboxRequests, MaxBatchBytes: o.MaxBatchBytes, MaxPendingBytes: o.MaxPendingBytes,
		NewMachine: c.newMachine,
	})
	return c
}

// newMachine makes the empty state of a partition, and ends the slow work of the state before it.
func (c *Coordinator) newMachine(partition int32) *machine {
	ctx, cancel := context.WithCancel(c.group.Context())
	c.mu.Lock()
	defer c.mu.Unlock()
	epoch := base.NoLeaderEpoch
	if l := c.mu.led[partition]; l != nil {
		l.cancel()
		epoch, l.cancel = l.epoch, cancel
	} else {
		cancel() // resigned meanwhile
	}
	return newMachine(c.opts, c.inst, partition, epoch, &courier{
		opts: c.opts, inst: c.inst, rt: c.rt, group: c.group, slots: c.slots, ctx: ctx, partition: partition,
		log: c.opts.Logger.With(slog.Int("partition", int(partition))),
	})
}

// Lead starts to coordinate a partition in the given epoch. It returns at once; until the partition is replayed its
// transactional ids are answered COORDINATOR_LOAD_IN_PROGRESS (I15). An epoch that is not newer than the one being led is ignored.
func (c *Coordinator) Lead(partition int32, epoch base.LeaderEpoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.mu.led[partition]
	switch {
	case l == nil:
		c.mu.led[partition] = &leadership{epoch: epoch, cancel: func() {}}
	case l.epoch >= epoch:
		return
	default:
		l.cancel()
		l.epoch = epoch
	}
	c.rt.Lead(partition, epoch)
}

// Resign stops to coordinate a partition: everyone who waits or comes is answered NOT_COORDINATOR, and no marker is begun any more.
func (c *Coordinator) Resign(partition int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.mu.led[partition]; l != nil {
		l.cancel()
		delete(c.mu.led, partition)
	}
	c.rt.Resign(partition)
}

// Stop resigns all partitions and waits for their goroutines, or for ctx, and then for the calls of WriteMarkers and NextProducerID
// that are under way: they end with their context.
func (c *Coordinator) Stop(ctx context.Context) error {
	err := c.rt.Stop(ctx)
	c.group.Stop()
	return err
}

// call runs a step in the shard of a transactional id and waits for its answer of type T.
func call[T any](ctx context.Context, c *Coordinator, id string, step func(*machine, *runtime.Effects, *runtime.Promise)) (T, error) {
	var none T
	n := c.opts.Partitions()
	switch {
	case id == "" || len(id) > math.MaxInt16: // a longer one would be stored as something that cannot be read again
		return none, kerr.InvalidRequest
	case n <= 0:
		return none, kerr.CoordinatorNotAvailable
	}
	v, err := c.rt.Call(ctx, PartitionFor(id, n), step)
	if err != nil {
		return none, err
	}
	return v.(T), nil
}

// callWithID is call for a step that may find that it needs a producer id. The id is got here, in the caller's goroutine,
// since that blocks.
func callWithID[T any](ctx context.Context, c *Coordinator, id string,
	step func(m *machine, fx *runtime.Effects, fresh base.ProducerID, p *runtime.Promise),
) (T, error) {
	var none T
	fresh := base.NoProducerID
	for {
		v, err := call[any](ctx, c, id, func(m *machine, fx *runtime.Effects, p *runtime.Promise) { step(m, fx, fresh, p) })
		if err != nil {
			return none, err
		}
		if _, need := v.(needProducerID); !need {
			return v.(T), nil
		}
		if fresh, err = c.opts.NextProducerID(ctx); err != nil {
			return none, err
		}
	}
}

// PartitionFor is the partition of __transaction_state that holds a transactional id: the same function as for groups.
func PartitionFor(id string, partitions int32) int32 { return group.PartitionFor(id, partitions) }

// InitProducerID answers API key 22, versions 0 to 5, for requests with a transactional id.
func (c *Coordinator) InitProducerID(ctx context.Context, r *kmsg.InitProducerIDRequest) *kmsg.InitProducerIDResponse {
	switch {
	case r.TransactionalID == nil || (r.ProducerID == -1) != (r.ProducerEpoch == noEpoch):
		return initFailure(r.Version, codeInvalidRequest)
	case *r.TransactionalID == "":
		return initFailure(r.Version, codeInvalidRequest)
	case r.TransactionTimeoutMillis <= 0 || int64(r.TransactionTimeoutMillis) > c.opts.Config().MaxTimeout.Milliseconds():
		return initFailure(r.Version, codeInvalidTimeout)
	}
	resp, err := callWithID[*kmsg.InitProducerIDResponse](ctx, c, *r.TransactionalID,
		func(m *machine, fx *runtime.Effects, fresh base.ProducerID, p *runtime.Promise) {
			m.initProducerID(fx, r, fresh, p)
		})
	if err != nil {
		return initFailure(r.Version, codeOf(err))
	}
	return resp
}

// AddPartitionsToTxn answers API key 24: versions 0 to 3 of clients, 4 and 5 of brokers, where a request has many transactions
// and may only ask. A partition that does not exist fails its transaction's others with OPERATION_NOT_ATTEMPTED.
func (c *Coordinator) AddPartitionsToTxn(ctx context.Context, r *kmsg.AddPartitionsToTxnRequest) *kmsg.AddPartitionsToTxnResponse {
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	resp.Version = r.Version
	if r.Version < addByBrokers {
		who := producer{r.TransactionalID, base.ProducerID(r.ProducerID), r.ProducerEpoch}
		ps := partitionsOf(r.Topics)
		resp.Topics = addResponse(r.Topics, c.add(ctx, who, ps, version0))
		return resp
	}
	version := int16(version0)
	if r.Version >= addBumped {
		version = version2
	}
	resp.Transactions = make([]kmsg.AddPartitionsToTxnResponseTransaction, len(r.Transactions))
	each(len(r.Transactions), func(i int) {
		resp.Transactions[i] = c.addBatched(ctx, &r.Transactions[i], version)
	})
	return resp
}

// addBatched is one transaction of a broker's request.
func (c *Coordinator) addBatched(ctx context.Context, t *kmsg.AddPartitionsToTxnRequestTransaction, version int16) kmsg.AddPartitionsToTxnResponseTransaction {
	topics := make([]kmsg.AddPartitionsToTxnRequestTopic, len(t.Topics))
	for i := range t.Topics {
		topics[i].Topic, topics[i].Partitions = t.Topics[i].Topic, t.Topics[i].Partitions
	}
	who := producer{t.TransactionalID, base.ProducerID(t.ProducerID), t.ProducerEpoch}
	ps := partitionsOf(topics)
	var codes []int16
	if t.VerifyOnly {
		codes = c.verify(ctx, who, ps)
	} else {
		codes = c.add(ctx, who, ps, version)
	}
	out := kmsg.NewAddPartitionsToTxnResponseTransaction()
	out.TransactionalID = t.TransactionalID
	for _, rt := range addResponse(topics, codes) {
		bt := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
		bt.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			bp := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
			bp.Partition, bp.ErrorCode = rp.Partition, rp.ErrorCode
			bt.Partitions = append(bt.Partitions, bp)
		}
		out.Topics = append(out.Topics, bt)
	}
	return out
}

// add adds partitions to a transaction and returns the code of each.
func (c *Coordinator) add(ctx context.Context, who producer, ps []base.TopicPartition, version int16) []int16 {
	if codes := c.opts.missing(ps); codes != nil {
		return codes
	}
	code, err := call[int16](ctx, c, who.txnID, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.addPartitions(fx, who, ps, version, p)
	})
	if err != nil {
		code = codeOf(err)
	}
	return repeat(code, len(ps))
}

// verify asks whether partitions are part of a transaction and returns the code of each.
func (c *Coordinator) verify(ctx context.Context, who producer, ps []base.TopicPartition) []int16 {
	if codes := c.opts.missing(ps); codes != nil {
		return codes
	}
	codes, err := call[[]int16](ctx, c, who.txnID, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.verifyPartitions(fx, who, ps, p)
	})
	if err != nil {
		return repeat(codeOf(err), len(ps))
	}
	return codes
}

func repeat(code int16, n int) []int16 {
	out := make([]int16, n)
	for i := range out {
		out[i] = code
	}
	return out
}

// addResponse gives the partitions of a request their codes, which are in its order.
func addResponse(topics []kmsg.AddPartitionsToTxnRequestTopic, codes []int16) []kmsg.AddPartitionsToTxnResponseTopic {
	var out []kmsg.AddPartitionsToTxnResponseTopic
	for i := range topics {
		rt := kmsg.NewAddPartitionsToTxnResponseTopic()
		rt.Topic = topics[i].Topic
		for _, p := range topics[i].Partitions {
			rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p, codes[0]
			codes = codes[1:]
			rt.Partitions = append(rt.Partitions, rp)
		}
		out = append(out, rt)
	}
	return out
}

// AddOffsetsToTxn answers API key 25, versions 0 to 4: it adds the partition of __consumer_offsets that holds the group.
func (c *Coordinator) AddOffsetsToTxn(ctx context.Context, r *kmsg.AddOffsetsToTxnRequest) *kmsg.AddOffsetsToTxnResponse {
	resp := kmsg.NewPtrAddOffsetsToTxnResponse()
	resp.Version = r.Version
	n := c.opts.OffsetsPartitions()
	if n <= 0 {
		resp.ErrorCode = codeNotAvailable
		return resp
	}
	who := producer{r.TransactionalID, base.ProducerID(r.ProducerID), r.ProducerEpoch}
	tp := base.TopicPartition{Topic: offsetsTopic, Partition: group.PartitionFor(r.Group, n)}
	code, err := call[int16](ctx, c, r.TransactionalID, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.addPartitions(fx, who, []base.TopicPartition{tp}, version0, p)
	})
	if err != nil {
		code = codeOf(err)
	}
	resp.ErrorCode = code
	return resp
}

// EndTxn answers API key 26, versions 0 to 5.
func (c *Coordinator) EndTxn(ctx context.Context, r *kmsg.EndTxnRequest) *kmsg.EndTxnResponse {
	resp, err := callWithID[*kmsg.EndTxnResponse](ctx, c, r.TransactionalID,
		func(m *machine, fx *runtime.Effects, fresh base.ProducerID, p *runtime.Promise) {
			m.endTxn(fx, r, fresh, p)
		})
	if err != nil {
		return endFailure(r.Version, codeOf(err))
	}
	return resp
}

// DescribeTransactions answers API key 65, version 0.
func (c *Coordinator) DescribeTransactions(ctx context.Context, r *kmsg.DescribeTransactionsRequest) *kmsg.DescribeTransactionsResponse {
	resp := kmsg.NewPtrDescribeTransactionsResponse()
	resp.Version = r.Version
	resp.TransactionStates = make([]kmsg.DescribeTransactionsResponseTransactionState, len(r.TransactionalIDs))
	each(len(r.TransactionalIDs), func(i int) {
		id := r.TransactionalIDs[i]
		s, err := call[*kmsg.DescribeTransactionsResponseTransactionState](ctx, c, id,
			func(m *machine, fx *runtime.Effects, p *runtime.Promise) { m.describe(fx, id, p) })
		if err != nil {
			s = describeFailure(id, codeOf(err))
		}
		resp.TransactionStates[i] = *s
	})
	return resp
}

// ListTransactions answers API key 66, versions 0 to 2, for the partitions that are led here. While one of them loads the whole
// answer is COORDINATOR_LOAD_IN_PROGRESS, as in Kafka: a list with gaps would be taken for a complete one.
func (c *Coordinator) ListTransactions(ctx context.Context, r *kmsg.ListTransactionsRequest) *kmsg.ListTransactionsResponse {
	resp := kmsg.NewPtrListTransactionsResponse()
	resp.Version = r.Version
	f, unknown, bad := filterOf(r)
	if bad != nil {
		resp.ErrorCode = codeInvalidRegex
		return resp
	}
	resp.UnknownStateFilters = unknown
	for _, partition := range c.rt.Partitions() {
		v, err := c.rt.Call(ctx, partition, func(m *machine, fx *runtime.Effects, p *runtime.Promise) { m.list(fx, &f, p) })
		if errors.Is(err, kerr.NotCoordinator) {
			continue
		}
		if err != nil {
			resp.ErrorCode, resp.UnknownStateFilters, resp.TransactionStates = codeOf(err), nil, nil
			return resp
		}
		resp.TransactionStates = append(resp.TransactionStates, v.([]kmsg.ListTransactionsResponseTransactionState)...)
	}
	return resp
}

// fanOut bounds the transactions of one request that are worked on at the same time.
const fanOut = 16

// each runs fn(0..n-1), several at a time, and waits for all.
func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, fanOut)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(i)
		})
	}
	wg.Wait()
}
