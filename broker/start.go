package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/varvelog/varve/cache"
	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/coordinator/group"
	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/httpapi"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/kafka"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/etcdkv"
	"github.com/varvelog/varve/objstore/open"
	"github.com/varvelog/varve/tiering"
)

// quorumRetry lies between two tries to reach a quorum of etcd.
const quorumRetry = time.Second

// offsetsTopic holds the groups' state.
const offsetsTopic = "__consumer_offsets"

func (b *Broker) startBucket(ctx context.Context) (err error) {
	bucket := b.seams.Bucket
	if bucket == nil {
		opts := open.Options{Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter}
		if err := b.patiently(ctx, func() error { return b.expectBucket(ctx, &opts) }); err != nil {
			return err
		}
		if bucket, err = open.Open(ctx, b.cfg.ObjectStore, opts); err != nil {
			return err
		}
	}
	b.claim.Bucket, b.bucket = bucket, b.claim
	close(b.opened)
	return nil
}

func (b *Broker) startCache(context.Context) (err error) {
	mem := split(b.cfg.Memory)
	b.cache, err = cache.New(b.bucket, cache.Options{
		MemoryBytes: b.setting("varve.cache.memory.bytes", mem.cacheMemory),
		DiskBytes:   b.setting("varve.cache.disk.bytes", b.cfg.cacheDisk()),
		Dir:         filepath.Join(b.cfg.DataDir, "cache"), Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
	})
	return err
}

// setting is a size that --set may give, for what starts before the metadata does; New has checked the value. A negative
// value and none mean the share of --memory.
func (b *Broker) setting(name string, share int64) int64 {
	if v, err := strconv.ParseInt(b.cfg.Set[name], 10, 64); err == nil && v >= 0 {
		return v
	}
	return share
}

func (b *Broker) startQuorum(ctx context.Context) error {
	if b.quorum = b.seams.Quorum; b.quorum == nil {
		member, err := b.startMember(ctx)
		if err != nil {
			return err
		}
		b.quorum = member
	}
	b.voting = service.NewGroup(context.Background())
	b.voting.Go(func(ctx context.Context) {
		select {
		case <-b.quorum.Stopped(): // also while a module's start waits for it
			b.fail(errors.New("the etcd member has ended: it was removed from the voters, or its disk failed"))
		case <-ctx.Done():
		}
	})
	return nil
}

func (b *Broker) startMember(ctx context.Context) (*etcdkv.Member, error) {
	voters, err := b.cfg.voters()
	if err != nil {
		return nil, err
	}
	return etcdkv.Start(ctx, etcdkv.Options{
		NodeID: b.id(), DataDir: filepath.Join(b.cfg.DataDir, "etcd"), Voters: voters,
		PeerAddr: b.cfg.EtcdPeerAddr, ClientAddr: b.cfg.EtcdClientAddr, TLS: b.cfg.etcdTLS(),
		Check: func(ctx context.Context, kv metadata.KV) error {
			return metadata.CheckCluster(ctx, kv, b.identity.Cluster)
		}, Meter: b.telemetry.Meter, Logger: b.log,
	})
}

func (b *Broker) stopQuorum(context.Context) error {
	b.voting.Stop()
	if b.seams.Quorum != nil {
		return nil
	}
	return b.quorum.Close()
}

// rackAware reports whether consumers are sent to replicas in their rack.
func (b *Broker) rackAware() bool {
	class, _ := b.meta.Image().Broker().Get("replica.selector.class")
	return strings.HasSuffix(class, ".RackAwareReplicaSelector")
}

