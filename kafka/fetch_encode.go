package kafka

import (
	"encoding/binary"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/record"
)

// fetchResponse is a Fetch answer whose record batches are not copied: they go from the tail or the cache to the socket with
// writev. Its encoding is byte for byte what kmsg makes of the same response (TestFetchEncodingEqualsKmsg).
type fetchResponse struct {
	kmsg.FetchResponse
	batches [][][]record.Batch // [topic][partition]
}

// spliceMin is the size below which copying a batch is cheaper than another element of the writev.
const spliceMin = 4 << 10

// splice is a run of bytes that stands in the output after position at of the encoded part.
type splice struct {
	at   int
	data []byte
}

// encode appends the response to dst, except for large batches, and returns the pieces in the order of the wire.
func (f *fetchResponse) encode(dst []byte) (buf []byte, parts net.Buffers, total int) {
	e := fetchEncoder{dst: dst, version: f.Version, flexible: f.Version >= 12}
	e.response(f)
	total = len(e.dst)
	from := 0
	for _, s := range e.splices {
		parts = append(parts, e.dst[from:s.at], s.data)
		from = s.at
		total += len(s.data)
	}
	return e.dst, append(parts, e.dst[from:]), total
}

type fetchEncoder struct {
	dst      []byte
	splices  []splice
	version  int16
	flexible bool
}

func (e *fetchEncoder) i16(v int16) { e.dst = binary.BigEndian.AppendUint16(e.dst, uint16(v)) }
func (e *fetchEncoder) i32(v int32) { e.dst = binary.BigEndian.AppendUint32(e.dst, uint32(v)) }
func (e *fetchEncoder) i64(v int64) { e.dst = binary.BigEndian.AppendUint64(e.dst, uint64(v)) }
func (e *fetchEncoder) uvarint(v int) {
	e.dst = binary.AppendUvarint(e.dst, uint64(v))
}

// length writes the length of an array or of bytes; -1 is null.
func (e *fetchEncoder) length(n int) {
	if e.flexible {
		e.uvarint(n + 1)
	} else {
		e.i32(int32(n))
	}
}

func (e *fetchEncoder) str(s string) {
	if e.flexible {
		e.uvarint(len(s) + 1)
	} else {
		e.i16(int16(len(s)))
	}
	e.dst = append(e.dst, s...)
}

func (e *fetchEncoder) noTags() {
	if e.flexible {
		e.dst = append(e.dst, 0)
	}
}

func (e *fetchEncoder) response(f *fetchResponse) {
	e.i32(f.ThrottleMillis)
	if e.version >= 7 {
		e.i16(f.ErrorCode)
		e.i32(f.SessionID)
	}
	e.length(len(f.Topics))
	for i := range f.Topics {
		t := &f.Topics[i]
		if e.version >= 13 {
			e.dst = append(e.dst, t.TopicID[:]...)
		} else {
			e.str(t.Topic)
		}
		e.length(len(t.Partitions))
		for j := range t.Partitions {
			e.partition(&t.Partitions[j], f.batches[i][j])
		}
		e.noTags()
	}
	if e.flexible {
		e.endpoints(f.Brokers)
	}
}

func (e *fetchEncoder) partition(p *kmsg.FetchResponseTopicPartition, batches []record.Batch) {
	e.i32(p.Partition)
	e.i16(p.ErrorCode)
	e.i64(p.HighWatermark)
	e.i64(p.LastStableOffset)
	if e.version >= 5 {
		e.i64(p.LogStartOffset)
	}
	if p.AbortedTransactions == nil {
		e.length(-1)
	} else {
		e.length(len(p.AbortedTransactions))
	}
	for _, a := range p.AbortedTransactions {
		e.i64(a.ProducerID)
		e.i64(a.FirstOffset)
		e.noTags()
	}
	if e.version >= 11 {
		e.i32(p.PreferredReadReplica)
	}
	e.records(batches)
	if e.flexible {
		e.partitionTags(p)
	}
}

func (e *fetchEncoder) records(batches []record.Batch) {
	size := 0
	for _, b := range batches {
		size += len(b)
	}
	e.length(size)
	for _, b := range batches {
		if len(b) < spliceMin {
			e.dst = append(e.dst, b...)
		} else {
			e.splices = append(e.splices, splice{len(e.dst), b})
		}
	}
}

// partitionTags writes DivergingEpoch (0) and CurrentLeader (1) where they differ from their defaults.
func (e *fetchEncoder) partitionTags(p *kmsg.FetchResponseTopicPartition) {
	diverging := p.DivergingEpoch.Epoch != -1 || p.DivergingEpoch.EndOffset != -1
	leader := p.CurrentLeader.LeaderID != -1 || p.CurrentLeader.LeaderEpoch != -1
	n := 0
	if diverging {
		n++
	}
	if leader {
		n++
	}
	e.uvarint(n)
	if diverging {
		e.uvarint(0)
		e.uvarint(4 + 8 + 1)
		e.i32(p.DivergingEpoch.Epoch)
		e.i64(p.DivergingEpoch.EndOffset)
		e.noTags()
	}
	if leader {
		e.uvarint(1)
		e.uvarint(4 + 4 + 1)
		e.i32(p.CurrentLeader.LeaderID)
		e.i32(p.CurrentLeader.LeaderEpoch)
		e.noTags()
	}
}

// endpoints writes NodeEndpoints (tag 0, v16).
func (e *fetchEncoder) endpoints(brokers []kmsg.FetchResponseBroker) {
	if len(brokers) == 0 || e.version < 16 {
		e.uvarint(0)
		return
	}
	tag := fetchEncoder{version: e.version, flexible: true}
	tag.length(len(brokers))
	for _, b := range brokers {
		tag.i32(b.NodeID)
		tag.str(b.Host)
		tag.i32(b.Port)
		if b.Rack == nil {
			tag.uvarint(0)
		} else {
			tag.str(*b.Rack)
		}
		tag.noTags()
	}
	e.uvarint(1)
	e.uvarint(0)
	e.uvarint(len(tag.dst))
	e.dst = append(e.dst, tag.dst...)
}
