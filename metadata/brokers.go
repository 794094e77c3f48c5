package metadata

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata/controller"
)

func (r brokerRecord) broker(id base.BrokerID, rev int64) Broker {
	b := Broker{
		ID: id, Host: r.Host, Port: r.Port, Rack: r.Rack, Disk: r.Disk, Epoch: r.Epoch,
		Fenced: r.Fenced, Wiped: r.Wiped, Draining: r.Drain, Full: r.Full, Rev: rev,
	}
	if b.Epoch == 0 {
		b.Epoch = rev
	}
	return b
}

func (b *Broker) record() brokerRecord {
	return brokerRecord{
		Host: b.Host, Port: b.Port, Rack: b.Rack, Disk: b.Disk, Epoch: b.Epoch,
		Fenced: b.Fenced, Wiped: b.Wiped, Drain: b.Draining, Full: b.Full,
	}
}

// registry is what a registration is decided from.
type registry struct {
	brokers  map[base.BrokerID]Broker
	claimed  int64 // mod revision of the controller key
	revision int64
}

// registry reads the registrations, which the image may not show yet.
func (s *Store) registry(ctx context.Context) (registry, error) {
	kvs, revision, err := s.kv.List(ctx, brokerPrefix)
	if err != nil {
		return registry{}, wrapKV(err, "list brokers")
	}
	r := registry{brokers: make(map[base.BrokerID]Broker, len(kvs)), revision: revision}
	for _, kv := range kvs {
		id, err := strconv.ParseInt(kv.Key[len(brokerPrefix):], 10, 32)
		if err != nil {
			return registry{}, base.MarkCorruption(err)
		}
		record, err := decode[brokerRecord](kv)
		if err != nil {
			return registry{}, err
		}
		r.brokers[base.BrokerID(id)] = record.broker(base.BrokerID(id), kv.ModRevision)
	}
	kv, _, err := s.kv.Get(ctx, controllerKey)
	r.claimed = kv.ModRevision
	return r, wrapKV(err, "read the controller")
}

// RegisterBroker makes a broker known and returns the epoch of this registration, which is larger than that of any before.
// Of b it takes ID, Host, Port, Rack and Disk. A process registers once, at its start, before it serves.
//
// In a cluster the broker is fenced from here on: it leads nothing before the controller has heard its heartbeats, and by
// then every partition that it led has a new leader epoch, which fences what an earlier incarnation may still have under
// way. A broker that is alone is its own controller: the registration claims the controller and unfences it, and the
// partitions that it led, or can lead, are elected before this returns.
//
// What Options.Admit has allowed to be replaced is compared in the write: of several processes that come at once one is first, and
// the next one has to ask about that.
func (s *Store) RegisterBroker(ctx context.Context, b Broker) (epoch int64, err error) {
	image := s.Image()
	known := registry{brokers: image.brokers, claimed: image.claimed, revision: image.revision}
	var admitted int64 // the epoch that may be replaced
	for range casAttempts {
		old, was := known.brokers[b.ID]
		alone := len(known.brokers) == 0 || len(known.brokers) == 1 && was
		if was && !alone && s.opts.Admit != nil && old.Epoch != admitted {
			if err := s.opts.Admit(ctx, old); err != nil {
				return 0, fmt.Errorf("register broker %d: %w", b.ID, err)
			}
			admitted = old.Epoch
		}
		next := b.anew(old, was, known.revision)
		next.Fenced = !alone || next.Wiped
		cmps := []Cmp{Unchanged(brokerKey(b.ID), old.Rev)}
		ops := []Op{Put(brokerKey(b.ID), encode(next.record()))}
		if alone {
			cmps = append(cmps, Unchanged(controllerKey, known.claimed))
			ops = append(ops, Put(controllerKey, encode(controllerRecord{Broker: b.ID})))
		}
		res, err := s.kv.Txn(ctx, cmps, ops)
		if err != nil {
			return 0, kvError(err, "register broker %d", b.ID)
		}
		if res.Committed {
			if b.ID == s.opts.BrokerID {
				s.epoch.Store(next.Epoch)
			}
			if !alone {
				return next.Epoch, s.loader.await(ctx, res.Revision)
			}
			err := s.takeOver(ctx, next, res.Revision)
			if err == nil {
				return next.Epoch, nil
			}
			// Another broker came and became the controller before all was elected: leave it to that one, fenced.
			if !errors.Is(err, kerr.NotController) {
				return 0, fmt.Errorf("register broker %d: %w", b.ID, err)
			}
		}
		if known, err = s.registry(ctx); err != nil {
			return 0, fmt.Errorf("register broker %d: %w", b.ID, err)
		}
	}
	return 0, fmt.Errorf("register broker %d: %w", b.ID, errLostRace)
}

