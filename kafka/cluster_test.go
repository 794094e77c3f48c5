package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
)

// What these tests expect is what a cluster of three Apache Kafka 4.3 brokers answered to the same requests in the same state,
// where no comment says otherwise.

// trio is an edge, on broker 1, of a cluster of three that serve. Broker 1 is the controller: settle does its work.
type trio struct {
	*edge
	*probe
	reign int64
}

func newTrio(t *testing.T, change func(*Options)) *trio {
	t.Helper()
	e := newEdge(t, change)
	c := &trio{edge: e, probe: e.dial()}
	var err error
	if c.reign, err = e.meta.ClaimController(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id := base.BrokerID(2); id <= 3; id++ {
		epoch, err := e.meta.RegisterBroker(t.Context(), metadata.Broker{ID: id, Host: "127.0.0.1", Port: 9092, Disk: fmt.Sprint("d", id)})
		if err == nil {
			err = e.meta.UnfenceBroker(t.Context(), c.reign, id, epoch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// place creates a topic on given brokers.
func (c *trio) place(name string, assignment ...[]base.BrokerID) *metadata.Topic {
	c.edge.t.Helper()
	spec := metadata.TopicSpec{Name: name, Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]base.BrokerID{}}
	for i, replicas := range assignment {
		spec.Assignment[int32(i)] = replicas
	}
	topic, err := c.meta.CreateTopic(c.edge.t.Context(), spec, false)
	if err != nil {
		c.edge.t.Fatal(err)
	}
	return topic
}

// settle does what the controller does after each change.
func (c *trio) settle() {
	c.edge.t.Helper()
	img := c.meta.Image()
	var changes []metadata.PartitionChange
	for p := range img.AllPartitions() {
		if next, changed := controller.Next(p.State(), img.Cluster(nil), img.Rules(p)); changed {
			changes = append(changes, metadata.PartitionChange{Partition: *p, Next: next, Seen: img})
		}
	}
	if _, err := c.meta.ApplyPartitionChanges(c.edge.t.Context(), c.reign, changes); err != nil {
		c.edge.t.Fatal(err)
	}
}

func (c *trio) epoch(id base.BrokerID) int64 {
	b, _ := c.meta.Image().BrokerByID(id)
	return b.Epoch
}

// die fences a broker.
func (c *trio) die(id base.BrokerID) {
	c.edge.t.Helper()
	if err := c.meta.FenceBroker(c.edge.t.Context(), c.reign, id, c.epoch(id)); err != nil {
		c.edge.t.Fatal(err)
	}
	c.settle()
}

// comeBack unfences it.
func (c *trio) comeBack(id base.BrokerID) {
	c.edge.t.Helper()
	if err := c.meta.UnfenceBroker(c.edge.t.Context(), c.reign, id, c.epoch(id)); err != nil {
		c.edge.t.Fatal(err)
	}
	c.settle()
}

// inSync makes broker 1, which leads the partition, say who is in sync.
func (c *trio) inSync(topic string, partition int32, ids ...base.BrokerID) {
	c.edge.t.Helper()
	p, _ := c.meta.Image().Partition(base.TopicPartition{Topic: topic, Partition: partition})
	proposal := metadata.ISRProposal{TopicID: p.TopicID, Partition: partition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
	for _, id := range ids {
		proposal.ISR = append(proposal.ISR, metadata.ISRMember{ID: id, Epoch: c.epoch(id)})
	}
	if _, err := c.meta.ProposeISR(c.edge.t.Context(), proposal); err != nil {
		c.edge.t.Fatal(err)
	}
	c.settle()
}

// listed asks for reassignments and writes them as a line; no topics are all.
func (c *trio) listed(topics []asked) string {
	c.edge.t.Helper()
	r := kmsg.NewPtrListPartitionReassignmentsRequest()
	for _, a := range topics {
		r.Topics = append(r.Topics, kmsg.ListPartitionReassignmentsRequestTopic{Topic: a.topic, Partitions: a.partitions})
	}
	if topics != nil && r.Topics == nil {
		r.Topics = []kmsg.ListPartitionReassignmentsRequestTopic{}
	}
	var out []string
	for _, t := range c.must(r).(*kmsg.ListPartitionReassignmentsResponse).Topics {
		for _, p := range t.Partitions {
			out = append(out, fmt.Sprintf("%s-%d %v +%v -%v", t.Topic, p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas))
		}
	}
	return strings.Join(out, ", ")
}

func (c *trio) state(topic string, partition int32) string {
	p, _ := c.meta.Image().Partition(base.TopicPartition{Topic: topic, Partition: partition})
	return fmt.Sprintf("%v isr %v leader %d", p.Replicas, p.ISR, p.Leader)
}

func ids(list ...base.BrokerID) []base.BrokerID { return list }

func TestReassign(t *testing.T) {
	c := newTrio(t, nil)
	c.place("u", ids(1, 2), ids(2, 3))
	c.place("other", ids(1))
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s\nwant %s", what, got, want)
		}
	}
	want("nothing moves", c.listed(nil), "")
	want("move", c.reassign(true, "u", 0, []int32{1, 3}), "0 <nil>")
	for _, of := range [][]asked{nil, {{"u", []int32{0, 9}}, {"nope", []int32{1}}, {"other", []int32{0}}}} {
		want("list", c.listed(of), "u-0 [1 3 2] +[3] -[2]")
	}
	want("list nothing", c.listed([]asked{}), "")
	want("not yet", c.state("u", 0), "[1 3 2] isr [1 2] leader 1")
	c.inSync("u", 0, 1, 2, 3)
	want("done", c.state("u", 0), "[1 3] isr [1 3] leader 1")
	want("list", c.listed(nil), "")
	for _, x := range []struct {
		otherFactor bool
		replicas    []int32
		want        string
	}{
		{false, []int32{1, 2, 3}, "38 The replication factor is changed from 2 to 3"},
		{false, []int32{1}, "38 The replication factor is changed from 2 to 1"},
		{false, []int32{3, 1}, "0 <nil>"},
		{true, []int32{1, 9}, "39 The manual partition assignment includes broker 9, but no such broker is registered."},
		{true, []int32{1, 1}, "39 The manual partition assignment includes the broker 1 more than once."},
		{true, []int32{}, "39 The manual partition assignment includes an empty replica list."},
		{true, []int32{1}, "0 <nil>"},
		{true, nil, "85 <nil>"}, // the last one was done at once
	} {
		want(fmt.Sprint("u-0 to ", x.replicas), c.reassign(x.otherFactor, "u", 0, x.replicas), x.want)
	}
	want("one replica", c.state("u", 0), "[1] isr [1] leader 1")

	// A broker that is dead may be a target; the count of a reassignment under way is that of its target (KIP-860).
	c.die(2)
	want("to a dead broker", c.reassign(true, "u", 0, []int32{1, 2}), "0 <nil>")
	want("replaced", c.reassign(true, "u", 0, []int32{2, 3}), "0 <nil>")
	want("list", c.listed(nil), "u-0 [2 3 1] +[2 3] -[1]")
	want("the same factor", c.reassign(false, "u", 0, []int32{2, 3}), "0 <nil>")
	want("another factor", c.reassign(false, "u", 0, []int32{1}), "38 The replication factor is changed from 2 to 1")
	want("cancel", c.reassign(true, "u", 0, nil), "0 <nil>")
	want("cancelled", c.state("u", 0), "[1] isr [1] leader 1")
}

// TestReassignOrder: what stands twice in a request is done in its order, whatever is done beside it.
func TestReassignOrder(t *testing.T) {
	c := newTrio(t, nil)
	var lists [][]base.BrokerID
	for range 40 { // four times in the request: more than fit into one transaction
		lists = append(lists, ids(1, 2, 3))
	}
	c.place("many", lists...)
	r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	r.Version = 1
	topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	topic.Topic = "many"
	for _, replicas := range [][]int32{{1, 2}, {2}, {3, 2, 1}, {2, 1}} {
		for p := range lists {
			topic.Partitions = append(topic.Partitions, kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: int32(p), Replicas: replicas})
		}
	}
	r.Topics = append(r.Topics, topic)
	for i, p := range c.must(r).(*kmsg.AlterPartitionAssignmentsResponse).Topics[0].Partitions {
		if p.Partition != int32(i%len(lists)) || p.ErrorCode != 0 {
			t.Fatalf("answer %d: %+v", i, p)
		}
	}
	for p := range lists { // 2 alone; then 3 and 1 are to be added; then only 1
		if got := c.state("many", int32(p)); got != "[2 1] isr [2] leader 2" {
			t.Errorf("partition %d: %s", p, got)
		}
	}
}

func TestElections(t *testing.T) {
	c := newTrio(t, nil)
	c.place("t", ids(1, 2, 3), ids(2, 3, 1), ids(3, 1, 2))
	c.place("one", ids(1), ids(2))
	c.die(2)
	const needless = "84:Leader election not needed for topic partition."
	const unavailable = "80:The preferred leader was not available."
	const ineligible = "83:Eligible topic partition leaders are not available."
	f := func(kind int8, topics []asked, want string) {
		t.Helper()
		if got := c.elect(2, kind, topics); got != want {
			t.Errorf("type %d %v:\n%s\nwant\n%s", kind, topics, got, want)
		}
	}
	f(electPreferred, []asked{{"t", []int32{0, 1, 2}}, {"one", []int32{1}}},
		"0 [t 0:"+needless+" 1:"+unavailable+" 2:"+needless+"] [one 1:"+unavailable+"]")
	f(electUnclean, []asked{{"one", []int32{1}}, {"t", []int32{1}}}, "0 [one 1:"+ineligible+"] [t 1:"+needless+"]")
	f(electPreferred, nil, "0 [one 1:"+unavailable+"] [t 1:"+unavailable+"]")
	f(electUnclean, nil, "0 [one 1:"+ineligible+"] [t]")
	c.comeBack(2)
	f(electPreferred, []asked{{"t", []int32{1}}}, "0 [t 1:"+unavailable+"]") // alive, not in sync
	if p, _ := c.meta.Image().Partition(base.TopicPartition{Topic: "t", Partition: 1}); p.Leader != 3 {
		t.Fatalf("leader %d", p.Leader)
	}
	// The next leader is 1, whose ISR this store can change: 3 leaves and comes back, 2 with it.
	c.die(3)
	c.comeBack(3)
	c.inSync("t", 1, 1, 2, 3)
	f(electPreferred, nil, "0 [one] [t 1:0:<nil> 2:"+unavailable+"]")
	if got := c.state("t", 1); got != "[2 3 1] isr [1 2 3] leader 2" {
		t.Error(got)
	}
}

// TestUncleanElection: what no broker in sync can lead, a live replica does on request alone.
func TestUncleanElection(t *testing.T) {
	c := newTrio(t, nil)
	c.place("t", ids(2, 3))
	c.die(3)
	c.die(2)
	c.comeBack(3)
	if got := c.state("t", 0); got != "[2 3] isr [2] leader -1" {
		t.Fatal(got)
	}
	if got := c.elect(2, electPreferred, nil); got != "0 [t 0:80:The preferred leader was not available.]" {
		t.Error(got)
	}
	if got := c.elect(2, electUnclean, nil); got != "0 [t 0:0:<nil>]" {
		t.Error(got)
	}
	if got := c.state("t", 0); got != "[2 3] isr [3] leader 3" {
		t.Error(got)
	}
}

// TestDeadBroker: what clients are told of a cluster with one.
func TestDeadBroker(t *testing.T) {
	c := newTrio(t, nil)
	c.place("t", ids(1, 2, 3))
	c.place("one", ids(1), ids(2))
	c.die(2)

	meta := kmsg.NewPtrMetadataRequest()
	meta.Version = 13
	got := c.must(meta).(*kmsg.MetadataResponse)
	if len(got.Brokers) != 2 || got.Topics[0].ErrorCode != 0 {
		t.Errorf("metadata: %+v", got)
	}
	for _, x := range []struct {
		p    kmsg.MetadataResponseTopicPartition
		want string
	}{
		{got.Topics[0].Partitions[0], "0 leader 1 isr [1] offline []"},
		{got.Topics[0].Partitions[1], "5 leader -1 isr [2] offline [2]"}, // Kafka's ISR is empty: the broker is in the ELR
		{got.Topics[1].Partitions[0], "0 leader 1 isr [1 3] offline [2]"},
	} {
		if have := fmt.Sprintf("%d leader %d isr %v offline %v", x.p.ErrorCode, x.p.Leader, x.p.ISR, x.p.OfflineReplicas); have != x.want {
			t.Errorf("metadata: %s, want %s", have, x.want)
		}
	}

	dtp := kmsg.NewPtrDescribeTopicPartitionsRequest()
	dtp.ResponsePartitionLimit = 10
	dtp.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "one"}, {Topic: "nosuch"}}
	described := c.must(dtp).(*kmsg.DescribeTopicPartitionsResponse).Topics
	if described[0].ErrorCode != 3 || described[0].AuthorizedOperations != topicOperations {
		t.Errorf("missing topic: %+v", described[0])
	}
	if p := described[1].Partitions[1]; p.ErrorCode != 0 || p.LeaderID != -1 || !slices.Equal(p.OfflineReplicas, []int32{2}) {
		t.Errorf("partition without a leader: %+v", p)
	}

	cluster := kmsg.NewPtrDescribeClusterRequest()
	cluster.Version, cluster.EndpointType = 2, endpointBroker
	for _, fenced := range []bool{false, true} {
		cluster.IncludeFencedBrokers = fenced
		var ids []string
		for _, b := range c.must(cluster).(*kmsg.DescribeClusterResponse).Brokers {
			ids = append(ids, fmt.Sprint(b.NodeID, b.IsFenced))
		}
		want := "1 false, 3 false"
		if fenced {
			want = "1 false, 2 true, 3 false"
		}
		if have := strings.Join(ids, ", "); have != want {
			t.Errorf("brokers, fenced ones %v: %s, want %s", fenced, have, want)
		}
	}
}

