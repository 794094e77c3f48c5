package metadata

// topicSettings are the settings of a topic: those of Kafka 4.3 and ours. A topic that does not set
// one has the value of the broker settings named last, in their order, and then the default.
func topicSettings() []setting {
	return []setting{
		{"cleanup.policy", kindList, "delete", eachOf("compact", "delete"), dynamic, "What happens to old records: delete them by time and size, compact them by key, or both.", []string{"log.cleanup.policy"}},
		{"compression.gzip.level", kindInt, "-1", betweenOr(1, 9, -1), dynamic, "Level for compression.type=gzip.", []string{"compression.gzip.level"}},
		{"compression.lz4.level", kindInt, "9", between(1, 17), dynamic, "Level for compression.type=lz4.", []string{"compression.lz4.level"}},
		{"compression.type", kindString, "producer", oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"), dynamic, "The compression of stored batches; producer keeps what the producer chose.", []string{"compression.type"}},
		{"compression.zstd.level", kindInt, "3", between(-131072, 22), dynamic, "Level for compression.type=zstd.", []string{"compression.zstd.level"}},
		{"delete.retention.ms", kindLong, "86400000", atLeast(0), dynamic, "How long compaction keeps tombstones, in milliseconds.", []string{"log.cleaner.delete.retention.ms"}},
		{"file.delete.delay.ms", kindLong, "60000", atLeast(0), dynamic, "Accepted; Varve deletes objects after varve.gc.grace.ms.", []string{"log.segment.delete.delay.ms"}},
		{"flush.messages", kindLong, "9223372036854775807", atLeast(1), dynamic, "Accepted; Varve syncs before it acknowledges, see varve.sync.", []string{"log.flush.interval.messages"}},
		{"flush.ms", kindLong, "9223372036854775807", atLeast(0), dynamic, "Accepted; Varve syncs before it acknowledges, see varve.sync.", []string{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"}},
		{"follower.replication.throttled.replicas", kindList, "", throttledReplicas, dynamic, "Replicas whose replication is throttled on the follower's side.", nil},
		{"index.interval.bytes", kindInt, "4096", atLeast(0), dynamic, "Accepted; the index of a segment object has its own spacing.", []string{"log.index.interval.bytes"}},
		{"leader.replication.throttled.replicas", kindList, "", throttledReplicas, dynamic, "Replicas whose replication is throttled on the leader's side.", nil},
		{"local.retention.bytes", kindLong, "-2", atLeast(-2), dynamic, "How many bytes of a partition stay hot after they are tiered; -2: as the hot budget allows.", []string{"log.local.retention.bytes"}},
		{"local.retention.ms", kindLong, "-2", atLeast(-2), dynamic, "How long tiered records stay hot, in milliseconds; -2: as the hot budget allows.", []string{"log.local.retention.ms"}},
		{"max.compaction.lag.ms", kindLong, "9223372036854775807", atLeast(1), dynamic, "The longest that a record stays ineligible for compaction, in milliseconds.", []string{"log.cleaner.max.compaction.lag.ms"}},
		{"max.message.bytes", kindInt, "1048588", atLeast(0), dynamic, "The largest record batch, in bytes, as it is stored.", []string{"message.max.bytes"}},
		{"message.timestamp.after.max.ms", kindLong, "3600000", atLeast(0), dynamic, "How far a record's timestamp may be ahead of the broker's clock, in milliseconds.", []string{"log.message.timestamp.after.max.ms"}},
		{"message.timestamp.before.max.ms", kindLong, "9223372036854775807", atLeast(0), dynamic, "How far a record's timestamp may be behind the broker's clock, in milliseconds.", []string{"log.message.timestamp.before.max.ms"}},
		{"message.timestamp.type", kindString, "CreateTime", oneOf("CreateTime", "LogAppendTime"), dynamic, "Whether a record keeps the producer's timestamp or gets that of the append.", []string{"log.message.timestamp.type"}},
		{"min.cleanable.dirty.ratio", kindDouble, "0.5", between(0, 1), dynamic, "The share of a log that must be uncompacted before it is compacted.", []string{"log.cleaner.min.cleanable.ratio"}},
		{"min.compaction.lag.ms", kindLong, "0", atLeast(0), dynamic, "The shortest that a record stays uncompacted, in milliseconds.", []string{"log.cleaner.min.compaction.lag.ms"}},
		{"min.insync.replicas", kindInt, "1", atLeast(1), dynamic, "The in-sync replicas that an acks=all produce needs.", []string{"min.insync.replicas"}},
		{"preallocate", kindBoolean, "false", nil, dynamic, "Accepted; Varve has no segment files to preallocate.", []string{"log.preallocate"}},
		{"remote.log.copy.disable", kindBoolean, "false", nil, dynamic, "Stops the upload of further records; what is tiered stays readable.", nil},
		{"remote.log.delete.on.disable", kindBoolean, "false", nil, dynamic, "Confirms that tiered records are deleted when remote.storage.enable becomes false.", nil},
		{"remote.storage.enable", kindBoolean, "true", nil, dynamic, "Whether the topic is tiered to the object store. Every topic is, unless it says false.", nil},
		{"retention.bytes", kindLong, "-1", nil, dynamic, "The largest size of a partition over both tiers, in bytes; -1: no limit.", []string{"log.retention.bytes"}},
		{"retention.ms", kindLong, "604800000", atLeast(-1), dynamic, "How long records are kept over both tiers, in milliseconds; -1: for ever.", []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"}},
		{"segment.bytes", kindInt, "1073741824", atLeast(1048576), dynamic, "The size at which a segment is closed, in bytes.", []string{"log.segment.bytes"}},
		{"segment.index.bytes", kindInt, "10485760", atLeast(4), dynamic, "Accepted; the index of a segment object grows with the segment.", []string{"log.index.size.max.bytes"}},
		{"segment.jitter.ms", kindLong, "0", atLeast(0), dynamic, "Random part of segment.ms, in milliseconds.", []string{"log.roll.jitter.ms", "log.roll.jitter.hours"}},
		{"segment.ms", kindLong, "604800000", atLeast(1), dynamic, "The age at which a segment is closed, in milliseconds.", []string{"log.roll.ms", "log.roll.hours"}},
		{"unclean.leader.election.enable", kindBoolean, "false", nil, dynamic, "Whether a replica out of sync may become leader, which loses records.", []string{"unclean.leader.election.enable"}},
	}
}
