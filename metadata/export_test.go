package metadata

import (
	"fmt"
	"slices"
	"strings"
)

// Rebuilt returns an image built anew from a list, for comparison with one that was kept current.
func Rebuilt(i *Image, kvs []KeyValue, revision int64) *Image {
	events := make([]Event, len(kvs))
	for n, kv := range kvs {
		events[n] = Event{KV: kv}
	}
	next, bad := newImage(i.local).apply(events, revision)
	if len(bad) > 0 {
		panic(bad[0])
	}
	return next
}

// Dump writes all of an image, the inner maps too, in a fixed order.
func Dump(i *Image) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	add("cluster %s controller %d", i.clusterID, i.controller)
	for name, r := range i.records.all {
		add("record %s %+v", name, r)
	}
	for id, slots := range i.partitions.all {
		add("partitions %s %+v", id, slots)
	}
	for name, t := range i.byName.all {
		byID, ok := i.byID.get(t.ID)
		add("topic %s %s %v %+v %v %+v same %v", name, t.ID, t.Internal, t.Partitions, t.Overrides, *t.Config, ok && byID == t)
	}
	for log, ref := range i.logs.all {
		add("log %s %+v", log, ref)
	}
	for name, c := range i.configs.all {
		add("config %s %v", name, c)
	}
	add("brokers %+v", i.AllBrokers())
	b := *i.broker
	b.values = brokerValues{}
	add("settings %+v defaults %+v", b, *i.defaults)
	add("counts %d %d %d %d", i.records.n, i.byName.n, i.byID.n, i.logs.n)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// The prefixes that tests look below.
const (
	ImagePrefix     = imagePrefix
	PartitionPrefix = partitionPrefix
	PendingPrefix   = pendingPrefix
	DeletedPrefix   = deletedPrefix
	RootPrefix      = rootPrefix
)

// Empty returns the image of an empty store.
func Empty() *Image {
	local, err := newLocalConfig(1, nil)
	if err != nil {
		panic(err)
	}
	return newImage(local)
}

// Apply returns an image with one key changed.
func Apply(i *Image, key, value string, deleted bool) *Image {
	rev := i.revision + 1
	next, _ := i.apply([]Event{{KV: KeyValue{Key: key, Value: []byte(value), ModRevision: rev}, Deleted: deleted}}, rev)
	return next
}