// TestELR: with min.insync.replicas 2 who leaves the ISR below that stays eligible (KIP-966).
func TestELR(t *testing.T) {
	c := newTrio(t, nil)
	two := "2"
	err := c.meta.IncrementalAlterConfigs(t.Context(), metadata.Resource{Type: metadata.ResourceBroker},
		[]metadata.ConfigOp{{Name: "min.insync.replicas", Value: &two}}, false)
	if err != nil {
		t.Fatal(err)
	}
	c.place("t", ids(1, 2))
	c.die(2)
	dtp := kmsg.NewPtrDescribeTopicPartitionsRequest()
	dtp.ResponsePartitionLimit = 10
	p := c.must(dtp).(*kmsg.DescribeTopicPartitionsResponse).Topics[0].Partitions[0]
	if p.LeaderID != 1 || !slices.Equal(p.ISR, []int32{1}) || !slices.Equal(p.EligibleLeaderReplicas, []int32{2}) {
		t.Errorf("%+v", p)
	}
}

// TestFollowedLogDirs: replicas that this broker only follows are in its directory, others are not.
func TestFollowedLogDirs(t *testing.T) {
	c := newTrio(t, nil)
	c.place("t", ids(1, 2), ids(2, 1), ids(2, 3))
	r := kmsg.NewPtrDescribeLogDirsRequest()
	r.Version = 5
	topics := c.must(r).(*kmsg.DescribeLogDirsResponse).Dirs[0].Topics
	if len(topics) != 1 || len(topics[0].Partitions) != 2 || topics[0].Partitions[1].Partition != 1 {
		t.Errorf("%+v", topics)
	}
	for p, want := range map[int32]error{0: nil, 1: nil, 2: kerr.ReplicaNotAvailable} {
		tp := base.TopicPartition{Topic: "t", Partition: p}
		if err := c.s.moveToDir(c.meta.Image(), tp, "/tmp"); !errors.Is(err, want) {
			t.Errorf("%s: %v", tp, err)
		}
	}
}

