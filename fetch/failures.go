package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering"
)

func newFailures(m metric.Meter, log *slog.Logger) metric.Int64Counter {
	c, err := m.Int64Counter("varve_fetch_cold_failures_total", metric.WithDescription(
		"Cold reads and look-ups that failed, by cause: missing (the bucket lacks an object that a manifest names), corrupt, timeout (answered empty), error."))
	if err != nil {
		log.Error("fetch metrics", slog.Any("error", err)) // c does nothing then
	}
	return c
}

// coldError counts and logs what the bucket did not answer as it should, and makes it an error that clients meet by asking
// again: most of them give Kafka's UNKNOWN_SERVER_ERROR, which is what its RemoteStorageException becomes, to the application.
func (s *Service) coldError(log base.LogID, err error) error {
	var known *kerr.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	cause, loud := "error", &s.loudElse
	switch {
	case tiering.Missing(err):
		cause, loud = "missing", &s.loudMissing
	case base.IsCorruption(err):
		cause = "corrupt"
	case errors.Is(err, context.DeadlineExceeded):
		cause, loud = "timeout", nil // a slow bucket is no failure of the read, which goes on into the cache
	case isPatience(err):
		return err // the client has gone
	}
	s.failures.Add(context.Background(), 1, metric.WithAttributes(attribute.String("cause", cause)))
	if loud == nil {
		return err
	}
	if loud.Allow(s.opts.Clock.Now()) {
		s.opts.Logger.Error("cold read failed", slog.String("cause", cause), slog.String("log", log.String()), slog.Any("error", err))
	}
	return fmt.Errorf("%w: %w", kerr.KafkaStorageError, err)
}
