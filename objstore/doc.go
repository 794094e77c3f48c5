// Package objstore is the bucket seam: what a broker needs of an object store, in narrow interfaces.
//
// What it owns: the interfaces (objstore.go), the errors and their classes (errors.go), the rules for keys that every
// honest store can keep (key.go), and the prefix wrapper (prefix.go). The implementations are folders:
//
//	dir      a local directory, the embedded default of a one-broker start
//	mem      an in-memory bucket for tests, stricter than any real store
//	s3       S3 and the servers that speak its protocol (minio-go lives only there)
//	fault    fails, delays or loses the reply of chosen operations
//	metered  requests, bytes and seconds per operation and outcome
//	retry    repeats what is worth repeating, within a budget
//	open     a URL to a stack of the above
//	objtest  the one acceptance test that all of them pass
//
// What it never does: interpret objects, cache them, or decide when they may be deleted. Objects are immutable and their
// names are never reused (I6). Correctness never rests on conditional writes, since some stores ignore them: names carry
// an epoch and a UUID, and what is real is decided in etcd (I4).
package objstore
