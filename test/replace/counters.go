package main

import (
	"context"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// counters are what a broker has counted since the start of its process; or the difference of two looks.
type counters struct {
	Replicated  int64 `json:"replicatedBytes"` // record bytes from leaders
	StartedOver int64 `json:"logsStartedOver"` // replicas that went on at the tiered end
	Untiered    int64 `json:"untieredBytes"`   // of its replicas as it stands, no difference
	// Bytes from the bucket, by kind.
	Records   int64 `json:"bucketRecordBytes"`   // blocks of segments
	Manifests int64 `json:"bucketManifestBytes"` // and archives
	Footers   int64 `json:"bucketFooterBytes"`
	ReadBack  int64 `json:"bucketReadBackBytes"` // of an upload
	Other     int64 `json:"bucketOtherBytes"`    // what garbage collection looks at
	Gets      int64 `json:"bucketGets"`
}

// counted says where each figure stands on the page of metrics: a series belongs to it that has the name and all of the labels.
var counted = []struct {
	name, label string
	to          func(*counters) *int64
}{
	{"varve_replication_in_bytes_total", "", func(c *counters) *int64 { return &c.Replicated }},
	{"varve_replication_started_over_total", "", func(c *counters) *int64 { return &c.StartedOver }},
	{"varve_ingest_untiered_bytes", "", func(c *counters) *int64 { return &c.Untiered }},
	{"varve_cache_download_bytes_total", "", func(c *counters) *int64 { return &c.Records }},
	{"varve_tiering_read_bytes", `kind="body"`, func(c *counters) *int64 { return &c.Records }},
	{"varve_tiering_read_bytes", `kind="manifest"`, func(c *counters) *int64 { return &c.Manifests }},
	{"varve_tiering_read_bytes", `kind="archive"`, func(c *counters) *int64 { return &c.Manifests }},
	{"varve_tiering_read_bytes", `kind="footer"`, func(c *counters) *int64 { return &c.Footers }},
	{"varve_tiering_read_bytes", `kind="back"`, func(c *counters) *int64 { return &c.ReadBack }},
	{"varve_objstore_bytes_total", `operation="get"`, func(c *counters) *int64 { return &c.Other }},
	{"varve_objstore_requests_total", `operation="get"`, func(c *counters) *int64 { return &c.Gets }},
}

// count asks a broker.
func count(ctx context.Context, n *proc.Node) (counters, error) {
	m, err := n.Metrics(ctx)
	return countersOf(m), err
}

func countersOf(m proc.Metrics) (c counters) {
	for _, k := range counted {
		*k.to(&c) += int64(m.Sum(k.name, k.label))
	}
	c.Other -= c.Records + c.Manifests + c.Footers + c.ReadBack // of all that was read
	return c
}

func (c counters) minus(o counters) counters {
	return counters{
		Untiered: c.Untiered, Replicated: c.Replicated - o.Replicated, StartedOver: c.StartedOver - o.StartedOver, Records: c.Records - o.Records, Manifests: c.Manifests - o.Manifests,
		Footers: c.Footers - o.Footers, ReadBack: c.ReadBack - o.ReadBack, Other: c.Other - o.Other, Gets: c.Gets - o.Gets,
	}
}

// countAll reads the pages of all brokers that run, by id.
func (r *run) countAll(ctx context.Context) (map[int32]counters, error) {
	all := map[int32]counters{}
	for _, n := range r.cluster.Nodes {
		if !n.Running() {
			continue
		}
		c, err := count(ctx, n)
		if err != nil {
			return nil, err
		}
		all[n.ID] = c
	}
	return all, nil
}
