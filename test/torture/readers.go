package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/test/torture/history"
)

// look is a reader of all partitions from offset 0. It never starts over: where the cluster says that its offset is not there, that is an
// anomaly, since nothing of this topic is ever dropped.
type look struct {
	*history.Look
	h  *history.History
	cl *kgo.Client
}

func newLook(t target, h *history.History, name string, partitions int) (*look, error) {
	from := map[int32]kgo.Offset{}
	for p := range partitions {
		from[int32(p)] = kgo.NewOffset().At(0)
	}
	cl, err := kgo.NewClient(t.options(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(200*time.Millisecond),
	)...)
	if err != nil {
		return nil, err
	}
	return &look{h.Look(name), h, cl}, nil
}

// until reads until done says so or ctx ends.
func (l *look) until(ctx context.Context, done func() bool) {
	for !done() && ctx.Err() == nil {
		poll, cancel := context.WithTimeout(ctx, time.Second)
		fs := l.cl.PollFetches(poll)
		cancel()
		fs.EachRecord(func(r *kgo.Record) { l.Take(r.Partition, r.Offset, r.Key, r.Value) })
		fs.EachError(func(_ string, p int32, err error) {
			var loss *kgo.ErrDataLoss
			if errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange) {
				l.h.Note(history.ReportedLoss, p, l.Next(p), "%s: %v", l.Name, err)
			}
		})
	}
}

// readAll makes one look at everything up to the ends, and notes where it does not get there.
func readAll(ctx context.Context, t target, h *history.History, name string, ends []int64) (*history.Look, error) {
	l, err := newLook(t, h, name, len(ends))
	if err != nil {
		return nil, err
	}
	defer l.cl.Close()
	l.until(ctx, func() bool { return l.Reaches(ends) })
	l.Reach(ends, true)
	return l.Look, nil
}

// endOffsets asks until every leader has answered.
func endOffsets(ctx context.Context, adm *kadm.Client, partitions int) ([]int64, error) {
	for {
		listed, err := adm.ListEndOffsets(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err == nil && len(listed[topic]) == partitions {
			ends := make([]int64, partitions)
			listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
			return ends, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("end offsets: %w", errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