func TestQuorumOfVoters(t *testing.T) {
	var fails atomic.Pointer[string]
	c := newTrio(t, func(o *Options) {
		o.Voters = func(context.Context) ([]Voter, error) {
			if why := fails.Load(); why != nil {
				return nil, errors.New(*why)
			}
			return []Voter{
				{ID: 1, Healthy: true, Index: 90, Term: 4}, {ID: 2, Index: 80, Term: 3}, {ID: 7, Learner: true, Healthy: true, Index: 91, Term: 4},
			}, nil
		}
	})
	r := kmsg.NewPtrDescribeQuorumRequest()
	r.Version = 2
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = clusterMetadataTopic
	topic.Partitions = append(topic.Partitions, kmsg.DescribeQuorumRequestTopicPartition{})
	r.Topics = append(r.Topics, topic)
	got := c.must(r).(*kmsg.DescribeQuorumResponse)
	p := got.Topics[0].Partitions[0]
	line := fmt.Sprintf("leader %d epoch %d high watermark %d voters", p.LeaderID, p.LeaderEpoch, p.HighWatermark)
	for _, v := range p.CurrentVoters {
		line += fmt.Sprintf(" %d:%d:%v", v.ReplicaID, v.LogEndOffset, v.LastCaughtUpTimestamp > 0)
	}
	line += " observers"
	for _, v := range p.Observers {
		line += fmt.Sprintf(" %d:%d:%v", v.ReplicaID, v.LogEndOffset, v.LastCaughtUpTimestamp > 0)
	}
	line += " nodes"
	for _, n := range got.Nodes {
		line += fmt.Sprint(" ", n.NodeID, ":", n.Listeners[0].Name)
	}
	// Voter 7 is not registered, so nobody knows its listeners; broker 3 only watches.
	if want := "leader 1 epoch 4 high watermark 91 voters 1:90:true 2:-1:false observers 7:91:true 3:-1:false nodes 1:PLAINTEXT 2:PLAINTEXT"; line != want {
		t.Errorf("%s\nwant\n%s", line, want)
	}
	why := "etcd: list the members: no leader"
	fails.Store(&why)
	if got := c.must(r).(*kmsg.DescribeQuorumResponse); got.ErrorCode != kerr.RequestTimedOut.Code || !strings.Contains(words(got.ErrorMessage), "no leader") {
		t.Errorf("no majority: %d %s", got.ErrorCode, words(got.ErrorMessage))
	}
}

