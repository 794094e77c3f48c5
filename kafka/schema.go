package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Requests are walked by their schema before kmsg decodes them, for two reasons: kmsg allocates an array of the length that
// the request claims, up to the number of bytes left (so 1 MB of input can cost 100 MB), and it loops over a claimed number
// of tagged fields, up to four billion, even where the input has ended. What passes the walk costs the decoder at most
// elementWeight for each counted element.
//
// A schema is a line of fields: i8 i16 i32 i64 u (uuid) s (string) b (bytes), *x for an array of the primitive x,
// [ ... ] for an array of structures, ( ... ) for a nullable structure; ":3+", ":0-7" and ":2" bound the versions. Whether
// strings and arrays may be null is not checked here, handlers do that.
type schema []field

type field struct {
	kind     byte // '1' '2' '4' '8' 'u' 's' 'b' '[' '('
	min, max int16
	array    bool // of primitives
	fields   schema
}

// elementWeight is what one array element or tagged field may cost in memory, in bytes: the largest structure of the
// served requests.
const elementWeight = 96

// maxElements bounds the array elements and tagged fields of a request that is not a Produce.
const maxElements = 100_000

// parseSchema reads the notation above. It panics on a malformed schema: the table is part of the program.
func parseSchema(text string) schema {
	tokens := strings.Fields(text)
	out, rest := parseFields(tokens)
	if len(rest) > 0 {
		panic("kafka: unbalanced schema: " + text)
	}
	return out
}

var kinds = map[string]byte{"i8": '1', "i16": '2', "i32": '4', "i64": '8', "u": 'u', "s": 's', "b": 'b', "[": '[', "(": '('}

func parseFields(tokens []string) (out schema, rest []string) {
	for len(tokens) > 0 {
		t := tokens[0]
		tokens = tokens[1:]
		if t == "]" || t == ")" {
			return out, tokens
		}
		name, versions, _ := strings.Cut(t, ":")
		f := field{max: 1<<15 - 1}
		name, f.array = strings.CutPrefix(name, "*")
		kind, ok := kinds[name]
		if !ok {
			panic("kafka: unknown schema field " + t)
		}
		f.kind = kind
		f.min, f.max = parseVersions(versions)
		if kind == '[' || kind == '(' {
			f.fields, tokens = parseFields(tokens)
		}
		out = append(out, f)
	}
	return out, nil
}

func parseVersions(text string) (lo, hi int16) {
	if text == "" {
		return 0, 1<<15 - 1
	}
	number := func(s string) int16 {
		n, err := strconv.ParseInt(s, 10, 16)
		if err != nil {
			panic("kafka: schema version " + text)
		}
		return int16(n)
	}
	if s, ok := strings.CutSuffix(text, "+"); ok {
		return number(s), 1<<15 - 1
	}
	if from, to, ok := strings.Cut(text, "-"); ok {
		return number(from), number(to)
	}
	return number(text), number(text)
}

var errMalformed = errors.New("malformed")

// check walks body and returns the number of elements that decoding it will allocate.
func (s schema) check(body []byte, version int16, flexible bool, limit int) (int, error) {
	w := walker{src: body, version: version, flexible: flexible, limit: limit}
	w.structure(s)
	switch {
	case w.elements > limit:
		return 0, fmt.Errorf("more than %d elements", limit)
	case w.bad:
		return 0, errMalformed
	}
	return w.elements, nil
}

// walker skips over an encoded request.
type walker struct {
	src      []byte
	version  int16
	flexible bool
	bad      bool
	elements int
	limit    int
}

func (w *walker) fail() {
	w.bad = true
	w.src = nil
}

// take returns the next n bytes; a negative n is a null and takes nothing.
func (w *walker) take(n int) []byte {
	if n < 0 {
		return nil
	}
	if n > len(w.src) {
		w.fail()
		return nil
	}
	b := w.src[:n]
	w.src = w.src[n:]
	return b
}

func (w *walker) i16() int16 {
	if b := w.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (w *walker) i32() int32 {
	if b := w.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// uvarint reads a number of at most 31 bits.
func (w *walker) uvarint() int {
	v, n := binary.Uvarint(w.src)
	if n <= 0 || v > 1<<31-1 {
		w.fail()
		return 0
	}
	w.src = w.src[n:]
	return int(v)
}

// tags skips a section of tagged fields.
func (w *walker) tags() {
	n := w.uvarint()
	if n*2 > len(w.src) {
		w.fail()
		return
	}
	w.count(n)
	for i := 0; i < n && !w.bad; i++ {
		w.uvarint()
		w.take(w.uvarint())
	}
}

func (w *walker) count(n int) {
	w.elements += n
	if w.limit > 0 && w.elements > w.limit {
		w.fail()
	}
}

// length reads an array length; -1 is null.
func (w *walker) length() int {
	var n int
	if w.flexible {
		n = w.uvarint() - 1
	} else {
		n = int(w.i32())
	}
	if n < -1 || n > len(w.src) {
		w.fail()
		return 0
	}
	return max(n, 0)
}

func (w *walker) structure(s schema) {
	for i := range s {
		f := &s[i]
		if w.bad {
			return
		}
		if w.version >= f.min && w.version <= f.max {
			w.field(f)
		}
	}
	if w.flexible && !w.bad {
		w.tags()
	}
}

func (w *walker) field(f *field) {
	switch {
	case f.kind == '[':
		n := w.length()
		w.count(n)
		for i := 0; i < n && !w.bad; i++ {
			w.structure(f.fields)
		}
	case f.kind == '(':
		if b := w.take(1); len(b) == 1 && int8(b[0]) >= 0 {
			w.count(1)
			w.structure(f.fields)
		}
	case f.array:
		n := w.length()
		w.count((n + 7) / 8)
		if f.kind == 's' {
			w.count(n)
		}
		for i := 0; i < n && !w.bad; i++ {
			w.primitive(f.kind)
		}
	default:
		w.primitive(f.kind)
	}
}

func (w *walker) primitive(kind byte) {
	switch kind {
	case '1', '2', '4', '8':
		w.take(int(kind - '0'))
	case 'u':
		w.take(16)
	case 's', 'b':
		switch {
		case w.flexible:
			w.take(w.uvarint() - 1)
		case kind == 's':
			w.take(int(w.i16()))
		default:
			w.take(int(w.i32()))
		}
	}
}
