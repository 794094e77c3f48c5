package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/varvelog/varve/objstore"
)

const (
	checksumHeader = "x-amz-checksum-crc32c"
	writerHeader   = "Varve-Writer" // user metadata: one id per Put
	maxPutBytes    = 5 << 30        // of a PUT in one piece
)

// Bucket is a bucket on an S3 server. Safe for concurrent use.
type Bucket struct {
	opts      Options
	core      minio.Core
	transport *http.Transport
}

var _ objstore.Bucket = (*Bucket)(nil)

// Open returns the bucket, with Options.Prefix applied. A bucket that the server says is missing is an error, or is created
// where Options.Create is set. A server that cannot be reached is none: a broker starts while its bucket is down (I13).
func Open(ctx context.Context, opts Options) (objstore.Bucket, error) {
	opts.EnsureDefaults()
	c, transport, err := opts.client()
	if err != nil {
		return nil, fmt.Errorf("open s3 bucket %q at %q: %w", opts.Bucket, opts.Endpoint, err)
	}
	b := &Bucket{opts: opts, core: minio.Core{Client: c}, transport: transport}
	if err := b.probe(ctx); err != nil {
		_ = b.Close() // the cause is returned
		return nil, fmt.Errorf("open s3 bucket %q at %q: %w", opts.Bucket, opts.Endpoint, err)
	}
	return objstore.WithPrefix(b, opts.Prefix), nil
}

// probe answers an error only where the server is certain that the bucket cannot be used.
func (b *Bucket) probe(ctx context.Context) error {
	ctx, w := b.watch(ctx, 0)
	defer w.stop()
	exists, err := b.core.BucketExists(ctx, b.opts.Bucket)
	if err != nil {
		err = mapError(ctx, err)
		if objstore.Classify(err) == objstore.ClassInvalid {
			return err
		}
		// NB: denied also means that the policy allows objects but not HEAD of the bucket.
		b.opts.Logger.Warn("object store not reachable, going on without", slog.String("bucket", b.opts.Bucket),
			slog.String("endpoint", b.opts.Endpoint), slog.Any("error", err))
		return nil
	}
	if exists {
		return nil
	}
	if !b.opts.Create {
		return fmt.Errorf("%w (create it, or add create=true to the url)", errNoBucket)
	}
	return b.create(ctx)
}

func (b *Bucket) create(ctx context.Context) error {
	err := b.core.MakeBucket(ctx, b.opts.Bucket, minio.MakeBucketOptions{Region: b.opts.Region})
	var r minio.ErrorResponse
	if errors.As(err, &r) && (r.Code == "BucketAlreadyOwnedByYou" || r.Code == "BucketAlreadyExists") {
		return nil // by another broker, meanwhile
	}
	return mapError(ctx, err)
}

// Head implements objstore.Reader.
func (b *Bucket) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	info, _, err := b.head(ctx, key)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("head %q: %w", key, err)
	}
	return info, nil
}

// head answers also the id of the Put that wrote the object.
func (b *Bucket) head(ctx context.Context, key string) (info objstore.Info, writer string, err error) {
	ctx, w := b.watch(ctx, 0)
	defer w.stop()
	o, err := b.core.StatObject(ctx, b.opts.Bucket, key, minio.StatObjectOptions{Checksum: true})
	if err != nil {
		return objstore.Info{}, "", mapError(ctx, err)
	}
	for name, value := range o.UserMetadata {
		if strings.EqualFold(name, writerHeader) {
			writer = value
		}
	}
	return infoOf(key, o), writer, nil
}

func infoOf(key string, o minio.ObjectInfo) objstore.Info {
	info := objstore.Info{Key: key, Size: o.Size, ModTime: o.LastModified}
	info.CRC32C, info.HasCRC = decodeChecksum(o.ChecksumCRC32C)
	return info
}

// decodeChecksum reads the header's value. The checksum of a multipart object is of its parts ("…-3"): not ours.
func decodeChecksum(s string) (uint32, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

func encodeChecksum(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// Close implements io.Closer: it ends the idle connections.
func (b *Bucket) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}
