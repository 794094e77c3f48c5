package metadata

// groupSettings are the settings of a group (KIP-848, KIP-932, KIP-1071), as in Kafka 4.3. A group that does not set one has
// the value of the broker setting named last.
func groupSettings() []setting {
	return []setting{
		{"consumer.assignment.interval.ms", kindInt, "1000", atLeast(0), dynamic, "The least time between two assignments of a group, in milliseconds.", []string{"group.consumer.assignment.interval.ms"}},
		{"consumer.heartbeat.interval.ms", kindInt, "5000", atLeast(1), dynamic, "How often members of the group send heartbeats, in milliseconds.", []string{"group.consumer.heartbeat.interval.ms"}},
		{"consumer.session.timeout.ms", kindInt, "45000", atLeast(1), dynamic, "A member without a heartbeat for so long leaves the group, in milliseconds.", []string{"group.consumer.session.timeout.ms"}},
		{"share.assignment.interval.ms", kindInt, "1000", atLeast(0), dynamic, "", []string{"group.share.assignment.interval.ms"}},
		{"share.auto.offset.reset", kindString, "latest", offsetReset, dynamic, "", nil},
		{"share.delivery.count.limit", kindInt, "5", atLeast(2), dynamic, "", []string{"group.share.delivery.count.limit"}},
		{"share.heartbeat.interval.ms", kindInt, "5000", atLeast(1), dynamic, "", []string{"group.share.heartbeat.interval.ms"}},
		{"share.isolation.level", kindString, "read_uncommitted", oneOf("read_committed", "read_uncommitted"), dynamic, "", nil},
		{"share.partition.max.record.locks", kindInt, "2000", atLeast(100), dynamic, "", []string{"group.share.partition.max.record.locks"}},
		{"share.record.lock.duration.ms", kindInt, "30000", atLeast(1000), dynamic, "", []string{"group.share.record.lock.duration.ms"}},
		{"share.renew.acknowledge.enable", kindBoolean, "true", nil, dynamic, "", nil},
		{"share.session.timeout.ms", kindInt, "45000", atLeast(1), dynamic, "", []string{"group.share.session.timeout.ms"}},
		{"streams.assignment.interval.ms", kindInt, "1000", atLeast(0), dynamic, "", []string{"group.streams.assignment.interval.ms"}},
		{"streams.heartbeat.interval.ms", kindInt, "5000", atLeast(1), dynamic, "", []string{"group.streams.heartbeat.interval.ms"}},
		{"streams.initial.rebalance.delay.ms", kindInt, "3000", atLeast(0), dynamic, "", []string{"group.streams.initial.rebalance.delay.ms"}},
		{"streams.num.standby.replicas", kindInt, "0", atLeast(0), dynamic, "", []string{"group.streams.num.standby.replicas"}},
		{"streams.session.timeout.ms", kindInt, "45000", atLeast(1), dynamic, "", []string{"group.streams.session.timeout.ms"}},
	}
}

// clientMetricsSettings are the settings of a client metrics subscription (KIP-714).
func clientMetricsSettings() []setting {
	return []setting{
		{"interval.ms", kindInt, "300000", pushInterval, dynamic, "How often the clients push, in milliseconds.", nil},
		{"match", kindList, "", clientMatch, dynamic, "Which clients: key=regular expression, each over one property of the client.", nil},
		{"metrics", kindList, "", nil, dynamic, "Prefixes of the metrics that the clients push; * stands for all.", nil},
	}
}
