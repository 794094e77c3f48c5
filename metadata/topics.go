package metadata

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata/controller"
)

// Limits of names and sizes.
const (
	maxTopicName         = 249
	maxPartitionsPerCall = 10_000 // Kafka's ReplicationControlManager.MAX_PARTITIONS_PER_BATCH
	partitionsPerTxn     = 100    // creations in one transaction, with room for the keys beside them
)

// The internal topics.
const (
	ConsumerOffsetsTopic  = "__consumer_offsets"
	TransactionStateTopic = "__transaction_state"
	ShareGroupStateTopic  = "__share_group_state"
)

func isInternal(name string) bool {
	return name == ConsumerOffsetsTopic || name == TransactionStateTopic || name == ShareGroupStateTopic
}

// ValidateTopicName checks a name with Kafka's words (Topic.validate): INVALID_TOPIC_EXCEPTION.
func ValidateTopicName(name string) error {
	why := ""
	switch {
	case name == "":
		why = "the empty string is not allowed"
	case name == "." || name == "..":
		why = "'" + name + "' is not allowed"
	case len(name) > maxTopicName:
		why = "the length of '" + name + "' is longer than the max allowed length 249"
	case strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}):
		why = "'" + name + "' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
	default:
		return nil
	}
	return refuse(kerr.InvalidTopicException, "Topic name is invalid: %s", why)
}

// TopicSpec is a topic to create. Partitions and ReplicationFactor of -1 mean the broker's defaults.
type TopicSpec struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Assignment        map[int32][]base.BrokerID // nil: the controller places
	Configs           map[string]string
}

// CreateTopic validates and creates; with validateOnly it returns what would be created.
func (s *Store) CreateTopic(ctx context.Context, spec TopicSpec, validateOnly bool) (*Topic, error) {
	unlock, err := s.lockTopics(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	image := s.Image()
	err = image.validateSpec(spec)
	if errors.Is(err, kerr.TopicAlreadyExists) && s.awaitDeletion(ctx, spec.Name) {
		image = s.Image()
		err = image.validateSpec(spec)
	}
	if err != nil {
		return nil, err
	}
	assignment, err := image.assign(spec)
	if err != nil {
		return nil, err
	}
	t := &Topic{ID: base.NewTopicID(), Name: spec.Name, Internal: isInternal(spec.Name), Overrides: maps.Clone(spec.Configs)}
	t.Config = image.topicConfig(t.Overrides)
	t.Partitions = image.newPartitions(spec.Name, t.ID, 0, assignment)
	if validateOnly {
		return t, nil
	}
	if err := s.assignLogs(ctx, t.Partitions); err != nil {
		return nil, err
	}
	if err := s.writeTopic(ctx, t); err != nil {
		return nil, err
	}
	if created, ok := s.Image().TopicByID(t.ID); ok {
		return created, nil
	}
	return t, nil // deleted by somebody else in the same moment
}

// awaitDeletion reports whether a topic that the image shows is deleted, which another broker may have answered, and returns once the
// image has seen that. Where etcd does not answer, the image has to do.
func (s *Store) awaitDeletion(ctx context.Context, name string) bool {
	if _, taken, err := s.kv.Get(ctx, topicKey(name)); taken || err != nil {
		return false
	}
	image, newer := s.loader.current()
	was, _ := image.records.get(name)
	for {
		if now, ok := image.records.get(name); !ok || now.ID != was.ID {
			return true
		}
		select {
		case <-newer:
			image, newer = s.loader.current()
		case <-ctx.Done():
			return false
		}
	}
}

func (i *Image) validateSpec(spec TopicSpec) error {
	if err := ValidateTopicName(spec.Name); err != nil {
		return err
	}
	if _, exists := i.records.get(spec.Name); exists {
		return refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", spec.Name)
	}
	if other, collides := i.collision(spec.Name); collides {
		return refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topic: %s", spec.Name, other)
	}
	return i.broker.validateTopicConfigs(nil, spec.Configs)
}

// collision finds a topic whose name differs in '.' and '_' only: metric names could not tell them apart.
func (i *Image) collision(name string) (string, bool) {
	if !strings.ContainsAny(name, "._") {
		return "", false
	}
	folded := strings.ReplaceAll(name, ".", "_")
	for other := range i.records.all {
		if len(other) == len(name) && strings.ReplaceAll(other, ".", "_") == folded {
			return other, true
		}
	}
	return "", false
}

// assign returns the replicas of each partition: those that the caller named, or the controller's choice.
func (i *Image) assign(spec TopicSpec) ([][]base.BrokerID, error) {
	if spec.Assignment != nil {
		return i.manualAssignment(spec)
	}
	partitions, replicas := spec.Partitions, spec.ReplicationFactor
	if replicas == -1 {
		replicas = i.broker.DefaultReplicationFactor
	}
	if partitions == -1 {
		partitions = i.broker.NumPartitions
	}
	switch {
	case replicas < 1:
		return nil, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	case partitions < 1:
		return nil, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	case partitions > maxPartitionsPerCall:
		return nil, refuse(kerr.PolicyViolation, "Excessively large number of partitions per request.")
	}
	return i.place(int(partitions), int(replicas))
}

func (i *Image) place(partitions, replicas int) ([][]base.BrokerID, error) {
	usable := i.carried()
	if len(usable) < replicas {
		return nil, refuse(kerr.InvalidReplicationFactor,
			"Unable to replicate the partition %d time(s): The target replication factor of %d cannot be reached because only %d broker(s) are registered or some brokers have all their log directories cordoned.",
			replicas, replicas, len(usable))
	}
	if !slices.ContainsFunc(usable, func(b controller.Broker) bool { return !b.Fenced }) {
		return nil, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): All brokers are currently fenced.", replicas)
	}
	for n := range usable { // whose disk is full comes last too: what only it has takes no records
		usable[n].Fenced = usable[n].Fenced || i.brokers[usable[n].ID].Full
	}
	return controller.Place(usable, partitions, replicas), nil
}

