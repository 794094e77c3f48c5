package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/segment"
)

// segmentInfo is what a segment's footer says, in short.
type segmentInfo struct {
	Object       string `json:"object"`
	Kind         string `json:"kind"`
	Topic        string `json:"topic"`
	Partition    int32  `json:"partition"`
	TopicID      string `json:"topicId"`
	Log          string `json:"log"`
	BaseOffset   int64  `json:"baseOffset"`
	EndOffset    int64  `json:"endOffset"` // exclusive
	MaxTimestamp string `json:"maxTimestamp"`
	LeaderEpoch  int32  `json:"leaderEpoch"`
	Created      string `json:"created"`
	BodyBytes    int64  `json:"bodyBytes"`
	FooterBytes  int64  `json:"footerBytes"`
	Blocks       int    `json:"blocks"`
	IndexEntries int    `json:"indexEntries"`
	Aborted      int    `json:"abortedTransactions"`
	// Epochs are the leader epochs of the log up to the segment's end: epoch and first offset.
	Epochs [][2]int64 `json:"leaderEpochs"`
}

func newSegmentInspect(a *app) *cobra.Command {
	var url string
	c := &cobra.Command{
		Use:     "inspect OBJECT...",
		Short:   "Show the footers of segment objects; a pack shows one line per segment in it",
		Example: "  varve segment inspect v1/segments/0000000000000001/....seg --object-store dir:///var/lib/varve/bucket",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, keys []string) error {
			return a.withBucket(cmd.Context(), url, func(b objstore.Bucket) error {
				infos := []segmentInfo{}
				t := table{head: []string{"OBJECT", "TOPIC", "PARTITION", "OFFSETS", "MAX TIMESTAMP", "EPOCH", "BODY", "FOOTER", "INDEX"}}
				for _, key := range keys {
					found, err := inspect(cmd.Context(), b, key)
					if err != nil {
						return fmt.Errorf("inspect %s: %w", key, err)
					}
					for _, i := range found {
						t.add(i.Object, i.Topic, i.Partition, fmt.Sprintf("[%d, %d)", i.BaseOffset, i.EndOffset), i.MaxTimestamp, i.LeaderEpoch, i.BodyBytes, i.FooterBytes, i.IndexEntries)
					}
					infos = append(infos, found...)
				}
				return a.print(infos, t)
			})
		},
	}
	a.bucketFlag(c, &url)
	return c
}

// inspect reads the footers in an object.
func inspect(ctx context.Context, b objstore.Reader, key string) ([]segmentInfo, error) {
	info, err := b.Head(ctx, key)
	if err != nil {
		return nil, err
	}
	if tiering.ParseName(key).Kind != tiering.KindPack {
		f, err := readFooter(ctx, b, key, info.Size)
		if err != nil {
			return nil, err
		}
		return []segmentInfo{describeSegment(key, f)}, nil
	}
	parts, err := readTail(ctx, b, key, info.Size, func(tail []byte) ([]segment.Part, error) {
		_, parts, err := segment.ParseDirectory(tail)
		return parts, err
	})
	if err != nil {
		return nil, err
	}
	var found []segmentInfo
	for _, p := range parts {
		f, err := readFooter(ctx, b, key, p.Pos+p.Len)
		if err != nil {
			return nil, err
		}
		found = append(found, describeSegment(key, f))
	}
	return found, nil
}

func readFooter(ctx context.Context, b objstore.Reader, key string, end int64) (*segment.Footer, error) {
	return readTail(ctx, b, key, end, segment.ParseFooter)
}

// firstTail is read at once: most footers are shorter.
const firstTail = 64 << 10

// readTail parses what stands before position end of an object, and reads more where the parser needs it.
func readTail[T any](ctx context.Context, b objstore.Reader, key string, end int64, parse func([]byte) (T, error)) (parsed T, err error) {
	want := int64(firstTail)
	for {
		want = min(want, end)
		tail, err := b.Get(ctx, key, end-want, want)
		if err != nil {
			return parsed, err
		}
		parsed, err = parse(tail)
		var more *segment.NeedTail
		if !errors.As(err, &more) || more.Bytes <= want || want == end {
			return parsed, err
		}
		want = more.Bytes
	}
}

func describeSegment(key string, f *segment.Footer) segmentInfo {
	var epochs [][2]int64
	for _, e := range f.Epochs {
		epochs = append(epochs, [2]int64{int64(e.Epoch), int64(e.Start)})
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }
	return segmentInfo{
		Object: key, Kind: tiering.ParseName(key).Kind.String(), Topic: f.TP.Topic, Partition: f.TP.Partition, TopicID: f.TopicID.String(), Log: f.Log.String(),
		BaseOffset: int64(f.Base), EndOffset: int64(f.End), MaxTimestamp: at(f.MaxTimestamp), LeaderEpoch: int32(f.LeaderEpoch),
		Created: at(f.CreatedMs), BodyBytes: f.BodyBytes, FooterBytes: f.FooterBytes, Blocks: len(f.BlockCRCs), IndexEntries: len(f.Index), Aborted: len(f.Aborted), Epochs: epochs,
	}
}
