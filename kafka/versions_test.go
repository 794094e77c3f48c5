package kafka

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// TestEveryVersionOfEveryAPI sends the default request of each served version and parses the answer.
func TestEveryVersionOfEveryAPI(t *testing.T) {
	e := newEdge(t, nil)
	e.topic("t", 1, nil)
	for _, r := range table() {
		for v := r.min; v <= r.max; v++ {
			t.Run(fmt.Sprintf("%s/%d", r.name, v), func(t *testing.T) {
				req := kmsg.RequestForKey(int16(r.key))
				req.SetVersion(v)
				switch x := req.(type) {
				case *kmsg.ApiVersionsRequest:
					x.ClientSoftwareName, x.ClientSoftwareVersion = "test", "1.0"
				case *kmsg.ProduceRequest:
					x.Acks = 1
				}
				p := e.dial()
				p.t = t
				p.must(req)
			})
		}
	}
	if logs := e.logs.String(); strings.Contains(logs, "bug:") {
		t.Error(logs)
	}
}

// TestSchemasFitKmsg fills requests of every version with random values: the walk must accept exactly what kmsg wrote.
func TestSchemasFitKmsg(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, r := range newRoutes().all {
		for v := r.min; v <= r.max; v++ {
			for i := 0; i < 30; i++ {
				req := kmsg.RequestForKey(int16(r.key))
				fillRandom(rnd, reflect.ValueOf(req).Elem(), 0)
				req.SetVersion(v)
				body := req.AppendTo(nil)
				w := walker{src: body, version: v, flexible: req.IsFlexible(), limit: maxElements}
				w.structure(r.checked)
				if w.bad || len(w.src) != 0 {
					t.Fatalf("%s v%d: walk left %d bytes of %d, bad=%v\n%x", r.name, v, len(w.src), len(body), w.bad, body)
				}
				if len(body) > 0 {
					cut := walker{src: body[:len(body)-1], version: v, flexible: req.IsFlexible(), limit: maxElements}
					cut.structure(r.checked)
					if !cut.bad {
						t.Fatalf("%s v%d: the walk accepts a request without its last byte", r.name, v)
					}
				}
			}
		}
	}
}

// fillRandom sets every field of a kmsg structure, with short strings and arrays.
func fillRandom(rnd *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			return
		}
		for i := 0; i < v.NumField(); i++ {
			fillRandom(rnd, v.Field(i), depth+1)
		}
	case reflect.Pointer:
		if rnd.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fillRandom(rnd, v.Elem(), depth+1)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(make([]byte, rnd.IntN(200)))
			return
		}
		n := rnd.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := 0; i < n; i++ {
			fillRandom(rnd, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := 0; i < v.Len(); i++ {
			v.Index(i).SetUint(uint64(rnd.IntN(256)))
		}
	case reflect.String:
		v.SetString(strings.Repeat("x", rnd.IntN(150)))
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(rnd.IntN(100) - 2))
	}
}

// TestAdvertisedRangesAreKafkas compares the table with what a real 4.3.0 broker advertises.
func TestAdvertisedRangesAreKafkas(t *testing.T) {
	raw, err := os.ReadFile("testdata/kafka43_apiversions.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[int16][2]int16{}
	for _, m := range regexp.MustCompile(`\((\d+)\): (\d+)(?: to (\d+))?`).FindAllStringSubmatch(string(raw), -1) {
		n := func(s string) int16 {
			v, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			return int16(v)
		}
		hi := m[3]
		if hi == "" {
			hi = m[2]
		}
		want[n(m[1])] = [2]int16{n(m[2]), n(hi)}
	}
	if len(want) < 60 {
		t.Fatalf("only %d apis in the file", len(want))
	}
	for i := range newRoutes().all {
		r := &newRoutes().all[i]
		if _, ok := want[int16(r.key)]; r.internal {
			if ok {
				t.Errorf("%s is internal here, Kafka advertises it", r.name)
			}
			continue
		}
		lo, hi := r.advertised()
		if got := [2]int16{lo, hi}; got != want[int16(r.key)] {
			t.Errorf("%s: %v, Kafka %v", r.name, got, want[int16(r.key)])
		}
	}
}

// TestApiVersionsFallback: facts/protocol.md traps 3 and 4, the bytes are those of a real broker.
func TestApiVersionsFallback(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	p.write(sealed(append(p.header(18, 9, true), 1, 1, 0)))
	_, body, err := p.receive()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(body); got != "002300000001001200000004" {
		t.Errorf("answer to ApiVersions v9 is %s", got)
	}
	// The connection goes on, with a version that we know and a response header without tags.
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "x", "1"
	resp := p.must(req).(*kmsg.ApiVersionsResponse)
	advertised := slices.DeleteFunc(table(), func(r route) bool { return r.internal })
	if len(resp.ApiKeys) != len(advertised) || resp.ErrorCode != 0 {
		t.Errorf("v3: %d apis, error %d", len(resp.ApiKeys), resp.ErrorCode)
	}
	for _, f := range resp.SupportedFeatures {
		if f.MinVersion == 0 {
			t.Errorf("v3 shows %s with minimum 0 (KAFKA-17492)", f.Name)
		}
	}
	if resp.FinalizedFeaturesEpoch < 0 {
		t.Errorf("features epoch %d", resp.FinalizedFeaturesEpoch)
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" || f.Name == "group.version" {
			t.Errorf("%s is finalised", f.Name)
		}
	}
	for _, k := range resp.ApiKeys {
		if k.ApiKey == 71 || k.ApiKey == 72 || k.ApiKey == 24 || k.ApiKey == 68 {
			t.Errorf("api %d is advertised", k.ApiKey)
		}
		if k.ApiKey == 0 && k.MinVersion != 0 {
			t.Error("Produce does not show version 0 (KAFKA-18659)")
		}
	}
	req.ClientSoftwareName = "bad name!"
	if got := p.must(req).(*kmsg.ApiVersionsResponse).ErrorCode; got != 42 {
		t.Errorf("bad software name: %d, want 42", got)
	}
}

