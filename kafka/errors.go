package kafka

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// codeUnknown is Kafka's UNKNOWN_SERVER_ERROR.
const codeUnknown int16 = -1

// codeOf is the table from errors to wire codes. known is false where the error is none that a handler may return: it is
// answered with -1 and logged.
func codeOf(err error) (code int16, known bool) {
	if err == nil {
		return 0, true
	}
	var invalid *record.InvalidError
	if errors.As(err, &invalid) && invalid.Err != nil {
		err = invalid.Err
	}
	var k *kerr.Error
	switch {
	case errors.As(err, &k):
		return k.Code, true
	case base.IsCorruption(err):
		return kerr.KafkaStorageError.Code, true
	case errors.Is(err, context.DeadlineExceeded):
		return kerr.RequestTimedOut.Code, true
	case errors.Is(err, context.Canceled):
		// The connection or the server goes away; clients retry a coordinator or leader that left.
		return kerr.NotLeaderForPartition.Code, true
	default:
		return codeUnknown, false
	}
}

// code is the wire code of err for this request. The first error is what the request's metrics show; unknown errors are logged.
func (r *request) code(err error) int16 {
	code, known := codeOf(err)
	if !known && r.conn.s.loud.Allow(r.conn.s.opts.Clock.Now()) {
		r.conn.s.log.Error("request failed with an unexpected error", slog.String("api", r.route.name),
			slog.String("client", r.clientID), slog.Any("err", err))
	}
	r.note(code)
	return code
}

// note records an error code for the request's metrics.
func (r *request) note(code int16) {
	if r.failure == 0 {
		r.failure = code
	}
}

// messageOf is the text that goes into ErrorMessage fields: what the component said, without the error's own name. Where it
// said nothing it is Kafka's text for the code.
func messageOf(err error) *string {
	if err == nil {
		return nil
	}
	if code, _ := codeOf(err); code == codeUnknown {
		return text(kafkaText[codeUnknown]) // what went wrong inside is for the log
	}
	var k *kerr.Error
	if !errors.As(err, &k) {
		return text(err.Error())
	}
	if words, ok := kafkaText[k.Code]; ok && err.Error() == k.Error() {
		return text(words)
	}
	words := strings.TrimSuffix(strings.TrimSuffix(err.Error(), k.Error()), ": ")
	if words == "" {
		words = k.Description
	}
	return text(words)
}

// failure pairs an error with the words that Kafka uses for it.
type failure struct {
	err  *kerr.Error
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

// refuse returns err with the words that Kafka uses.
func refuse(err *kerr.Error, text string) error { return &failure{err, text} }

// kafkaText holds Kafka's own messages where clients and tools show them and kerr words them differently
// (org.apache.kafka.common.protocol.Errors).
var kafkaText = map[int16]string{
	-1:  "The server experienced an unexpected error when processing the request.",
	3:   "This server does not host this topic-partition.",
	15:  "The coordinator is not available.",
	80:  "The preferred leader was not available.",
	83:  "Eligible topic partition leaders are not available.",
	84:  "Leader election not needed for topic partition.",
	100: "This server does not host this topic ID.",
}

func text(s string) *string { return &s }
