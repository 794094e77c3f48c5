package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// Policy says what Prepare enforces; its fields are the topic's configuration.
type Policy struct {
	MaxMessageBytes  int32 // max.message.bytes; 0 means no limit
	SegmentBytes     int32 // segment.bytes; 0 means no limit
	LogAppendTime    bool  // message.timestamp.type
	BeforeMaxMs      int64 // message.timestamp.before.max.ms
	AfterMaxMs       int64 // message.timestamp.after.max.ms
	Compression      Codec // compression.type
	CompressionLevel int   // of Compression; 0 means the codec's default
	Compacted        bool  // cleanup.policy contains compact: null keys are refused
	ZstdAllowed      bool  // the request's version may carry zstd (Produce >= 7)
	NowMs            int64 // milliseconds since the Unix epoch
	MaxInflatedBytes int   // bound on a decompressed batch; 0 means 100 MiB
	// Internal marks a broker's own append: control batches, a set LogAppendTime bit and any timestamp are allowed.
	Internal bool
	// TopicPartition only appears in the messages of record errors, as Kafka's do; it may be zero.
	TopicPartition base.TopicPartition
}

// maxRecordErrors bounds InvalidError.Records. Kafka has no bound, so that a batch of a million tiny records without keys
// is answered with 100 MB; the count in the message stays right.
const maxRecordErrors = 1000

// RecordError names a record that was refused (KIP-467).
type RecordError struct {
	Index   int32
	Message string
}

// InvalidError is what Prepare answers for a batch it refuses. Err is the kerr error (its code goes on the wire), wrapped
// with the reason for the log.
type InvalidError struct {
	Err     error
	Message string        // for the response; may be empty
	Records []RecordError // may be nil
	// WithLogStart says that Kafka's answer carries the partition's log start offset; otherwise it is -1.
	WithLogStart bool
}

// Error names the kerr error and the reason.
func (e *InvalidError) Error() string {
	if e.Message != "" {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Err.Error()
}

// Unwrap returns the kerr error, wrapped.
func (e *InvalidError) Unwrap() error { return e.Err }

// refuse makes an InvalidError without a message for the client, as Kafka answers everything but record errors.
func refuse(code error, withLogStart bool, format string, args ...any) *InvalidError {
	return &InvalidError{Err: fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), code), WithLogStart: withLogStart}
}

// Prepare checks the records field of one partition of a Produce request as Kafka's LogValidator does
// (facts/protocol.md 3.1) and returns the one batch to append, its header normalised (maxTimestamp, timestamp type,
// codec) and its CRC right; base offset and leader epoch are left for the partition to set. The result shares memory
// with buf where nothing had to be rewritten, and buf's header is then modified in place. Every error is an
// *InvalidError.
//
// The records are walked once. Where nothing is rewritten nothing is built: an uncompressed batch costs no allocation, a
// compressed one runs through a pooled decompressor and a window of fixed size.
func Prepare(buf []byte, p *Policy) (Batch, error) {
	b, err := CheckRequest(buf, p.ZstdAllowed)
	if err != nil {
		return nil, err
	}
	if err := checkBatch(b, p); err != nil {
		return nil, err
	}
	if target := p.target(b); target != b.Codec() {
		b, err = convert(b, target, p)
	} else {
		b, err = keep(b, p)
	}
	if err != nil {
		return nil, err
	}
	// A converted batch may have outgrown the limit that the client's batch kept.
	if p.MaxMessageBytes > 0 && len(b) > int(p.MaxMessageBytes) {
		return nil, refuse(kerr.MessageTooLarge, false, "recompressed batch of %d bytes, max.message.bytes is %d", len(b), p.MaxMessageBytes)
	}
	if p.SegmentBytes > 0 && len(b) > int(p.SegmentBytes) {
		return nil, refuse(kerr.RecordListTooLarge, false, "batch of %d bytes, segment.bytes is %d", len(b), p.SegmentBytes)
	}
	return b, nil
}

