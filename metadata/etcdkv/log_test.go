package etcdkv

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"go.uber.org/zap"
)

func TestLogBridge(t *testing.T) {
	var out bytes.Buffer
	core := newSlogCore(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	lg := zap.New(core)
	lg.Info("chatter")
	lg.Warn("simple token is not cryptographically signed")
	lg.With(zap.String("member", "m1")).Warn("slow", zap.Int("ms", 7))
	lg.Error("broken", zap.Error(errors.New("why")))
	core.muted.Store(true)
	lg.Error("http: Server closed")
	want := "level=WARN msg=slow component=etcd member=m1 ms=7\nlevel=ERROR msg=broken component=etcd error=why\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
