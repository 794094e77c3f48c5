package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	grpc "google.golang.org/grpc/status"
)

func TestAway(t *testing.T) {
	for _, err := range []error{
		errNoAnswer, context.DeadlineExceeded, rpctypes.ErrNoLeader, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrLeaderChanged,
		grpc.Error(codes.Unavailable, "the connection is closing"),
	} {
		if !Away(fmt.Errorf("etcd list: %w", err)) {
			t.Errorf("%v is for good", err)
		}
	}
	for _, err := range []error{
		nil, errors.New("broken"), context.Canceled, ErrVoters, ErrRemoved, rpctypes.ErrCompacted, rpctypes.ErrNoSpace, rpctypes.ErrPermissionDenied,
	} {
		if Away(err) {
			t.Errorf("%v will pass", err)
		}
	}
}