// carried counts what each broker holds that may get replicas: those that drain may not.
func (i *Image) carried() []controller.Broker {
	index := map[base.BrokerID]int{}
	var out []controller.Broker
	for _, b := range i.AllBrokers() {
		if b.Draining {
			continue
		}
		c := controller.Broker{ID: b.ID, Fenced: b.Fenced}
		if b.Rack != nil {
			c.Rack = *b.Rack
		}
		index[b.ID] = len(out)
		out = append(out, c)
	}
	if len(out) < 2 {
		return out // nothing to choose between
	}
	for _, slots := range i.partitions.all {
		for p := range slots {
			for r, id := range slots[p].Replicas {
				if n, ok := index[id]; ok {
					out[n].Replicas++
					if r == 0 {
						out[n].Leaders++
					}
				}
			}
		}
	}
	return out
}

func (i *Image) manualAssignment(spec TopicSpec) ([][]base.BrokerID, error) {
	switch {
	case spec.ReplicationFactor != -1:
		return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	case spec.Partitions != -1:
		return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	case len(spec.Assignment) == 0:
		return nil, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	case len(spec.Assignment) > maxPartitionsPerCall:
		return nil, refuse(kerr.PolicyViolation, "Excessively large number of partitions per request.")
	}
	out := make([][]base.BrokerID, len(spec.Assignment))
	for index, replicas := range spec.Assignment {
		if index < 0 || int(index) >= len(out) {
			return nil, refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		out[index] = replicas
	}
	for _, replicas := range out {
		if err := i.checkAssignment(replicas, len(out[0])); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkAssignment checks one list of a manual assignment of new partitions.
func (i *Image) checkAssignment(replicas []base.BrokerID, want int) error {
	if err := i.checkReplicas(replicas, want); err != nil {
		return err
	}
	if !slices.ContainsFunc(replicas, func(id base.BrokerID) bool { return !i.brokers[id].Fenced }) {
		return refuse(kerr.InvalidReplicaAssignment, "All brokers specified in the manual partition assignment are fenced or in controlled shutdown.")
	}
	return nil
}

// checkReplicas checks one list of replicas that somebody named.
func (i *Image) checkReplicas(replicas []base.BrokerID, want int) error {
	if len(replicas) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	sorted := slices.Sorted(slices.Values(replicas))
	for n, id := range sorted {
		if n > 0 && sorted[n-1] == id {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		}
		if _, ok := i.brokers[id]; !ok {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		}
	}
	if len(replicas) != want {
		return refuse(kerr.InvalidReplicaAssignment,
			"The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).",
			len(replicas), want)
	}
	return nil
}

// newPartitions makes the first state of partitions: led by the first replica that is not fenced, all such ones in sync.
func (i *Image) newPartitions(topic string, id base.TopicID, first int32, assignment [][]base.BrokerID) []Partition {
	out := make([]Partition, len(assignment))
	for n, replicas := range assignment {
		p := Partition{
			TP: base.TopicPartition{Topic: topic, Partition: first + int32(n)}, TopicID: id,
			Replicas: slices.Clone(replicas), Leader: -1,
		}
		for _, r := range replicas {
			if b, ok := i.brokers[r]; ok && !b.Fenced {
				p.ISR = append(p.ISR, r)
			}
		}
		if len(p.ISR) > 0 {
			p.Leader = p.ISR[0]
		}
		out[n] = p
	}
	return out
}

func (s *Store) assignLogs(ctx context.Context, partitions []Partition) error {
	ids, err := s.logIDs.next(ctx, len(partitions))
	if err != nil {
		return err
	}
	for n := range partitions {
		partitions[n].Log = base.LogID(ids[n])
	}
	return nil
}

// CreatePartitions grows a topic to count partitions. assignment, where it is not nil, has the replicas of the new ones.
func (s *Store) CreatePartitions(ctx context.Context, name string, count int32, assignment [][]base.BrokerID, validateOnly bool) error {
	unlock, err := s.lockTopics(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	image := s.Image()
	t, ok := image.Topic(name)
	if !ok {
		return refuse(kerr.UnknownTopicOrPartition, "%s", kerr.UnknownTopicOrPartition.Description)
	}
	replicas, err := image.assignGrowth(t, count, assignment)
	if err != nil || validateOnly {
		return err
	}
	added := image.newPartitions(name, t.ID, int32(len(t.Partitions)), replicas)
	if err := s.assignLogs(ctx, added); err != nil {
		return err
	}
	return s.growTopic(ctx, t, added)
}

func (i *Image) assignGrowth(t *Topic, count int32, assignment [][]base.BrokerID) ([][]base.BrokerID, error) {
	have := int32(len(t.Partitions))
	switch {
	case count == have:
		return nil, refuse(kerr.InvalidPartitions, "Topic already has %d partition(s).", have)
	case count < have:
		return nil, refuse(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Name, have, count)
	case count-have > maxPartitionsPerCall, count > MaxPartitionsPerTopic:
		return nil, refuse(kerr.PolicyViolation, "Excessively large number of partitions per request.")
	}
	replicas := len(t.Partitions[0].Replicas)
	if assignment == nil {
		return i.place(int(count-have), replicas)
	}
	if len(assignment) != int(count-have) {
		return nil, refuse(kerr.InvalidReplicaAssignment,
			"Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", count-have, len(assignment))
	}
	for _, r := range assignment {
		if err := i.checkAssignment(r, replicas); err != nil {
			return nil, err
		}
	}
	return assignment, nil
}

// InternalFactor is the replication factor that an internal topic is configured to have, 0 for other topics.
func (i *Image) InternalFactor(topic string) int {
	switch b := i.Broker(); topic {
	case ConsumerOffsetsTopic:
		return int(b.OffsetsTopicReplicationFactor)
	case TransactionStateTopic:
		return int(b.TransactionTopicReplicationFactor)
	}
	return 0
}

// EnsureInternalTopic returns an internal topic, and creates it with Kafka's settings where it does not exist. Its
// replication factor is the configured one, or the number of brokers where those are fewer; the controller adds replicas when more
// come.
func (s *Store) EnsureInternalTopic(ctx context.Context, name string) (*Topic, error) {
	image := s.Image()
	if t, ok := image.Topic(name); ok {
		return t, nil
	}
	b := image.Broker()
	spec := TopicSpec{Name: name, Configs: map[string]string{"cleanup.policy": "compact", "compression.type": "producer"}}
	switch name {
	case ConsumerOffsetsTopic:
		spec.Partitions = b.OffsetsTopicPartitions
		spec.Configs["segment.bytes"], _ = b.Get("offsets.topic.segment.bytes")
	case TransactionStateTopic:
		spec.Partitions = b.TransactionTopicPartitions
		spec.Configs["segment.bytes"], _ = b.Get("transaction.state.log.segment.bytes")
		spec.Configs["min.insync.replicas"], _ = b.Get("transaction.state.log.min.isr")
		spec.Configs["compression.type"] = "uncompressed"
	default:
		return nil, refuse(kerr.InvalidTopicException, "'%s' is not an internal topic.", name)
	}
	spec.ReplicationFactor = int16(image.InternalFactor(name))
	if n := int16(len(image.carried())); n > 0 && spec.ReplicationFactor > n {
		spec.ReplicationFactor = n
	}
	t, err := s.CreateTopic(ctx, spec, false)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		if t, ok := s.Image().Topic(name); ok {
			return t, nil
		}
	}
	return t, err
}
