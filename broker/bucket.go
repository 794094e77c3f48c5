package broker

import (
	"context"
	"fmt"

	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/objstore/open"
)

// bucketKey holds the identity of the directory bucket that the cluster uses. It stands outside the image.
const bucketKey = "/varve/bucket"

// expectBucket tells a directory bucket which one it must be, or that it cannot be a new one, because what was tiered is in
// another. In an empty directory nobody would miss that: uploads would go there, and what they cover would be trimmed.
func (b *Broker) expectBucket(ctx context.Context, opts *open.Options) error {
	if !b.cfg.directoryBucket() {
		return nil
	}
	known, ok, err := b.quorum.KV().Get(ctx, bucketKey)
	if err != nil {
		return fmt.Errorf("read the bucket's identity: %w", err)
	}
	if ok {
		opts.Identity = string(known.Value)
		return nil
	}
	roots, err := b.meta.Roots(ctx)
	if err != nil {
		return fmt.Errorf("load manifest roots: %w", err)
	}
	opts.Existing, opts.Claim = len(roots) > 0, b.claimBucket
	return nil
}

// claimBucket makes a bucket the cluster's, before its first use, where the cluster has none.
func (b *Broker) claimBucket(ctx context.Context, identity string) error {
	kv := b.quorum.KV()
	res, err := kv.Txn(ctx, []metadata.Cmp{metadata.Absent(bucketKey)}, []metadata.Op{metadata.Put(bucketKey, []byte(identity))})
	if err != nil {
		return fmt.Errorf("write the bucket's identity: %w", err)
	}
	if res.Committed {
		b.bucketNoted.Store(res.Revision)
	}
	known, _, err := kv.Get(ctx, bucketKey)
	if err != nil {
		return fmt.Errorf("read the bucket's identity: %w", err)
	}
	if string(known.Value) != identity {
		return fmt.Errorf("it is the bucket %s, the cluster uses %s", identity, known.Value)
	}
	return nil
}

// forgetBucket takes back what claimBucket has noted, where the bucket turned out to be another cluster's.
func (b *Broker) forgetBucket(ctx context.Context) error {
	noted := b.bucketNoted.Load()
	if noted == 0 {
		return nil
	}
	_, err := b.quorum.KV().Txn(ctx, []metadata.Cmp{metadata.Unchanged(bucketKey, noted)}, []metadata.Op{metadata.Delete(bucketKey)})
	return err
}
