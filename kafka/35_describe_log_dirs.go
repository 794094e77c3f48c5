package kafka

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"github.com/varvelog/varve/internal/base"
)

// DescribeLogDirs (35), versions 1-5.
//
// There is one directory. A partition's size is what it has on this broker's disk, not what is tiered (KIP-405 does the same).
// Null topics mean all; partitions that are not here are left out, those that this broker only follows are here. The offset lag
// of a replica is what its own high watermark is ahead of its log, 0 for all but one that has just started over
// (ReplicaManager.getLogEndOffsetLag); there are no future replicas. v4 shows the disk's total and usable bytes (KIP-827), v5
// whether the directory is cordoned (KIP-1066), which ours never is.
func handleDescribeLogDirs(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DescribeLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = s.opts.LogDir
	dir.TotalBytes, dir.UsableBytes = diskSpace(s.opts.LogDir)
	wanted := map[string]map[int32]bool{}
	for _, t := range req.Topics {
		if wanted[t.Topic] == nil {
			wanted[t.Topic] = map[int32]bool{}
		}
		for _, p := range t.Partitions {
			wanted[t.Topic][p] = true
		}
	}
	for _, topic := range s.deps.meta.Image().Topics() {
		out := kmsg.NewDescribeLogDirsResponseDirTopic()
		out.Topic = topic.Name
		for i := range topic.Partitions {
			if req.Topics != nil && !wanted[topic.Name][int32(i)] {
				continue
			}
			st, err := s.deps.ingest.ReplicaStatus(&topic.Partitions[i])
			if err != nil {
				continue // not on this broker
			}
			p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			p.Partition, p.Size, p.OffsetLag = int32(i), st.HotBytes, int64(max(st.HighWatermark-st.LogEnd, 0))
			out.Partitions = append(out.Partitions, p)
		}
		if len(out.Partitions) > 0 {
			dir.Topics = append(dir.Topics, out)
		}
	}
	resp.Dirs = append(resp.Dirs, dir)
	return resp, nil
}

// diskSpace is the size of the disk that holds path and what is left for us, -1 where that is unknown.
func diskSpace(path string) (total, usable int64) {
	var st unix.Statfs_t
	if path == "" || unix.Statfs(path, &st) != nil {
		return -1, -1
	}
	size := func(blocks uint64) int64 {
		return int64(min(blocks*uint64(st.Bsize), math.MaxInt64))
	}
	return size(st.Blocks), size(st.Bavail)
}

// HotBytes asks a broker what its replicas have on its disk, in bytes, until a deadline. After an error that is no *kerr.Error the peer
// is to be closed.
func (p *Peer) HotBytes(deadline time.Time) (map[base.TopicPartition]int64, error) {
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.Version, req.Topics = 4, nil // all of them
	answer, err := p.ask(req, deadline)
	if err != nil {
		return nil, fmt.Errorf("ask for hot bytes: %w", err)
	}
	resp := answer.(*kmsg.DescribeLogDirsResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	out := map[base.TopicPartition]int64{}
	for _, dir := range resp.Dirs {
		if err := kerr.ErrorForCode(dir.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range dir.Topics {
			for _, partition := range t.Partitions {
				out[base.TopicPartition{Topic: t.Topic, Partition: partition.Partition}] += partition.Size
			}
		}
	}
	return out, nil
}
