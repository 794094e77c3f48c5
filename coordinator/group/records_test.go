package group

import (
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// kafkaRecords are the golden bytes that Kafka's own classes wrote.
func kafkaRecords(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/kafka430_records.hex")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		if name, digits, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			if out[name], err = hex.DecodeString(digits); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func wantBytes(t *testing.T, name string, got, want []byte) {
	t.Helper()
	if string(got) != string(want) {
		t.Errorf("%s: wrote\n%x\nKafka writes\n%x", name, got, want)
	}
}

func TestOffsetRecordBytes(t *testing.T) {
	golden := kafkaRecords(t)
	c := committed{offset: 1234567890123, leaderEpoch: 5, metadata: "méta", commitMs: 1700000000000, expireMs: noTimestamp}
	k, v := offsetRecord("grüppe", "orders", 7, c)
	wantBytes(t, "key", k, golden["offset-key"])
	wantBytes(t, "value 4", v, golden["offset-v4"])
	withID, expires := c, c
	withID.topicID = base.TopicID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	_, v = offsetRecord("g", "t", 0, withID)
	wantBytes(t, "value 4 with id", v, golden["offset-v4-id"])
	expires.expireMs = 1700000001000
	_, v = offsetRecord("g", "t", 0, expires)
	wantBytes(t, "value 1", v, golden["offset-v1"])

	noEpoch := c
	noEpoch.leaderEpoch = base.NoLeaderEpoch
	expires.leaderEpoch = base.NoLeaderEpoch
	for name, want := range map[string]committed{
		"offset-v0": noEpoch, "offset-v1": expires, "offset-v2": noEpoch, "offset-v3": c, "offset-v4": c, "offset-v4-id": withID,
	} {
		if got, err := parseOffset(golden[name]); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	key, err := parseKey(golden["offset-key"])
	if err != nil || string(key.group) != "grüppe" || string(key.topic) != "orders" || key.partition != 7 || key.kind != keyOffset {
		t.Errorf("key: %+v, %v", key, err)
	}
}

func TestGroupRecordBytes(t *testing.T) {
	golden := kafkaRecords(t)
	g := newClassicGroup("g", 1700000000000)
	k, v := groupRecord(g, nil)
	wantBytes(t, "key", k, golden["group-key"])
	wantBytes(t, "empty", v, golden["group-empty"])
	protocol, instance := "range", "i"
	g.generation, g.protocolType, g.protocol, g.state = 3, "consumer", &protocol, stateStable
	protocols := func(b ...byte) []kmsg.JoinGroupRequestProtocol {
		return []kmsg.JoinGroupRequestProtocol{{Name: "other"}, {Name: "range", Metadata: b}}
	}
	g.add(&member{
		id: "m1", client: Client{"c", "/127.0.0.1"}, rebalance: time.Minute, session: 10 * time.Second, protocols: protocols(1, 2),
	}, waiting{})
	g.add(&member{
		id: "i-2", instanceID: &instance, client: Client{"d", "/h"}, rebalance: time.Millisecond, session: 2 * time.Millisecond,
		protocols: protocols(4),
	}, waiting{})
	_, v = groupRecord(g, map[string][]byte{"m1": {3}})
	wantBytes(t, "value 3", v, golden["group-v3"])

	for version := range 5 {
		name := fmt.Sprintf("group-v%d", version)
		got, err := parseGroup("g", golden[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m1, i2 := got.members["m1"], got.members["i-2"]
		if got.generation != 3 || got.leader != "m1" || *got.protocol != "range" || got.state != stateStable || m1 == nil || i2 == nil {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if (got.sinceMs == 1700000000000) != (version >= 2) || (i2.instanceID != nil) != (version >= 3) {
			t.Errorf("%s: since %d, instance %v", name, got.sinceMs, i2.instanceID)
		}
		if want := map[bool]time.Duration{true: time.Minute, false: 10 * time.Second}[version >= 1]; m1.rebalance != want {
			t.Errorf("%s: rebalance timeout %s", name, m1.rebalance)
		}
		if !reflect.DeepEqual(m1.metadata(got.protocol), []byte{1, 2}) || !reflect.DeepEqual(m1.assignment, []byte{3}) {
			t.Errorf("%s: member %+v", name, m1)
		}
	}
}

// batchOf builds a batch of a producer (NoProducerID for none).
func batchOf(t testing.TB, producer base.ProducerID, control bool, records ...record.Record) record.Batch {
	t.Helper()
	h := record.BuildHeader{ProducerID: producer, ProducerEpoch: -1, BaseSequence: -1, Control: control}
	if producer != base.NoProducerID {
		h.Transactional, h.ProducerEpoch = true, 0
	}
	for i := range records {
		records[i].Offset = base.Offset(i)
	}
	b, err := record.Build(h, records)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rec(k, v []byte) record.Record { return record.Record{Key: k, Value: v} }

// TestReplaySkipsOthers: record types of later coordinators are left alone, bytes that cannot be ours are a corruption.
func TestReplaySkipsOthers(t *testing.T) {
	m := newWorkbench(t).m
	for _, kind := range []byte{3, 4, 5, 6, 7, 8, 10, 15, 16, 17, 23, 99} {
		if err := m.Replay(batchOf(t, base.NoProducerID, false, rec([]byte{0, kind, 0, 1, 'g'}, []byte{0, 0, 9}), rec([]byte{0, kind, 0, 1, 'g'}, nil))); err != nil {
			t.Errorf("type %d: %v", kind, err)
		}
	}
	if len(m.groups) != 0 {
		t.Errorf("groups %v", m.groups)
	}
	key := offsetRecordKey("g", "t", 0)
	for name, r := range map[string]record.Record{
		"no key": rec(nil, nil), "short key": rec(key[:5], nil), "short value": rec(key, []byte{0}), "future value": rec(key, []byte{0, 5, 0}),
		"torn value": rec(key, []byte{0, 4, 0}), "group": rec(groupRecordKey("g"), []byte{0, 3, 9}),
	} {
		if err := m.Replay(batchOf(t, base.NoProducerID, false, r)); !base.IsCorruption(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReplayTransactions: offsets of a transaction are unstable until its marker, then committed or gone (KIP-447).
func TestReplayTransactions(t *testing.T) {
	w := newWorkbench(t)
	marker := func(p base.ProducerID, kind byte) record.Batch {
		return batchOf(t, p, true, rec([]byte{0, 0, 0, kind}, []byte{0, 0, 0, 0, 0, 0}))
	}
	at := base.Offset(0)
	replay := func(b record.Batch) {
		b.SetBaseOffset(at)
		at = b.NextOffset()
		if err := w.m.Replay(b); err != nil {
			t.Fatal(err)
		}
	}
	put := func(p base.ProducerID, o base.Offset) {
		replay(batchOf(t, p, false, rec(offsetRecord("g", "t", 0, committed{offset: o, leaderEpoch: -1, expireMs: noTimestamp}))))
	}
	fetch := func(stable bool) string {
		r, _ := w.m.fetchOne("g", namedTopic{name: "t"}, 0, stable)
		return fmt.Sprintf("%d %s", r.Offset, showCode(r.ErrorCode))
	}
	check := func(what, unstable, stable string) {
		t.Helper()
		if a, b := fetch(false), fetch(true); a != unstable || b != stable {
			t.Errorf("%s: %q and stable %q, want %q and %q", what, a, b, unstable, stable)
		}
	}
	put(base.NoProducerID, 1)
	check("committed", "1 ok", "1 ok")
	put(7, 2)
	put(8, 3)
	check("two open", "1 ok", "-1 UNSTABLE_OFFSET_COMMIT")
	replay(marker(8, 0))
	check("one aborted", "1 ok", "-1 UNSTABLE_OFFSET_COMMIT")
	replay(marker(7, 1))
	check("one committed", "2 ok", "2 ok")
	put(7, 4)
	put(base.NoProducerID, 5)
	replay(marker(7, 1))
	check("committed later in the log", "5 ok", "5 ok")
	put(7, 6)
	w.step(func(fx *runtime.Effects) { w.m.topicsDeleted(fx, []string{"gone"}) })
	w.command([]string{"delete"})
	check("deleted with an open one", "-1 ok", "-1 ok")
}

func FuzzRecord(f *testing.F) {
	for name, b := range kafkaRecords(f) {
		if strings.HasSuffix(name, "key") {
			f.Add(b, []byte{})
		} else {
			f.Add(groupRecordKey("g"), b)
			f.Add(offsetRecordKey("g", "t", 1), b)
		}
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		m := newWorkbench(t).m
		if err := m.replayRecord(base.NoProducerID, record.Record{Key: key, Value: value}); err != nil {
			return
		}
		// What was read can be written and read again.
		for id, g := range m.groups {
			if len(g.members) == 0 {
				continue
			}
			_, v := groupRecord(g, nil)
			again, err := parseGroup(id, v)
			if err != nil || showGroup(again) != showGroup(g) {
				t.Fatalf("group %q: %v\n%s\n%s", id, err, showGroup(again), showGroup(g))
			}
		}
		for id, topics := range m.offsets {
			for topic, partitions := range topics {
				for p, c := range partitions {
					_, v := offsetRecord(id, topic, p, c)
					again, err := parseOffset(v)
					again.logOffset = c.logOffset
					if c.expireMs != noTimestamp {
						again.leaderEpoch, again.topicID = c.leaderEpoch, c.topicID // version 1 has neither
					}
					if err != nil || again != c {
						t.Fatalf("offset: %v\n%+v\n%+v", err, again, c)
					}
				}
			}
		}
	})
}

func FuzzSubscription(f *testing.F) {
	f.Add(subscription("a", "b"))
	f.Add([]byte{0, 1, 255})
	f.Add([]byte{0, 0, 127, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		ok := subscribedTopics(b, func(topic string) {
			if n++; n > len(b) {
				t.Fatal("more topics than bytes")
			}
		})
		if len(b) < 2 && ok {
			t.Fatal("read a version from nothing")
		}
		g := newClassicGroup("g", 0)
		p := "p"
		g.protocolType, g.protocol, g.state = "consumer", &p, stateStable
		g.add(&member{id: "m", protocols: []kmsg.JoinGroupRequestProtocol{{Name: p, Metadata: b}}}, waiting{})
		if g.readSubscriptions(); g.subscribedKnown != ok {
			t.Fatalf("known %v, readable %v", g.subscribedKnown, ok)
		}
	})
}

func TestSubscribedTopics(t *testing.T) {
	for version := int16(0); version <= 3; version++ {
		m := kmsg.NewConsumerMemberMetadata()
		m.Version, m.Topics, m.UserData = version, []string{"a", "bc"}, []byte{1}
		var got []string
		if !subscribedTopics(m.AppendTo(nil), func(s string) { got = append(got, s) }) || !reflect.DeepEqual(got, m.Topics) {
			t.Errorf("version %d: %v", version, got)
		}
	}
}
