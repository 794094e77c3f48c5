// Package dir is a bucket in a local directory: the embedded default of a one-broker start.
//
// Layout below the root (path.go): the key `a/b/c` is the file `a/b/#/c`. The directory `#`, which no escaped segment can
// be called, holds the objects of its level, so `a` and `a/b` coexist. A file is the object's bytes and a trailer of 24
// bytes with its size and CRC-32C (trailer.go, FORMAT.md). Uploads are `.upload-…` files beside their object.
//
// Steps of Put (put.go): write the upload file (a large one past the page cache where the disk allows it, direct.go), sync it, link(2) it to its name (EEXIST is ErrExists), sync the directory
// and its ancestors, unlink the upload file. Crash argument: an object's name appears only by the link, after the bytes
// and the trailer were synced; so after a crash at any point an object is whole or absent, and once Put has answered it
// is present. What a crash leaves is upload files, which List and Get never show and AbortUploads removes.
//
// Damage: Head and Get verify the trailer; a Get of the whole object also verifies the checksum. Both mark what does not
// match as corruption (base.MarkCorruption). A Get of a range cannot verify: segments carry checksums per block.
//
// Identity: a marker in the root says that a bucket is here, and which one (identity.go). Every operation fails, as retryable,
// where it is gone, and never makes the directory anew: a disk that is not mounted is not an empty bucket.
//
// One process at a time owns the directory; the broker's lock on its data directory guarantees it.
package dir
