package metadata

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
	"github.com/varvelog/varve/metadata/controller"
)

// changesPerTxn is how many partitions one transaction of a controller changes: a compare each, besides those of the
// controller key and of the brokers that are elected.
const changesPerTxn = MaxTxnOps - 28

// State is what the controller decides about the partition. It shares the partition's slices.
func (p *Partition) State() controller.State {
	return controller.State{
		Replicas: p.Replicas, ISR: p.ISR, ELR: p.ELR, Adding: p.Adding, Removing: p.Removing,
		Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
	}
}

func (p *Partition) set(s controller.State) {
	p.Replicas, p.ISR, p.ELR, p.Adding, p.Removing = s.Replicas, s.ISR, s.ELR, s.Adding, s.Removing
	p.Leader, p.LeaderEpoch, p.PartitionEpoch = s.Leader, s.LeaderEpoch, s.PartitionEpoch
}

// Rules are the settings that decide a partition's elections.
func (i *Image) Rules(p *Partition) controller.Rules {
	config := i.defaults
	if t, ok := i.byID.get(p.TopicID); ok {
		config = t.Config
	}
	return controller.Rules{MinISR: int(config.MinInsyncReplicas), Unclean: config.UncleanLeaderElection}
}

// Cluster is the status of every broker. leaving, where it is not nil, says which brokers shut down: only the controller
// knows.
func (i *Image) Cluster(leaving func(base.BrokerID) bool) controller.Cluster {
	c := make(controller.Cluster, len(i.brokers))
	for id, b := range i.brokers {
		switch {
		case b.Wiped:
			c[id] = controller.Wiped
		case b.Fenced:
			c[id] = controller.Fenced
		case leaving != nil && leaving(id):
			c[id] = controller.Leaving
		case b.Full && b.Draining:
			c[id] = controller.FullDraining
		case b.Full:
			c[id] = controller.Full
		case b.Draining:
			c[id] = controller.Draining
		default:
			c[id] = controller.Live
		}
	}
	return c
}

// AllPartitions are those of the visible topics, in no order.
func (i *Image) AllPartitions() iter.Seq[*Partition] {
	return func(yield func(*Partition) bool) {
		for _, t := range i.byName.all {
			for n := range t.Partitions {
				if !yield(&t.Partitions[n]) {
					return
				}
			}
		}
	}
}

// Unready returns a partition that keeps a fenced broker from service: one that it still leads from before its
// registration, or, where its disk is another, one that still counts on it (I14). nil: there is none. Nobody but the
// controller makes a leader, and nobody lets a fenced broker into an ISR, so what is ready stays so. Partitions that no
// topic shows yet do not count: nobody has written to them.
func (i *Image) Unready(b Broker) *Partition {
	for p := range i.AllPartitions() {
		if b.Fenced && p.Leader == b.ID || b.Wiped && (slices.Contains(p.ISR, b.ID) || slices.Contains(p.ELR, b.ID)) {
			return p
		}
	}
	return nil
}

// ClaimController makes this broker the controller, whoever was it before, and returns the epoch of its reign: every write
// of a controller holds only as long as nobody has claimed since. kerr.RequestTimedOut where others claim all the time.
func (s *Store) ClaimController(ctx context.Context) (epoch int64, err error) {
	for range casAttempts {
		kv, _, err := s.kv.Get(ctx, controllerKey)
		if err != nil {
			return 0, kvError(err, "claim the controller")
		}
		res, err := s.kv.Txn(ctx, []Cmp{Unchanged(controllerKey, kv.ModRevision)},
			[]Op{Put(controllerKey, encode(controllerRecord{Broker: s.opts.BrokerID}))})
		if err != nil {
			return 0, kvError(err, "claim the controller")
		}
		if res.Committed {
			return res.Revision, s.loader.await(ctx, res.Revision)
		}
	}
	return 0, fmt.Errorf("claim the controller: %w", errLostRace)
}

