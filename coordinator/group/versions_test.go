package group

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/memlog"
	"github.com/varvelog/varve/internal/base"
)

// ask sends a request over the wire format of a version and back, as the protocol edge does.
func ask(t *testing.T, c *Coordinator, version int16, in kmsg.Request) kmsg.Response {
	t.Helper()
	in.SetVersion(version)
	r := kmsg.RequestForKey(in.Key())
	r.SetVersion(version)
	if err := r.ReadFrom(in.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	ctx, cl := t.Context(), Client{ID: "c", Host: "127.0.0.1"}
	var resp kmsg.Response
	switch r := r.(type) {
	case *kmsg.JoinGroupRequest:
		resp = c.JoinGroup(ctx, cl, r)
	case *kmsg.SyncGroupRequest:
		resp = c.SyncGroup(ctx, cl, r)
	case *kmsg.HeartbeatRequest:
		resp = c.Heartbeat(ctx, cl, r)
	case *kmsg.LeaveGroupRequest:
		resp = c.LeaveGroup(ctx, cl, r)
	case *kmsg.OffsetCommitRequest:
		resp = c.OffsetCommit(ctx, cl, r)
	case *kmsg.OffsetFetchRequest:
		resp = c.OffsetFetch(ctx, cl, r)
	case *kmsg.OffsetDeleteRequest:
		resp = c.OffsetDelete(ctx, cl, r)
	case *kmsg.DescribeGroupsRequest:
		resp = c.DescribeGroups(ctx, cl, r)
	case *kmsg.ListGroupsRequest:
		resp = c.ListGroups(ctx, cl, r)
	case *kmsg.DeleteGroupsRequest:
		resp = c.DeleteGroups(ctx, cl, r)
	}
	if resp.GetVersion() != version || resp.Key() != in.Key() {
		t.Fatalf("answered key %d version %d to key %d version %d", resp.Key(), resp.GetVersion(), in.Key(), version)
	}
	out := r.ResponseKind()
	if err := out.ReadFrom(resp.AppendTo(nil)); err != nil {
		t.Fatalf("key %d version %d: %v", in.Key(), version, err)
	}
	return out
}

// TestEveryVersion takes one group through its life in each version of each API that Kafka 4.3 has.
func TestEveryVersion(t *testing.T) {
	id := base.NewTopicID()
	c := start(t, &memlog.Log{}, func(o *Options) {
		o.TopicName = func(got base.TopicID) (string, bool) { return "t", got == id }
		o.TopicID = func(string) base.TopicID { return id }
		o.PartitionExists = func(_ string, p int32) bool { return p < 5 }
	})
	for v := int16(0); v <= 10; v++ {
		life(t, c, v, id)
	}
}

func life(t *testing.T, c *Coordinator, v int16, id base.TopicID) {
	group := fmt.Sprint("group", v)
	jr := joinRequest(group, "")
	j := ask(t, c, min(v, 9), jr).(*kmsg.JoinGroupResponse)
	if v >= 4 {
		if j.ErrorCode != codeMemberIDRequired {
			t.Fatalf("version %d: join %d", v, j.ErrorCode)
		}
		jr.MemberID = j.MemberID
		j = ask(t, c, min(v, 9), jr).(*kmsg.JoinGroupResponse)
	}
	if j.ErrorCode != 0 || j.Generation != 1 || len(j.Members) != 1 || (v >= 7) != (j.ProtocolType != nil) {
		t.Fatalf("version %d: join %+v", v, j)
	}
	sync := ask(t, c, min(v, 5), syncRequest(group, j.MemberID, 1, j.MemberID)).(*kmsg.SyncGroupResponse)
	if sync.ErrorCode != 0 || string(sync.MemberAssignment) != "for "+j.MemberID || (v >= 5) != (sync.Protocol != nil) {
		t.Fatalf("version %d: sync %+v", v, sync)
	}
	hb := kmsg.NewPtrHeartbeatRequest()
	hb.Group, hb.MemberID, hb.Generation = group, j.MemberID, 1
	if r := ask(t, c, min(v, 4), hb).(*kmsg.HeartbeatResponse); r.ErrorCode != 0 {
		t.Fatalf("version %d: heartbeat %d", v, r.ErrorCode)
	}
	commitAndFetch(t, c, v, group, j.MemberID, id)
	describeAndDelete(t, c, v, group, j.MemberID)
}

func commitAndFetch(t *testing.T, c *Coordinator, v int16, group, member string, id base.TopicID) {
	cr := commitRequest(group, member, 1, "t", 10, 11, 12, 13, 14, 15)
	cr.Topics[0].TopicID = id
	for _, p := range ask(t, c, max(v, 2), cr).(*kmsg.OffsetCommitResponse).Topics[0].Partitions {
		if want := map[bool]int16{true: 0, false: codeUnknownTopicOrPart}[p.Partition < 5]; p.ErrorCode != want {
			t.Errorf("version %d: commit %+v", v, p)
		}
	}
	fr := kmsg.NewPtrOffsetFetchRequest()
	fr.Group = group
	ft := kmsg.NewOffsetFetchRequestTopic()
	ft.Topic, ft.Partitions = "t", []int32{1, 9}
	fr.Topics = append(fr.Topics, ft)
	fg := kmsg.NewOffsetFetchRequestGroup()
	fg.Group = group
	fgt := kmsg.NewOffsetFetchRequestGroupTopic()
	fgt.Topic, fgt.TopicID, fgt.Partitions = "t", id, []int32{1, 9}
	fg.Topics = append(fg.Topics, fgt)
	fr.Groups = append(fr.Groups, fg)
	if got := fetched(ask(t, c, max(v, 1), fr).(*kmsg.OffsetFetchResponse)); !reflect.DeepEqual(got, []string{"1=11", "9=-1"}) {
		t.Errorf("version %d: fetched %v", v, got)
	}
	if v < 2 {
		return // null topics came with version 2
	}
	fr.Topics, fr.Groups[0].Topics = nil, nil
	if got := fetched(ask(t, c, v, fr).(*kmsg.OffsetFetchResponse)); len(got) != 5 || got[4] != "4=14" {
		t.Errorf("version %d: fetched all %v", v, got)
	}
}

func fetched(r *kmsg.OffsetFetchResponse) (out []string) {
	for _, topic := range r.Topics {
		for _, p := range topic.Partitions {
			out = append(out, fmt.Sprintf("%d=%d", p.Partition, p.Offset))
		}
	}
	for _, g := range r.Groups {
		for _, topic := range g.Topics {
			for _, p := range topic.Partitions {
				out = append(out, fmt.Sprintf("%d=%d", p.Partition, p.Offset))
			}
		}
	}
	return out
}

func describeAndDelete(t *testing.T, c *Coordinator, v int16, group, member string) {
	dr := kmsg.NewPtrDescribeGroupsRequest()
	dr.Groups = []string{group, "none"}
	d := ask(t, c, min(v, 6), dr).(*kmsg.DescribeGroupsResponse)
	if g := d.Groups[0]; g.ErrorCode != 0 || g.State != "Stable" || g.Protocol != "range" || len(g.Members) != 1 || g.Members[0].ClientHost != "/127.0.0.1" {
		t.Errorf("version %d: described %+v", v, g)
	}
	if want := map[bool]int16{true: codeGroupNotFound, false: 0}[v >= 6]; d.Groups[1].ErrorCode != want || d.Groups[1].State != "Dead" {
		t.Errorf("version %d: described %+v", v, d.Groups[1])
	}
	lr := kmsg.NewPtrListGroupsRequest()
	if v >= 4 {
		lr.StatesFilter = []string{"sTABLE"}
	}
	if v >= 5 {
		lr.TypesFilter = []string{"Classic", "consumer"}
	}
	if l := ask(t, c, min(v, 5), lr).(*kmsg.ListGroupsResponse); len(l.Groups) != 1 || l.Groups[0].Group != group || l.Groups[0].ProtocolType != "consumer" {
		t.Errorf("version %d: listed %+v", v, l)
	}
	od := kmsg.NewPtrOffsetDeleteRequest()
	od.Group = group
	odt := kmsg.NewOffsetDeleteRequestTopic()
	odt.Topic, odt.Partitions = "t", []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 1}}
	od.Topics = append(od.Topics, odt)
	if r := ask(t, c, 0, od).(*kmsg.OffsetDeleteResponse); r.ErrorCode != 0 || r.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("offset delete %+v", r)
	}
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Groups = []string{group}
	if r := ask(t, c, min(v, 2), del).(*kmsg.DeleteGroupsResponse); r.Groups[0].ErrorCode != codeNonEmptyGroup {
		t.Errorf("version %d: deleted %+v", v, r)
	}
	lv := kmsg.NewPtrLeaveGroupRequest()
	lv.Group, lv.MemberID = group, member
	lv.Members = []kmsg.LeaveGroupRequestMember{{MemberID: member}}
	if r := ask(t, c, min(v, 5), lv).(*kmsg.LeaveGroupResponse); r.ErrorCode != 0 || (v >= 3) != (len(r.Members) == 1) {
		t.Errorf("version %d: left %+v", v, r)
	}
	if r := ask(t, c, min(v, 2), del).(*kmsg.DeleteGroupsResponse); r.Groups[0].ErrorCode != 0 {
		t.Errorf("version %d: deleted %+v", v, r)
	}
}

