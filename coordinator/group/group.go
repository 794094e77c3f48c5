package group

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
)

// Client is who sent a request. Host is shown as Kafka does, with a leading slash, which is added where it is missing.
type Client struct{ ID, Host string }

// Coordinator serves the group APIs for the partitions of __consumer_offsets that this broker leads. Every method may
// block until the answer is due (JoinGroup parks) and ends early with ctx. Requests of any version are answered with a
// response of the same version; the caller has authorised. Methods may be called from any goroutine; a request must not
// be changed after the call.
type Coordinator struct {
	opts *Options
	rt   *runtime.Runtime[*machine]
}

// New returns a coordinator that leads nothing yet.
func New(o Options) *Coordinator {
	o.EnsureDefaults()
	c := &Coordinator{opts: &o}
	inst := newInstruments(o.Meter)
	c.rt = runtime.New(runtime.Options[*machine]{
		Name: "group", Log: o.Log, Clock: o.Clock, Logger: o.Logger, Meter: o.Meter, Codec: o.Codec,
		MailboxRequests: o.MailboxRequests, MaxBatchBytes: o.MaxBatchBytes, MaxPendingBytes: o.MaxPendingBytes,
		NewMachine: func(partition int32) *machine { return newMachine(c.opts, inst, partition) },
	})
	return c
}

// Lead starts to coordinate a partition in the given epoch. It returns at once; until the partition is replayed its groups
// are answered COORDINATOR_LOAD_IN_PROGRESS (I15), Heartbeat with success, so that members stay.
func (c *Coordinator) Lead(partition int32, epoch base.LeaderEpoch) { c.rt.Lead(partition, epoch) }

// Resign stops to coordinate a partition: everyone who waits or comes is answered NOT_COORDINATOR.
func (c *Coordinator) Resign(partition int32) { c.rt.Resign(partition) }

// Stop resigns all partitions and waits for their goroutines, or for ctx.
func (c *Coordinator) Stop(ctx context.Context) error { return c.rt.Stop(ctx) }

// OnTopicsDeleted drops the offsets of topics that were deleted, in all partitions that are led here; those that load at the
// moment do so after it. It returns at once. It tidies up: what is missed (a partition that moves, a crash, a lost append) is
// not taken for a new topic's, since OffsetFetch compares ids.
func (c *Coordinator) OnTopicsDeleted(topics []string) {
	topics = slices.Clone(topics)
	c.rt.PostAll(func(m *machine, fx *runtime.Effects) { m.topicsDeleted(fx, topics) })
}

// call runs a step in the shard of a group and waits for its answer of type T.
func call[T any](ctx context.Context, c *Coordinator, group string, step func(*machine, *runtime.Effects, *runtime.Promise)) (T, error) {
	var none T
	n := c.opts.Partitions()
	switch {
	case len(group) > maxNameBytes:
		return none, kerr.InvalidGroupID
	case n <= 0:
		return none, kerr.CoordinatorNotAvailable
	}
	v, err := c.rt.Call(ctx, PartitionFor(group, n), step)
	if err != nil {
		return none, err
	}
	return v.(T), nil
}

// JoinGroup answers API key 11, versions 0 to 9.
func (c *Coordinator) JoinGroup(ctx context.Context, cl Client, r *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	cfg := c.opts.Config()
	switch session := millis(r.SessionTimeoutMillis); {
	case r.Group == "":
		return joinFailure(r.Version, r.MemberID, codeInvalidGroup)
	case session < cfg.MinSessionTimeout || session > cfg.MaxSessionTimeout:
		return joinFailure(r.Version, r.MemberID, codeInvalidSession)
	case joinTooLong(cl, r):
		return joinFailure(r.Version, "", kerr.InvalidRequest.Code)
	}
	cl = cl.normal()
	resp, err := call[*kmsg.JoinGroupResponse](ctx, c, r.Group, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.joinGroup(fx, cl, r, p)
	})
	if err != nil {
		return joinFailure(r.Version, "", codeOf(err))
	}
	return resp
}