// stillController returns kerr.NotController where somebody has claimed the controller since an epoch.
func (s *Store) stillController(ctx context.Context, epoch int64) error {
	kv, _, err := s.kv.Get(ctx, controllerKey)
	if err != nil {
		return wrapKV(err, "read the controller")
	}
	if kv.ModRevision != epoch {
		return fmt.Errorf("controller epoch %d is over: %w", epoch, kerr.NotController)
	}
	return nil
}

// PartitionChange is a decision of the controller: what it saw, and what follows.
type PartitionChange struct {
	Partition Partition
	Next      controller.State
	Seen      *Image // what it was decided from: a broker that it elects is still registered as there. nil: the image of now
}

// ApplyPartitionChanges writes decisions of the controller of an epoch, each by compare-and-swap, and returns when the image
// shows them. applied[i] is false where partition i changed meanwhile, or the broker that it elects was fenced or has
// registered anew: decide again. kerr.NotController where somebody else is the controller; after any error the outcome of
// those not applied is unknown.
func (s *Store) ApplyPartitionChanges(ctx context.Context, controllerEpoch int64, changes []PartitionChange) (applied []bool, err error) {
	w := changeWriter{Store: s, epoch: controllerEpoch, changes: changes, applied: make([]bool, len(changes)), now: s.Image(), moved: map[int64]struct{}{}}
	all := make([]int, len(changes))
	for n := range all {
		all[n] = n
	}
	for chunk := range slices.Chunk(all, changesPerTxn) {
		if err := w.write(ctx, chunk); err != nil {
			return w.applied, fmt.Errorf("change partitions: %w", err)
		}
	}
	return w.applied, s.loader.await(ctx, w.shown)
}

// changeWriter is one call of ApplyPartitionChanges.
type changeWriter struct {
	*Store
	epoch   int64
	changes []PartitionChange
	applied []bool
	now     *Image             // for changes that do not say what they saw
	moved   map[int64]struct{} // revisions of registrations that were found to be replaced
	shown   int64              // revision of the last write
}

// elected is the broker that a change makes the leader, as it was registered when that was decided.
func (w *changeWriter) elected(n int) (b Broker, elects bool) {
	c := &w.changes[n]
	if c.Next.Leader == controller.NoLeader || c.Next.LeaderEpoch == c.Partition.LeaderEpoch {
		return Broker{}, false
	}
	seen := c.Seen
	if seen == nil {
		seen = w.now
	}
	return seen.brokers[c.Next.Leader], true
}

// write writes some changes in one transaction. Where that does not hold as a whole, those which elect a broker whose
// registration is another are left out, and the rest is halved: one partition that changed meanwhile costs a few
// transactions, not the rest of the chunk.
func (w *changeWriter) write(ctx context.Context, chunk []int) error {
	chunk = slices.DeleteFunc(slices.Clone(chunk), func(n int) bool {
		b, elects := w.elected(n)
		_, moved := w.moved[b.Rev]
		return elects && (b.Rev == 0 || moved)
	})
	if len(chunk) == 0 {
		return nil
	}
	cmps, ops, leaders := w.txn(chunk)
	if len(cmps) > MaxTxnOps { // of many brokers
		return w.halves(ctx, chunk)
	}
	started := w.opts.Clock.Now()
	res, err := w.kv.Txn(ctx, cmps, ops)
	w.recorder.txn(ctx, "change partitions", w.opts.Clock.Now().Sub(started), res, err)
	if err != nil {
		return wrapKV(err, "write partition keys")
	}
	if res.Committed {
		for _, n := range chunk {
			w.applied[n] = true
		}
		w.shown = res.Revision
		return nil
	}
	if err := w.stillController(ctx, w.epoch); err != nil {
		return err
	}
	moved, err := w.registeredAnew(ctx, leaders)
	if err != nil {
		return err
	}
	if moved {
		return w.write(ctx, chunk)
	}
	if len(chunk) == 1 {
		return nil
	}
	return w.halves(ctx, chunk)
}

