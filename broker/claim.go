package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
)

const (
	// claimName is the object that says whose bucket this is. It stands outside what tiering lists, checks and sweeps.
	claimName = "varve-cluster.json"
	// claimKey says that the cluster has claimed its bucket: one without the object is another one. It stands outside the image.
	claimKey = "/varve/claimed"
	// claimTimeout is how long a start waits for a bucket that does not answer (I13).
	claimTimeout = time.Second
)

// errForeignBucket says that the bucket is another cluster's: neither may write there, for each would take the other's objects for
// its own or for garbage.
var errForeignBucket = errors.New("the bucket belongs to another cluster")

// claimRecord is what the object holds.
type claimRecord struct {
	Version int    `json:"version"` // 1
	Cluster string `json:"cluster"`
}

// claim is a bucket that is written to only once it has been seen to be the cluster's, or was made so as the first that is done with it.
// Reads are not held back: what they ask for is named by the cluster's own manifests.
type claim struct {
	objstore.Bucket
	kv      metadata.KV
	tiered  func(ctx context.Context) (bool, error) // the cluster knows of objects
	cluster func() string
	refused func(error) // called where that is found out when the broker runs already
	slot    chan struct{}
	claimed bool // guarded by slot
}

// startClaim looks whose the bucket is. A bucket that does not answer, or cannot even be opened, is looked at again before the first write.
func (b *Broker) startClaim(ctx context.Context) error {
	b.claim.kv, b.claim.tiered = b.quorum.KV(), func(ctx context.Context) (bool, error) {
		roots, err := b.meta.Roots(ctx)
		return len(roots) > 0, err
	}
	b.claim.cluster = func() string { return b.meta.Image().ClusterID() }
	look, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	var err error
	select {
	case <-b.opened:
		err = b.claim.ensure(look)
	case <-look.Done(): // to wait for it would keep the controller from starting, whose etcd member may lead already
		err = fmt.Errorf("open the bucket: %w", look.Err())
	}
	switch {
	case err == nil, ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errForeignBucket):
		return errors.Join(fmt.Errorf("--object-store %s: %w", b.cfg.ObjectStore, err), b.forgetBucket(ctx))
	}
	b.log.Warn("the bucket does not say whose it is: nothing is written there before it does", slog.Any("err", err))
	b.claim.refused = b.fail
	return nil
}

func (c *claim) ensure(ctx context.Context) error {
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.claimed {
		return nil
	}
	err := c.look(ctx)
	if c.claimed = err == nil; errors.Is(err, errForeignBucket) && c.refused != nil {
		c.refused(err)
	}
	return err
}

// look reads whose the bucket is, and claims one that is nobody's.
func (c *claim) look(ctx context.Context) error {
	owner, err := c.owner(ctx)
	if errors.Is(err, objstore.ErrNotFound) {
		refusal := c.mayClaim(ctx)
		if err = refusal; refusal == nil {
			err = c.write(ctx)
		}
		if err == nil || errors.Is(refusal, errForeignBucket) {
			owner, err = c.owner(ctx) // another broker, or another cluster, may have come at the same time
		}
		if refusal != nil && errors.Is(err, objstore.ErrNotFound) {
			err = refusal
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("look whose the bucket is: %w", err)
	case owner != c.cluster():
		return fmt.Errorf("%w: %s in it names cluster %s, this is cluster %s: give this cluster a bucket, or a prefix, of its own (where nothing else is left of that cluster, delete this object)",
			errForeignBucket, claimName, owner, c.cluster())
	}
	_, err = c.kv.Txn(ctx, []metadata.Cmp{metadata.Absent(claimKey)}, []metadata.Op{metadata.Put(claimKey, []byte(owner))})
	return err
}

func (c *claim) owner(ctx context.Context) (string, error) {
	text, err := c.Bucket.Get(ctx, claimName, 0, -1)
	if err != nil {
		return "", err
	}
	var r claimRecord
	if err := json.Unmarshal(text, &r); err != nil || r.Version != 1 {
		return "", base.MarkCorruption(fmt.Errorf("%s holds %.100q", claimName, text))
	}
	return r.Cluster, nil
}

// mayClaim tells whether a bucket that does not say whose it is may become this cluster's: not where the cluster has one, nor where
// there are objects and the cluster knows of none. (A cluster that has tiered before there was such a mark gives its bucket one.)
func (c *claim) mayClaim(ctx context.Context) error {
	_, claimed, err := c.kv.Get(ctx, claimKey)
	if err != nil {
		return err
	}
	if claimed {
		return fmt.Errorf("%w, or is a new one: it has no %s, and this cluster, %s, has claimed its bucket before: give that one, or bring the object back; a bucket that moves is copied with it",
			errForeignBucket, claimName, c.cluster())
	}
	tiered, err := c.tiered(ctx)
	if err != nil || tiered {
		return err
	}
	for info, err := range c.Bucket.List(ctx, tiering.Prefix, "") {
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: it holds %s, and this cluster, %s, has put nothing there: give it a bucket, or a prefix, of its own",
			errForeignBucket, info.Key, c.cluster())
	}
	return nil
}

func (c *claim) write(ctx context.Context) error {
	text, err := json.Marshal(claimRecord{Version: 1, Cluster: c.cluster()})
	if err != nil {
		return err
	}
	if _, err = c.Bucket.Put(ctx, claimName, objstore.BodyOf(text)); errors.Is(err, objstore.ErrExists) {
		return nil
	}
	return err
}

// Put implements objstore.Bucket.
func (c *claim) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	if err := c.ensure(ctx); err != nil {
		return objstore.Info{}, err
	}
	return c.Bucket.Put(ctx, key, body)
}

// Delete implements objstore.Bucket.
func (c *claim) Delete(ctx context.Context, keys ...string) error {
	if err := c.ensure(ctx); err != nil {
		return err
	}
	return c.Bucket.Delete(ctx, keys...)
}

// AbortUploads implements objstore.Bucket.
func (c *claim) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	if err := c.ensure(ctx); err != nil {
		return 0, err
	}
	return c.Bucket.AbortUploads(ctx, prefix, before)
}