// TestUnsupportedIsClosed: no answer at all (trap 3).
func TestUnsupportedIsClosed(t *testing.T) {
	e := newEdge(t, nil)
	for _, c := range []struct {
		name         string
		key, version int16
	}{
		{"Produce v2", 0, 2}, {"OffsetFetch v0", 9, 0}, {"unknown key", 999, 0}, {"negative key", -1, 0},
		{"Fetch v19", 1, 19}, {"AddPartitionsToTxn", 24, 3}, {"negative version", 3, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := e.dial()
			p.t = t
			p.write(sealed(append(p.header(c.key, c.version, false), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)))
			p.closed()
		})
	}
}

// TestFetchEncodingEqualsKmsg compares the spliced encoding with kmsg's, byte for byte.
func TestFetchEncodingEqualsKmsg(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for v := int16(4); v <= 18; v++ {
		for i := 0; i < 100; i++ {
			f := randomFetchResponse(rnd, v)
			_, parts, total := f.encode(nil)
			got := bytes.Join(parts, nil)
			plain := f.FetchResponse
			for ti := range plain.Topics {
				for pi := range plain.Topics[ti].Partitions {
					all := []byte{}
					for _, b := range f.batches[ti][pi] {
						all = append(all, b...)
					}
					plain.Topics[ti].Partitions[pi].RecordBatches = all
				}
			}
			if want := plain.AppendTo(nil); !bytes.Equal(got, want) || total != len(want) {
				t.Fatalf("v%d: encoded\n%x\nkmsg\n%x", v, got, want)
			}
		}
	}
}

func randomFetchResponse(rnd *rand.Rand, version int16) *fetchResponse {
	f := &fetchResponse{FetchResponse: *kmsg.NewPtrFetchResponse()}
	f.Version, f.SessionID, f.ErrorCode, f.ThrottleMillis = version, rnd.Int32(), int16(rnd.IntN(3)), int32(rnd.IntN(3))
	for range rnd.IntN(3) {
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = "topic", base.NewTopicID()
		var batches [][]record.Batch
		for n := range rnd.IntN(4) {
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition, p.PreferredReadReplica, p.HighWatermark = int32(n), -1, rnd.Int64()
			if rnd.IntN(2) == 0 {
				p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = 3, 300
			}
			if rnd.IntN(2) == 0 {
				p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = 2, 9
			}
			if rnd.IntN(2) == 0 {
				p.AbortedTransactions = make([]kmsg.FetchResponseTopicPartitionAbortedTransaction, rnd.IntN(3))
			}
			var bs []record.Batch
			for range rnd.IntN(4) {
				bs = append(bs, bytes.Repeat([]byte{byte(rnd.IntN(256))}, rnd.IntN(3*spliceMin)))
			}
			topic.Partitions, batches = append(topic.Partitions, p), append(batches, bs)
		}
		f.Topics, f.batches = append(f.Topics, topic), append(f.batches, batches)
	}
	if version >= 16 && rnd.IntN(2) == 0 {
		rack := "r1"
		f.Brokers = []kmsg.FetchResponseBroker{{NodeID: 1, Host: "h", Port: 9092}, {NodeID: 2, Host: "h2", Port: 1, Rack: &rack}}
	}
	return f
}