// anew returns the registration that replaces an older one. Its epoch is larger than any before, each of which is at most the
// revision of the write that made it. Wiped stays until the controller unfences the broker; an id that nobody
// holds may once have been another broker's, so its disk is taken for a new one.
func (b Broker) anew(old Broker, was bool, revision int64) Broker {
	next := Broker{ID: b.ID, Host: b.Host, Port: b.Port, Rack: b.Rack, Disk: b.Disk, Draining: old.Draining}
	next.Epoch = max(revision, old.Rev) + 1
	if next.Disk == "" {
		next.Disk = old.Disk
	}
	replaced := old.Disk != "" && next.Disk != old.Disk
	next.Wiped = old.Wiped || replaced || !was && next.Disk != ""
	return next
}

// takeOver elects what follows from the start of a broker that is alone, and unfences it where that has to come after.
func (s *Store) takeOver(ctx context.Context, b Broker, registered int64) error {
	written := registered
	status := controller.Cluster{b.ID: controller.Live}
	if b.Wiped {
		status[b.ID] = controller.Wiped
	}
	for attempt := 0; ; attempt++ {
		left, revision, err := s.lead(ctx, b.ID, status, registered)
		switch {
		case err != nil:
			return err
		case left > 0 && attempt == casAttempts:
			return errLostRace
		}
		written = max(written, revision)
		if left == 0 {
			break
		}
	}
	if err := s.loader.await(ctx, written); err != nil {
		return err
	}
	if !b.Wiped {
		return nil
	}
	if err := s.UnfenceBroker(ctx, registered, b.ID, b.Epoch); err != nil {
		return err
	}
	image := s.Image()
	var changes []PartitionChange
	for p := range image.AllPartitions() {
		if next, changed := controller.Next(p.State(), image.Cluster(nil), image.Rules(p)); changed {
			changes = append(changes, PartitionChange{Partition: *p, Next: next, Seen: image})
		}
	}
	_, err := s.ApplyPartitionChanges(ctx, registered, changes)
	return err
}

// lead elects anew for all partitions whose keys were last written before the registration, fenced by the controller key
// that the registration wrote. It returns how many lost a race and have to be looked at again.
func (s *Store) lead(ctx context.Context, id base.BrokerID, c controller.Cluster, registered int64) (left int, revision int64, err error) {
	kvs, _, err := s.kv.List(ctx, partitionPrefix)
	if err != nil {
		return 0, 0, wrapKV(err, "list partition keys")
	}
	image := s.Image()
	fence := Unchanged(controllerKey, registered)
	cmps := []Cmp{fence}
	var ops []Op
	for n, kv := range kvs {
		if kv.ModRevision < registered {
			topic, index, err := parsePartitionKey(kv.Key[len(partitionPrefix):])
			if err != nil {
				return 0, 0, base.MarkCorruption(err)
			}
			r, err := decode[partitionRecord](kv)
			if err != nil {
				return 0, 0, err
			}
			p := r.partition(topic, index, kv.ModRevision)
			if next, changed := controller.Restart(p.State(), id, c, image.Rules(&p)); changed {
				p.set(next)
				cmps = append(cmps, Unchanged(kv.Key, kv.ModRevision))
				ops = append(ops, Put(kv.Key, encode(p.record())))
			}
		}
		if len(ops) == changesPerTxn || len(ops) > 0 && n == len(kvs)-1 {
			res, err := s.kv.Txn(ctx, cmps, ops)
			if err != nil {
				return 0, 0, wrapKV(err, "write leader epochs")
			}
			if res.Committed {
				revision = res.Revision
			} else {
				left += len(ops)
				if err := s.stillController(ctx, registered); err != nil {
					return 0, 0, err
				}
			}
			cmps, ops = []Cmp{fence}, nil
		}
	}
	return left, revision, nil
}

// FenceBroker takes a broker out of service, as the controller of an epoch. It is no error where it is fenced already;
// kerr.StaleBrokerEpoch where it has registered anew, kerr.NotController where somebody else is the controller.
func (s *Store) FenceBroker(ctx context.Context, controllerEpoch int64, id base.BrokerID, brokerEpoch int64) error {
	err := s.changeBroker(ctx, id, &controllerEpoch, func(b *Broker) (bool, error) {
		changed := !b.Fenced
		b.Fenced = true
		return changed, staleUnless(b, brokerEpoch)
	})
	return wrapKV(err, fmt.Sprintf("fence broker %d", id))
}

