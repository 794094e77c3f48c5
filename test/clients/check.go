package main

import (
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// position is where a record stands in the log.
type position struct {
	topic     string
	partition int32
	offset    int64
}

// arrivals are the records that a consumer was given, and what was wrong with them.
type arrivals struct {
	shape       shape
	prefix      string // of the topics' names
	at          map[position]content
	newest      map[position]int64 // by topic and partition (offset 0): the newest offset so far
	redelivered int                // came again after a rebalance: allowed, if they are the same
	faults      []string
}

func newArrivals(s shape, prefix string) *arrivals {
	return &arrivals{shape: s, prefix: prefix, at: map[position]content{}, newest: map[position]int64{}}
}

// parse reads a line of the protocol: R topic partition offset key value headers.
func parse(line string) (position, content, error) {
	f := strings.Fields(line)
	if len(f) != 6 && len(f) != 7 {
		return position{}, content{}, fmt.Errorf("%d fields in a line of 7: %.100s", len(f), line)
	}
	partition, err := strconv.ParseInt(f[2], 10, 32)
	if err != nil {
		return position{}, content{}, fmt.Errorf("partition: %w", err)
	}
	offset, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		return position{}, content{}, fmt.Errorf("offset: %w", err)
	}
	var c content
	if c.key, err = unhex(f[4]); err != nil {
		return position{}, content{}, err
	}
	if c.value, err = unhex(f[5]); err != nil {
		return position{}, content{}, err
	}
	if len(f) == 7 {
		for _, h := range strings.Split(f[6], ",") {
			name, v, _ := strings.Cut(h, "=")
			value, err := unhex(v)
			if err != nil {
				return position{}, content{}, err
			}
			c.headers = append(c.headers, header{name, value})
		}
	}
	return position{f[1], int32(partition), offset}, c, nil
}

func unhex(s string) ([]byte, error) {
	if s == "-" {
		return nil, nil
	}
	if !strings.HasPrefix(s, "x") {
		return nil, fmt.Errorf("neither - nor xHEX: %.40s", s)
	}
	b, err := hex.DecodeString(s[1:])
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// add takes one record in the order of delivery.
func (a *arrivals) add(p position, c content) {
	if before, again := a.at[p]; again {
		a.redelivered++
		if before.String() != c.String() {
			a.fault("%v came as %s, then as %s", p, before, c)
		}
		return
	}
	a.at[p] = c
	log := position{p.topic, p.partition, 0}
	if newest, any := a.newest[log]; any && p.offset < newest {
		a.fault("%v came for the first time after offset %d", p, newest)
	}
	a.newest[log] = max(a.newest[log], p.offset)
}

func (a *arrivals) fault(format string, args ...any) {
	const limit = 20 // one cause makes thousands
	if len(a.faults) < limit {
		a.faults = append(a.faults, fmt.Sprintf(format, args...))
	}
}

// judge compares with records 0..count-1 of every topic and answers all faults.
func (a *arrivals) judge(count int) []string {
	byTopic := map[string][]position{}
	for p := range a.at {
		byTopic[p.topic] = append(byTopic[p.topic], p)
	}
	for _, codec := range codecs {
		topic := a.prefix + "-" + codec
		a.judgeTopic(codec, byTopic[topic], count)
		delete(byTopic, topic)
	}
	for topic, at := range byTopic {
		a.fault("%d records of a topic that nobody asked for: %s", len(at), topic)
	}
	return a.faults
}

func (a *arrivals) judgeTopic(codec string, at []position, count int) {
	sort.Slice(at, func(i, j int) bool {
		if at[i].partition != at[j].partition {
			return at[i].partition < at[j].partition
		}
		return at[i].offset < at[j].offset
	})
	seen := map[int]position{}
	last := map[string]int{} // key -> number of its newest record
	home := map[string]int32{}
	for _, p := range at {
		c := a.at[p]
		i, err := c.number()
		if err != nil || i < 0 || i >= count {
			a.fault("%v is no record of this run: %s", p, c)
			continue
		}
		if want := expected(a.shape, codec, i); want.String() != c.String() || string(want.value) != string(c.value) {
			a.fault("%v: want %s, got %s", p, want, c)
		}
		if first, twice := seen[i]; twice {
			a.fault("record %d is in the log twice: %v and %v", i, first, p)
		}
		seen[i] = p
		if c.key == nil {
			continue
		}
		key := string(c.key)
		if before, any := last[key]; any && before > i {
			a.fault("%v: record %d of key %s stands after record %d", p, i, key, before)
		}
		if where, any := home[key]; any && where != p.partition {
			a.fault("%v: key %s is in partition %d too", p, key, where)
		}
		last[key], home[key] = i, p.partition
	}
	for i := range count {
		if _, ok := seen[i]; !ok {
			a.fault("record %d of %s is lost", i, codec)
		}
	}
}
