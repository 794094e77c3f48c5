package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListPartitionReassignments (46), version 0 (KIP-455). Nothing is ever being reassigned while there is one broker; kafka-topics
// asks, and takes an empty list.
func handleListPartitionReassignments(_ *Server, _ context.Context, r *request) (kmsg.Response, error) {
	return r.Request.ResponseKind(), nil
}
