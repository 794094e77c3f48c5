// Package manifest says which objects hold a partition's tiered records. A manifest is an immutable value: Add, Replace,
// DropBelow and Spill return a new one. It is written to the bucket as a new object for every change, and its root is
// swapped in the metadata store (I4).
//
// The package is pure: no I/O, no clock. manifest.go has the value and its operations, codec.go its bytes, FORMAT.md draws
// them. Old entries spill into archives (archive.go), so that ten years of segments keep the working manifest small.
package manifest
