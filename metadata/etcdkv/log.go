package etcdkv

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// slogCore hands etcd's log lines to slog. Information becomes debug: etcd writes dozens of lines at a start.
type slogCore struct {
	logger *slog.Logger
	muted  *atomic.Bool // set while closing: etcd reports its own listeners as errors then
}

func newSlogCore(logger *slog.Logger) *slogCore {
	return &slogCore{logger: logger.With(slog.String("component", "etcd")), muted: &atomic.Bool{}}
}

func levelOf(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// Enabled implements zapcore.Core.
func (c *slogCore) Enabled(l zapcore.Level) bool {
	return !c.muted.Load() && c.logger.Enabled(context.Background(), levelOf(l))
}

// With implements zapcore.Core.
func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	args := make([]any, 0, len(fields))
	for _, a := range attrs(fields) {
		args = append(args, a)
	}
	return &slogCore{logger: c.logger.With(args...), muted: c.muted}
}

// Check implements zapcore.Core.
func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// harmless are lines that etcd writes as warnings or errors at the start of a healthy member: it serves HTTP and gRPC on one
// port, its tokens are unused, it looks for the storage version before the first term is on disk, and it announces itself in
// a loop, dozens of times, until the replay of its log has begun (if that never succeeds, Start reports it). Its client tells of each
// attempt of each request while there is no leader, thousands a second; who asked reports what came of it.
func harmless(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed",
		"Failed to detect schema version",
		"failed to update storage version",
		"failed to publish local member to cluster through raft",
		"retrying of unary invoker failed":
		return true
	}
	return false
}

// Write implements zapcore.Core.
func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := levelOf(e.Level)
	if harmless(e.Message) {
		level = slog.LevelDebug
	}
	if !c.logger.Enabled(context.Background(), level) {
		return nil
	}
	c.logger.LogAttrs(context.Background(), level, e.Message, attrs(fields)...)
	return nil
}

// Sync implements zapcore.Core.
func (c *slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for k, v := range enc.Fields {
			out = append(out, slog.Any(k, v))
		}
	}
	return out
}
