package group

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/memlog"
)

const testTimeout = 30 * time.Second

// fast is a configuration without waiting.
func fast() Config {
	c := DefaultConfig()
	c.InitialRebalanceDelay = 0
	return c
}

// start returns a coordinator that leads four partitions of the log.
func start(t testing.TB, log *memlog.Log, change func(*Options)) *Coordinator {
	t.Helper()
	o := Options{Log: log, Partitions: func() int32 { return 4 }, Config: fast}
	if change != nil {
		change(&o)
	}
	c := New(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	for p := range int32(4) {
		c.Lead(p, 1)
	}
	loaded(t, c)
	return c
}

// loaded waits until all partitions answer.
func loaded(t testing.TB, c *Coordinator) {
	t.Helper()
	eventually(t, func() bool {
		r := kmsg.NewPtrListGroupsRequest()
		return c.ListGroups(t.Context(), Client{}, r).ErrorCode != codeLoading
	})
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("condition not reached")
		}
	}
}

func joinRequest(group, id string) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID, r.ProtocolType = 9, group, id, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 10000, 60000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", subscription("orders")
	r.Protocols = append(r.Protocols, p)
	return r
}

func subscription(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics = 1, topics
	return m.AppendTo(nil)
}

func syncRequest(group, id string, generation int32, assign ...string) *kmsg.SyncGroupRequest {
	r := kmsg.NewPtrSyncGroupRequest()
	pt, p := "consumer", "range"
	r.Version, r.Group, r.MemberID, r.Generation, r.ProtocolType, r.Protocol = 5, group, id, generation, &pt, &p
	for _, a := range assign {
		ga := kmsg.NewSyncGroupRequestGroupAssignment()
		ga.MemberID, ga.MemberAssignment = a, []byte("for "+a)
		r.GroupAssignment = append(r.GroupAssignment, ga)
	}
	return r
}

func commitRequest(group, id string, generation int32, topic string, offsets ...int64) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 9, group, id, generation
	ct := kmsg.NewOffsetCommitRequestTopic()
	ct.Topic = topic
	for i, o := range offsets {
		cp := kmsg.NewOffsetCommitRequestTopicPartition()
		cp.Partition, cp.Offset = int32(i), o
		ct.Partitions = append(ct.Partitions, cp)
	}
	r.Topics = append(r.Topics, ct)
	return r
}

func fetchRequest(group string) *kmsg.OffsetFetchRequest {
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Version, r.RequireStable = 9, true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.Topics = group, nil
	r.Groups = append(r.Groups, g)
	return r
}

// joinAlone takes a group through its first generation with one member.
func joinAlone(t testing.TB, c *Coordinator, group string) (id string, generation int32) {
	t.Helper()
	first := c.JoinGroup(t.Context(), Client{ID: "app", Host: "127.0.0.1"}, joinRequest(group, ""))
	if first.ErrorCode != codeMemberIDRequired {
		t.Fatalf("first join: code %d", first.ErrorCode)
	}
	j := c.JoinGroup(t.Context(), Client{ID: "app", Host: "127.0.0.1"}, joinRequest(group, first.MemberID))
	if j.ErrorCode != 0 || j.LeaderID != j.MemberID || len(j.Members) != 1 {
		t.Fatalf("join: %+v", j)
	}
	s := c.SyncGroup(t.Context(), Client{}, syncRequest(group, j.MemberID, j.Generation, j.MemberID))
	if s.ErrorCode != 0 || string(s.MemberAssignment) != "for "+j.MemberID {
		t.Fatalf("sync: %+v", s)
	}
	return j.MemberID, j.Generation
}

func heartbeat(c *Coordinator, ctx context.Context, group, id string, generation int32) int16 {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 4, group, id, generation
	return c.Heartbeat(ctx, Client{}, r).ErrorCode
}

func leave(c *Coordinator, ctx context.Context, group, id string) int16 {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Version, r.Group = 5, group
	l := kmsg.NewLeaveGroupRequestMember()
	l.MemberID = id
	r.Members = append(r.Members, l)
	resp := c.LeaveGroup(ctx, Client{}, r)
	if resp.ErrorCode != 0 {
		return resp.ErrorCode
	}
	return resp.Members[0].ErrorCode
}

