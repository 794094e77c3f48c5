package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// partitionTiers is what `varve topic describe --output json` says (contract.md).
type partitionTiers struct {
	Partition       int32
	LogStartOffset  int64
	HotStartOffset  int64
	TieredEndOffset int64
	HighWatermark   int64
	HotBytes        int64
	TieredBytes     int64
	TieredObjects   int64
}

func describe(ctx context.Context, varve string, b *proc.Process, topic string) ([]partitionTiers, error) {
	out, err := exec.CommandContext(ctx, varve, "topic", "describe", topic, "--output", "json", "--bootstrap", b.KafkaAddr, "--http", b.HTTPAddr).Output()
	if err != nil {
		var status *exec.ExitError
		if errors.As(err, &status) {
			return nil, fmt.Errorf("varve topic describe: %w: %s", err, status.Stderr)
		}
		return nil, fmt.Errorf("varve topic describe: %w", err)
	}
	var answer struct{ Partitions []partitionTiers }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("varve topic describe: %w", err)
	}
	return answer.Partitions, nil
}

// awaitTiered polls until every partition is in the bucket to its end and its hot part has been trimmed.
func awaitTiered(ctx context.Context, varve string, b *proc.Process, topic string, patience time.Duration) ([]partitionTiers, error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		tiers, err := describe(ctx, varve, b, topic)
		if err != nil {
			return nil, err
		}
		waiting := ""
		for _, t := range tiers {
			if t.TieredEndOffset < t.HighWatermark || t.HotStartOffset <= t.LogStartOffset {
				waiting = fmt.Sprintf("partition %d: tiered to %d of %d, hot from %d", t.Partition, t.TieredEndOffset, t.HighWatermark, t.HotStartOffset)
			}
		}
		if waiting == "" && len(tiers) > 0 {
			return tiers, nil
		}
		select {
		case <-tick.C:
		case <-b.Exited():
			return nil, fmt.Errorf("the broker has ended\n%s", b.LogTail())
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return nil, fmt.Errorf("not offloaded and trimmed after %s: %s\n%s", patience, waiting, b.LogTail())
		}
	}
}
