package etcdkv

import (
	"context"
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/varvelog/varve/metadata"
)

// failing is a member that answers everything with one error.
type failing struct {
	pb.KVClient
	err error
}

func (f failing) Range(context.Context, *pb.RangeRequest, ...grpc.CallOption) (*pb.RangeResponse, error) {
	return nil, f.err
}

func (f failing) Txn(context.Context, *pb.TxnRequest, ...grpc.CallOption) (*pb.TxnResponse, error) {
	return nil, f.err
}

// Whatever way a quorum is away, the caller, who has no deadline of its own, is told a deadline, which metadata has a Kafka code for.
func TestAwayIsADeadline(t *testing.T) {
	for _, c := range []struct {
		err  error
		away bool
	}{
		{rpctypes.ErrGRPCNoLeader, true},
		{rpctypes.ErrGRPCLeaderChanged, true},
		{rpctypes.ErrGRPCTimeout, true},
		{rpctypes.ErrGRPCTimeoutDueToLeaderFail, true},
		{rpctypes.ErrGRPCStopped, true},
		{grpcstatus.Error(codes.Unavailable, "error reading from server: EOF"), true},
		{grpcstatus.Error(codes.DeadlineExceeded, "by the member's clock"), true},
		{rpctypes.ErrGRPCNoSpace, false},
		{rpctypes.ErrGRPCPermissionDenied, false},
		{errors.New("broken"), false},
	} {
		k := &KV{local: clientv3.NewKVFromKVClient(failing{err: c.err}, nil)}
		_, _, get := k.Get(t.Context(), "k")
		_, _, list := k.List(t.Context(), "k")
		_, txn := k.Txn(t.Context(), nil, []metadata.Op{metadata.Put("k", nil)})
		for _, err := range []error{get, list, txn} {
			if err == nil || errors.Is(err, context.DeadlineExceeded) != c.away || Away(err) != c.away {
				t.Errorf("%v is answered with %v", c.err, err)
			}
		}
	}
}
