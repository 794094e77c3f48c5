package metadata

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Error is an expected error with the words that Kafka has for it. Error returns the words alone, so that they can go into
// the error_message field of a response; the Kafka code is behind Unwrap.
type Error struct {
	Kafka   *kerr.Error
	Message string
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the kerr error.
func (e *Error) Unwrap() error { return e.Kafka }

func refuse(k *kerr.Error, format string, args ...any) *Error {
	return &Error{Kafka: k, Message: fmt.Sprintf(format, args...)}
}

// kvError wraps an error of the KV: a deadline, or a KV that is away (see KV), becomes Kafka's REQUEST_TIMED_OUT, whose outcome is unknown there as well.
func kvError(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w: %w", what, kerr.RequestTimedOut, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
