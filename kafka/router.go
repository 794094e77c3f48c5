package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// handler answers a request when its turn has come. It may block until ctx ends. A nil response means that none is sent; an
// error closes the connection.
type handler func(s *Server, ctx context.Context, r *request) (kmsg.Response, error)

// route is one row of the table.
type route struct {
	key      kmsg.Key
	name     string
	min, max int16 // served and advertised versions; except for Produce, see advertised
	schema   string
	handle   handler
	// begin, where set, runs in the order of arrival while earlier requests are still unanswered.
	begin func(s *Server, r *request) finisher
	// parks marks a handler that may wait long: what it holds is counted as parked.
	parks bool
	// prompt marks a handler that waits for no other broker, the bucket or etcd unless it is parked; see requestMemory.
	prompt bool
	// internal marks what brokers send to each other: it is not advertised.
	internal bool
	// span is the name of the request's trace span; empty where it has none.
	span string

	checked schema
}

// table lists every API that is served; nothing else is advertised, nor is what is internal. The ranges are those of Kafka 4.3
// (facts/protocol/kafka43_apiversions.txt); kmsg knows newer versions than these.
func table() []route {
	return []route{
		{key: kmsg.Produce, name: "Produce", min: 3, max: 13, begin: beginProduce, span: "kafka.produce",
			schema: "s i16 i32 [ s:0-12 u:13+ [ i32 b ] ]"},
		{key: kmsg.Fetch, name: "Fetch", min: 4, max: 18, handle: handleFetch, parks: true, prompt: true, span: "kafka.fetch",
			schema: "i32:0-14 i32 i32 i32 i8 i32:7+ i32:7+ [ s:0-12 u:13+ [ i32 i32:9+ i64 i32:12+ i64:5+ i32 ] ] [:7+ s:7-12 u:13+ *i32 ] s:11+"},
		{key: kmsg.ListOffsets, name: "ListOffsets", min: 1, max: 11, handle: handleListOffsets,
			schema: "i32 i8:2+ [ s [ i32 i32:4+ i64 ] ] i32:10+"},
		{key: kmsg.Metadata, name: "Metadata", min: 0, max: 13, handle: handleMetadata,
			schema: "[ u:10+ s ] i8:4+ i8:8-10 i8:8+"},
		{key: kmsg.OffsetCommit, name: "OffsetCommit", min: 2, max: 10, handle: handleOffsetCommit,
			schema: "s i32 s s:7+ i64:2-4 [ s:0-9 u:10+ [ i32 i64 i32:6+ s ] ]"},
		{key: kmsg.OffsetFetch, name: "OffsetFetch", min: 1, max: 10, handle: handleOffsetFetch,
			schema: "s:0-7 [:0-7 s *i32 ] [:8+ s s:9+ i32:9+ [ s:8-9 u:10+ *i32 ] ] i8:7+"},
		{key: kmsg.FindCoordinator, name: "FindCoordinator", min: 0, max: 6, handle: handleFindCoordinator,
			schema: "s:0-3 i8:1+ *s:4+"},
		{key: kmsg.JoinGroup, name: "JoinGroup", min: 0, max: 9, handle: handleJoinGroup, parks: true,
			schema: "s i32 i32:1+ s s:5+ s [ s b ] s:8+"},
		{key: kmsg.Heartbeat, name: "Heartbeat", min: 0, max: 4, handle: handleHeartbeat,
			schema: "s i32 s s:3+"},
		{key: kmsg.LeaveGroup, name: "LeaveGroup", min: 0, max: 5, handle: handleLeaveGroup,
			schema: "s s:0-2 [:3+ s s s:5+ ]"},
		{key: kmsg.SyncGroup, name: "SyncGroup", min: 0, max: 5, handle: handleSyncGroup, parks: true,
			schema: "s i32 s s:3+ s:5+ s:5+ [ s b ]"},
		{key: kmsg.DescribeGroups, name: "DescribeGroups", min: 0, max: 6, handle: handleDescribeGroups,
			schema: "*s i8:3+"},
		{key: kmsg.ListGroups, name: "ListGroups", min: 0, max: 5, handle: handleListGroups,
			schema: "*s:4+ *s:5+"},
		{key: kmsg.ApiVersions, name: "ApiVersions", min: 0, max: 4, handle: handleApiVersions, prompt: true,
			schema: "s:3+ s:3+"},
		{key: kmsg.CreateTopics, name: "CreateTopics", min: 2, max: 7, handle: handleCreateTopics,
			schema: "[ s i32 i16 [ i32 *i32 ] [ s s ] ] i32 i8"},
		{key: kmsg.DeleteTopics, name: "DeleteTopics", min: 1, max: 6, handle: handleDeleteTopics,
			schema: "*s:0-5 [:6+ s u ] i32"},
		{key: kmsg.DeleteRecords, name: "DeleteRecords", min: 0, max: 2, handle: handleDeleteRecords, parks: true,
			schema: "[ s [ i32 i64 ] ] i32"},
		{key: kmsg.InitProducerID, name: "InitProducerId", min: 0, max: 5, handle: handleInitProducerID,
			schema: "s i32 i64:3+ i16:3+"},
		{key: kmsg.OffsetForLeaderEpoch, name: "OffsetForLeaderEpoch", min: 2, max: 4, handle: handleOffsetForLeaderEpoch,
			schema: "i32:3+ [ s [ i32 i32 i32 ] ]"},
		{key: kmsg.DescribeConfigs, name: "DescribeConfigs", min: 1, max: 4, handle: handleDescribeConfigs,
			schema: "[ i8 s *s ] i8 i8:3+"},
		{key: kmsg.AlterConfigs, name: "AlterConfigs", min: 0, max: 2, handle: handleAlterConfigs,
			schema: "[ i8 s [ s s ] ] i8"},
		{key: kmsg.AlterReplicaLogDirs, name: "AlterReplicaLogDirs", min: 1, max: 2, handle: handleAlterReplicaLogDirs,
			schema: "[ s [ s *i32 ] ]"},
		{key: kmsg.DescribeLogDirs, name: "DescribeLogDirs", min: 1, max: 5, handle: handleDescribeLogDirs, prompt: true,
			schema: "[ s *i32 ]"},
		{key: kmsg.CreatePartitions, name: "CreatePartitions", min: 0, max: 3, handle: handleCreatePartitions,
			schema: "[ s i32 [ *i32 ] ] i32 i8"},
		{key: kmsg.DeleteGroups, name: "DeleteGroups", min: 0, max: 2, handle: handleDeleteGroups,
			schema: "*s"},
		{key: kmsg.ElectLeaders, name: "ElectLeaders", min: 0, max: 2, handle: handleElectLeaders,
			schema: "i8:1+ [ s *i32 ] i32"},
		{key: kmsg.IncrementalAlterConfigs, name: "IncrementalAlterConfigs", min: 0, max: 1, handle: handleIncrementalAlterConfigs,
			schema: "[ i8 s [ s i8 s ] ] i8"},
		{key: kmsg.AlterPartitionAssignments, name: "AlterPartitionReassignments", min: 0, max: 1, handle: handleAlterPartitionReassignments,
			schema: "i32 i8:1+ [ s [ i32 *i32 ] ]"},
		{key: kmsg.ListPartitionReassignments, name: "ListPartitionReassignments", min: 0, max: 0, handle: handleListPartitionReassignments,
			schema: "i32 [ s *i32 ]"},
		{key: kmsg.OffsetDelete, name: "OffsetDelete", min: 0, max: 0, handle: handleOffsetDelete,
			schema: "s [ s [ i32 ] ]"},
		{key: kmsg.DescribeQuorum, name: "DescribeQuorum", min: 0, max: 2, handle: handleDescribeQuorum,
			schema: "[ s [ i32 ] ]"},
		{key: kmsg.UpdateFeatures, name: "UpdateFeatures", min: 0, max: 2, handle: handleUpdateFeatures,
			schema: "i32 [ s i16 i8 ] i8:1+"},
		{key: kmsg.DescribeCluster, name: "DescribeCluster", min: 0, max: 2, handle: handleDescribeCluster,
			schema: "i8 i8:1+ i8:2+"},
		{key: kmsg.BrokerRegistration, name: "BrokerRegistration", min: 0, max: 0, handle: handleBrokerRegistration, internal: true, prompt: true,
			schema: "i32 s u [ s s i16 i16 ] [ s i16 i16 ] s"},
		{key: kmsg.BrokerHeartbeat, name: "BrokerHeartbeat", min: 0, max: 1, handle: handleBrokerHeartbeat, internal: true, prompt: true,
			schema: "i32 i64 i64 i8 i8"},
		{key: kmsg.UnregisterBroker, name: "UnregisterBroker", min: 0, max: 0, handle: handleUnregisterBroker,
			schema: "i32"},
		{key: kmsg.ListConfigResources, name: "ListConfigResources", min: 0, max: 1, handle: handleListConfigResources,
			schema: "*i8:1+"},
		{key: kmsg.DescribeTopicPartitions, name: "DescribeTopicPartitions", min: 0, max: 0, handle: handleDescribeTopicPartitions,
			schema: "[ s ] i32 ( s i32 )"},
	}
}

