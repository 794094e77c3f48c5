// Package wire is the byte encoding that segment footers, pack directories and manifests share: big-endian fixed
// integers, LEB128 varints, length-prefixed bytes, and a decoder that never panics and never allocates more than its
// input justifies. It knows nothing of what the bytes mean.
package wire