func (w *changeWriter) halves(ctx context.Context, chunk []int) error {
	half := len(chunk) / 2
	if err := w.write(ctx, chunk[:half]); err != nil {
		return err
	}
	return w.write(ctx, chunk[half:])
}

// txn compares the controller, each partition and each broker that is elected.
func (w *changeWriter) txn(chunk []int) (cmps []Cmp, ops []Op, leaders []Broker) {
	cmps = []Cmp{Unchanged(controllerKey, w.epoch)}
	for _, n := range chunk {
		p := w.changes[n].Partition
		next := w.changes[n].Next
		invariants.Assert(next.PartitionEpoch > p.PartitionEpoch, "partition %s: epoch %d after %d", p.TP, next.PartitionEpoch, p.PartitionEpoch)
		b, elects := w.elected(n)
		if elects && !slices.ContainsFunc(leaders, func(other Broker) bool { return other.Rev == b.Rev }) {
			leaders = append(leaders, b)
			cmps = append(cmps, Unchanged(brokerKey(b.ID), b.Rev))
		}
		p.set(next)
		key := partitionKey(p.TopicID, p.TP.Partition)
		cmps = append(cmps, Unchanged(key, p.Rev))
		ops = append(ops, Put(key, encode(p.record())))
	}
	return cmps, ops, leaders
}

// registeredAnew notes registrations that are no more as they were seen: nothing elects them now.
func (w *changeWriter) registeredAnew(ctx context.Context, leaders []Broker) (found bool, err error) {
	for _, was := range leaders {
		b, _, err := w.readBroker(ctx, was.ID)
		if err != nil {
			return false, err
		}
		if b.Rev != was.Rev {
			found = true
			w.moved[was.Rev] = struct{}{}
		}
	}
	return found, nil
}

// ISRMember is a broker in a proposed ISR, and the registration whose fetches the leader saw.
type ISRMember struct {
	ID    base.BrokerID
	Epoch int64
}

// ISRProposal is what a leader wants its ISR to be (AlterPartition, KIP-497).
type ISRProposal struct {
	TopicID        base.TopicID
	Partition      int32
	LeaderEpoch    base.LeaderEpoch
	PartitionEpoch int32 // of the state that the leader saw
	ISR            []ISRMember
}

// ProposeISR changes the ISR of a partition that this broker leads, and returns the new state once the image shows it. Who
// joins is unfenced and of the epoch given, in the same transaction.
//
// kerr.FencedLeaderEpoch and kerr.InvalidUpdateVersion: the state is another, or the image is behind what the leader saw;
// look at the next image. kerr.IneligibleReplica: who joins may not, for now. kerr.UnknownTopicID; kerr.InvalidRequest. After
// any other error the outcome is unknown: the leader goes on counting both ISRs until an image settles it.
func (s *Store) ProposeISR(ctx context.Context, proposal ISRProposal) (*Partition, error) {
	image := s.Image()
	p, ok := image.partition(proposal.TopicID, proposal.Partition)
	if !ok {
		return nil, fmt.Errorf("change the ISR of %s/%d: %w", proposal.TopicID, proposal.Partition, kerr.UnknownTopicID)
	}
	change := controller.ISRChange{Leader: s.opts.BrokerID, LeaderEpoch: proposal.LeaderEpoch, PartitionEpoch: proposal.PartitionEpoch}
	cmps := []Cmp{Unchanged(partitionKey(p.TopicID, p.TP.Partition), p.Rev)}
	for _, m := range proposal.ISR {
		change.ISR = append(change.ISR, m.ID)
		if slices.Contains(p.ISR, m.ID) {
			continue
		}
		b, registered := image.brokers[m.ID]
		if !registered || b.Epoch != m.Epoch {
			return nil, fmt.Errorf("change the ISR of %s: broker %d is not in epoch %d: %w", p.TP, m.ID, m.Epoch, kerr.IneligibleReplica)
		}
		cmps = append(cmps, Unchanged(brokerKey(m.ID), b.Rev))
	}
	next, err := controller.ChangeISR(p.State(), change, image.Cluster(nil), image.Rules(p))
	if err != nil {
		return nil, fmt.Errorf("change the ISR of %s: %w", p.TP, err)
	}
	if next.PartitionEpoch == p.PartitionEpoch {
		next.PartitionEpoch++ // the ISR as it is: it settles a write without an answer, which is void once the key has moved
	}
	return s.writeState(ctx, "change ISR", p, next, cmps)
}