// TestTopicIDs: OffsetCommit and OffsetFetch 10 name topics by id; an offset of an earlier topic of the name is not found.
func TestTopicIDs(t *testing.T) {
	id, other := base.NewTopicID(), base.NewTopicID()
	current := id
	c := start(t, &memlog.Log{}, func(o *Options) {
		o.TopicName = func(got base.TopicID) (string, bool) { return "t", got == current }
		o.TopicID = func(string) base.TopicID { return current }
	})
	cr := commitRequest("g", "", -1, "", 10)
	cr.Topics[0].TopicID = other
	if code := ask(t, c, 10, cr).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != codeUnknownTopicID {
		t.Errorf("commit to an unknown id: code %d", code)
	}
	cr.Topics[0].TopicID = id
	if r := ask(t, c, 10, cr).(*kmsg.OffsetCommitResponse).Topics[0]; r.Partitions[0].ErrorCode != 0 || r.TopicID != id {
		t.Errorf("commit: %+v", r)
	}
	fr := fetchRequest("g")
	fgt := kmsg.NewOffsetFetchRequestGroupTopic()
	fgt.TopicID, fgt.Partitions = other, []int32{0}
	fr.Groups[0].Topics = []kmsg.OffsetFetchRequestGroupTopic{fgt}
	if p := ask(t, c, 10, fr).(*kmsg.OffsetFetchResponse).Groups[0].Topics[0].Partitions[0]; p.ErrorCode != codeUnknownTopicID || p.Offset != -1 {
		t.Errorf("fetch of an unknown id: %+v", p)
	}
	current = other // the topic was deleted and made again; the offset is still there
	if p := ask(t, c, 10, fr).(*kmsg.OffsetFetchResponse).Groups[0].Topics[0].Partitions[0]; p.ErrorCode != 0 || p.Offset != -1 {
		t.Errorf("fetch by the new id: %+v", p)
	}
	current = id // an image that has the earlier topic still sees it
	if got := fetched(ask(t, c, 9, fetchRequest("g")).(*kmsg.OffsetFetchResponse)); !reflect.DeepEqual(got, []string{"0=10"}) {
		t.Errorf("fetch of all by name: %v", got)
	}
	current = base.TopicID{}
	c.OnTopicsDeleted([]string{"t"})
	eventually(t, func() bool { return len(fetched(ask(t, c, 9, fetchRequest("g")).(*kmsg.OffsetFetchResponse))) == 0 })
}

