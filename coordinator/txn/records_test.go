package txn

import (
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

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

func TestRecordBytes(t *testing.T) {
	golden := kafkaRecords(t)
	if k := recordKey("pay-é"); string(k) != string(golden["key"]) {
		t.Errorf("wrote key %x, Kafka writes %x", k, golden["key"])
	}
	if id, known, err := parseKey(golden["key"]); id != "pay-é" || !known || err != nil {
		t.Errorf("key: %q, %v, %v", id, known, err)
	}
	const id = base.ProducerID(1234567890123)
	empty := transaction{
		id: "x", state: stateEmpty, producerID: id, previousID: id, nextID: base.NoProducerID, epoch: 7, retryEpoch: noEpoch,
		timeoutMs: 60000, startMs: noTimestamp, updateMs: 1700000000000,
	}
	ongoing := empty
	ongoing.state, ongoing.version, ongoing.startMs = stateOngoing, version2, 1699999990000
	ongoing.partitions = scriptPartitions([]string{"orders/0", "orders/3", "zürich/1"})
	prepare, one, complete := ongoing, ongoing, ongoing
	prepare.state, prepare.nextID = statePrepareCommit, 99
	one = prepare
	one.partitions = scriptPartitions([]string{"orders/3"})
	complete.state, complete.previousID, complete.partitions = stateCompleteAbort, 98, nil
	for name, want := range map[string]transaction{
		"empty-v1": empty, "ongoing-v1": ongoing, "prepare-v1": prepare, "log-prepare-v1": one, "complete-v1": complete,
	} {
		if got := recordValue(&want); string(got) != string(golden[name]) {
			t.Errorf("%s: wrote\n%x\nKafka writes\n%x", name, got, golden[name])
		}
	}
	// Version 0 has no tags; tags that are not ours, or that mean nothing in the state, are left alone.
	old := func(t transaction) transaction {
		t.previousID, t.version = base.NoProducerID, 0
		return t
	}
	for name, want := range map[string]transaction{
		"empty-v0": old(empty), "empty-v1": empty, "ongoing-v0": old(ongoing), "ongoing-v1": ongoing, "prepare-v1": prepare,
		"complete-v1": complete, "tags-v1": complete,
	} {
		if got, err := parseValue("x", golden[name]); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestDamagedRecords(t *testing.T) {
	golden := kafkaRecords(t)
	for name, v := range golden {
		for n := range len(v) {
			if name == "key" {
				if _, known, err := parseKey(v[:n]); known || err == nil {
					t.Errorf("key of %d bytes was read", n)
				}
			} else if _, err := parseValue("x", v[:n]); err == nil {
				t.Errorf("%s: %d bytes were read", name, n)
			}
		}
	}
	change := func(at int, b byte) []byte {
		v := append([]byte(nil), golden["ongoing-v1"]...)
		v[at] = b
		return v
	}
	for what, v := range map[string][]byte{
		"version 2": change(1, 2), "version -1": change(0, 255), "state Dead": change(16, 6), "state 255": change(16, 255),
		"negative producer": change(2, 255), "negative epoch": change(10, 255),
		// A topic with four billion tags, of which none is there: kmsg would count to four billion.
		"tags": append(append([]byte(nil), golden["ongoing-v1"][:17]...), 2, 2, 't', 1, 255, 255, 255, 255, 15),
	} {
		if got, err := parseValue("x", v); err == nil {
			t.Errorf("%s: read as %+v", what, got)
		}
	}
	// A damaged record stops the loading and is marked; one of an unknown type does not.
	m := newWorkbench(t).m
	replay := func(r record.Record) error {
		b, err := record.Build(record.BuildHeader{ProducerID: base.NoProducerID, ProducerEpoch: -1, BaseSequence: -1}, []record.Record{r})
		if err != nil {
			t.Fatal(err)
		}
		return m.Replay(b)
	}
	if err := replay(record.Record{Key: recordKey("x"), Value: golden["ongoing-v1"][:20]}); !base.IsCorruption(err) {
		t.Errorf("a short record: %v", err)
	}
	if err := replay(record.Record{Key: []byte{0, 1, 0}, Value: []byte{0}}); err != nil || len(m.txns) != 0 {
		t.Errorf("an unknown key: %v, %v", err, m.txns)
	}
	if err := replay(record.Record{Key: recordKey("x"), Value: golden["ongoing-v1"]}); err != nil || m.txns["x"] == nil {
		t.Errorf("a good record: %v, %v", err, m.txns)
	}
	if err := replay(record.Record{Key: recordKey("x")}); err != nil || len(m.txns) != 0 {
		t.Errorf("a tombstone: %v, %v", err, m.txns)
	}
}

func FuzzRecord(f *testing.F) {
	for name, b := range kafkaRecords(f) {
		if name == "key" {
			f.Add(b, []byte{})
		} else {
			f.Add(recordKey("x"), b)
		}
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		m := newWorkbench(t).m
		if err := m.replayRecord(record.Record{Key: key, Value: value}); err != nil {
			return
		}
		// What was read can be written and read again.
		for id, want := range m.txns {
			again, err := parseValue(id, recordValue(want))
			if err != nil || !reflect.DeepEqual(again, want) {
				t.Fatalf("%q: %v\n%+v\n%+v", id, err, again, want)
			}
		}
	})
}
