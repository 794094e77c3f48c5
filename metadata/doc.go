// Package metadata is what the cluster agrees on: topics, partition states, configurations, brokers, blocks of ids and the
// manifest roots. It owns the KV seam (kv.go; etcd in metadata/etcdkv, memory in metadata/memkv, one acceptance test in
// metadata/kvtest), every key (keys.go) and every setting's name, type, default and rule (settings_*.go).
//
// Readers load an immutable Image through Store.Image, once per request, and never wait. The image is built from one
// consistent list (loader.go) and kept current by one watch on the keys below /varve/image/; an event touches what it
// changes and shares the rest with the image before it (delta.go). Roots, intents and tombstones of deleted logs are no
// part of the image: they are read from the KV when they are wanted.
//
// Writers go through the Store. What one transaction can hold (MaxTxnOps) is one transaction; what is larger starts with a
// marker (keys.go: pending) and shows nothing before its last one, so that a crash leaves either nothing visible or
// something that the next Open finishes. A write whose outcome is unknown is never repeated blindly: it is returned as an
// error, and the caller reads again.
//
// Several brokers write at once. A partition's state and a registration change by compare-and-swap on their keys
// (partitions.go, brokers.go); what a controller writes compares the controller key as well, so that a former one changes
// nothing. What is decided is in metadata/controller, who carries it out in metadata/controller/run. A broker registers
// fenced and serves nothing, not even what it led before, until the controller has unfenced it; one that is alone does all of
// this in its registration. A pending change of a topic is finished by others only when its writer is fenced or gone.
//
// The package never holds what grows with traffic or retention: no segment lists, no committed offsets (I11).
package metadata