// TestValidation is what is refused before any group is looked at.
func TestValidation(t *testing.T) {
	c := start(t, &memlog.Log{}, nil)
	none := New(Options{Log: &memlog.Log{}, Partitions: func() int32 { return 0 }})
	session := func(ms int32) int16 {
		r := joinRequest("g", "")
		r.SessionTimeoutMillis = ms
		return c.JoinGroup(t.Context(), Client{}, r).ErrorCode
	}
	noType := syncRequest("g", "m", 1)
	noType.ProtocolType = nil
	unled := New(Options{Log: &memlog.Log{}, Partitions: func() int32 { return 1 }})
	for name, got := range map[string][2]int16{
		"session too short": {session(5999), codeInvalidSession},
		"session too long":  {session(1800001), codeInvalidSession},
		"join without id":   {c.JoinGroup(t.Context(), Client{}, joinRequest("", "")).ErrorCode, codeInvalidGroup},
		"sync without id":   {c.SyncGroup(t.Context(), Client{}, syncRequest("", "m", 1)).ErrorCode, codeInvalidGroup},
		"sync without type": {c.SyncGroup(t.Context(), Client{}, noType).ErrorCode, codeInconsistent},
		"beat without id":   {heartbeat(c, t.Context(), "", "m", 1), codeInvalidGroup},
		"leave without id":  {leave(c, t.Context(), "", "m"), codeInvalidGroup},
		"commit without id": {c.OffsetCommit(t.Context(), Client{}, commitRequest("", "", -1, "t", 1)).Topics[0].Partitions[0].ErrorCode, 0},
		"no topic yet":      {heartbeat(none, t.Context(), "g", "m", 1), codeNotAvailable},
		"not led":           {heartbeat(unled, t.Context(), "g", "m", 1), codeNotCoordinator},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: code %d, want %d", name, got[0], got[1])
		}
	}
}
