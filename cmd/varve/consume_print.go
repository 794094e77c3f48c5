package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recordPrinter writes records as `varve consume` shows them.
type recordPrinter struct {
	w         *bufio.Writer
	json, raw bool
	separator string
}

// recordJSON is one record as --output json shows it: bytes that are not UTF-8 stand in the Base64 twin of their field.
type recordJSON struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	LeaderEpoch int32        `json:"leaderEpoch"`
	TimestampMs int64        `json:"timestampMs"`
	Time        string       `json:"time"`
	Key         *string      `json:"key"`
	KeyBase64   string       `json:"keyBase64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 string       `json:"valueBase64,omitempty"`
	Headers     []headerJSON `json:"headers,omitempty"`
}

type headerJSON struct {
	Name        string  `json:"name"`
	Value       *string `json:"value"`
	ValueBase64 string  `json:"valueBase64,omitempty"`
}

func (p recordPrinter) print(r *kgo.Record) error {
	if p.json {
		b, err := json.Marshal(describeRecord(r))
		if err != nil {
			return err
		}
		_, err = p.w.Write(append(b, '\n'))
		return err
	}
	if p.separator != "" {
		_, _ = p.w.Write(r.Key) // a bufio.Writer keeps its error for the last write
		_, _ = p.w.WriteString(p.separator)
	}
	_, err := p.w.Write(r.Value)
	if !p.raw {
		err = p.w.WriteByte('\n')
	}
	return err
}

func describeRecord(r *kgo.Record) recordJSON {
	j := recordJSON{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch,
		TimestampMs: r.Timestamp.UnixMilli(), Time: r.Timestamp.UTC().Format(time.RFC3339Nano),
	}
	j.Key, j.KeyBase64 = textOrBase64(r.Key)
	j.Value, j.ValueBase64 = textOrBase64(r.Value)
	for _, h := range r.Headers {
		x := headerJSON{Name: h.Key}
		x.Value, x.ValueBase64 = textOrBase64(h.Value)
		j.Headers = append(j.Headers, x)
	}
	return j
}

// textOrBase64 answers (nil, "") for a null.
func textOrBase64(b []byte) (*string, string) {
	if b == nil {
		return nil, ""
	}
	if utf8.Valid(b) {
		s := string(b)
		return &s, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}