// replication is how this broker follows others.
func (b *Broker) replication() *ingest.Replication {
	setting := func(name string) int32 {
		v, _ := b.meta.Image().Broker().Get(name)
		n, _ := strconv.ParseInt(v, 10, 32) // metadata has checked it
		return int32(n)
	}
	return &ingest.Replication{
		BrokerEpoch: b.epoch, Dial: b.dialBroker, Tail: b.tieredTail,
		MaxWait: b.brokerSetting("replica.fetch.wait.max.ms"), RequestTimeout: b.brokerSetting("replica.socket.timeout.ms"),
		MinBytes: setting("replica.fetch.min.bytes"), MaxBytes: setting("replica.fetch.response.max.bytes"),
		PartitionMaxBytes: setting("replica.fetch.max.bytes"),
	}
}

// startImage opens the image of the cluster, if this broker is one of its.
func (b *Broker) startImage(ctx context.Context) error {
	host, port, err := b.cfg.advertised(b.listener.Addr())
	if err != nil {
		return err
	}
	return b.patiently(ctx, func() (err error) {
		b.meta, err = metadata.Open(ctx, metadata.Options{
			KV: b.quorum.KV(), BrokerID: b.id(), Static: b.static(host, port), Cluster: b.identity.Cluster, Admit: b.admit,
			Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
		})
		return err
	})
}

// patiently does what needs etcd again until a quorum answers: the others may start later, or be about to elect. ctx ends, too, when
// the own member has: what that says of itself looks like a quorum that is away.
func (b *Broker) patiently(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || !etcdkv.Away(err) {
			return err
		}
		b.log.Warn("etcd does not answer; the start waits for its quorum", slog.Any("err", err))
		if !sleep(ctx, b.seams.Clock, nil, quorumRetry) {
			return err
		}
	}
}

func (b *Broker) stopImage(context.Context) error { return b.meta.Close() }

// startMetadata registers this broker: from here on every partition that it leads has a new epoch.
func (b *Broker) startMetadata(ctx context.Context) error {
	host, port, err := b.cfg.advertised(b.listener.Addr())
	if err != nil {
		return err
	}
	if err := b.settleIn(b.meta.Image().ClusterID()); err != nil {
		return err
	}
	reg := metadata.Broker{ID: b.id(), Host: host, Port: port, Disk: b.hot.DiskID()}
	if b.cfg.Rack != "" {
		reg.Rack = &b.cfg.Rack
	}
	return b.patiently(ctx, func() (err error) {
		b.epoch, err = b.meta.RegisterBroker(ctx, reg)
		return err
	})
}

// static is --set with what other flags stand for, under Kafka's names.
func (b *Broker) static(host string, port int32) map[string]string {
	id := strconv.Itoa(int(b.cfg.NodeID))
	set := map[string]string{
		"node.id": id, "broker.id": id, "log.dirs": b.cfg.DataDir,
		"listeners":            "PLAINTEXT://" + b.listener.Addr().String(),
		"advertised.listeners": "PLAINTEXT://" + net.JoinHostPort(host, strconv.Itoa(int(port))),
	}
	if b.cfg.Rack != "" {
		set["broker.rack"] = b.cfg.Rack
	}
	maps.Copy(set, b.cfg.Set)
	return set
}

func (b *Broker) startHot(context.Context) (err error) {
	mem := split(b.cfg.Memory)
	b.hot, err = hot.Open(hot.Options{
		FS: b.seams.FS, LogSyncEvery: b.seams.LogSyncEvery, Dir: filepath.Join(b.cfg.DataDir, "hot"), MemTableBytes: mem.memTable, CacheBytes: mem.blockCache,
		ReserveBytes: uint64(b.setting("varve.disk.reserve.bytes", 0)),
		OnDiskFull:   func(bool) { b.spaceChanged() },
		Clock:        b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
	})
	return err
}

