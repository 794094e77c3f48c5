package metadata

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/varvelog/varve/internal/base"
)

// Image is an immutable snapshot of the cluster's metadata. Readers load it once per request.
type Image struct {
	local      *localConfig
	revision   int64
	clusterID  string
	controller base.BrokerID
	claimed    int64 // mod revision of the controller key, 0 where it does not exist

	records    cowMap[string, topicRecord]       // topic keys by name
	partitions cowMap[base.TopicID, []Partition] // by index; Log 0 is a hole; more than the visible ones while a topic grows
	byName     cowMap[string, *Topic]            // the visible topics
	byID       cowMap[base.TopicID, *Topic]      // the same
	logs       cowMap[base.LogID, partitionRef]  // every partition key
	configs    cowMap[string, map[string]string] // by configName; the inner maps are never changed
	brokers    map[base.BrokerID]Broker          // replaced, never changed
	broker     *BrokerConfig                     // this broker's effective settings
	defaults   *TopicConfig                      // of topics without overrides, which share it
	sorted     func() []*Topic                   // computed once, on demand
}

// partitionRef finds a partition through its topic.
type partitionRef struct {
	topic base.TopicID
	index int32
}

// Topic is one topic of an image.
type Topic struct {
	ID         base.TopicID
	Name       string
	Internal   bool              // __consumer_offsets and its kin
	Partitions []Partition       // by index
	Overrides  map[string]string // configs set on the topic
	Config     *TopicConfig      // effective values
}

// Partition is the state of one partition: one etcd key (design section 5).
type Partition struct {
	TP             base.TopicPartition
	TopicID        base.TopicID
	Log            base.LogID
	Replicas, ISR  []base.BrokerID
	ELR            []base.BrokerID
	Adding         []base.BrokerID // of a reassignment under way; they are among Replicas
	Removing       []base.BrokerID // the same
	Leader         base.BrokerID   // -1: none
	LeaderEpoch    base.LeaderEpoch
	PartitionEpoch int32
	Rev            int64 // KV mod revision of the partition's key: what a fenced transaction compares
}

// Broker is a registered broker.
type Broker struct {
	ID       base.BrokerID
	Host     string
	Port     int32
	Rack     *string
	Disk     string // names the data directory; empty: not known, taken for the same
	Epoch    int64  // of its registration: grows with each
	Fenced   bool   // leads nothing and is not shown to clients, until the controller hears from it
	Wiped    bool   // fenced, and back with another disk: has to leave every ISR and ELR first (I14)
	Draining bool   // an operator wants its replicas elsewhere
	Full     bool   // it says that its disk has no room: it refuses produce requests, and appends nothing as a follower
	Rev      int64  // KV mod revision of the registration's key
}

// newImage returns the image of an empty store.
func newImage(local *localConfig) *Image {
	i := &Image{
		local:      local,
		controller: -1,
		records:    newCowMap[string, topicRecord](hashString),
		partitions: newCowMap[base.TopicID, []Partition](hashTopicID),
		byName:     newCowMap[string, *Topic](hashString),
		byID:       newCowMap[base.TopicID, *Topic](hashTopicID),
		logs:       newCowMap[base.LogID, partitionRef](hashLogID),
		configs:    newCowMap[string, map[string]string](hashString),
		brokers:    map[base.BrokerID]Broker{},
	}
	i.reconfigure()
	i.seal()
	return i
}

func hashTopicID(id base.TopicID) uint8 { return id[len(id)-1] }
func hashLogID(id base.LogID) uint8     { return uint8(id) }

// seal prepares what readers compute on demand.
func (i *Image) seal() {
	i.sorted = sync.OnceValue(func() []*Topic {
		topics := make([]*Topic, 0, i.byName.n)
		for _, t := range i.byName.all {
			topics = append(topics, t)
		}
		slices.SortFunc(topics, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
		return topics
	})
}

// Revision is the KV revision that the image shows.
func (i *Image) Revision() int64 { return i.revision }

// ClusterID returns the id of the cluster: 22 characters, as Kafka's.
func (i *Image) ClusterID() string { return i.clusterID }

// Controller returns the broker that is the controller, -1 where there is none.
func (i *Image) Controller() base.BrokerID { return i.controller }

// ControllerEpoch is the revision at which the controller became the controller, 0 where there is none. Every write of a
// controller compares it.
func (i *Image) ControllerEpoch() int64 { return i.claimed }

// Topic returns a topic by name.
func (i *Image) Topic(name string) (*Topic, bool) { return i.byName.get(name) }

// TopicByID returns a topic by id (KIP-516).
func (i *Image) TopicByID(id base.TopicID) (*Topic, bool) { return i.byID.get(id) }

// Topics returns all topics, sorted by name. The slice is shared: it must not be changed.
func (i *Image) Topics() []*Topic { return i.sorted() }

// Partition returns the state of a partition.
func (i *Image) Partition(tp base.TopicPartition) (*Partition, bool) {
	t, ok := i.byName.get(tp.Topic)
	if !ok || tp.Partition < 0 || int(tp.Partition) >= len(t.Partitions) {
		return nil, false
	}
	return &t.Partitions[tp.Partition], true
}

// Log returns the partition, of a topic that is visible, whose log has an id.
func (i *Image) Log(id base.LogID) (*Partition, *Topic, bool) {
	ref, ok := i.logs.get(id)
	if !ok {
		return nil, nil, false
	}
	t, ok := i.byID.get(ref.topic)
	if !ok || int(ref.index) >= len(t.Partitions) {
		return nil, nil, false
	}
	return &t.Partitions[ref.index], t, true
}

// Brokers returns the brokers that serve, sorted by id: those that are registered and not fenced.
func (i *Image) Brokers() []Broker {
	return slices.DeleteFunc(i.AllBrokers(), func(b Broker) bool { return b.Fenced })
}

// BrokerByID returns a registered broker, fenced or not.
func (i *Image) BrokerByID(id base.BrokerID) (Broker, bool) {
	b, ok := i.brokers[id]
	return b, ok
}

// AllBrokers returns the registered brokers, fenced ones too, sorted by id.
func (i *Image) AllBrokers() []Broker {
	ids := slices.Sorted(maps.Keys(i.brokers))
	out := make([]Broker, len(ids))
	for n, id := range ids {
		out[n] = i.brokers[id]
	}
	return out
}

// Broker returns this broker's effective settings.
func (i *Image) Broker() *BrokerConfig { return i.broker }

// Overrides returns what is set on a resource; it must not be changed.
func (i *Image) Overrides(r Resource) map[string]string {
	m, _ := i.configs.get(configName(r))
	return m
}

// Resources lists the names of the resources of a type that have settings of their own, sorted.
func (i *Image) Resources(t ResourceType) []string {
	prefix := configName(Resource{Type: t, Name: "-"})
	prefix = prefix[:len(prefix)-1]
	var names []string
	for key := range i.configs.all {
		if name, ok := strings.CutPrefix(key, prefix); ok && name != clusterDefaultID {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
