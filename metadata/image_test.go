package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// randomly does one random change. Refusals are part of it.
func randomly(t *testing.T, r *rand.Rand, s *metadata.Store) {
	t.Helper()
	name := fmt.Sprintf("t%d", r.IntN(6))
	topic, exists := s.Image().Topic(name)
	ms := fmt.Sprint(1000 + r.IntN(5))
	var err error
	switch op := r.IntN(10); {
	case op < 3 && !exists:
		_, err = s.CreateTopic(t.Context(), metadata.TopicSpec{Name: name, Partitions: 1 + r.Int32N(120), ReplicationFactor: 1}, false)
	case op < 5 && exists:
		err = s.CreatePartitions(t.Context(), name, int32(len(topic.Partitions))+1+r.Int32N(20), nil, false)
	case op < 6 && exists:
		err = s.DeleteTopic(t.Context(), topic.ID)
	case op < 7 && exists:
		err = s.IncrementalAlterConfigs(t.Context(), metadata.Resource{Type: metadata.ResourceTopic, Name: name},
			[]metadata.ConfigOp{{Name: "segment.ms", Op: int8(r.IntN(2)), Value: &ms}}, false)
	case op < 8:
		broker := metadata.Resource{Type: metadata.ResourceBroker, Name: []string{"", "1"}[r.IntN(2)]}
		err = s.IncrementalAlterConfigs(t.Context(), broker, []metadata.ConfigOp{{Name: "log.roll.ms", Op: int8(r.IntN(2)), Value: &ms}}, false)
	case op < 9:
		group := metadata.Resource{Type: metadata.ResourceGroup, Name: name}
		v := "50000"
		err = s.IncrementalAlterConfigs(t.Context(), group, []metadata.ConfigOp{{Name: "consumer.session.timeout.ms", Op: int8(r.IntN(2)), Value: &v}}, false)
	default:
		_, err = s.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: ms, Port: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestImageEqualsRebuild(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	r := rand.New(rand.NewPCG(1, 2))
	before := s.Image()
	old := metadata.Dump(before)
	for n := range 100 {
		randomly(t, r, s)
		kvs, revision, err := kv.List(t.Context(), metadata.ImagePrefix)
		if err != nil {
			t.Fatal(err)
		}
		image := s.Image()
		got, want := metadata.Dump(image), metadata.Dump(metadata.Rebuilt(image, kvs, revision))
		if got != want {
			t.Fatalf("change %d: kept current, then rebuilt:\n%s", n, differences(got, want))
		}
		if n%10 == 9 {
			if metadata.Dump(before) != old {
				t.Fatalf("changes up to %d reached into an older image", n)
			}
			before, old = image, got
		}
	}
	if len(s.Image().Topics()) == 0 {
		t.Error("nothing was there to compare")
	}
}

// differences returns the lines that are in one text only, each cut short.
func differences(got, want string) string {
	var out []string
	for _, side := range []struct{ sign, in, other string }{{"- ", got, want}, {"+ ", want, got}} {
		for line := range strings.Lines(side.in) {
			if !strings.Contains(side.other, line) {
				out = append(out, side.sign+line[:min(len(line), 300)])
			}
		}
	}
	return strings.Join(out[:min(len(out), 20)], "\n")
}

// follower keeps names of topics from deltas alone.
type follower struct {
	sync.Mutex
	topics map[base.TopicID]int
	seen   *metadata.Image
	moved  chan struct{}
}

func (f *follower) apply(t *testing.T, old, next *metadata.Image) {
	f.Lock()
	defer f.Unlock()
	if old != f.seen {
		t.Error("an image was left out")
	}
	d := metadata.DeltaOf(old, next)
	for _, topic := range d.Deleted {
		delete(f.topics, topic.ID)
	}
	for _, topic := range d.Changed {
		f.topics[topic.ID] = len(topic.Partitions)
	}
	f.seen = next
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

func TestDeltas(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	create(t, s, "first", 2)
	f := &follower{topics: map[base.TopicID]int{}, moved: make(chan struct{}, 1)}
	s.Subscribe(func(old, next *metadata.Image) { f.apply(t, old, next) })
	if len(f.topics) != 1 {
		t.Fatal("the first call came too late")
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		randomly(t, r, s)
	}
	last := s.Image()
	for {
		f.Lock()
		done := f.seen == last
		f.Unlock()
		if done {
			break
		}
		<-f.moved
	}
	if len(f.topics) != len(last.Topics()) {
		t.Errorf("%d topics by deltas, %d in the image", len(f.topics), len(last.Topics()))
	}
	for _, topic := range last.Topics() {
		if f.topics[topic.ID] != len(topic.Partitions) {
			t.Errorf("%s: %d partitions by deltas, %d in the image", topic.Name, f.topics[topic.ID], len(topic.Partitions))
		}
	}
}

// cutOff is a KV whose first watch delivers nothing until it is told to end.
type cutOff struct {
	*memkv.KV
	once sync.Once
	end  chan error
}

func (c *cutOff) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	var out chan metadata.Events
	c.once.Do(func() {
		out = make(chan metadata.Events, 1)
		go func() {
			defer close(out)
			select {
			case err := <-c.end:
				out <- metadata.Events{Err: err}
			case <-ctx.Done():
			}
		}()
	})
	if out != nil {
		return out
	}
	return c.KV.Watch(ctx, prefix, from)
}

// TestWatchLost changes everything behind the back of a store whose watch is cut off, and compacts the history away.
func TestWatchLost(t *testing.T) {
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprintf("compacted=%v", compact), func(t *testing.T) {
			kv := memkv.New(memkv.Options{})
			defer kv.Close()
			writer := open(t, kv, nil)
			gone := create(t, writer, "gone", 150)
			create(t, writer, "stays", 3)
			c := &cutOff{KV: kv, end: make(chan error, 1)}
			s := reopen(t, c)
			defer closeStore(t, s)
			if err := writer.DeleteTopic(t.Context(), gone.ID); err != nil {
				t.Fatal(err)
			}
			create(t, writer, "gone", 2)
			if _, err := writer.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "other", Port: 2}); err != nil {
				t.Fatal(err)
			}
			want := metadata.Dump(writer.Image())
			err := fmt.Errorf("cut off")
			if compact {
				kv.Compact(writer.Image().Revision())
				err = metadata.ErrCompacted
			}
			caught := make(chan struct{}, 1)
			s.Subscribe(func(_, next *metadata.Image) {
				if metadata.Dump(next) == want {
					select {
					case caught <- struct{}{}:
					default:
					}
				}
			})
			c.end <- err
			select {
			case <-caught:
			case <-time.After(20 * time.Second): // a hang, not a measure
				t.Fatalf("never caught up:\n%s", differences(metadata.Dump(s.Image()), want))
			}
		})
	}
}

