package tiering

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/varvelog/varve/internal/base"
)

// Prefix is what every object name of this format begins with.
const Prefix = "v1/"

// The folders of the bucket. No name is a directory of another, no part of one is longer than 255 bytes, and each name
// contains an id that is never used again (I6).
const (
	SegmentsPrefix  = Prefix + "segments/"  // <log>/<epoch>-<base>-<piece>-<id>.seg: one segment
	PacksPrefix     = Prefix + "packs/"     // <broker>-<id>.pack: segments of several partitions
	ManifestsPrefix = Prefix + "manifests/" // <broker>-<id>.man: manifests that were committed together
	ArchivesPrefix  = Prefix + "archives/"  // <broker>-<id>.arc: archive manifests
)

// Kind says what an object is.
type Kind uint8

// The kinds of objects.
const (
	KindUnknown Kind = iota
	KindSegment
	KindPack
	KindManifest
	KindArchive
)

// String names the kind as reports show it.
func (k Kind) String() string {
	return [...]string{"unknown", "segment", "pack", "manifest", "archive"}[k]
}

// Name is a parsed object name. Log, Epoch, Base and Piece are set for segments, Broker for everything else.
type Name struct {
	Kind   Kind
	Log    base.LogID
	Epoch  base.LeaderEpoch
	Base   base.Offset // of the sealed range
	Piece  int         // number of the object within the sealed range
	Broker base.BrokerID
	ID     string // 32 hex digits
}

// String formats the name as it stands in the bucket.
func (n Name) String() string {
	switch n.Kind {
	case KindSegment:
		return fmt.Sprintf("%s%s/%08x-%020d-%04d-%s.seg", SegmentsPrefix, n.Log, uint32(n.Epoch), n.Base, n.Piece, n.ID)
	case KindPack:
		return fmt.Sprintf("%s%d-%s.pack", PacksPrefix, n.Broker, n.ID)
	case KindManifest:
		return fmt.Sprintf("%s%d-%s.man", ManifestsPrefix, n.Broker, n.ID)
	case KindArchive:
		return fmt.Sprintf("%s%d-%s.arc", ArchivesPrefix, n.Broker, n.ID)
	}
	return ""
}

// SegmentsOf is the prefix of the segment objects of one log.
func SegmentsOf(log base.LogID) string { return SegmentsPrefix + log.String() + "/" }

// ParseName is the inverse of Name.String. A name of another shape has KindUnknown.
func ParseName(key string) Name {
	if rest, ok := strings.CutPrefix(key, SegmentsPrefix); ok {
		return parseSegmentName(rest)
	}
	for _, f := range []struct {
		prefix, suffix string
		kind           Kind
	}{{PacksPrefix, ".pack", KindPack}, {ManifestsPrefix, ".man", KindManifest}, {ArchivesPrefix, ".arc", KindArchive}} {
		rest, ok := strings.CutPrefix(key, f.prefix)
		rest, ok2 := strings.CutSuffix(rest, f.suffix)
		broker, id, ok3 := strings.Cut(rest, "-")
		n, err := strconv.ParseInt(broker, 10, 32)
		if ok && ok2 && ok3 && err == nil && isID(id) {
			return Name{Kind: f.kind, Broker: base.BrokerID(n), ID: id}
		}
	}
	return Name{}
}

func parseSegmentName(rest string) Name {
	dir, file, _ := strings.Cut(rest, "/")
	log, err := base.ParseLogID(dir)
	file, ok := strings.CutSuffix(file, ".seg")
	part := strings.Split(file, "-")
	if err != nil || !ok || len(part) != 4 || !isID(part[3]) {
		return Name{}
	}
	epoch, err1 := strconv.ParseUint(part[0], 16, 32)
	first, err2 := strconv.ParseInt(part[1], 10, 64)
	piece, err3 := strconv.Atoi(part[2])
	if err1 != nil || err2 != nil || err3 != nil {
		return Name{}
	}
	return Name{Kind: KindSegment, Log: log, Epoch: base.LeaderEpoch(epoch), Base: base.Offset(first), Piece: piece, ID: part[3]}
}

func isID(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}