// routes is the table, indexed by key.
type routes struct {
	all   []route
	byKey [128]*route
}

func newRoutes() *routes {
	t := &routes{all: table()}
	for i := range t.all {
		r := &t.all[i]
		r.checked = parseSchema(r.schema)
		t.byKey[r.key] = r
	}
	return t
}

func (t *routes) find(key int16) *route {
	if key < 0 || int(key) >= len(t.byKey) {
		return nil
	}
	return t.byKey[key]
}

// advertised is the version range that ApiVersions shows. Produce shows 0-2, which are refused: librdkafka before 2.12
// turns compression off where version 0 is missing (KAFKA-18659).
func (r *route) advertised() (lo, hi int16) {
	if r.key == kmsg.Produce {
		return 0, r.max
	}
	return r.min, r.max
}

// request returns an empty request of the route.
func (r *route) request() kmsg.Request { return kmsg.RequestForKey(int16(r.key)) }

// elements is how many array elements a request of size bytes may have. A partition of a Produce carries a batch, so honest
// ones have few for their size.
func (r *route) elements(size int) int {
	if r.key == kmsg.Produce {
		return min(size/64+64, maxElements)
	}
	return min(size, maxElements)
}

// weight is the memory that is reserved for a request of size bytes before its body is read. Once the body is walked, the
// reservation becomes what it really needs (used).
func (r *route) weight(size int) int64 {
	if r.key == kmsg.Produce {
		return int64(size) + int64(size)/4 + elementWeight
	}
	return int64(size) + elementWeight*int64(min(r.elements(size), size/2))
}

// used is the memory of a request of size bytes with elements, decoded and with its answer begun.
func (r *route) used(size, elements int) int64 {
	if r.key == kmsg.Produce {
		return int64(size) + 3*elementWeight*int64(elements)
	}
	return int64(size) + elementWeight*int64(elements)
}

// check walks a request's body; see schema.
func (r *route) check(body []byte, version int16, flexible bool) (int, error) {
	return r.checked.check(body, version, flexible, r.elements(len(body)))
}