func TestInternalTopic(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), map[string]string{"offsets.topic.num.partitions": "5"})
	for range 2 {
		topic, err := s.EnsureInternalTopic(t.Context(), metadata.ConsumerOffsetsTopic)
		if err != nil {
			t.Fatal(err)
		}
		c := topic.Config
		if !topic.Internal || len(topic.Partitions) != 5 || len(topic.Partitions[0].Replicas) != 1 || !c.Compact || c.Delete ||
			c.SegmentBytes != 104857600 || c.Compression != "producer" {
			t.Errorf("%+v %+v", topic, c)
		}
	}
}

// FuzzApply feeds an image keys and values that no version wrote: they may be refused, but never break it.
func FuzzApply(f *testing.F) {
	const id = "01020304-0506-0708-090a-0b0c0d0e0f10"
	f.Add("topic/t", `{"id":"`+id+`","partitions":1}`, "partition/"+id+"/00000000", `{"topic":"t","log":5,"replicas":[1],"isr":[1],"leader":1}`, false)
	f.Add("topic/t", `{"id":"`+id+`","partitions":-1}`, "partition/"+id+"/00000003", `{"topic":"t","log":5}`, true)
	f.Add("config/topic/t", `{"segment.ms":"x"}`, "config/broker/1", `{"num.partitions":"many"}`, false)
	f.Add("broker/1", `{}`, "controller", `{"broker":7}`, true)
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 string, remove bool) {
		image := metadata.Empty()
		empty := metadata.Dump(image)
		next := metadata.Apply(image, metadata.ImagePrefix+key1, value1, false)
		next = metadata.Apply(next, metadata.ImagePrefix+key2, value2, false)
		for _, topic := range next.Topics() {
			for i := range topic.Partitions {
				if p, _, ok := next.Log(topic.Partitions[i].Log); !ok || p.Log != topic.Partitions[i].Log {
					t.Errorf("log of %s-%d is not found", topic.Name, i)
				}
			}
		}
		if remove {
			next = metadata.Apply(next, metadata.ImagePrefix+key1, "", true)
			next = metadata.Apply(next, metadata.ImagePrefix+key2, "", true)
			if len(next.Topics()) != 0 {
				t.Errorf("topics are left: %v", next.Topics()[0])
			}
		}
		if metadata.Dump(image) != empty {
			t.Error("the first image changed")
		}
	})
}

