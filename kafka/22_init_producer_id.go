package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// InitProducerId (22), versions 0-5.
//
//   - Without a transactional id: a producer id that was never used, epoch 0, whatever the request's own id and epoch are.
//   - An empty transactional id, or only one of id and epoch set, is 42.
//   - A transactional id is refused with 35: there is no transaction coordinator yet, and clients give up at once.
func handleInitProducerID(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		resp.ErrorCode = r.code(kerr.InvalidRequest)
	case req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = r.code(kerr.InvalidRequest)
	case req.TransactionalID != nil:
		resp.ErrorCode = r.code(kerr.UnsupportedVersion)
	default:
		id, err := s.deps.meta.NextProducerID(ctx)
		if err != nil {
			resp.ErrorCode = r.code(err)
			break
		}
		resp.ProducerID, resp.ProducerEpoch = int64(id), 0
	}
	return resp, nil
}
