package main

import (
	"fmt"
	"strconv"
	"strings"
)

// codecs are the topics of a client.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// header is one header of a record; a nil value is null.
type header struct {
	name  string
	value []byte
}

// content is a record as a producer sends it; nil is null.
type content struct {
	key, value []byte
	headers    []header
}

// shape says which records a client can express.
type shape int

const (
	full     shape = iota // keys, values and headers of any bytes, or null
	noNulls               // a client that has no null headers
	text                  // a tool that reads lines: text, no nulls, headers of its own for each line
	oneLabel              // kcat: text, and the same header on every record
	counted               // a load generator: only the number of records is known
)

// expected is record number i of a topic. Every client program computes the same.
func expected(s shape, codec string, i int) content {
	repeats := i % 50
	if i%97 == 96 {
		repeats = 5000 // a batch of its own
	}
	c := content{
		key:   []byte("k" + strconv.Itoa(i%17)),
		value: []byte(fmt.Sprintf("%s-%d-%s", codec, i, strings.Repeat("varve ", repeats))),
	}
	switch s {
	case text:
		c.headers = []header{{"seq", []byte(strconv.Itoa(i))}, {"note", []byte("a text")}}
		return c
	case oneLabel:
		c.headers = []header{{"note", []byte("a text")}}
		return c
	}
	if i%10 == 9 {
		c.key = nil
	}
	if i%13 == 12 && c.key != nil { // some clients refuse a record with neither
		c.value = nil
	}
	c.headers = []header{{"seq", []byte(strconv.Itoa(i))}, {"bytes", []byte{0, 255, byte(i)}}, {"empty", []byte{}}}
	if s == full {
		c.headers = append(c.headers, header{"null", nil})
	}
	return c
}

// number finds which record of its topic this is: by the header that says so, else by the value.
func (c content) number() (int, error) {
	for _, h := range c.headers {
		if h.name == "seq" {
			return strconv.Atoi(string(h.value))
		}
	}
	parts := strings.SplitN(string(c.value), "-", 3)
	if len(parts) != 3 {
		return 0, fmt.Errorf("the record has no number: %s", c)
	}
	return strconv.Atoi(parts[1])
}

func (c content) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "key %s value %s headers", show(c.key), show(c.value))
	for _, h := range c.headers {
		fmt.Fprintf(&b, " %s=%s", h.name, show(h.value))
	}
	return b.String()
}

func show(b []byte) string {
	if b == nil {
		return "null"
	}
	if len(b) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return strconv.Quote(string(b))
}