// BenchmarkEvent is one partition's change in an image of 10,000 topics.
func BenchmarkEvent(b *testing.B) {
	image := metadata.Empty()
	var id base.TopicID
	for i := range 10_000 {
		id = base.NewTopicID()
		image = metadata.Apply(image, fmt.Sprintf("%spartition/%s/00000000", metadata.ImagePrefix, id), fmt.Sprintf(`{"topic":"t%d","log":%d}`, i, i+1), false)
		image = metadata.Apply(image, fmt.Sprintf("%stopic/t%d", metadata.ImagePrefix, i), fmt.Sprintf(`{"id":"%s","partitions":1}`, id), false)
	}
	key := fmt.Sprintf("%spartition/%s/00000000", metadata.ImagePrefix, id)
	b.ReportAllocs()
	for b.Loop() {
		metadata.Apply(image, key, `{"topic":"t9999","log":10000}`, false)
	}
}

// A topic that another broker has made is waited for; one that there is not is no reason to wait.
func TestAwaitTopic(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	other := open(t, kv, nil)
	behind := &cutOff{KV: kv, end: make(chan error, 1)}
	late := reopen(t, behind)
	defer closeStore(t, late)
	create(t, other, "t", 1)
	if _, ok := late.Image().Topic("t"); ok {
		t.Fatal("a watch that is cut off shows a topic")
	}
	if err := late.AwaitTopic(t.Context(), "none"); err != nil {
		t.Errorf("a topic that there is not: %v", err)
	}
	behind.end <- fmt.Errorf("cut off")
	if err := late.AwaitTopic(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	if _, ok := late.Image().Topic("t"); !ok {
		t.Error("the image does not show the topic")
	}
}

// A topic that another broker has deleted can be created again at once.
func TestCreateBehindADeletion(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	other := open(t, kv, nil)
	was := create(t, other, "t", 1)
	behind := &cutOff{KV: kv, end: make(chan error, 1)}
	late := reopen(t, behind)
	defer closeStore(t, late)
	spec := metadata.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1}
	if _, err := late.CreateTopic(t.Context(), spec, false); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("while it exists: %v", err)
	}
	if err := other.DeleteTopic(t.Context(), was.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := late.Image().Topic("t"); !ok {
		t.Fatal("a watch that is cut off shows a deletion")
	}
	behind.end <- fmt.Errorf("cut off")
	if now, err := late.CreateTopic(t.Context(), spec, false); err != nil || now.ID == was.ID {
		t.Errorf("after its deletion: %v", err)
	}
}
