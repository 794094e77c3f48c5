package metadata

import (
	"context"
	"fmt"
	"slices"

	"github.com/varvelog/varve/internal/base"
)

// epochsPerTxn is how many partitions one transaction gives a new leader epoch.
const epochsPerTxn = 100

// RegisterBroker makes a broker known and returns the epoch of this registration. A process registers once, at its start,
// before it serves: every partition that the broker led gets its next leader epoch, which fences what an earlier
// incarnation may still have under way (Kafka does the same on a restart), and partitions without a leader are led again
// where this broker is in sync. The broker also becomes the controller, as long as there is only one.
func (s *Store) RegisterBroker(ctx context.Context, b Broker) (epoch int64, err error) {
	ops := []Op{Put(brokerKey(b.ID), encode(brokerRecord{Host: b.Host, Port: b.Port, Rack: b.Rack}))}
	brokers := s.Image().Brokers()
	if len(brokers) == 0 || len(brokers) == 1 && brokers[0].ID == b.ID {
		ops = append(ops, Put(controllerKey, encode(controllerRecord{Broker: b.ID})))
	}
	res, err := s.kv.Txn(ctx, nil, ops)
	if err != nil {
		return 0, kvError(err, "register broker %d", b.ID)
	}
	epoch = res.Revision
	written := epoch
	for range casAttempts {
		left, revision, err := s.lead(ctx, b.ID, epoch)
		if err != nil {
			return 0, fmt.Errorf("register broker %d: %w", b.ID, err)
		}
		written = max(written, revision)
		if left == 0 {
			return epoch, s.loader.await(ctx, written)
		}
	}
	return 0, fmt.Errorf("register broker %d: %w", b.ID, errLostRace)
}

// lead bumps the leader epochs of all partitions whose keys were last written before the registration. It returns how many
// lost a race and have to be looked at again.
func (s *Store) lead(ctx context.Context, id base.BrokerID, registered int64) (left int, revision int64, err error) {
	kvs, _, err := s.kv.List(ctx, partitionPrefix)
	if err != nil {
		return 0, 0, wrapKV(err, "list partition keys")
	}
	var cmps []Cmp
	var ops []Op
	for n, kv := range kvs {
		if kv.ModRevision < registered {
			r, err := decode[partitionRecord](kv)
			if err != nil {
				return 0, 0, err
			}
			if r.takeLead(id) {
				cmps = append(cmps, Unchanged(kv.Key, kv.ModRevision))
				ops = append(ops, Put(kv.Key, encode(r)))
			}
		}
		if len(ops) == epochsPerTxn || len(ops) > 0 && n == len(kvs)-1 {
			res, err := s.kv.Txn(ctx, cmps, ops)
			if err != nil {
				return 0, 0, wrapKV(err, "write leader epochs")
			}
			if res.Committed {
				revision = res.Revision
			} else {
				left += len(ops)
			}
			cmps, ops = nil, nil
		}
	}
	return left, revision, nil
}

// takeLead gives a partition its next leader epoch where the broker leads it, or may.
func (r *partitionRecord) takeLead(id base.BrokerID) bool {
	switch {
	case r.Leader == id:
	case r.Leader == -1 && slices.Contains(r.ISR, id):
		r.Leader = id
	default:
		return false
	}
	r.LeaderEpoch++
	r.PartitionEpoch++
	return true
}
