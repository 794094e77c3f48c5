package group

import "encoding/binary"

// reader takes big-endian fields off a byte slice. After the first field that is not there everything is zero and ok is
// false.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// string reads a length of 16 bits and that many bytes.
func (r *reader) string() []byte { return r.take(int(r.int16())) }

// subscribedTopics calls fn for each topic of a ConsumerProtocol Subscription (version int16, topics [string], user data
// bytes, later versions append). The bytes are a client's: it reports false where they cannot be read, and what fn was
// given by then does not count. Like Kafka it reads any version by the fields of version 0.
func subscribedTopics(metadata []byte, fn func(topic string)) bool {
	r := reader{b: metadata}
	if v := r.int16(); v < 0 {
		return false
	}
	n := r.int32()
	if n < 0 {
		return false
	}
	for i := int32(0); i < n && !r.bad; i++ {
		if t := r.string(); !r.bad {
			fn(string(t))
		}
	}
	if n := r.int32(); n >= 0 {
		r.take(int(n))
	}
	return !r.bad
}