// SyncGroup answers API key 14, versions 0 to 5.
func (c *Coordinator) SyncGroup(ctx context.Context, _ Client, r *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	switch {
	case r.Version >= 5 && (r.ProtocolType == nil || r.Protocol == nil):
		return syncFailure(r.Version, codeInconsistent)
	case r.Group == "":
		return syncFailure(r.Version, codeInvalidGroup)
	}
	resp, err := call[*kmsg.SyncGroupResponse](ctx, c, r.Group, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.syncGroup(fx, r, p)
	})
	if err != nil {
		return syncFailure(r.Version, codeOf(err))
	}
	return resp
}

// Heartbeat answers API key 12, versions 0 to 4.
func (c *Coordinator) Heartbeat(ctx context.Context, _ Client, r *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	failure := kmsg.NewPtrHeartbeatResponse()
	failure.Version = r.Version
	if r.Group == "" {
		failure.ErrorCode = codeInvalidGroup
		return failure
	}
	resp, err := call[*kmsg.HeartbeatResponse](ctx, c, r.Group, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.heartbeat(fx, r, p)
	})
	if err != nil {
		if failure.ErrorCode = codeOf(err); failure.ErrorCode == codeLoading {
			failure.ErrorCode = 0 // the member is to stay; its session starts when the group is loaded
		}
		return failure
	}
	return resp
}

// LeaveGroup answers API key 13, versions 0 to 5.
func (c *Coordinator) LeaveGroup(ctx context.Context, _ Client, r *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	failure := kmsg.NewPtrLeaveGroupResponse()
	failure.Version = r.Version
	if r.Group == "" {
		failure.ErrorCode = codeInvalidGroup
		return failure
	}
	resp, err := call[*kmsg.LeaveGroupResponse](ctx, c, r.Group, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.leaveGroup(fx, r, p)
	})
	if err != nil {
		failure.ErrorCode = codeOf(err)
		return failure
	}
	return resp
}

// OffsetCommit answers API key 8, versions 0 to 10. Topics may be named or, from version 10, given by id.
func (c *Coordinator) OffsetCommit(ctx context.Context, _ Client, r *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	resp, topics, any := c.commitResponse(r)
	if !any {
		return resp
	}
	done, err := call[*kmsg.OffsetCommitResponse](ctx, c, r.Group, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.offsetCommit(fx, r, topics, resp, p)
	})
	if err == nil {
		return done
	}
	// The shard may still hold resp: answer with another.
	failure, _, _ := c.commitResponse(r)
	return refuseCommit(failure, codeOf(err))
}

// OffsetFetch answers API key 9, versions 0 to 10. Several groups are looked up at the same time.
func (c *Coordinator) OffsetFetch(ctx context.Context, _ Client, r *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	queries := fetchQueries(r)
	out := make([]kmsg.OffsetFetchResponseGroup, len(queries))
	each(len(queries), func(i int) {
		q := &queries[i]
		g, err := call[*kmsg.OffsetFetchResponseGroup](ctx, c, q.Group, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
			m.fetchGroup(fx, r.Version, q, r.RequireStable, p)
		})
		if err != nil {
			out[i] = fetchFailure(r.Version, q, codeOf(err))
			return
		}
		out[i] = *g
	})
	return fetchResponse(r, out)
}

// OffsetDelete answers API key 47, version 0.
func (c *Coordinator) OffsetDelete(ctx context.Context, _ Client, r *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	failure := kmsg.NewPtrOffsetDeleteResponse()
	failure.Version = r.Version
	if r.Group == "" {
		failure.ErrorCode = codeInvalidGroup
		return failure
	}
	prepared := c.deleteResponse(r)
	resp, err := call[*kmsg.OffsetDeleteResponse](ctx, c, r.Group, func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
		m.offsetDelete(fx, r, prepared, p)
	})
	if err != nil {
		failure.ErrorCode = codeOf(err)
		return failure
	}
	return resp
}

