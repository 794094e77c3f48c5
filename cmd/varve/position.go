package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// position is a place in a log as a user writes it: "beginning", "end", an offset, a time or a duration ago.
type position struct {
	kind   positionKind
	offset int64
	time   time.Time
}

type positionKind int

const (
	atBeginning positionKind = iota
	atEnd
	atOffset
	atTime
)

// parsePosition reads a position. A duration is counted back from now: "-1h", "-15m".
func parsePosition(s string) (position, error) {
	switch s {
	case "beginning", "earliest", "start":
		return position{kind: atBeginning}, nil
	case "end", "latest":
		return position{kind: atEnd}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return position{kind: atOffset, offset: n}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d < 0 {
		return position{kind: atTime, time: time.Now().Add(d)}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return position{kind: atTime, time: t}, nil
		}
	}
	return position{}, fmt.Errorf("position %q: write beginning, end, an offset, a time (2026-11-01T00:00:00Z) or a duration ago (-1h)", s)
}

// bounds are where partitions start and end (exclusive), by topic.
type bounds struct{ start, end kadm.ListedOffsets }

func loadBounds(ctx context.Context, adm *kadm.Client, topics []string) (bounds, error) {
	start, err := adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = start.Error()
	}
	if err != nil {
		return bounds{}, fmt.Errorf("start offsets of %s: %w", strings.Join(topics, ", "), err)
	}
	end, err := adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = end.Error()
	}
	if err != nil {
		return bounds{}, fmt.Errorf("end offsets of %s: %w", strings.Join(topics, ", "), err)
	}
	return bounds{start, end}, nil
}

// of answers the first offset and the end of a partition.
func (b bounds) of(topic string, partition int32) (start, end int64, err error) {
	s, ok1 := b.start.Lookup(topic, partition)
	e, ok2 := b.end.Lookup(topic, partition)
	if !ok1 || !ok2 {
		return 0, 0, fmt.Errorf("%s has no partition %d", topic, partition)
	}
	return s.Offset, e.Offset, nil
}

// resolve answers a function from partition to offset, of the partitions in b. A time after the last record is the end.
func (p position) resolve(ctx context.Context, adm *kadm.Client, b bounds) (func(topic string, partition int32) int64, error) {
	listed := b.start
	switch p.kind {
	case atOffset:
		return func(string, int32) int64 { return p.offset }, nil
	case atEnd:
		listed = b.end
	case atTime:
		var topics []string
		for t := range b.start {
			topics = append(topics, t)
		}
		var err error
		if listed, err = adm.ListOffsetsAfterMilli(ctx, p.time.UnixMilli(), topics...); err == nil {
			err = listed.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("offsets at %s: %w", p.time.Format(time.RFC3339), err)
		}
	}
	return func(topic string, partition int32) int64 {
		l, ok := listed.Lookup(topic, partition)
		if !ok || l.Offset < 0 {
			_, end, _ := b.of(topic, partition) // a partition outside b has no end: 0
			return end
		}
		return l.Offset
	}, nil
}

// parseTopicPartitions reads "topic" (nil: all partitions) or "topic:0,3".
func parseTopicPartitions(s string) (topic string, partitions []int32, err error) {
	topic, list, ok := strings.Cut(s, ":")
	if topic == "" {
		return "", nil, fmt.Errorf("%q: write topic or topic:partition,partition", s)
	}
	if !ok {
		return topic, nil, nil
	}
	for _, f := range strings.Split(list, ",") {
		n, err := strconv.ParseInt(f, 10, 32)
		if err != nil || n < 0 {
			return "", nil, fmt.Errorf("%q: %q is no partition number", s, f)
		}
		partitions = append(partitions, int32(n))
	}
	return topic, partitions, nil
}

// partitionsOf lists the partitions of a topic in order.
func partitionsOf(ctx context.Context, adm *kadm.Client, topic string) ([]int32, error) {
	details, err := adm.ListTopicsWithInternal(ctx, topic)
	if err != nil {
		return nil, err
	}
	if err := details[topic].Err; err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	return details[topic].Partitions.Numbers(), nil
}
