package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const readPatience = 60 * time.Second

// readBack reads the topics of a run from the start to their ends with franz-go.
func readBack(ctx context.Context, broker, prefix string, s shape) (*arrivals, error) {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	var topics []string
	for _, codec := range codecs {
		topics = append(topics, prefix+"-"+codec)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list the ends of the topics: %w", err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	a := newArrivals(s, prefix)
	compressed := map[string]int{} // topic -> bits of the codecs of its batches
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("read back, %d records before the end: %w", left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			c := content{key: r.Key, value: r.Value}
			for _, h := range r.Headers {
				c.headers = append(c.headers, header{h.Key, h.Value})
			}
			a.add(position{r.Topic, r.Partition, r.Offset}, c)
			compressed[r.Topic] |= 1 << r.Attrs.CompressionType()
		})
	}
	for n, codec := range codecs { // in the order of the protocol's numbers
		// Some clients leave a batch as it is where compression makes it no smaller.
		if got := compressed[prefix+"-"+codec]; got|1 != 1<<n|1 || got>>n == 0 {
			a.fault("the batches of %s have codecs of the bits %b", codec, got)
		}
	}
	return a, nil
}

// uncommitted answers the partitions where the group's committed offset is not the end of the log.
func uncommitted(ctx context.Context, broker, prefix string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	lags, err := kadm.NewClient(client).Lag(ctx, prefix+"-group")
	if err != nil {
		return nil, fmt.Errorf("lag of the group: %w", err)
	}
	group := lags[prefix+"-group"]
	if err := group.Error(); err != nil {
		return nil, fmt.Errorf("lag of the group: %w", err)
	}
	var faults []string
	partitions := 0
	for _, l := range group.Lag.Sorted() {
		partitions++
		if l.Lag != 0 {
			faults = append(faults, fmt.Sprintf("%s[%d]: committed %d, end %d", l.Topic, l.Partition, l.Commit.At, l.End.Offset))
		}
	}
	if partitions == 0 {
		faults = append(faults, "the group has committed nothing")
	}
	return faults, nil
}
