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
// The package never holds what grows with traffic or retention: no segment lists, no committed offsets (I11).
package metadata
