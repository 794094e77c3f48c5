package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// partition is a partition's state in etcd (metadata/keys.go).
type partition struct {
	index                      int32
	Topic                      string
	Log                        base.LogID
	Leader                     int32
	LeaderEpoch                int32
	Replicas, ISR, ELR, Adding []int32
}

// partitions are those of all topics, as etcd has them, whatever brokers have seen of it.
func (c *cluster) partitions() (out []partition, err error) {
	kvs, _, err := c.quorum.kv.List(context.Background(), imagePrefix+"partition/")
	if err != nil {
		return nil, fmt.Errorf("partitions: %w", err)
	}
	for _, kv := range kvs {
		var p partition
		if err := json.Unmarshal(kv.Value, &p); err != nil {
			return nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
		if _, err := fmt.Sscanf(kv.Key[len(kv.Key)-8:], "%d", &p.index); err != nil {
			return nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// ofTopic is one partition of the workload's topic.
func (c *cluster) ofTopic(index int32) (partition, bool) {
	all, _ := c.partitions() // what cannot be read is not there
	for _, p := range all {
		if p.Topic == topic && p.index == index {
			return p, true
		}
	}
	return partition{}, false
}

// auditEnds holds, until ctx ends, the log ends that clients are told against what was tiered before they asked: nothing is tiered
// that is not below the high watermark (I3), and no leader shows an earlier one than a leader before it had (KIP-207). Leaders of an
// epoch before the root's may not know yet that they are none. A root itself never goes back: who was replaced commits nothing (I4).
func (c *cluster) auditEnds(ctx context.Context, rng *rand.Rand) {
	cl, err := kgo.NewClient(c.client()...)
	if err != nil {
		c.fail(err)
		return
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	before := map[int32]metadata.Root{}
	for pause(ctx, time.Duration(50+rng.IntN(200))*time.Millisecond) {
		roots := map[int32]metadata.Root{}
		for index := range int32(c.plan.partitions) {
			if p, ok := c.ofTopic(index); ok {
				if kv, ok, err := c.quorum.kv.Get(ctx, rootPrefix+p.Log.String()); err == nil && ok {
					var root metadata.Root
					if err := json.Unmarshal(kv.Value, &root); err != nil {
						c.failf("%s: %w", kv.Key, err)
					}
					if b := before[index]; root.Epoch < b.Epoch || root.TieredEnd < b.TieredEnd {
						c.failf("partition %d: the root goes back from [%d, %d) of epoch %d to [%d, %d) of epoch %d (I4)",
							index, b.Start, b.TieredEnd, b.Epoch, root.Start, root.TieredEnd, root.Epoch)
					}
					roots[index], before[index] = root, root
				}
			}
		}
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		ends, err := adm.ListEndOffsets(asking, topic)
		cancel()
		if err != nil {
			continue
		}
		ends.Each(func(o kadm.ListedOffset) {
			root, ok := roots[o.Partition]
			if !ok || o.Err != nil || o.LeaderEpoch < int32(root.Epoch) {
				return
			}
			c.count("audits", 1)
			if o.Offset < int64(root.TieredEnd) {
				c.failf("partition %d: a leader of epoch %d says that the log ends at %d, and %d was tiered under epoch %d (I3)",
					o.Partition, o.LeaderEpoch, o.Offset, root.TieredEnd, root.Epoch)
			}
		})
	}
}

// checkTimes looks offsets up by time, and holds the answers against the records (I8).
func (c *cluster) checkTimes(ctx context.Context, final *reader) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(c.client()...)
	if err != nil {
		c.fail(err)
		return
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	rng := rand.New(rand.NewPCG(c.seed, 0x74696d65))
	for p := range final.parts {
		times := final.parts[p].times
		for range min(5, len(times)) {
			wanted := times[rng.IntN(len(times))] + rng.Int64N(3) - 1
			want := int64(0)
			for want < int64(len(times)) && times[want] < wanted {
				want++
			}
			listed, err := adm.ListOffsetsAfterMilli(ctx, wanted, topic)
			if err != nil {
				c.failf("look offsets up by time: %w", err)
				return
			}
			if o, ok := listed.Lookup(topic, int32(p)); !ok || o.Err != nil || o.Offset != want {
				c.failf("partition %d: the first record of time %d or later has offset %d (%v), the records say %d", p, wanted, o.Offset, o.Err, want)
			}
			c.count("times", 1)
		}
	}
}