// CheckRequest is the part of Prepare that Kafka does for all partitions of a request before it looks at acks or at the
// log (ProduceRequest.validateRecords): exactly one batch, of magic 2, and zstd only from Produce 7 on. Trailing bytes
// that do not make a batch are cut off, as Kafka does.
func CheckRequest(buf []byte, zstdAllowed bool) (Batch, error) {
	n, err := frame(buf)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, refuse(kerr.InvalidRecord, false, "no complete batch in %d bytes", len(buf))
	}
	if m := buf[posMagic]; m != magic2 {
		return nil, refuse(kerr.InvalidRecord, false, "record batch magic %d, want %d", m, magic2)
	}
	if n < HeaderSize {
		return nil, refuse(kerr.CorruptMessage, false, "record batch of %d bytes, a header has %d", n, HeaderSize)
	}
	if more, err := frame(buf[n:]); err != nil {
		return nil, err
	} else if more > 0 {
		return nil, refuse(kerr.InvalidRecord, false, "more than one batch in a partition's records")
	}
	b := Batch(buf[:n:n])
	if c := b.Codec(); c > CodecZstd || c == CodecZstd && !zstdAllowed {
		return nil, refuse(kerr.UnsupportedCompressionType, false, "codec %s", c)
	}
	return b, nil
}

// frame returns the length of the first batch in buf, 0 where there is no whole one. Kafka (ByteBufferLogInputStream)
// calls an impossible length or magic corrupt even where the batch is cut short.
func frame(buf []byte) (int, *InvalidError) {
	const minLegacy, throughMagic = 14, posMagic + 1
	if len(buf) < lengthOverhead {
		return 0, nil
	}
	n := int(int32(binary.BigEndian.Uint32(buf[posLength:])))
	if n < minLegacy {
		return 0, refuse(kerr.CorruptMessage, false, "record batch length %d", n)
	}
	if len(buf) < throughMagic {
		return 0, nil
	}
	if m := buf[posMagic]; m > magic2 {
		return 0, refuse(kerr.CorruptMessage, false, "record batch magic %d", m)
	}
	if len(buf)-lengthOverhead < n {
		return 0, nil
	}
	return n + lengthOverhead, nil
}

// checkBatch checks the header and the CRC, in Kafka's order.
func checkBatch(b Batch, p *Policy) error {
	if o := b.BaseOffset(); o != 0 && !p.Internal {
		return refuse(kerr.InvalidRecord, true, "base offset %d, want 0", o)
	}
	if p.MaxMessageBytes > 0 && len(b) > int(p.MaxMessageBytes) {
		return refuse(kerr.MessageTooLarge, false, "batch of %d bytes, max.message.bytes is %d", len(b), p.MaxMessageBytes)
	}
	if err := b.CheckCRC(); err != nil {
		// NB: not wrapped. The mark of corruption is for what we stored, not for what a client sends.
		return refuse(kerr.CorruptMessage, false, "%v", err)
	}
	if delta, count := b.lastDelta(), b.Count(); count <= 0 || delta != count-1 {
		return refuse(kerr.InvalidRecord, true, "last offset delta %d with %d records", delta, count)
	}
	if p.Internal {
		return nil
	}
	if b.IsControl() {
		return refuse(kerr.InvalidRecord, true, "control batch from a client")
	}
	if b.ProducerID() >= 0 && b.BaseSequence() < 0 {
		return refuse(kerr.InvalidRecord, true, "producer id %d with sequence %d", b.ProducerID(), b.BaseSequence())
	}
	return nil
}

// target is the codec that the batch is to be stored with. Kafka leaves uncompressed control batches as they are.
func (p *Policy) target(b Batch) Codec {
	if p.Compression == CodecProducer || b.IsControl() && b.Codec() == CodecNone {
		return b.Codec()
	}
	return p.Compression
}

// keep validates a batch whose records stay as they are and puts its header right.
func keep(b Batch, p *Policy) (Batch, error) {
	v := newPass(b, p)
	if b.Codec() == CodecNone {
		s := scanner{buf: b.payload()}
		if err := v.run(&s); err != nil {
			return nil, err
		}
	} else {
		h := decompressions.enter()
		defer h.leave()
		v.hold = h
		s, inf, err := inflate(h, b.Codec(), b.payload(), p.MaxInflatedBytes)
		if err != nil {
			return nil, undecodable(err)
		}
		err = v.run(&s)
		inf.close()
		if err != nil {
			return nil, err
		}
	}
	if v.renumber {
		return v.rebuild(b.Codec())
	}
	if v.normalise(b) {
		b.setCRC()
	}
	return b, nil
}