// partition finds the state of a partition of a topic that is visible.
func (i *Image) partition(id base.TopicID, index int32) (*Partition, bool) {
	t, ok := i.byID.get(id)
	if !ok || index < 0 || int(index) >= len(t.Partitions) {
		return nil, false
	}
	return &t.Partitions[index], true
}

// writeState writes the next state of one partition; kerr.InvalidUpdateVersion where a compare did not hold.
func (s *Store) writeState(ctx context.Context, what string, p *Partition, next controller.State, cmps []Cmp) (*Partition, error) {
	if next.PartitionEpoch == p.PartitionEpoch {
		return p, nil
	}
	changed := *p
	changed.set(next)
	key := partitionKey(p.TopicID, p.TP.Partition)
	committed, err := s.write(ctx, what, cmps, []Op{Put(key, encode(changed.record()))})
	if err != nil {
		return nil, err
	}
	if !committed {
		return nil, fmt.Errorf("%s of %s: %w", what, p.TP, kerr.InvalidUpdateVersion)
	}
	if now, ok := s.Image().partition(p.TopicID, p.TP.Partition); ok {
		return now, nil
	}
	return nil, fmt.Errorf("%s of %s: %w", what, p.TP, kerr.UnknownTopicID) // deleted in the same moment
}

// changeState applies a pure change to one partition by compare-and-swap: whoever decides it, the state that it was decided
// from is the state that it replaces.
func (s *Store) changeState(ctx context.Context, what string, tp base.TopicPartition, change func(i *Image, p *Partition) (controller.State, error)) error {
	for range casAttempts {
		image := s.Image()
		p, ok := image.Partition(tp)
		if !ok {
			return refuse(kerr.UnknownTopicOrPartition, "%s", kerr.UnknownTopicOrPartition.Description)
		}
		next, err := change(image, p)
		if err != nil {
			return err
		}
		key := partitionKey(p.TopicID, p.TP.Partition)
		cmps := []Cmp{Unchanged(key, p.Rev)}
		leader, elected := image.brokers[next.Leader]
		if elected = elected && next.Leader != p.Leader; elected { // still not fenced
			cmps = append(cmps, Unchanged(brokerKey(leader.ID), leader.Rev))
		}
		_, err = s.writeState(ctx, what, p, next, cmps)
		if !errors.Is(err, kerr.InvalidUpdateVersion) {
			return err
		}
		if err := s.awaitKey(ctx, key, p.Rev); err != nil {
			return err
		}
		if elected {
			if err := s.awaitKey(ctx, brokerKey(leader.ID), leader.Rev); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%s of %s: %w", what, tp, errLostRace)
}

// Refresh returns once the image shows a partition as it is now. It asks a quorum of etcd.
func (s *Store) Refresh(ctx context.Context, tp base.TopicPartition) error {
	p, ok := s.Image().Partition(tp)
	if !ok {
		return refuse(kerr.UnknownTopicOrPartition, "%s", kerr.UnknownTopicOrPartition.Description)
	}
	return s.awaitKey(ctx, partitionKey(p.TopicID, tp.Partition), p.Rev)
}

// AwaitTopic returns once the image shows a topic that exists, which it does not where another broker has just created it.
func (s *Store) AwaitTopic(ctx context.Context, name string) error {
	if _, ok := s.Image().Topic(name); ok {
		return nil
	}
	return s.awaitKey(ctx, topicKey(name), 0)
}

// awaitKey returns once the image shows a key that was found to be newer than a revision.
func (s *Store) awaitKey(ctx context.Context, key string, rev int64) error {
	kv, ok, err := s.kv.Get(ctx, key)
	if err != nil || !ok || kv.ModRevision == rev {
		return wrapKV(err, "read what changed")
	}
	return s.loader.await(ctx, kv.ModRevision)
}

// ElectLeader elects the preferred leader of a partition, or, unclean, any live replica where it has no leader: committed
// records may be lost then. Errors: kerr.ElectionNotNeeded, kerr.PreferredLeaderNotAvailable,
// kerr.EligibleLeadersNotAvailable, kerr.UnknownTopicOrPartition.
func (s *Store) ElectLeader(ctx context.Context, tp base.TopicPartition, unclean bool) error {
	return s.changeState(ctx, "elect leader", tp, func(i *Image, p *Partition) (controller.State, error) {
		if unclean {
			return controller.ElectUnclean(p.State(), i.Cluster(nil), i.Rules(p))
		}
		return controller.ElectPreferred(p.State(), i.Cluster(nil))
	})
}

// ReportDamage says that this broker's replica of a log is damaged: it leaves ISR and ELR, and another leads (I14).
// kerr.EligibleLeadersNotAvailable where no other replica that is alive is in sync, kerr.UnknownTopicOrPartition where the partition
// has another log by now: then nothing changes.
func (s *Store) ReportDamage(ctx context.Context, tp base.TopicPartition, log base.LogID) error {
	self := s.opts.BrokerID
	return s.changeState(ctx, "report damage", tp, func(i *Image, p *Partition) (controller.State, error) {
		state, c := p.State(), i.Cluster(nil)
		if p.Log != log {
			return state, kerr.UnknownTopicOrPartition
		}
		if !slices.Contains(p.ISR, self) && !slices.Contains(p.ELR, self) {
			return state, nil
		}
		if !slices.ContainsFunc(p.ISR, func(id base.BrokerID) bool { return id != self && c[id].Alive() }) {
			return state, kerr.EligibleLeadersNotAvailable
		}
		c[self] = controller.Wiped
		next, _ := controller.Next(state, c, i.Rules(p))
		if next.LeaderEpoch == state.LeaderEpoch {
			next.LeaderEpoch++ // a leader counts the fetches of its epoch: in this one the replica has shown that it has everything
		}
		return next, nil
	})
}

// Reassign moves a partition to other replicas, the preferred leader first (KIP-455). It returns when the reassignment has
// started; the controller completes it. kerr.InvalidReplicaAssignment, kerr.UnknownTopicOrPartition.
func (s *Store) Reassign(ctx context.Context, tp base.TopicPartition, target []base.BrokerID) error {
	return s.changeState(ctx, "reassign", tp, func(i *Image, p *Partition) (controller.State, error) {
		if err := i.checkReplicas(target, len(target)); err != nil {
			return controller.State{}, err
		}
		return controller.Reassign(p.State(), target, i.Cluster(nil), i.Rules(p))
	})
}

// CancelReassignment goes back to the replicas from before: kerr.NoReassignmentInProgress, kerr.InvalidReplicaAssignment,
// kerr.UnknownTopicOrPartition.
func (s *Store) CancelReassignment(ctx context.Context, tp base.TopicPartition) error {
	return s.changeState(ctx, "cancel reassignment", tp, func(i *Image, p *Partition) (controller.State, error) {
		return controller.CancelReassignment(p.State(), i.Cluster(nil), i.Rules(p))
	})
}

// Reassignments returns the partitions that are on their way to other replicas, by topic and index.
func (i *Image) Reassignments() []*Partition {
	var out []*Partition
	for _, t := range i.Topics() {
		for n := range t.Partitions {
			if s := t.Partitions[n].State(); s.Reassigning() {
				out = append(out, &t.Partitions[n])
			}
		}
	}
	return out
}
