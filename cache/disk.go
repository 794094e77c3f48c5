package cache

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// diskEntry is what the index of the disk tier holds per block.
type diskEntry struct{ name string }

// disk reads and writes block files. It has no state and no index: the tier in Cache.mu is the index.
//
// Layout: DIR/v1-BLOCKBYTES/XX/OBJECT-INDEX-BYTES-SEQ, all in hex, XX being the first byte of OBJECT. The name tells all
// that the index needs, so that the scan opens no file. SEQ makes names unique: a file that is being removed is never one
// that is being written. Nothing is synced: a torn file does not have its checksum.
type disk struct {
	fs         vfs.FS
	root       string
	blockBytes int
}

const (
	allocBytes = 4096
	writeChunk = 128 << 10
	scanBatch  = 1024 // entries that enter the index under one lock
)

// fileBytes is what a block takes on disk.
func fileBytes(ref blockRef) int64 {
	return allocated(int64(blockHeaderBytes + len(ref.key) + ref.size))
}

func allocated(n int64) int64 { return (n + allocBytes - 1) / allocBytes * allocBytes }

func (d *disk) formatName() string { return fmt.Sprintf("v1-%d", d.blockBytes) }

func (d *disk) blocksDir() string { return d.fs.PathJoin(d.root, d.formatName()) }

func (d *disk) path(name string) string { return d.fs.PathJoin(d.blocksDir(), name[:2], name) }

func nameOf(id blockID, fileBytes int64, seq uint64) string {
	return fmt.Sprintf("%x-%x-%x-%x", id.object[:], id.index, fileBytes, seq)
}

// parseName is the inverse of nameOf.
func parseName(name string) (id blockID, fileBytes int64, seq uint64, err error) {
	object, rest, _ := strings.Cut(name, "-")
	if n, err := hex.Decode(id.object[:], []byte(object[:min(len(object), 32)])); err != nil || n != len(id.object) {
		return id, 0, 0, fmt.Errorf("block file name %q", name)
	}
	if _, err := fmt.Sscanf(rest, "%x-%x-%x", &id.index, &fileBytes, &seq); err != nil {
		return id, 0, 0, fmt.Errorf("block file name %q: %w", name, err)
	}
	if id.index < 0 || fileBytes <= 0 || nameOf(id, fileBytes, seq) != name {
		return id, 0, 0, fmt.Errorf("block file name %q", name)
	}
	return id, fileBytes, seq, nil
}

// read returns the block in the file, or an error: errBadBlock where the file is not what was written.
func (d *disk) read(ref blockRef, name string) ([]byte, error) {
	f, err := d.fs.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file := make([]byte, blockHeaderBytes+len(ref.key)+ref.size)
	if _, err := io.ReadFull(f, file); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadBlock, err)
	}
	return decodeBlock(ref, file)
}

// write writes the block's file and returns its name. After an error there is no file.
func (d *disk) write(ref blockRef, seq uint64, data []byte) (string, error) {
	header := encodeBlockHeader(ref, data)
	name := nameOf(ref.id, int64(len(header)+len(data)), seq)
	path := d.path(name)
	if err := d.fs.MkdirAll(d.fs.PathDir(path), 0o755); err != nil {
		return "", err
	}
	f, err := d.fs.Create(path, "cache")
	if err != nil {
		return "", err
	}
	_, err = f.Write(header)
	// NB: vfs.File.Write may change its argument, and readers share data.
	chunk := make([]byte, 0, min(writeChunk, len(data)))
	for rest := data; len(rest) > 0 && err == nil; {
		chunk = append(chunk[:0], rest[:min(len(rest), writeChunk)]...)
		rest = rest[len(chunk):]
		_, err = f.Write(chunk)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = d.remove(name) // it stays a miss; the next scan finds it again
		return "", err
	}
	return name, nil
}

// remove removes a block's file. What cannot be removed now is found by the next scan.
func (d *disk) remove(name string) error {
	if err := d.fs.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c *Cache) removeFiles(entries []*entry[diskEntry]) {
	for _, e := range entries {
		if err := c.disk.remove(e.value.name); err != nil {
			c.opts.Logger.Warn("cache block file not removed", slogErr(err))
		}
	}
}

// found is a block file that the scan came across.
type found struct {
	id    blockID
	name  string
	bytes int64 // on disk
	seq   uint64
}

// scan fills the index of the disk tier from the directory, oldest file first, and removes what is of another format or
// above the budget. An unreadable directory leaves the disk tier off.
func (c *Cache) scan(ctx context.Context) {
	files, err := c.disk.list(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.opts.Logger.Error("cache directory not readable, disk tier stays off", slogErr(err))
		}
		return
	}
	slices.SortFunc(files, func(a, b found) int { return cmp.Compare(a.seq, b.seq) })
	for batch := range slices.Chunk(files, scanBatch) {
		c.removeFiles(c.adopt(batch))
	}
	c.mu.Lock()
	if len(files) > 0 {
		c.mu.diskSeq = files[len(files)-1].seq
	}
	c.mu.diskReady = true
	full := c.mu.full
	c.mu.Unlock()
	if full {
		c.SetFull(true)
	}
}

// removeUnused removes the block files of an earlier run that had a disk tier.
func (c *Cache) removeUnused(context.Context) {
	d := disk{fs: c.opts.FS, root: c.opts.Dir}
	if err := d.removeFormats(""); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.opts.Logger.Warn("unused cache blocks not removed", slogErr(err))
	}
}

// removeFormats removes the directories of block files but one.
func (d *disk) removeFormats(keep string) error {
	names, err := d.fs.List(d.root)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "v") && name != keep {
			if err := d.fs.RemoveAll(d.fs.PathJoin(d.root, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// adopt enters block files into the index and returns those that have no room or are there already.
func (c *Cache) adopt(files []found) []*entry[diskEntry] {
	c.mu.Lock()
	defer c.mu.Unlock()
	var gone []*entry[diskEntry]
	for _, f := range files {
		evicted, ok := c.mu.disk.reserve(f.bytes)
		gone = append(gone, evicted...)
		if !ok || !c.mu.disk.add(f.id, f.bytes, diskEntry{name: f.name}) {
			gone = append(gone, &entry[diskEntry]{value: diskEntry{name: f.name}})
		}
	}
	return gone
}

// list returns the block files. It removes the directories of other formats and files that are not block files.
func (d *disk) list(ctx context.Context) ([]found, error) {
	if err := d.removeFormats(d.formatName()); err != nil {
		return nil, err
	}
	shards, err := d.fs.List(d.blocksDir())
	if err != nil {
		return nil, err
	}
	var files []found
	for _, shard := range shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		names, err := d.fs.List(d.fs.PathJoin(d.blocksDir(), shard))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			id, n, seq, err := parseName(name)
			if err != nil || name[:2] != shard {
				_ = d.fs.Remove(d.fs.PathJoin(d.blocksDir(), shard, name)) // not ours, or of nobody: it must not take space
				continue
			}
			files = append(files, found{id: id, name: name, bytes: allocated(n), seq: seq})
		}
	}
	return files, nil
}