func (b *Broker) startIngest(ctx context.Context) error {
	var roots map[base.LogID]metadata.Root
	err := b.patiently(ctx, func() (err error) {
		roots, err = b.meta.Roots(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("load manifest roots: %w", err)
	}
	mem, cfg := split(b.cfg.Memory), b.meta.Image().Broker()
	share := func(v, otherwise int64) int64 {
		if v < 0 {
			return otherwise
		}
		return v
	}
	b.ingest, err = ingest.New(ingest.Options{
		Store: b.hot, Meta: b.meta, Broker: base.BrokerID(b.cfg.NodeID), Roots: roots,
		TailBytes: share(cfg.TailBytes, mem.tail), UntieredBytes: mem.untiered, HotBytes: share(cfg.HotBytes, mem.hot),
		MaxSealBytes: cfg.TieringSegmentBytes, PendingBytes: mem.requests,
		RetentionEvery: time.Duration(cfg.LogRetentionCheckIntervalMs) * time.Millisecond,
		ProducerExpiry: func() time.Duration {
			return time.Duration(b.meta.Image().Broker().ProducerIDExpirationMs) * time.Millisecond
		},
		EagerHighWatermark: b.rackAware(),
		ReplicaLagMax:      time.Duration(cfg.ReplicaLagTimeMaxMs) * time.Millisecond, Replication: b.replication(),
		Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
	})
	if err != nil {
		return err
	}
	b.ingest.Start()
	return nil
}

func (b *Broker) startTiering(ctx context.Context) (err error) {
	b.cached.Store(true)
	b.spaceChanged() // which nobody told the cache before
	mem, cfg := split(b.cfg.Memory), b.meta.Image().Broker()
	b.tiering, err = tiering.New(tiering.Options{
		Bucket: b.bucket, Cache: b.cache, Meta: b.meta, Source: source{b.ingest},
		OnRoot:   b.ingest.OnRoot,
		BrokerID: base.BrokerID(b.cfg.NodeID), BrokerEpoch: b.epoch,
		MaxUploads: cfg.TieringUploads, UploadBytes: mem.uploads, MaxObjectBytes: cfg.TieringSegmentBytes,
		Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter, Tracer: b.telemetry.Tracer,
	})
	if err != nil {
		return err
	}
	if err := b.patiently(ctx, func() error { return b.tiering.Start(ctx) }); err != nil {
		return err
	}
	close(b.tiered)
	return nil
}

// tieredTail is where a log goes on that has nothing hot. Ingest may ask before tiering has started.
func (b *Broker) tieredTail(ctx context.Context, log base.LogID, atLeast base.Offset) (ingest.FollowerStart, error) {
	select {
	case <-b.tiered:
	case <-ctx.Done():
		return ingest.FollowerStart{}, ctx.Err()
	}
	t, err := b.tiering.Reader().Tail(ctx, log, atLeast)
	return ingest.FollowerStart{At: t.End, LogStart: t.Start, Epochs: t.Epochs, Producers: t.Producers}, err
}

func (b *Broker) stopTiering(context.Context) error {
	b.tiering.Stop()
	return nil
}

func (b *Broker) startCompaction(ctx context.Context) (err error) {
	b.compact, err = compaction.New(compaction.Options{
		Bucket: b.bucket, Meta: b.meta, Tiering: b.tiering, Owner: owner{b.ingest},
		BrokerID: base.BrokerID(b.cfg.NodeID), BrokerEpoch: b.epoch,
		Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
	})
	if err != nil {
		return err
	}
	b.compact.Start(ctx)
	return nil
}

func (b *Broker) stopCompaction(context.Context) error {
	b.compact.Stop()
	return nil
}

func (b *Broker) startFetch(context.Context) error {
	b.fetch = fetch.New(fetch.Options{
		Ingest: b.ingest, Meta: b.meta, Cold: b.tiering.Reader(), ColdReads: b.meta.Image().Broker().FetchColdReads,
		ColdWait: func() time.Duration {
			return time.Duration(b.meta.Image().Broker().RemoteFetchMaxWaitMs) * time.Millisecond
		},
		MaxBytes:  func() int32 { return b.meta.Image().Broker().FetchMaxBytes },
		RackAware: b.rackAware,
		Clock:     b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
	})
	return nil
}

func (b *Broker) startGroups(context.Context) error {
	b.groups = group.New(group.Options{
		Log: internalLog{offsetsTopic, b.ingest, b.fetch},
		Partitions: func() int32 {
			t, ok := b.meta.Image().Topic(offsetsTopic)
			if !ok {
				return 0
			}
			return int32(len(t.Partitions))
		},
		Config:          b.groupConfig,
		TopicExists:     func(topic string) bool { _, ok := b.meta.Image().Topic(topic); return ok },
		PartitionExists: b.partitionExists,
		TopicName:       b.topicName,
		TopicID:         b.topicID,
		Clock:           b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter,
	})
	b.meta.Subscribe(b.followGroups)
	return nil
}

func (b *Broker) groupConfig() group.Config {
	cfg, out := b.meta.Image().Broker(), group.DefaultConfig()
	ms := func(v int64) time.Duration { return time.Duration(v) * time.Millisecond }
	out.MinSessionTimeout = ms(int64(cfg.GroupMinSessionTimeoutMs))
	out.MaxSessionTimeout = ms(int64(cfg.GroupMaxSessionTimeoutMs))
	out.InitialRebalanceDelay = ms(int64(cfg.GroupInitialRebalanceDelayMs))
	out.MaxSize = int(cfg.GroupMaxSize)
	out.OffsetMetadataMaxChars = int(cfg.OffsetMetadataMaxBytes)
	out.OffsetsRetention = time.Duration(cfg.OffsetsRetentionMinutes) * time.Minute
	out.OffsetsRetentionCheck = ms(cfg.OffsetsRetentionCheckIntervalMs)
	return out
}

func (b *Broker) partitionExists(topic string, partition int32) bool {
	_, ok := b.meta.Image().Partition(base.TopicPartition{Topic: topic, Partition: partition})
	return ok
}

func (b *Broker) topicName(id base.TopicID) (string, bool) {
	t, ok := b.meta.Image().TopicByID(id)
	if !ok {
		return "", false
	}
	return t.Name, true
}

func (b *Broker) topicID(name string) base.TopicID {
	t, ok := b.meta.Image().Topic(name)
	if !ok {
		return base.TopicID{}
	}
	return t.ID
}

// resignDeleted ends what the coordinator leads of its topic where that was deleted: another of the same name starts at epoch 0 again.
func (b *Broker) resignDeleted(old, image *metadata.Image) {
	was, ok := old.Topic(offsetsTopic)
	if !ok {
		return
	}
	if _, stands := image.TopicByID(was.ID); !stands {
		for i := range was.Partitions {
			b.groups.Resign(was.Partitions[i].TP.Partition)
		}
	}
}

// followGroups gives the coordinator the partitions of its topic that this broker leads, and takes deleted topics' offsets.
func (b *Broker) followGroups(old, image *metadata.Image) {
	me, _ := image.BrokerByID(b.id())
	serves := !me.Fenced && me.Epoch == b.epoch // else the image may show what another incarnation led, or leads
	if old != nil {
		b.resignDeleted(old, image)
	}
	if t, ok := image.Topic(offsetsTopic); ok {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if p.Leader == b.id() && serves {
				b.groups.Lead(p.TP.Partition, p.LeaderEpoch)
			} else {
				b.groups.Resign(p.TP.Partition)
			}
		}
	}
	if old == nil {
		return
	}
	var gone []string
	for _, t := range old.Topics() {
		if now, ok := image.Topic(t.Name); !ok || now.ID != t.ID {
			gone = append(gone, t.Name)
		}
	}
	if len(gone) > 0 {
		b.groups.OnTopicsDeleted(gone)
	}
}

func (b *Broker) startKafka(context.Context) error {
	cfg, mem := b.meta.Image().Broker(), split(b.cfg.Memory)
	limits := kafka.Limits{
		MaxRequestBytes: cfg.SocketRequestMaxBytes, RequestMemoryBytes: mem.requests, FetchMemoryBytes: mem.requests,
		FetchMaxBytes: cfg.FetchMaxBytes, MaxConnections: int(cfg.MaxConnections), MaxConnectionsPerIP: int(cfg.MaxConnectionsPerIP),
		IdleTimeout: time.Duration(cfg.ConnectionsMaxIdleMs) * time.Millisecond, FetchSessionSlots: int(cfg.FetchSessionCacheSlots),
	}
	if cfg.QueuedMaxRequestBytes > 0 {
		limits.RequestMemoryBytes = cfg.QueuedMaxRequestBytes
	}
	b.kafka = kafka.New(kafka.Options{
		BrokerID: base.BrokerID(b.cfg.NodeID), Meta: b.meta, Ingest: b.ingest, Fetch: b.fetch, Groups: b.groups,
		Controller: controllerSeam{b.controller}, Voters: b.voters(),
		LogDir: b.cfg.DataDir, Clock: b.seams.Clock, Logger: b.log, Meter: b.telemetry.Meter, Tracer: b.telemetry.Tracer,
		Limits: limits,
	})
	go func() { // ends with the listener, which stopKafka closes
		if err := b.kafka.Serve(b.listener); err != nil && !errors.Is(err, kafka.ErrServerClosed) {
			b.fail(fmt.Errorf("kafka listener: %w", err))
		}
	}()
	return nil
}

// stopKafka answers what was read. Appends may wait for replicas that do not come: after a while they are told to look elsewhere. What
// waits even then waits for etcd, which may have no quorum, and is cut off.
func (b *Broker) stopKafka(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout+cutOffTimeout)
	defer cancel()
	resign := b.seams.Clock.NewTimer(drainTimeout)
	defer resign.Stop()
	done := make(chan error, 1)
	service.NewGroup(context.Background()).Go(func(context.Context) { done <- b.kafka.Shutdown(ctx) })
	select {
	case err := <-done:
		return err
	case <-resign.C:
	}
	b.ingest.Resign()
	if err := <-done; err != nil {
		b.log.Warn("requests were cut off: they waited for others", slog.Any("err", err))
	}
	return nil
}

