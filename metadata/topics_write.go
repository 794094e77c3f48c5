package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// Changes of topics, as transactions. What fits into one is one. What does not starts with a marker at pendingKey, which
// every later transaction of the change compares: whoever finishes the change of a dead writer rewrites the marker first,
// and with that the writer, if it lives after all, can add nothing more. Partition keys that are no part of a visible topic
// are shown by no image; finish turns them into tombstones, so that no log is forgotten.

// sweepRetry is how long the sweeper waits after the KV failed it.
const sweepRetry = time.Second

func putPartitions(partitions []Partition) []Op {
	ops := make([]Op, len(partitions))
	for n := range partitions {
		p := &partitions[n]
		ops[n] = Put(partitionKey(p.TopicID, p.TP.Partition), encode(p.record()))
	}
	return ops
}

// writeTopic creates a topic: it becomes visible with the last transaction.
func (s *Store) writeTopic(ctx context.Context, t *Topic) error {
	record := topicRecord{ID: t.ID, Partitions: int32(len(t.Partitions)), Internal: t.Internal}
	last := []Op{Put(topicKey(t.Name), encode(record))}
	if len(t.Overrides) > 0 {
		last = append(last, Put(configKey(Resource{Type: ResourceTopic, Name: t.Name}), encode(t.Overrides)))
	}
	committed, err := s.writePartitions(ctx, "create topic", t.Name, t.ID, t.Partitions, Absent(topicKey(t.Name)), last)
	if err == nil && !committed {
		err = s.whyNotCreated(ctx, t.Name)
	}
	var refused *Error
	if err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("create topic %s: %w", t.Name, err)
	}
	return err
}

// whyNotCreated tells a name that is taken from a creation that was taken for abandoned and swept.
func (s *Store) whyNotCreated(ctx context.Context, name string) error {
	_, taken, err := s.kv.Get(ctx, topicKey(name))
	switch {
	case err != nil:
		return wrapKV(err, "read the topic")
	case taken:
		return refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", name)
	default:
		return errLostRace
	}
}

// growTopic adds partitions: they become visible with the last transaction.
func (s *Store) growTopic(ctx context.Context, t *Topic, added []Partition) error {
	kv, ok, err := s.kv.Get(ctx, topicKey(t.Name))
	if err != nil {
		return kvError(err, "create partitions of %s", t.Name)
	}
	if !ok {
		return refuse(kerr.UnknownTopicOrPartition, "%s", kerr.UnknownTopicOrPartition.Description)
	}
	record, err := decode[topicRecord](kv)
	if err != nil {
		return err
	}
	if record.ID != t.ID || int(record.Partitions) != len(t.Partitions) {
		return fmt.Errorf("create partitions of %s: %w", t.Name, errLostRace)
	}
	record.Partitions += int32(len(added))
	last := []Op{Put(topicKey(t.Name), encode(record))}
	committed, err := s.writePartitions(ctx, "create partitions", t.Name, t.ID, added, Unchanged(topicKey(t.Name), kv.ModRevision), last)
	if err != nil {
		return fmt.Errorf("create partitions of %s: %w", t.Name, err)
	}
	if !committed { // deleted meanwhile, or an earlier change of it is not finished
		s.sweepLater()
		return fmt.Errorf("create partitions of %s: %w", t.Name, errLostRace)
	}
	return nil
}

// writePartitions writes partition keys and then, with the last of them, the operations that make them visible. All
// transactions hold only while the condition does.
func (s *Store) writePartitions(ctx context.Context, what, name string, id base.TopicID, partitions []Partition, while Cmp, last []Op) (bool, error) {
	pending := pendingKey(id)
	if len(partitions) <= partitionsPerTxn {
		return s.write(ctx, what, []Cmp{while, Absent(pending)}, append(putPartitions(partitions), last...))
	}
	mark := s.mark(name)
	cmps := []Cmp{while, Absent(pending)}
	for start := 0; start < len(partitions); start += partitionsPerTxn {
		ops := putPartitions(partitions[start:min(start+partitionsPerTxn, len(partitions))])
		if start == 0 {
			ops = append(ops, Put(pending, mark))
		}
		res, err := s.kv.Txn(ctx, cmps, ops)
		if err != nil || !res.Committed {
			s.sweepLater()
			return false, wrapKV(err, "write partition keys")
		}
		if start == 0 {
			cmps[1] = Unchanged(pending, res.Revision)
		}
	}
	committed, err := s.write(ctx, what, cmps, append(last, Delete(pending)))
	if err != nil || !committed {
		s.sweepLater()
	}
	return committed, err
}

