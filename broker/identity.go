package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/internal/base"
)

// identityName is the file in the data directory that says whose data it holds (Kafka: meta.properties). It is written when a broker
// has first reached its cluster, before it registers, and never changed.
const identityName = "identity.json"

const identityMaxBytes = 4096

// identity is what the file holds; the zero value is that of a data directory without one.
type identity struct {
	Version int           `json:"version"` // of the file: 1
	Cluster string        `json:"cluster"`
	Node    base.BrokerID `json:"node"`
}

// readIdentity reads the file; without one it answers the zero value.
func readIdentity(disk vfs.FS, dir string) (id identity, err error) {
	path := disk.PathJoin(dir, identityName)
	f, err := disk.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, identityMaxBytes))
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(text, &id)
	}
	if err == nil && id.Version != 1 {
		err = fmt.Errorf("it is of version %d, this build knows 1", id.Version)
	}
	if err != nil {
		return identity{}, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}

// write makes the file, durably. A crash leaves all of it or nothing.
func (id identity) write(disk vfs.FS, dir string) error {
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := disk.MkdirAll(dir, 0o755); err != nil { // a disk in memory has none yet
		return err
	}
	path := disk.PathJoin(dir, identityName)
	f, err := disk.Create(path+".new", "identity")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := disk.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkNode refuses to serve one broker's data under another one's id: its replicas would be taken for lost, and dropped.
func (id identity) checkNode(node base.BrokerID, dir string) error {
	if id.Version != 0 && id.Node != node {
		return fmt.Errorf("data directory %s is that of broker %d, this is --node-id %d: give the directory of this broker, an empty one, or that id", dir, id.Node, node)
	}
	return nil
}

func (b *Broker) disk() vfs.FS {
	if b.seams.FS != nil {
		return b.seams.FS
	}
	return vfs.Default
}

// identify reads whose data this is, before anything else starts.
func (b *Broker) identify() (err error) {
	if b.identity, err = readIdentity(b.disk(), b.cfg.DataDir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return b.identity.checkNode(b.id(), b.cfg.DataDir)
}

// settleIn makes the data directory the cluster's, where it is of none yet.
func (b *Broker) settleIn(cluster string) error {
	if b.identity.Version != 0 {
		return nil // metadata has compared it
	}
	b.identity = identity{Version: 1, Cluster: cluster, Node: b.id()}
	if err := b.identity.write(b.disk(), b.cfg.DataDir); err != nil {
		return fmt.Errorf("write whose data %s holds: %w", b.cfg.DataDir, err)
	}
	return nil
}
