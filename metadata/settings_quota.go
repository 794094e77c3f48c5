package metadata

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/varvelog/varve/internal/base"
)

// unlimited is the default of every rate (Kafka's QuotaConfig.QUOTA_BYTES_PER_SECOND_DEFAULT).
const unlimited = "9223372036854775807"

// quotaSettings are the settings of a broker that exist only while somebody has set them: they cannot be given at the start, and a
// broker does not describe those that are not set (Kafka's QuotaConfig.brokerQuotaConfigs).
func quotaSettings() []setting {
	return []setting{
		{"follower.replication.throttled.rate", kindLong, unlimited, atLeast(0), dynamic, "Bytes per second that this broker fetches of replicas in follower.replication.throttled.replicas; best above 1 MB/s.", nil},
		{"leader.replication.throttled.rate", kindLong, unlimited, atLeast(0), dynamic, "Bytes per second that this broker sends of replicas in leader.replication.throttled.replicas; best above 1 MB/s.", nil},
		{"replica.alter.log.dirs.io.max.bytes.per.second", kindLong, unlimited, atLeast(0), dynamic, "Accepted; a broker has one directory.", nil},
	}
}

// brokerSetting finds a setting that can be changed at run time or is given at the start; ok is false where no table has it.
func (c *catalogs) brokerSetting(name string) (s *setting, ok bool) {
	if s, ok = c.broker.get(name); !ok {
		s, ok = c.quota.get(name)
	}
	return s, ok
}

// rate is a broker's quota in bytes per second, math.MaxInt64 for none.
func (b *brokerValues) rate(name string) int64 {
	for _, set := range b.sources(name) {
		if n, err := strconv.ParseInt(strings.TrimSpace(set.value), 10, 64); err == nil && n >= 0 {
			return n
		}
	}
	return math.MaxInt64
}

// ThrottledReplicas are the replicas of a topic that a replication quota counts on one side (KIP-73).
type ThrottledReplicas struct {
	All      bool
	replicas map[throttledReplica]struct{}
}

type throttledReplica struct {
	partition int32
	broker    base.BrokerID
}

// parseThrottledReplicas takes what throttledReplicas, the rule, lets through.
func parseThrottledReplicas(raw string) (t ThrottledReplicas) {
	list := splitList(raw)
	if slices.Equal(list, []string{"*"}) {
		t.All = true
		return t
	}
	for _, element := range list {
		p, b, _ := strings.Cut(element, ":")
		partition, err := strconv.ParseInt(p, 10, 32)
		broker, err2 := strconv.ParseInt(b, 10, 32)
		if err != nil || err2 != nil {
			continue // no such partition
		}
		if t.replicas == nil {
			t.replicas = map[throttledReplica]struct{}{}
		}
		t.replicas[throttledReplica{int32(partition), base.BrokerID(broker)}] = struct{}{}
	}
	return t
}

// Has reports whether the broker's replica of the partition is one of them.
func (t *ThrottledReplicas) Has(partition int32, broker base.BrokerID) bool {
	if t.All || len(t.replicas) == 0 {
		return t.All
	}
	_, ok := t.replicas[throttledReplica{partition, broker}]
	return ok
}