// topic is GET /v1/topics/NAME.
func (b *Broker) topic(name string) (any, error) {
	if !b.serving.Load() {
		return nil, fmt.Errorf("the broker is starting or stopping")
	}
	t, ok := b.meta.Image().Topic(name)
	if !ok {
		return nil, httpapi.ErrNotFound
	}
	out := httpapi.Topic{Name: name, TopicID: t.ID.String()}
	reader := b.tiering.Reader()
	for i := range t.Partitions {
		p := &t.Partitions[i]
		row := httpapi.Partition{
			Partition: p.TP.Partition, Leader: int32(p.Leader), LeaderEpoch: int32(p.LeaderEpoch),
			Replicas: ids(p.Replicas), ISR: ids(p.ISR),
			LogStartOffset: -1, HotStartOffset: -1, TieredEndOffset: -1, LastStableOffset: -1, HighWatermark: -1,
		}
		if s, err := b.ingest.Status(p.TP); err == nil {
			row.LogStartOffset, row.HotStartOffset, row.TieredEndOffset = int64(s.LogStart), int64(s.HotStart), int64(s.TieredEnd)
			row.LastStableOffset, row.HighWatermark, row.HotBytes = int64(s.LastStable), int64(s.HighWatermark), s.HotBytes
		}
		if bounds, ok := reader.Bounds(p.Log); ok {
			row.TieredBytes, row.TieredObjects = bounds.Bytes, bounds.Objects
		}
		out.Partitions = append(out.Partitions, row)
	}
	return out, nil
}

func ids(in []base.BrokerID) []int32 {
	out := make([]int32, len(in))
	for i, id := range in {
		out[i] = int32(id)
	}
	return out
}