func TestUpdateFeatures(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	type update struct {
		name  string
		level int16
		kind  int8
	}
	const all = "95 The update failed for all features since the following feature had an error: "
	for _, c := range []struct {
		version int16
		updates []update
		want    string
	}{
		{2, nil, "0 <nil>"},
		{2, []update{{"metadata.version", 30, 1}}, "0 <nil>"},
		{1, []update{{"metadata.version", 30, 1}}, "0 <nil> metadata.version:0:NONE"},
		{0, []update{{"metadata.version", 30, 1}}, "0 <nil> metadata.version:0:NONE"},
		{2, []update{{"metadata.version", 29, 1}}, all + "Invalid update version 29 for feature metadata.version. Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."},
		{2, []update{{"metadata.version", 29, 2}}, all + "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the requested downgrade because it might delete metadata information."},
		{2, []update{{"metadata.version", 29, 3}}, all + "Unsupported metadata.version downgrade from 30 to 29. Unsafe metadata downgrade is not supported in this version."},
		{2, []update{{"metadata.version", 31, 1}}, all + "Invalid update version 31 for feature metadata.version. Local controller 1 only supports versions 7-30"},
		{2, []update{{"metadata.version", 0, 2}}, all + "Invalid update version 0 for feature metadata.version. Local controller 1 only supports versions 7-30"},
		{2, []update{{"metadata.version", 30, 0}}, all + "Invalid update version 30 for feature metadata.version. The controller does not support the given upgrade type."},
		{1, []update{{"metadata.version", 30, 1}, {"nosuch.version", 1, 1}}, all + "Invalid update version 1 for feature nosuch.version. Local controller 1 does not support this feature."},
	} {
		r := kmsg.NewPtrUpdateFeaturesRequest()
		r.Version = c.version
		for _, u := range c.updates {
			r.FeatureUpdates = append(r.FeatureUpdates, kmsg.UpdateFeaturesRequestFeatureUpdate{Feature: u.name, MaxVersionLevel: u.level, UpgradeType: u.kind})
		}
		resp := p.must(r).(*kmsg.UpdateFeaturesResponse)
		got := fmt.Sprintf("%d %s", resp.ErrorCode, words(resp.ErrorMessage))
		for _, x := range resp.Results {
			got += fmt.Sprintf(" %s:%d:%s", x.Feature, x.ErrorCode, words(x.ErrorMessage))
		}
		if got != c.want {
			t.Errorf("v%d %v:\n%s\nwant\n%s", c.version, c.updates, got, c.want)
		}
	}
}

