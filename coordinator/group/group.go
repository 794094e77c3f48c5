// Package group is the consumer group coordinator.
package group

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Client is who sent a request.
type Client struct{ ID, Host string }

// Coordinator serves the group APIs for the partitions of __consumer_offsets that this broker leads. Every method may
// block until the answer is due (JoinGroup parks) and ends early with ctx. Requests of any version are answered with a
// response of the same version; the caller has resolved topic ids and authorised.
type Coordinator struct{}

func (c *Coordinator) JoinGroup(ctx context.Context, cl Client, r *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	panic("not built")
}
func (c *Coordinator) SyncGroup(ctx context.Context, cl Client, r *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	panic("not built")
}
func (c *Coordinator) Heartbeat(ctx context.Context, cl Client, r *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	panic("not built")
}
func (c *Coordinator) LeaveGroup(ctx context.Context, cl Client, r *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	panic("not built")
}
func (c *Coordinator) OffsetCommit(ctx context.Context, cl Client, r *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	panic("not built")
}
func (c *Coordinator) OffsetFetch(ctx context.Context, cl Client, r *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	panic("not built")
}
func (c *Coordinator) OffsetDelete(ctx context.Context, cl Client, r *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	panic("not built")
}
func (c *Coordinator) DescribeGroups(ctx context.Context, cl Client, r *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	panic("not built")
}
func (c *Coordinator) ListGroups(ctx context.Context, cl Client, r *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	panic("not built")
}
func (c *Coordinator) DeleteGroups(ctx context.Context, cl Client, r *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	panic("not built")
}

// PartitionFor is the partition of __consumer_offsets that holds a group: Java's String.hashCode & 0x7fffffff, modulo.
func PartitionFor(group string, partitions int32) int32 { panic("not built") }
