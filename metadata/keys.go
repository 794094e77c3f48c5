package metadata

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/varvelog/varve/internal/base"
)

// Every key. Below imagePrefix stands what the Image shows, and one watch covers it; the rest is read when it is wanted.
//
//	/varve/image/cluster                  clusterRecord: who the cluster is, and the level of all of this
//	/varve/image/controller               controllerRecord
//	/varve/image/topic/NAME               topicRecord: exists only while the topic is visible
//	/varve/image/partition/TOPICID/INDEX  partitionRecord, INDEX with 8 digits
//	/varve/image/config/TYPE/NAME         map of the settings of a resource; TYPE topic, broker, group, client-metrics
//	/varve/image/broker/ID                brokerRecord
//	/varve/pending/TOPICID                pendingRecord: a change of more than one transaction is under way
//	/varve/root/LOGID                     Root
//	/varve/intent/ID                      Intent
//	/varve/deleted/LOGID                  deletedRecord: the tombstone of a partition
//	/varve/next/pid, /varve/next/log      the first id of the next block, in decimal
//	/varve/bucket                         the identity of the directory bucket (package broker)
//	/varve/claimed                        the cluster's id, once its bucket names it (package broker)
//	/varve/etcd/token                     what tells this etcd cluster from others (package etcdkv)
const (
	imagePrefix      = "/varve/image/"
	clusterKey       = imagePrefix + "cluster"
	controllerKey    = imagePrefix + "controller"
	topicPrefix      = imagePrefix + "topic/"
	partitionPrefix  = imagePrefix + "partition/"
	configPrefix     = imagePrefix + "config/"
	brokerPrefix     = imagePrefix + "broker/"
	pendingPrefix    = "/varve/pending/"
	rootPrefix       = "/varve/root/"
	intentPrefix     = "/varve/intent/"
	deletedPrefix    = "/varve/deleted/"
	nextProducerKey  = "/varve/next/pid"
	nextLogKey       = "/varve/next/log"
	clusterDefaultID = "<default>" // stands for the empty name of the cluster-wide broker resource
)

func topicKey(name string) string { return topicPrefix + name }

func partitionsOf(id base.TopicID) string { return partitionPrefix + id.String() + "/" }

func partitionKey(id base.TopicID, index int32) string {
	return fmt.Sprintf("%s%s/%08d", partitionPrefix, id, index)
}

func brokerKey(id base.BrokerID) string { return fmt.Sprintf("%s%d", brokerPrefix, id) }
func pendingKey(id base.TopicID) string { return pendingPrefix + id.String() }
func rootKey(log base.LogID) string     { return rootPrefix + log.String() }
func intentKey(id string) string        { return intentPrefix + id }
func deletedKey(log base.LogID) string  { return deletedPrefix + log.String() }
func configKey(r Resource) string       { return configPrefix + configName(r) }
func parseTopicID(s string) (base.TopicID, error) {
	var id base.TopicID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// configName is the part of a configuration's key below configPrefix; the image indexes by it.
func configName(r Resource) string {
	switch r.Type {
	case ResourceTopic:
		return "topic/" + r.Name
	case ResourceBroker:
		if r.Name == "" {
			return "broker/" + clusterDefaultID
		}
		return "broker/" + r.Name
	case ResourceGroup:
		return "group/" + r.Name
	default:
		return "client-metrics/" + r.Name
	}
}

// parsePartitionKey is the inverse of partitionKey, without the prefix.
func parsePartitionKey(rest string) (base.TopicID, int32, error) {
	id, index, ok := strings.Cut(rest, "/")
	if !ok {
		return base.TopicID{}, 0, fmt.Errorf("partition key %q: no index", rest)
	}
	topic, err := parseTopicID(id)
	if err != nil {
		return base.TopicID{}, 0, fmt.Errorf("partition key %q: %w", rest, err)
	}
	n, err := strconv.ParseInt(index, 10, 32)
	if err != nil || n < 0 || n >= MaxPartitionsPerTopic {
		return base.TopicID{}, 0, fmt.Errorf("partition key %q: bad index", rest)
	}
	return topic, int32(n), nil
}

type clusterRecord struct {
	ID    string `json:"id"`
	Level int    `json:"level,omitempty"` // of the metadata's form (identity.go); 0: 1
}

func (r clusterRecord) level() int { return max(r.Level, 1) }

type controllerRecord struct {
	Broker base.BrokerID `json:"broker"`
}

type topicRecord struct {
	ID         base.TopicID `json:"id"`
	Partitions int32        `json:"partitions"` // how many are visible
	Internal   bool         `json:"internal,omitempty"`
}

type partitionRecord struct {
	Topic          string           `json:"topic"`
	Log            base.LogID       `json:"log"`
	Replicas       []base.BrokerID  `json:"replicas"`
	ISR            []base.BrokerID  `json:"isr"`
	ELR            []base.BrokerID  `json:"elr,omitempty"`
	Adding         []base.BrokerID  `json:"adding,omitempty"`
	Removing       []base.BrokerID  `json:"removing,omitempty"`
	Leader         base.BrokerID    `json:"leader"`
	LeaderEpoch    base.LeaderEpoch `json:"leaderEpoch"`
	PartitionEpoch int32            `json:"partitionEpoch"`
}

// brokerRecord is a registration. The broker writes all of it; then the controller sets and clears Fenced and Full, and clears
// Wiped with Fenced, and an operator sets Drain: none of that changes the epoch.
type brokerRecord struct {
	Host   string  `json:"host"`
	Port   int32   `json:"port"`
	Rack   *string `json:"rack,omitempty"`
	Epoch  int64   `json:"epoch,omitempty"` // 0, of an earlier version: the mod revision
	Disk   string  `json:"disk,omitempty"`
	Fenced bool    `json:"fenced,omitempty"`
	Wiped  bool    `json:"wiped,omitempty"`
	Drain  bool    `json:"drain,omitempty"`
	Full   bool    `json:"full,omitempty"`
}

// pendingRecord says what was being done, and by which incarnation of which broker: while that one lives, nobody else
// finishes it.
type pendingRecord struct {
	Topic string        `json:"topic"`
	By    base.BrokerID `json:"by"`
	Epoch int64         `json:"epoch,omitempty"`
}

type deletedRecord struct {
	TopicID base.TopicID `json:"topicId"`
	Topic   string       `json:"topic"`
}

// encode is json.Marshal for our own records, which cannot fail.
func encode(record any) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic(fmt.Sprintf("metadata: encode %T: %v", record, err))
	}
	return b
}

// decode reads a stored record; what does not parse is corruption.
func decode[T any](kv KeyValue) (T, error) {
	var record T
	if err := json.Unmarshal(kv.Value, &record); err != nil {
		return record, base.MarkCorruption(fmt.Errorf("metadata key %s: %w", kv.Key, err))
	}
	return record, nil
}

func (p *Partition) record() partitionRecord {
	return partitionRecord{
		Topic: p.TP.Topic, Log: p.Log, Replicas: p.Replicas, ISR: p.ISR, ELR: p.ELR, Adding: p.Adding, Removing: p.Removing,
		Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
	}
}

func (r partitionRecord) partition(topic base.TopicID, index int32, rev int64) Partition {
	return Partition{
		TP: base.TopicPartition{Topic: r.Topic, Partition: index}, TopicID: topic, Log: r.Log,
		Replicas: r.Replicas, ISR: r.ISR, ELR: r.ELR, Adding: r.Adding, Removing: r.Removing, Leader: r.Leader,
		LeaderEpoch: r.LeaderEpoch, PartitionEpoch: r.PartitionEpoch, Rev: rev,
	}
}
