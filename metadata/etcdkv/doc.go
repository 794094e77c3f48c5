// Package etcdkv is metadata.KV over etcd, and the embedded member that a voter runs. It is the only package that imports
// etcd.
//
// The member is reached in process for reads and transactions. Watches go over a TCP connection to it: watches of the
// in-process client deadlock when many are cancelled (etcd issues 18879 and 20716), and one client may serve only a few.
//
// A member that has no data is always started as a new cluster, never as an existing one: with the identity of a lost disk
// raft would panic and take the process with it. fsync stays on; the settings that differ from etcd's are in config.go, each
// with its reason.
package etcdkv
