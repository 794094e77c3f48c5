// Package etcdkv is metadata.KV over etcd, and the embedded member that a voter runs. It is the only package that imports
// etcd.
//
// A node that Options.Voters names embeds a member (an empty list: this node alone); any other opens clients of those that
// are named, whose client URLs it learns at their peer addresses (probe.go). A voter starts (member.go, bootstrap.go, join.go)
//
//  1. from its data where it has any;
//  2. without data, when every other voter has shown that it has none either, or takes part in the same bootstrap: as a new
//     cluster. Until then it waits and shows at its peer address that it does;
//  3. without data, when a cluster runs: its former member, if the cluster lists one, is removed, it is added as a learner,
//     starts, catches up and is promoted.
//
// A member that has no data is never started under an id that may have acknowledged anything: raft would panic and take the
// process with it, or forget votes and entries. What does not fit (two nodes of one id, another cluster's voters, a list
// that lacks a member) is refused with an error of bootstrap.go that says what to do.
//
// The own member is reached in process for reads and transactions while it has a leader; the others over TCP (kv.go).
// Watches go over a TCP connection always: watches of the in-process client deadlock when many are cancelled (etcd issues
// 18879 and 20716), and one client may serve only a few.
//
// fsync stays on; the settings that differ from etcd's are in config.go, each with its reason.
package etcdkv
