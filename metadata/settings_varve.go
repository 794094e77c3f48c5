package metadata

// varveTopicSettings are our own settings of a topic. Each has a broker setting of the same name as its default.
func varveTopicSettings() []setting {
	settings := varveTopicDefaults()
	for i := range settings {
		settings[i].synonyms = []string{settings[i].name}
	}
	return settings
}

// varveTopicDefaults are the broker settings that topics inherit under the same name.
func varveTopicDefaults() []setting {
	return []setting{
		{"varve.sync", kindString, "always", oneOf("always", "relaxed"), dynamic, "always: an acknowledged record is on stable storage; relaxed: it is in the page cache, as with Kafka.", nil},
		{"varve.tiering.max.lag.ms", kindLong, "60000", atLeast(100), dynamic, "The longest that a record waits to be sealed for the object store, in milliseconds.", nil},
		{"varve.tiering.max.lag.bytes", kindLong, "67108864", atLeast(1048576), dynamic, "The most bytes of a partition that wait to be sealed for the object store.", nil},
	}
}

// varveBrokerSettings are our own settings of a broker.
func varveBrokerSettings() []setting {
	return []setting{
		{"varve.hot.bytes", kindLong, "-1", atLeast(-1), readOnly, "How much of what is tiered already stays in the hot store where local.retention is not set, in bytes; -1: an eighth of a memtable, so that it is never written twice.", nil},
		{"varve.balance.replicas.enable", kindBoolean, "true", nil, dynamic, "The controller moves replicas from brokers that hold many to those that hold few, and by their hot bytes; draining and the factors of internal topics do not depend on it.", nil},
		{"varve.balance.hot.enable", kindBoolean, "true", nil, dynamic, "The controller also moves replicas from the brokers with the most hot bytes to those with the fewest; not where varve.balance.replicas.enable is false.", nil},
		{"varve.balance.hot.interval.ms", kindLong, "30000", between(1000, 3600000), dynamic, "How often the controller asks the brokers for their hot bytes, in milliseconds.", nil},
		{"varve.balance.hot.slack.ratio", kindDouble, "0.2", between(0, 1), dynamic, "The part of the fuller broker's hot bytes that it may have more than another one. Beyond it replicas move until half of that is left.", nil},
		{"varve.balance.hot.slack.bytes", kindLong, "1073741824", atLeast(0), dynamic, "The hot bytes that a broker may have more than another one, whatever varve.balance.hot.slack.ratio says.", nil},
		{"varve.balance.hot.bytes.per.second", kindLong, "10485760", between(0, 1099511627776), dynamic, "How many hot bytes begin to move per second, on average and over the cluster; not more at once than in varve.balance.hot.interval.ms, but for a single partition that has more. 0: none.", nil},
		{"varve.disk.reserve.bytes", kindLong, "-1", atLeast(-1), readOnly, "Free disk space below which produce requests are refused, in bytes; -1: twice a memtable and 1 GiB.", nil},
		{"varve.tail.bytes", kindLong, "-1", atLeast(-1), readOnly, "Memory for the newest records, in bytes; -1: a share of --memory.", nil},
		{"varve.tiering.segment.bytes", kindLong, "67108864", between(1048576, 1073741824), readOnly, "The largest object that one seal makes, in bytes.", nil},
		{"varve.tiering.uploads", kindInt, "4", between(1, 64), readOnly, "The most uploads at a time.", nil},
		{"varve.cache.memory.bytes", kindLong, "-1", atLeast(-1), readOnly, "Memory for blocks of tiered objects, in bytes; -1: a share of --memory.", nil},
		{"varve.cache.disk.bytes", kindLong, "-1", atLeast(-1), readOnly, "Disk for blocks of tiered objects, in bytes; -1: 1 GiB, and none where the object store is a local directory.", nil},
		{"varve.fetch.cold.reads", kindInt, "16", between(1, 1024), readOnly, "The most reads from the object store at a time on behalf of fetches.", nil},
		{"varve.scrub.interval.ms", kindLong, "300000", atLeast(1000), dynamic, "How often the object store is searched for orphans, in milliseconds.", nil},
		{"varve.gc.grace.ms", kindLong, "300000", atLeast(0), dynamic, "How long an object stays after the last manifest let go of it, in milliseconds.", nil},
	}
}