func (s *Store) mark(topic string) []byte {
	return encode(pendingRecord{Topic: topic, By: s.opts.BrokerID, Epoch: s.epoch.Load()})
}

// DeleteTopic removes a topic. It is gone for readers when this returns; its logs' tombstones (DeletedLogs) are written with
// the removal of their partition keys, at once or, after a failure of the KV, later.
func (s *Store) DeleteTopic(ctx context.Context, id base.TopicID) error {
	unlock, err := s.lockTopics(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	image := s.Image()
	t, ok := image.TopicByID(id)
	if !ok {
		return refuse(kerr.UnknownTopicID, "%s", kerr.UnknownTopicID.Description)
	}
	if !image.Broker().DeleteTopicEnable {
		return refuse(kerr.TopicDeletionDisabled, "%s", kerr.TopicDeletionDisabled.Description)
	}
	for attempt := range casAttempts {
		gone, err := s.removeTopic(ctx, t, attempt == 0)
		if err != nil {
			return fmt.Errorf("delete topic %s: %w", t.Name, err)
		}
		if gone {
			return nil
		}
	}
	return fmt.Errorf("delete topic %s: %w", t.Name, errLostRace)
}

// removeTopic makes one attempt, at first in a single transaction where the topic is small enough and no change of it is
// pending; gone is false where that did not hold or the topic changed meanwhile.
func (s *Store) removeTopic(ctx context.Context, t *Topic, single bool) (gone bool, err error) {
	kv, ok, err := s.kv.Get(ctx, topicKey(t.Name))
	if err != nil {
		return false, wrapKV(err, "read the topic")
	}
	if ok {
		record, err := decode[topicRecord](kv)
		if err != nil {
			return false, err
		}
		ok = record.ID == t.ID
	}
	if !ok {
		return false, refuse(kerr.UnknownTopicID, "%s", kerr.UnknownTopicID.Description)
	}
	cmps := []Cmp{Unchanged(kv.Key, kv.ModRevision)}
	ops := []Op{Delete(kv.Key), Delete(configKey(Resource{Type: ResourceTopic, Name: t.Name}))}
	if single && len(t.Partitions) <= tombstonesPerTxn {
		bury, err := s.burials(ctx, t.ID, 0)
		if err != nil {
			return false, err
		}
		if len(bury) <= 2*tombstonesPerTxn {
			return s.write(ctx, "delete topic", append(cmps, Absent(pendingKey(t.ID))), append(ops, bury...))
		}
	}
	mark := s.mark(t.Name)
	gone, err = s.write(ctx, "delete topic", cmps, append(ops, Put(pendingKey(t.ID), mark)))
	if err != nil {
		s.sweepLater() // it may have happened
		return false, err
	}
	if !gone {
		return false, nil
	}
	if err := s.finish(ctx, t.ID); err != nil {
		s.opts.Logger.Warn("deleted topic is not swept yet", slog.String("topic", t.Name), slog.Any("error", err))
		s.sweepLater()
	}
	return true, nil
}

// tombstonesPerTxn is how many partition keys one transaction turns into tombstones: two operations each.
const tombstonesPerTxn = 60

// burials returns, for each partition key of a topic from an index on, a tombstone and the removal of the key.
func (s *Store) burials(ctx context.Context, id base.TopicID, from int32) ([]Op, error) {
	kvs, _, err := s.kv.List(ctx, partitionsOf(id))
	if err != nil {
		return nil, wrapKV(err, "list partition keys")
	}
	var ops []Op
	for _, kv := range kvs {
		_, index, err := parsePartitionKey(kv.Key[len(partitionPrefix):])
		if err != nil {
			return nil, base.MarkCorruption(err)
		}
		if index < from {
			continue
		}
		r, err := decode[partitionRecord](kv)
		if err != nil {
			return nil, err
		}
		ops = append(ops, Put(deletedKey(r.Log), encode(deletedRecord{TopicID: id, Topic: r.Topic})), Delete(kv.Key))
	}
	return ops, nil
}

// finish ends a change that did not: partition keys that no visible topic counts become tombstones, then the marker goes.
func (s *Store) finish(ctx context.Context, id base.TopicID) error {
	pending, ok, err := s.kv.Get(ctx, pendingKey(id))
	if err != nil || !ok {
		return wrapKV(err, "read the pending change")
	}
	res, err := s.kv.Txn(ctx, []Cmp{Unchanged(pending.Key, pending.ModRevision)}, []Op{Put(pending.Key, pending.Value)})
	if err != nil {
		return wrapKV(err, "claim the pending change")
	}
	if !res.Committed {
		return fmt.Errorf("claim the pending change: %w", errLostRace)
	}
	claim := Unchanged(pending.Key, res.Revision)
	visible, err := s.visiblePartitions(ctx, pending, id)
	if err != nil {
		return err
	}
	ops, err := s.burials(ctx, id, visible)
	if err != nil {
		return err
	}
	shown := int64(0)
	for start := 0; start < len(ops); start += 2 * tombstonesPerTxn {
		res, err := s.kv.Txn(ctx, []Cmp{claim}, ops[start:min(start+2*tombstonesPerTxn, len(ops))])
		if err != nil || !res.Committed {
			return fmt.Errorf("write tombstones: %w", firstError(err, errLostRace))
		}
		shown = res.Revision
	}
	res, err = s.kv.Txn(ctx, []Cmp{claim}, []Op{Delete(pending.Key)})
	if err != nil || !res.Committed {
		return fmt.Errorf("remove the marker: %w", firstError(err, errLostRace))
	}
	return s.loader.await(ctx, shown)
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// visiblePartitions is how many partitions of the topic of a pending change are visible: 0 where it is not there.
func (s *Store) visiblePartitions(ctx context.Context, pending KeyValue, id base.TopicID) (int32, error) {
	mark, err := decode[pendingRecord](pending)
	if err != nil {
		return 0, err
	}
	kv, ok, err := s.kv.Get(ctx, topicKey(mark.Topic))
	if err != nil || !ok {
		return 0, wrapKV(err, "read the topic")
	}
	record, err := decode[topicRecord](kv)
	if err != nil || record.ID != id {
		return 0, err
	}
	return record.Partitions, nil
}

// finishPending ends every change that a crash or a failure of the KV left unfinished: this broker's own, since the caller
// holds the topics' slot or has only just opened the store, and those of brokers that are fenced, gone or registered anew.
// Another broker's change that is under way is left alone. Taken for abandoned by mistake, it fails as a whole.
func (s *Store) finishPending(ctx context.Context) error {
	kvs, _, err := s.kv.List(ctx, pendingPrefix)
	if err != nil {
		return wrapKV(err, "list pending changes")
	}
	for _, kv := range kvs {
		id, err := parseTopicID(kv.Key[len(pendingPrefix):])
		if err != nil {
			return base.MarkCorruption(err)
		}
		mark, err := decode[pendingRecord](kv)
		if err != nil {
			return err
		}
		if !s.Image().abandoned(mark, s.opts.BrokerID) {
			continue
		}
		s.opts.Logger.Info("finishing a change of a topic", slog.String("topicId", id.String()), slog.String("marker", string(kv.Value)))
		if err := s.finish(ctx, id); err != nil {
			return fmt.Errorf("finish the change of topic %s: %w", id, err)
		}
	}
	return nil
}

// abandoned reports whether nobody works on a pending change any more, as far as broker self can tell.
func (i *Image) abandoned(mark pendingRecord, self base.BrokerID) bool {
	b, registered := i.brokers[mark.By]
	return mark.By == self || !registered || b.Fenced || mark.Epoch != 0 && b.Epoch != mark.Epoch
}

// FinishAbandoned ends the changes of topics that brokers which are gone left half done. The controller calls it after it
// fenced a broker and when it takes over.
func (s *Store) FinishAbandoned(ctx context.Context) error {
	unlock, err := s.lockTopics(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.finishPending(ctx)
}

// sweepLater asks the sweeper for finishPending.
func (s *Store) sweepLater() {
	select {
	case s.unswept <- struct{}{}:
	default:
	}
}

// sweeper finishes what failed half way, again until it succeeds. It holds the topics' slot, so it never takes a change
// that is under way for one that was left.
func (s *Store) sweeper(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.unswept:
		}
		unlock, err := s.lockTopics(ctx)
		if err != nil {
			return
		}
		err = s.finishPending(ctx)
		unlock()
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.opts.Logger.Warn("unfinished changes of topics", slog.Any("error", err))
		s.sweepLater()
		timer := s.opts.Clock.NewTimer(sweepRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
