package s3

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
	"github.com/minio/minio-go/v7"

	"github.com/varvelog/varve/objstore"
)

// Put implements objstore.Writer: one PUT, and a HEAD where the reply does not carry the checksum.
func (b *Bucket) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	if err := objstore.CheckPut(key, body); err != nil {
		return objstore.Info{}, err
	}
	if body.Size > maxPutBytes {
		return objstore.Info{}, fmt.Errorf("put %q of %d bytes, more than %d: %w", key, body.Size, int64(maxPutBytes), objstore.ErrInvalid)
	}
	writer := uuid.NewString()
	info, err := b.put(ctx, key, body, writer)
	if errors.Is(err, objstore.ErrExists) {
		// An attempt whose reply was lost may have written it.
		found, by, headErr := b.head(ctx, key)
		if headErr == nil && by == writer {
			info, err = found, nil
		}
	}
	if errors.Is(err, errNoBucket) && b.opts.Create {
		err = errors.Join(err, b.create(ctx)) // The server was not reachable at Open. The caller retries.
	}
	if err == nil && !info.HasCRC {
		info, _, err = b.head(ctx, key)
	}
	if err == nil {
		err = verify(info, body)
	}
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %q of %d bytes: %w", key, body.Size, err)
	}
	return info, nil
}

// put sends the object. The Info has a checksum only where the store answered one.
func (b *Bucket) put(ctx context.Context, key string, body objstore.Body, writer string) (objstore.Info, error) {
	ctx, w := b.watch(ctx, body.Size)
	defer w.stop()
	source := &bodySource{ReaderAt: body, cancel: w.cancel}
	opts := minio.PutObjectOptions{
		DisableMultipart: true,
		// Over TLS the checksum header protects the body; plain HTTP needs the signed chunks.
		DisableContentSha256: !b.opts.Insecure,
		ContentType:          "application/octet-stream",
		UserMetadata:         map[string]string{checksumHeader: encodeChecksum(body.CRC32C), writerHeader: writer},
	}
	opts.SetMatchETagExcept("*")
	up, err := b.core.Client.PutObject(ctx, b.opts.Bucket, key, io.NewSectionReader(source, 0, body.Size), body.Size, opts)
	if err != nil {
		return objstore.Info{}, mapError(ctx, err)
	}
	info := objstore.Info{Key: key, Size: up.Size, ModTime: up.LastModified}
	info.CRC32C, info.HasCRC = decodeChecksum(up.ChecksumCRC32C)
	return info, nil
}

// bodySource ends the request when the body cannot be read: the library would take that for a fault of the network, and
// repeat it.
type bodySource struct {
	io.ReaderAt
	cancel context.CancelCauseFunc
}

func (s *bodySource) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(p, off)
	if n < len(p) && !errors.Is(err, io.EOF) {
		s.cancel(fmt.Errorf("read body at %d: %w: %w", off, objstore.ErrInvalid, err))
	}
	return n, err
}

// verify compares what the store says it holds with what was written.
func verify(info objstore.Info, body objstore.Body) error {
	if info.Size != body.Size {
		return fmt.Errorf("the store holds %d bytes of %d: %w", info.Size, body.Size, objstore.ErrChecksum)
	}
	if info.HasCRC && info.CRC32C != body.CRC32C {
		return fmt.Errorf("the store holds crc %08x, written was %08x: %w", info.CRC32C, body.CRC32C, objstore.ErrChecksum)
	}
	return nil
}