// convert validates a batch and compresses it anew. The client's bytes are left alone.
func convert(b Batch, target Codec, p *Policy) (Batch, error) {
	records := b.payload()
	h := decompressions.enter() // also where it only compresses: that has memory of its own too
	defer h.leave()
	if b.Codec() != CodecNone {
		var err error
		if records, err = inflateAll(h, b.Codec(), records, p.MaxInflatedBytes); err != nil {
			return nil, undecodable(err)
		}
	}
	v := newPass(b, p)
	v.hold = h
	s := scanner{buf: records}
	if err := v.run(&s); err != nil {
		return nil, err
	}
	if v.renumber {
		return v.rebuild(target)
	}
	out, err := recode(b, target, p.CompressionLevel, records)
	if err != nil {
		return nil, undecodable(err)
	}
	v.normalise(out)
	out.setCRC()
	return out, nil
}

// undecodable is Kafka's answer to a payload that does not decompress; one that inflates beyond the bound gets what
// makes a Java producer split its batch and retry.
func undecodable(err error) *InvalidError {
	if errors.Is(err, errInflated) {
		return refuse(kerr.MessageTooLarge, false, "decompress records: %v", err)
	}
	return refuse(kerr.UnknownServerError, true, "decompress records: %v", err)
}

// pass is one walk over the records of a batch.
type pass struct {
	batch    Batch
	policy   *Policy
	maxMs    int64
	renumber bool // the offset deltas of a compressed batch are not 0..n-1
	refused  *refusals
	hold     *hold // nil where nothing is decompressed
}

func newPass(b Batch, p *Policy) pass { return pass{batch: b, policy: p, maxMs: NoTimestamp} }

// run checks every record. All of them are seen before the batch is refused for some (KIP-467), but bytes that are not
// records end the walk at once.
func (v *pass) run(s *scanner) error {
	p, first, count := v.policy, v.batch.BaseTimestamp(), v.batch.Count()
	checkTime := !p.Internal && (!p.LogAppendTime || v.batch.IsLogAppendTime())
	var f fields
	for i := range count {
		if err := s.next(&f); err != nil {
			return v.malformed(i, err)
		}
		ms := first + f.tsDelta
		v.maxMs = max(v.maxMs, ms)
		if f.offsetDelta != i {
			if v.batch.Codec() == CodecNone {
				return refuse(kerr.InvalidRecord, true, "offset delta %d of record %d", f.offsetDelta, i)
			}
			v.renumber = true
		}
		switch {
		case p.Compacted && f.keyLen < 0:
			v.refuseKey(i)
		case checkTime:
			v.checkTimestamp(i, ms, &f)
		}
	}
	if err := s.finish(); err != nil {
		return v.malformed(count, err)
	}
	if v.refused != nil {
		return v.refused.invalid()
	}
	return nil
}

// malformations are what a record can have that makes it no record.
var malformations = []error{errTruncated, errSize, errHeaderCount, errHeaderKey, errTrailing}

// malformed tells bytes that are no records (87) from a payload that does not decompress (-1).
func (v *pass) malformed(index int32, err error) error {
	if slices.ContainsFunc(malformations, func(m error) bool { return errors.Is(err, m) }) {
		return refuse(kerr.InvalidRecord, true, "record %d of %d: %v", index, v.batch.Count(), err)
	}
	return undecodable(err)
}

// checkTimestamp compares with Java's wrapping arithmetic, so that extremes are refused where Kafka refuses them.
func (v *pass) checkTimestamp(i int32, ms int64, f *fields) {
	p := v.policy
	if p.LogAppendTime {
		v.refuseType(i, f)
		return
	}
	if age := p.NowMs - ms; ms != NoTimestamp && (age > p.BeforeMaxMs || -age > p.AfterMaxMs) {
		v.refuse(true, i, fmt.Sprintf("Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]",
			ms, f.offsetDelta, p.NowMs-p.BeforeMaxMs, p.NowMs+p.AfterMaxMs))
	}
}

