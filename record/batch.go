package record

import "github.com/varvelog/varve/internal/base"

// Batch is the bytes of one whole record batch of magic 2 (baseOffset to the last record). Accessors read the header in
// place; setters write it in place.
type Batch []byte

// HeaderSize is the length of a batch without records.
const HeaderSize = 61

// Split cuts the first batch off buf. It checks only the length fields and the magic.
func Split(buf []byte) (b Batch, rest []byte, err error) { panic("not built") }

func (b Batch) BaseOffset() base.Offset         { panic("not built") }
func (b Batch) LastOffset() base.Offset         { panic("not built") }
func (b Batch) NextOffset() base.Offset         { panic("not built") }
func (b Batch) LeaderEpoch() base.LeaderEpoch   { panic("not built") }
func (b Batch) BaseTimestamp() int64            { panic("not built") }
func (b Batch) MaxTimestamp() int64             { panic("not built") }
func (b Batch) ProducerID() base.ProducerID     { panic("not built") }
func (b Batch) ProducerEpoch() int16            { panic("not built") }
func (b Batch) BaseSequence() int32             { panic("not built") }
func (b Batch) LastSequence() int32             { panic("not built") }
func (b Batch) Count() int32                    { panic("not built") }
func (b Batch) Codec() Codec                    { panic("not built") }
func (b Batch) IsLogAppendTime() bool           { panic("not built") }
func (b Batch) IsTransactional() bool           { panic("not built") }
func (b Batch) IsControl() bool                 { panic("not built") }
func (b Batch) SetBaseOffset(base.Offset)       { panic("not built") }
func (b Batch) SetLeaderEpoch(base.LeaderEpoch) { panic("not built") }

// CheckCRC reports a marked corruption where the CRC-32C does not hold.
func (b Batch) CheckCRC() error { panic("not built") }

// Codec is the compression of a batch (attributes bits 0-2).
type Codec int8

const (
	CodecNone Codec = iota
	CodecGzip
	CodecSnappy
	CodecLZ4
	CodecZstd
	CodecProducer Codec = -1 // in a Policy: keep what the client chose
)

// Policy says what Prepare enforces; its fields are the topic's configuration.
type Policy struct {
	MaxMessageBytes  int32 // max.message.bytes
	SegmentBytes     int32 // segment.bytes
	LogAppendTime    bool  // message.timestamp.type
	BeforeMaxMs      int64 // message.timestamp.before.max.ms
	AfterMaxMs       int64 // message.timestamp.after.max.ms
	Compression      Codec // compression.type
	CompressionLevel int   // of Compression; 0 means the codec's default
	Compacted        bool  // cleanup.policy contains compact: null keys are refused
	ZstdAllowed      bool  // the request's version may carry zstd (Produce >= 7)
	NowMs            int64 // milliseconds since the Unix epoch
	MaxInflatedBytes int   // bound on a decompressed batch; 0 means 100 MiB
	Internal         bool  // a broker's own append: control batches and LogAppendTime are allowed
}

// RecordError names a record that was refused (KIP-467).
type RecordError struct {
	Index   int32
	Message string
}

// InvalidError is what Prepare answers for a batch it refuses. Err is the kerr error (its code goes on the wire).
type InvalidError struct {
	Err     error
	Message string        // may be empty
	Records []RecordError // may be nil
}

func (e *InvalidError) Error() string { panic("not built") }
func (e *InvalidError) Unwrap() error { return e.Err }

// Prepare checks the records field of one partition of a Produce request as Kafka's LogValidator does
// (facts/protocol.md 3.1) and returns the one batch to append, its header normalised (maxTimestamp, timestamp type,
// codec) and its CRC right; base offset and leader epoch are left for the partition to set. The result shares memory
// with buf where nothing had to be rewritten.
func Prepare(buf []byte, p *Policy) (Batch, error) { panic("not built") }

// Header is one record header.
type Header struct {
	Key   string
	Value []byte // nil is null
}

// Record is one decoded record. Key and Value are nil where null and point into the batch (or its decompressed copy).
type Record struct {
	Offset    base.Offset
	Timestamp int64 // milliseconds; of a LogAppendTime batch its max timestamp
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Each calls fn for every record of the batch in order until it returns false. Corrupt bytes give a marked corruption.
func (b Batch) Each(fn func(Record) bool) error { panic("not built") }

// Build makes a batch of records (offsets are taken from Record.Offset, the first being the base) with the given header
// fields. It is used by coordinators, compaction and tests.
func Build(h BuildHeader, records []Record) (Batch, error) { panic("not built") }

// BuildHeader is the part of a batch header that Build cannot derive.
type BuildHeader struct {
	LeaderEpoch   base.LeaderEpoch
	Codec         Codec
	Level         int
	LogAppendTime bool
	Transactional bool
	Control       bool
	ProducerID    base.ProducerID // NoProducerID for none
	ProducerEpoch int16
	BaseSequence  int32
}
