package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// maxAnswerBytes bounds what is read of an HTTP answer.
const maxAnswerBytes = 64 << 20

// topicDescription is the answer of `varve topic describe`; the fields of a partition are fixed by the contract.
type topicDescription struct {
	Name       string          `json:"name"`
	TopicID    string          `json:"topicId"`
	Partitions []partitionInfo `json:"partitions"`
}

// partitionInfo: offsets and sizes are null where the broker cannot tell (another vendor's, or one without HTTP), and offsets where
// the partition has no leader.
type partitionInfo struct {
	Partition        int32   `json:"partition"`
	Leader           int32   `json:"leader"`
	LeaderEpoch      int32   `json:"leaderEpoch"`
	Replicas         []int32 `json:"replicas"`
	ISR              []int32 `json:"isr"`
	LogStartOffset   *int64  `json:"logStartOffset"`
	HotStartOffset   *int64  `json:"hotStartOffset"`
	TieredEndOffset  *int64  `json:"tieredEndOffset"`
	LastStableOffset *int64  `json:"lastStableOffset"`
	HighWatermark    *int64  `json:"highWatermark"`
	HotBytes         *int64  `json:"hotBytes"`
	TieredBytes      *int64  `json:"tieredBytes"`
	TieredObjects    *int64  `json:"tieredObjects"`
}

func newTopicDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "describe NAME...",
		Short: "Show where a topic's partitions and bytes are",
		Long: `Show, per partition, leader and replicas, the offsets at which its log, its hot part and its tiered part start and end
(ends are exclusive), and the bytes in the hot store and in the bucket.

Everything comes over Kafka's protocol but tieredBytes and tieredObjects, which the broker's HTTP address tells (--http);
they are null where it does not answer. One topic prints one JSON object, several print an array.`,
		Example: `  varve topic describe orders
  varve topic describe orders --output json | jq '.partitions[].tieredEndOffset'`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, names []string) error {
			described := make([]topicDescription, 0, len(names))
			for _, name := range names {
				d, err := describeTopic(ctx, adm, name)
				if err != nil {
					return fmt.Errorf("describe %s: %w", name, err)
				}
				if err := addTiered(ctx, a.httpAddr, &d); err != nil {
					a.warn("tiered bytes of %s are unknown: %v", name, err)
				}
				described = append(described, d)
			}
			if len(described) == 1 {
				return a.print(described[0], describeTable(described))
			}
			return a.print(described, describeTable(described))
		}),
	}
}

// describeTopic asks over Kafka's protocol alone.
func describeTopic(ctx context.Context, adm *kadm.Client, name string) (topicDescription, error) {
	topics, err := adm.ListTopicsWithInternal(ctx, name)
	if err != nil {
		return topicDescription{}, err
	}
	detail := topics[name]
	if detail.Err != nil {
		return topicDescription{}, detail.Err
	}
	d := topicDescription{Name: name, TopicID: uuidString(detail.ID)}
	for _, p := range detail.Partitions.Sorted() {
		d.Partitions = append(d.Partitions, partitionInfo{
			Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR,
		})
	}
	if err := addOffsets(ctx, adm, &d); err != nil {
		return d, err
	}
	set := kadm.TopicsSet{}
	set.Add(name, detail.Partitions.Numbers()...)
	dirs, err := adm.DescribeAllLogDirs(ctx, set)
	var dead *kadm.ShardErrors // every replica's broker is asked, those that are gone too; of the answers only the leaders' count
	if err != nil && !errors.As(err, &dead) {
		return d, fmt.Errorf("log directories: %w", err)
	}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		if l, ok := dirs[p.Leader].LookupPartition(name, p.Partition); ok {
			p.HotBytes = &l.Size
		}
	}
	return d, nil
}

// butLeaderless drops an error that says that partitions without a leader were not asked: the others have answered.
func (d *topicDescription) butLeaderless(err error) error {
	var some *kadm.ShardErrors
	if errors.As(err, &some) && slices.ContainsFunc(d.Partitions, func(p partitionInfo) bool { return p.Leader < 0 }) {
		return nil
	}
	return err
}

// addOffsets asks ListOffsets with each of its special timestamps: -2, -4 (KIP-405), -5 (KIP-1005), -1 in both isolations.
func addOffsets(ctx context.Context, adm *kadm.Client, d *topicDescription) error {
	asks := []struct {
		name  string
		list  func(context.Context, ...string) (kadm.ListedOffsets, error)
		set   func(*partitionInfo, int64)
		needs bool // every broker knows it
	}{
		{"log start", adm.ListStartOffsets, func(p *partitionInfo, o int64) { p.LogStartOffset = &o }, true},
		{"high watermark", adm.ListEndOffsets, func(p *partitionInfo, o int64) { p.HighWatermark = &o }, true},
		{"last stable offset", adm.ListCommittedOffsets, func(p *partitionInfo, o int64) { p.LastStableOffset = &o }, true},
		{"hot start", adm.ListLocalLogStartOffsets, func(p *partitionInfo, o int64) { p.HotStartOffset = &o }, false},
		{"tiered end", adm.ListLatestRemoteOffsets, func(p *partitionInfo, o int64) { o++; p.TieredEndOffset = &o }, false},
	}
	for _, ask := range asks {
		listed, err := ask.list(ctx, d.Name)
		if err = d.butLeaderless(err); err == nil {
			err = listed.Error()
		}
		if err != nil {
			if ask.needs {
				return fmt.Errorf("%s: %w", ask.name, err)
			}
			continue
		}
		for i := range d.Partitions {
			p := &d.Partitions[i]
			if l, ok := listed.Lookup(d.Name, p.Partition); ok {
				ask.set(p, l.Offset)
			}
		}
	}
	return nil
}

// addTiered asks the broker's HTTP side, whose field names are ours, for what Kafka's protocol does not tell.
func addTiered(ctx context.Context, httpAddr string, d *topicDescription) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+httpAddr+"/v1/topics/"+url.PathEscape(d.Name), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w (--http or VARVE_HTTP name the broker's HTTP address)", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", req.URL, resp.Status)
	}
	var answer topicDescription
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(&answer); err != nil {
		return fmt.Errorf("GET %s: %w", req.URL, err)
	}
	if answer.TopicID != d.TopicID {
		return fmt.Errorf("%s belongs to another cluster than --bootstrap: its topic has the id %s", httpAddr, answer.TopicID)
	}
	told := make(map[int32]partitionInfo, len(answer.Partitions))
	for _, p := range answer.Partitions {
		told[p.Partition] = p
	}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		if t, ok := told[p.Partition]; ok {
			p.TieredBytes, p.TieredObjects = t.TieredBytes, t.TieredObjects
			if t.HotBytes != nil {
				p.HotBytes = t.HotBytes
			}
		}
	}
	return nil
}

func describeTable(ds []topicDescription) table {
	t := table{head: []string{"TOPIC", "PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "LOG START", "HOT START", "TIERED END", "STABLE", "HIGH WATERMARK", "HOT BYTES", "TIERED BYTES", "OBJECTS"}}
	for _, d := range ds {
		for _, p := range d.Partitions {
			t.add(d.Name, p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, p.LogStartOffset, p.HotStartOffset,
				p.TieredEndOffset, p.LastStableOffset, p.HighWatermark, p.HotBytes, p.TieredBytes, p.TieredObjects)
		}
	}
	return t
}

// uuidString shows a topic id as a UUID.
func uuidString(id kadm.TopicID) string { return uuid.UUID(id).String() }