func (v *pass) refuseType(i int32, f *fields) {
	kind := "DefaultRecord"
	if v.batch.Codec() != CodecNone {
		kind = "PartialDefaultRecord"
	}
	v.refuse(true, i, fmt.Sprintf("Invalid timestamp type in message %s(offset=%d, timestamp=%d, key=%d bytes, value=%d bytes). "+
		"Producer should not set timestamp type to LogAppendTime.",
		kind, f.offsetDelta, v.batch.MaxTimestamp(), max(f.keyLen, 0), max(f.valueLen, 0)))
}

func (v *pass) refuseKey(i int32) {
	message := "Compacted topic cannot accept message without key"
	if v.policy.TopicPartition.Topic != "" {
		message += " in topic partition " + v.policy.TopicPartition.String()
	}
	v.refuse(false, i, message)
}

func (v *pass) refuse(timestamp bool, i int32, message string) {
	if v.refused == nil {
		v.refused = &refusals{}
	}
	v.refused.total++
	v.refused.timestamp = v.refused.timestamp || timestamp
	if len(v.refused.records) < maxRecordErrors {
		v.refused.records = append(v.refused.records, RecordError{Index: i, Message: message})
	}
}

// refusals collects the records that a batch is refused for.
type refusals struct {
	records   []RecordError
	total     int
	timestamp bool // at least one for its timestamp
}

// invalid words the answer as Kafka's LogValidator.processRecordErrors does.
func (r *refusals) invalid() *InvalidError {
	if r.timestamp {
		return &InvalidError{Err: kerr.InvalidTimestamp, Records: r.records, WithLogStart: true,
			Message: "One or more records have been rejected due to invalid timestamp"}
	}
	var first []byte
	for i, e := range r.records[:min(len(r.records), 3)] {
		if i > 0 {
			first = append(first, ", "...)
		}
		first = fmt.Appendf(first, "RecordError(batchIndex=%d, message='%s')", e.Index, e.Message)
	}
	return &InvalidError{Err: kerr.InvalidRecord, Records: r.records, WithLogStart: true,
		Message: fmt.Sprintf("One or more records have been rejected due to %d record errors in total, "+
			"and only showing the first three errors at most: [%s]", r.total, first)}
}

// normalise sets the timestamp type and the maximal timestamp of the header and reports whether they changed. A delete
// horizon is compaction's to set: a client's would let tombstones go early.
func (v *pass) normalise(b Batch) bool {
	attributes, ms := b.attributes()&^attrLogAppendTime, v.maxMs
	if v.policy.LogAppendTime {
		attributes, ms = attributes|attrLogAppendTime, v.policy.NowMs
	}
	if !v.policy.Internal {
		attributes &^= attrDeleteHorizon
	}
	if attributes == b.attributes() && ms == b.MaxTimestamp() {
		return false
	}
	b.setAttributes(attributes)
	b.setMaxTimestamp(ms)
	return true
}

// rebuild writes the batch anew, from what run has checked, with offsets 0..n-1, as Kafka does for old clients that number compressed records wrongly.
func (v *pass) rebuild(target Codec) (Batch, error) {
	b := v.batch
	b.setAttributes(b.attributes() &^ attrLogAppendTime) // a client's: decode must give the records' own timestamps
	var records []Record
	payload, err := inflateAll(v.hold, b.Codec(), b.payload(), v.policy.MaxInflatedBytes)
	if err == nil {
		err = b.scan(payload, func(r Record) bool {
			r.Offset = base.Offset(len(records))
			records = append(records, r)
			return true
		})
	}
	if err != nil {
		return nil, undecodable(err)
	}
	out, err := Build(BuildHeader{
		LeaderEpoch: b.LeaderEpoch(), Codec: target, Level: v.policy.CompressionLevel, Transactional: b.IsTransactional(),
		Control: b.IsControl(), ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), BaseSequence: b.BaseSequence(),
	}, slices.Clip(records))
	if err != nil {
		return nil, refuse(kerr.InvalidRecord, true, "renumber records: %v", err)
	}
	if v.normalise(out) {
		out.setCRC()
	}
	return out, nil
}