// DescribeGroups answers API key 15, versions 0 to 6. Authorized operations are left at "not asked".
func (c *Coordinator) DescribeGroups(ctx context.Context, _ Client, r *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	resp := kmsg.NewPtrDescribeGroupsResponse()
	resp.Version = r.Version
	resp.Groups = make([]kmsg.DescribeGroupsResponseGroup, len(r.Groups))
	each(len(r.Groups), func(i int) {
		g, err := call[*kmsg.DescribeGroupsResponseGroup](ctx, c, r.Groups[i], func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
			m.describeGroup(fx, r.Version, r.Groups[i], p)
		})
		if err != nil {
			failure := kmsg.NewDescribeGroupsResponseGroup()
			failure.Group, failure.ErrorCode = r.Groups[i], codeOf(err)
			g = &failure
		}
		resp.Groups[i] = *g
	})
	return resp
}

// ListGroups answers API key 16, versions 0 to 5, for the partitions that are led here. While one of them loads the whole
// answer is COORDINATOR_LOAD_IN_PROGRESS, as in Kafka: a list with gaps would be taken for a complete one.
func (c *Coordinator) ListGroups(ctx context.Context, _ Client, r *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	resp := kmsg.NewPtrListGroupsResponse()
	resp.Version = r.Version
	for _, partition := range c.rt.Partitions() {
		v, err := c.rt.Call(ctx, partition, func(m *machine, fx *runtime.Effects, p *runtime.Promise) { m.listGroups(fx, r, p) })
		if errors.Is(err, kerr.NotCoordinator) {
			continue
		}
		if err != nil {
			resp.ErrorCode, resp.Groups = codeOf(err), nil
			return resp
		}
		resp.Groups = append(resp.Groups, v.([]kmsg.ListGroupsResponseGroup)...)
	}
	return resp
}

// DeleteGroups answers API key 42, versions 0 to 2.
func (c *Coordinator) DeleteGroups(ctx context.Context, _ Client, r *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	resp := kmsg.NewPtrDeleteGroupsResponse()
	resp.Version = r.Version
	resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(r.Groups))
	each(len(r.Groups), func(i int) {
		g, err := call[*kmsg.DeleteGroupsResponseGroup](ctx, c, r.Groups[i], func(m *machine, fx *runtime.Effects, p *runtime.Promise) {
			m.deleteGroup(fx, r.Groups[i], p)
		})
		if err != nil {
			failure := kmsg.NewDeleteGroupsResponseGroup()
			failure.Group, failure.ErrorCode = r.Groups[i], codeOf(err)
			g = &failure
		}
		resp.Groups[i] = *g
	})
	return resp
}

// fanOut bounds the groups of one request that are worked on at the same time.
const fanOut = 16

// each runs fn(0..n-1), several at a time, and waits for all.
func each(n int, fn func(i int)) {
	if n == 1 {
		fn(0)
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, fanOut)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(i)
		})
	}
	wg.Wait()
}

// maxNameBytes bounds the names that a client may choose: the records have 15 bits for their length, and a member id is made
// of two of them. A longer one would be stored as something that cannot be read again.
const maxNameBytes = 16000

// joinTooLong reports whether a name of the request is longer than a record can hold.
func joinTooLong(cl Client, r *kmsg.JoinGroupRequest) bool {
	long := func(s string) bool { return len(s) > maxNameBytes }
	return long(cl.ID) || long(cl.Host) || long(r.ProtocolType) || (r.InstanceID != nil && long(*r.InstanceID)) ||
		slices.ContainsFunc(r.Protocols, func(p kmsg.JoinGroupRequestProtocol) bool { return long(p.Name) })
}

func (cl Client) normal() Client {
	if !strings.HasPrefix(cl.Host, "/") {
		cl.Host = "/" + cl.Host
	}
	return cl
}