// UnfenceBroker puts a broker into service, as the controller of an epoch: errors as of FenceBroker, and
// kerr.IneligibleReplica while the image shows partitions that the registration still has to change (Unready).
func (s *Store) UnfenceBroker(ctx context.Context, controllerEpoch int64, id base.BrokerID, brokerEpoch int64) error {
	err := s.changeBroker(ctx, id, &controllerEpoch, func(b *Broker) (bool, error) {
		if err := staleUnless(b, brokerEpoch); err != nil {
			return false, err
		}
		if p := s.Image().Unready(*b); p != nil {
			return false, fmt.Errorf("partition %s is not settled: %w", p.TP, kerr.IneligibleReplica)
		}
		changed := b.Fenced || b.Wiped
		b.Fenced, b.Wiped = false, false
		return changed, nil
	})
	return wrapKV(err, fmt.Sprintf("unfence broker %d", id))
}

// SetFull notes what a broker says of its disk, as the controller of an epoch: errors as of FenceBroker.
func (s *Store) SetFull(ctx context.Context, controllerEpoch int64, id base.BrokerID, brokerEpoch int64, full bool) error {
	err := s.changeBroker(ctx, id, &controllerEpoch, func(b *Broker) (bool, error) {
		changed := b.Full != full
		b.Full = full
		return changed, staleUnless(b, brokerEpoch)
	})
	return wrapKV(err, fmt.Sprintf("note that the disk of broker %d is full: %t", id, full))
}

// SetDraining says whether a broker is to be emptied: it keeps no leadership that another can take, gets no new replicas,
// and the controller moves those that it has. It holds over restarts. kerr.BrokerIDNotRegistered.
func (s *Store) SetDraining(ctx context.Context, id base.BrokerID, draining bool) error {
	err := s.changeBroker(ctx, id, nil, func(b *Broker) (bool, error) {
		changed := b.Draining != draining
		b.Draining = draining
		return changed, nil
	})
	return wrapKV(err, fmt.Sprintf("drain broker %d", id))
}

// UnregisterBroker forgets a broker that is gone for good; the replicas that it holds stay assigned to it, dead, until they are
// reassigned. Should it come back, its disk is taken for a new one: it loses its place in every ISR and ELR, and with that
// what only it has. kerr.BrokerIDNotRegistered; kerr.InvalidRequest where it serves.
func (s *Store) UnregisterBroker(ctx context.Context, id base.BrokerID) error {
	for range casAttempts {
		b, ok, err := s.readBroker(ctx, id) // not of the image: a refusal is final for whoever asks
		switch {
		case err != nil:
			return err
		case !ok:
			return refuse(kerr.BrokerIDNotRegistered, "Broker ID %d is not currently registered", id)
		case !b.Fenced:
			return refuse(kerr.InvalidRequest, "Broker %d serves: stop it before it is unregistered.", id)
		}
		committed, err := s.write(ctx, "unregister broker", []Cmp{Unchanged(brokerKey(id), b.Rev)}, []Op{Delete(brokerKey(id))})
		if err != nil || committed {
			return wrapKV(err, fmt.Sprintf("unregister broker %d", id))
		}
	}
	return fmt.Errorf("unregister broker %d: %w", id, errLostRace)
}

func staleUnless(b *Broker, epoch int64) error {
	if b.Epoch != epoch {
		return fmt.Errorf("registered in epoch %d, not %d: %w", b.Epoch, epoch, kerr.StaleBrokerEpoch)
	}
	return nil
}

// changeBroker changes a registration by compare-and-swap, at first as the image shows it.
func (s *Store) changeBroker(ctx context.Context, id base.BrokerID, controllerEpoch *int64, change func(*Broker) (bool, error)) error {
	b, ok := s.Image().brokers[id]
	for range casAttempts {
		if !ok {
			return kerr.BrokerIDNotRegistered
		}
		rev := b.Rev
		changed, err := change(&b)
		if err != nil || !changed {
			return err
		}
		cmps := []Cmp{Unchanged(brokerKey(id), rev)}
		if controllerEpoch != nil {
			cmps = append(cmps, Unchanged(controllerKey, *controllerEpoch))
		}
		committed, err := s.write(ctx, "change broker", cmps, []Op{Put(brokerKey(id), encode(b.record()))})
		if err != nil || committed {
			return err
		}
		if controllerEpoch != nil {
			if err := s.stillController(ctx, *controllerEpoch); err != nil {
				return err
			}
		}
		if b, ok, err = s.readBroker(ctx, id); err != nil {
			return err
		}
	}
	return errLostRace
}

func (s *Store) readBroker(ctx context.Context, id base.BrokerID) (Broker, bool, error) {
	kv, ok, err := s.kv.Get(ctx, brokerKey(id))
	if err != nil || !ok {
		return Broker{}, false, wrapKV(err, "read the registration")
	}
	r, err := decode[brokerRecord](kv)
	return r.broker(id, kv.ModRevision), err == nil, err
}
