package metadata

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// The levels of the metadata's form that this build reads and writes. A cluster has the level of the build that founded it; what only a
// later level has is written once the cluster was raised to it, which no build before knows.
const (
	minLevel = 1
	maxLevel = 1
)

// ErrStranger says that this broker cannot be one of the cluster that the metadata is of: its data is another cluster's, or its build
// does not know the metadata's form. Nothing was written.
var ErrStranger = errors.New("this broker does not belong to this cluster")

// CheckCluster refuses, with ErrStranger, a broker whose data is of a cluster (empty: of none yet) other than the KV's, or whose
// build does not know its level. It writes nothing.
func CheckCluster(ctx context.Context, kv KV, cluster string) error {
	_, err := checkCluster(ctx, kv, cluster)
	return err
}

// checkCluster tells also whether there is a cluster yet.
func checkCluster(ctx context.Context, kv KV, cluster string) (founded bool, err error) {
	stored, ok, err := kv.Get(ctx, clusterKey)
	switch {
	case err != nil:
		return false, wrapKV(err, "read the cluster id")
	case !ok && cluster != "":
		return false, fmt.Errorf("%w: its data directory is of cluster %s, and etcd holds none: bring etcd's data back, or give an empty data directory to found a new cluster; what only this one holds is lost then",
			ErrStranger, cluster)
	case !ok:
		return false, nil
	}
	record, err := decode[clusterRecord](stored)
	switch {
	case err != nil:
		return false, err
	case cluster != "" && cluster != record.ID:
		return false, fmt.Errorf("%w: its data directory is of cluster %s, the voters are of cluster %s: correct the list of voters, or give an empty data directory to join; what only this one holds is lost then",
			ErrStranger, cluster, record.ID)
	case record.level() < minLevel || record.level() > maxLevel:
		return false, fmt.Errorf("%w: the metadata of cluster %s is of level %d, this build knows %d to %d: start a version of varve that knows it",
			ErrStranger, record.ID, record.level(), minLevel, maxLevel)
	}
	return true, nil
}

// ensureCluster gives a new cluster its id.
func (s *Store) ensureCluster(ctx context.Context) error {
	if founded, err := checkCluster(ctx, s.kv, s.opts.Cluster); err != nil || founded {
		return err
	}
	u := uuid.New()
	record := clusterRecord{ID: base64.RawURLEncoding.EncodeToString(u[:]), Level: maxLevel}
	_, err := s.kv.Txn(ctx, []Cmp{Absent(clusterKey)}, []Op{Put(clusterKey, encode(record))})
	return wrapKV(err, "write the cluster id")
}
