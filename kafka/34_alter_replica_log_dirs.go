package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// AlterReplicaLogDirs (34), versions 1-2 (KIP-113).
//
// There is one directory, and a replica is in it: asking for that one succeeds and does nothing, another name is 57, letter
// for letter. A partition that does not exist is 3, one that is not on this broker 9 (ReplicaManager.alterReplicaLogDirs). Where
// a partition is named below several directories the last one counts.
func handleAlterReplicaLogDirs(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.AlterReplicaLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	img := s.deps.meta.Image()
	topics := map[string]int{}
	answered := map[base.TopicPartition]int{}
	for _, d := range req.Dirs {
		for _, t := range d.Topics {
			n, ok := topics[t.Topic]
			if !ok {
				n = len(resp.Topics)
				topics[t.Topic] = n
				out := kmsg.NewAlterReplicaLogDirsResponseTopic()
				out.Topic = t.Topic
				resp.Topics = append(resp.Topics, out)
			}
			out := &resp.Topics[n]
			for _, index := range t.Partitions {
				tp := base.TopicPartition{Topic: t.Topic, Partition: index}
				at, ok := answered[tp]
				if !ok {
					at = len(out.Partitions)
					answered[tp] = at
					p := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
					p.Partition = index
					out.Partitions = append(out.Partitions, p)
				}
				out.Partitions[at].ErrorCode = r.code(s.moveToDir(img, tp, d.Dir))
			}
		}
	}
	return resp, nil
}

// futureDirLength is what Kafka adds to "topic-partition" for the directory that a move fills: a dot, a UUID, "-future".
const futureDirLength = 1 + 32 + 7

// moveToDir says whether a partition is in a directory or could be moved to it.
func (s *Server) moveToDir(img image, tp base.TopicPartition, dir string) error {
	if len(tp.String())+futureDirLength > 255 {
		return kerr.InvalidTopicException // Kafka could not name the directory
	}
	if dir != s.opts.LogDir {
		return kerr.LogDirNotFound
	}
	p, ok := img.Partition(tp)
	if !ok {
		return kerr.UnknownTopicOrPartition
	}
	_, err := s.deps.ingest.ReplicaStatus(p)
	if err != nil && !errors.Is(err, kerr.KafkaStorageError) && !base.IsCorruption(err) {
		return kerr.ReplicaNotAvailable
	}
	return err
}
