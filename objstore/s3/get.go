package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/varvelog/varve/objstore"
)

// Get implements objstore.Reader: one ranged GET. A Get of a whole object whose checksum the store knows is verified.
func (b *Bucket) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, err
	}
	if length == 0 {
		return nil, nil
	}
	opts := minio.GetObjectOptions{}
	if err := setRange(&opts, off, length); err != nil {
		return nil, fmt.Errorf("get %q [%d, +%d): %w: %w", key, off, length, objstore.ErrInvalid, err)
	}
	data, err := b.get(ctx, key, off, length, opts)
	if err != nil {
		return nil, fmt.Errorf("get %q [%d, +%d): %w", key, off, length, err)
	}
	return data, nil
}

func setRange(opts *minio.GetObjectOptions, off, length int64) error {
	switch {
	case off < 0:
		return errors.New("negative offset")
	case length > 0:
		return opts.SetRange(off, off+length-1)
	case off > 0:
		return opts.SetRange(off, 0)
	}
	opts.Set("x-amz-checksum-mode", "ENABLED") // the whole object
	return nil
}

func (b *Bucket) get(ctx context.Context, key string, off, length int64, opts minio.GetObjectOptions) ([]byte, error) {
	ctx, w := b.watch(ctx, max(length, 0))
	defer w.stop()
	body, info, header, err := b.core.GetObject(ctx, b.opts.Bucket, key, opts)
	if err != nil {
		return nil, mapError(ctx, err)
	}
	defer body.Close()
	n, err := replySize(key, info, header, off, length)
	if err != nil {
		return nil, err
	}
	if length < 0 {
		w.feed(n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(body, data); err != nil {
		return nil, mapError(ctx, fmt.Errorf("read body: %w", err))
	}
	// NB: one read past the end lets the transport reuse the connection.
	if extra, _ := body.Read(make([]byte, 1)); extra > 0 {
		return nil, fmt.Errorf("the body is longer than the announced %d bytes", n)
	}
	if crc, ok := decodeChecksum(info.ChecksumCRC32C); ok && off == 0 && length < 0 && crc != objstore.Checksum(data) {
		return nil, fmt.Errorf("crc %08x, the store says %08x: %w", objstore.Checksum(data), crc, objstore.ErrChecksum)
	}
	return data, nil
}

// replySize returns how many bytes the reply has, having verified that they are what was asked for. A store clips a range
// that goes past the end: that is ErrRange here.
func replySize(key string, info minio.ObjectInfo, header http.Header, off, length int64) (int64, error) {
	size := off + info.Size
	contentRange := header.Get("Content-Range")
	if contentRange == "" {
		// The store answered 200 with the whole object, which is right only where that was asked for.
		if off != 0 || (length > 0 && info.Size > length) {
			return 0, errors.New("the store ignored the range")
		}
	} else {
		span, total, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
		first, _, _ := strings.Cut(span, "-")
		if start, err := strconv.ParseInt(first, 10, 64); err != nil || start != off {
			return 0, fmt.Errorf("the store answered the range %q", contentRange)
		}
		if n, err := strconv.ParseInt(total, 10, 64); err == nil {
			size = n
		}
	}
	n, err := objstore.CheckRange(key, size, off, length)
	if err == nil && n != info.Size {
		err = fmt.Errorf("%d of %d bytes: %w", info.Size, n, io.ErrUnexpectedEOF)
	}
	return n, err
}