func TestOneMemberLife(t *testing.T) {
	log := &memlog.Log{}
	c := start(t, log, nil)
	id, gen := joinAlone(t, c, "g")
	if code := heartbeat(c, t.Context(), "g", id, gen); code != 0 {
		t.Fatalf("heartbeat: code %d", code)
	}
	cr := c.OffsetCommit(t.Context(), Client{}, commitRequest("g", id, gen, "orders", 41, 42))
	if cr.Topics[0].Partitions[0].ErrorCode != 0 || cr.Topics[0].Partitions[1].ErrorCode != 0 {
		t.Fatalf("commit: %+v", cr)
	}
	c.Lead(PartitionFor("g", 4), 2) // the next epoch replays
	loaded(t, c)
	if code := heartbeat(c, t.Context(), "g", id, gen); code != 0 {
		t.Fatalf("heartbeat after failover: code %d", code)
	}
	fr := c.OffsetFetch(t.Context(), Client{}, fetchRequest("g"))
	if got := fmt.Sprint(fr.Groups[0].Topics[0].Partitions[0].Offset, fr.Groups[0].Topics[0].Partitions[1].Offset); got != "41 42" {
		t.Fatalf("fetched %s", got)
	}
	if code := leave(c, t.Context(), "g", id); code != 0 {
		t.Fatalf("leave: code %d", code)
	}
	if code := heartbeat(c, t.Context(), "g", id, gen); code != codeUnknownMember {
		t.Fatalf("heartbeat after leave: code %d", code)
	}
}

func TestResigned(t *testing.T) {
	log := &memlog.Log{}
	c := start(t, log, nil)
	id, gen := joinAlone(t, c, "g")
	p := PartitionFor("g", 4)
	log.Hold()
	done := make(chan int16)
	go func() {
		done <- c.OffsetCommit(t.Context(), Client{}, commitRequest("g", id, gen, "orders", 7)).Topics[0].Partitions[0].ErrorCode
	}()
	eventually(t, func() bool { return log.Held() == 1 })
	c.Resign(p)
	if code := <-done; code != codeNotCoordinator {
		t.Fatalf("parked commit: code %d", code)
	}
	// The next leadership may not answer before the append of the last one is settled (I15).
	c.Lead(p, 2)
	if code := c.OffsetFetch(t.Context(), Client{}, fetchRequest("g")).Groups[0].ErrorCode; code != codeLoading {
		t.Fatalf("fetch while loading: code %d", code)
	}
	if code := heartbeat(c, t.Context(), "g", id, gen); code != 0 {
		t.Fatalf("heartbeat while loading: code %d", code)
	}
	log.Release()
	loaded(t, c)
	if got := c.OffsetFetch(t.Context(), Client{}, fetchRequest("g")).Groups[0].Topics[0].Partitions[0].Offset; got != 7 {
		t.Fatalf("fetched %d", got)
	}
	c.Resign(p)
	if code := heartbeat(c, t.Context(), "g", id, gen); code != codeNotCoordinator {
		t.Fatalf("heartbeat after resign: code %d", code)
	}
}

func TestPartitionFor(t *testing.T) {
	// From Java: Math.floorMod is not used, Utils.abs is.
	for s, want := range map[string]int32{"": 0, "a": 97 % 50, "test-group": javaHash("test-group") & 0x7fffffff % 50, "😀": 1772899 % 50} {
		if got := PartitionFor(s, 50); got != want {
			t.Errorf("PartitionFor(%q) = %d, want %d", s, got, want)
		}
	}
	if got := javaHash("polygenelubricants"); got != -2147483648 {
		t.Errorf("javaHash = %d", got)
	}
}

// TestNamesThatNoRecordHolds: what cannot be read again must not be written.
func TestNamesThatNoRecordHolds(t *testing.T) {
	log := &memlog.Log{}
	c := start(t, log, nil)
	long := string(make([]byte, 40000))
	byID := joinRequest("g", "")
	byID.InstanceID = &long
	if code := c.JoinGroup(t.Context(), Client{ID: "c"}, byID).ErrorCode; code != 42 {
		t.Errorf("instance id: code %d", code)
	}
	if code := c.JoinGroup(t.Context(), Client{ID: long}, joinRequest("g", "")).ErrorCode; code != 42 {
		t.Errorf("client id: code %d", code)
	}
	if code := c.JoinGroup(t.Context(), Client{ID: "c"}, joinRequest(long, "")).ErrorCode; code != codeInvalidGroup {
		t.Errorf("join: code %d", code)
	}
	if code := c.OffsetCommit(t.Context(), Client{}, commitRequest(long, "", -1, "t", 1)).Topics[0].Partitions[0].ErrorCode; code != codeInvalidGroup {
		t.Errorf("commit: code %d", code)
	}
	if code := c.OffsetCommit(t.Context(), Client{}, commitRequest("g", "", -1, long, 1)).Topics[0].Partitions[0].ErrorCode; code != codeUnknownTopicOrPart {
		t.Errorf("topic: code %d", code)
	}
	if log.Appends() != 0 {
		t.Errorf("%d appends", log.Appends())
	}
}