func TestUnregisterBroker(t *testing.T) {
	c := newTrio(t, nil)
	c.place("t", ids(2, 3))
	f := func(id int32, want string) {
		t.Helper()
		r := kmsg.NewPtrUnregisterBrokerRequest()
		r.BrokerID = id
		resp := c.must(r).(*kmsg.UnregisterBrokerResponse)
		if got := fmt.Sprintf("%d %s", resp.ErrorCode, words(resp.ErrorMessage)); got != want {
			t.Errorf("broker %d: %s, want %s", id, got, want)
		}
	}
	f(9, "102 Broker ID 9 is not currently registered")
	f(-1, "102 Broker ID -1 is not currently registered")
	f(2, "42 Broker 2 serves: stop it before it is unregistered.") // Kafka: 0
	c.die(2)
	f(2, "0 ")
	f(2, "102 Broker ID 2 is not currently registered")
	c.settle()
	if got := c.state("t", 0); got != "[2 3] isr [3] leader 3" {
		t.Error(got)
	}
	if got := c.reassign(true, "t", 0, []int32{3, 2}); got != "39 The manual partition assignment includes broker 2, but no such broker is registered." {
		t.Error(got)
	}
	if got := c.reassign(true, "t", 0, []int32{3}); got != "0 <nil>" || c.state("t", 0) != "[3] isr [3] leader 3" {
		t.Error(got, c.state("t", 0))
	}
}
