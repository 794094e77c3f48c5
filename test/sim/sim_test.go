package sim

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	oneSeed = flag.Uint64("seed", 0, "play this seed alone, with the log of what happens")
	seeds   = flag.Uint64("seeds", 4, "how many seeds to play")
	from    = flag.Uint64("from", 1, "the first of them")
	most    = flag.Duration("for", 0, "play seeds for this long instead of -seeds")
	debug   = flag.Bool("debug", false, "log more")
	logs    = flag.String("logs", "", "a directory for the whole logs of seeds with anomalies")
	// A bubble where somebody waits for a mutex stands still for ever; the client does so where it waits with one (see shaking).
	patience = flag.Duration("patience", 4*time.Minute, "what a seed may take on the machine's clock")
)

// TestSeeds plays seeds and prints how much time was simulated.
func TestSeeds(t *testing.T) {
	if *oneSeed != 0 {
		*from, *seeds, *most = *oneSeed, 1, 0
	}
	begin := time.Now()
	var simulated time.Duration
	acked, played := 0, 0
	for seed := *from; *most > 0 && time.Since(begin) < *most || *most == 0 && seed < *from+*seeds; seed++ {
		r := play(t, seed)
		if r == nil {
			continue
		}
		simulated, acked, played = simulated+r.Simulated, acked+r.Acked, played+1
	}
	t.Logf("%d seeds, %.2f hours of a cluster, %d records acknowledged, in %v", played, simulated.Hours(), acked, time.Since(begin).Round(time.Second))
}

func play(t *testing.T, seed uint64) (r *Report) {
	t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		out := &tail{}
		level := slog.LevelInfo
		if *debug {
			level = slog.LevelDebug
		}
		dir := t.TempDir()
		begin := time.Now()
		defer time.AfterFunc(*patience, func() {
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2) // the panic says what matters
			panic(fmt.Sprintf("seed %d does not come to an end", seed))
		}).Stop()
		synctest.Test(t, func(t *testing.T) {
			var err error
			if r, err = Run(seed, dir, slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%v, in %v", r, time.Since(begin).Round(time.Millisecond))
		for _, a := range r.Anomalies {
			t.Errorf("ANOMALY %s", a)
		}
		if t.Failed() {
			if *logs != "" {
				_ = os.WriteFile(filepath.Join(*logs, fmt.Sprintf("seed-%d.log", seed)), out.all(), 0o644) // the test says enough
			}
			t.Logf("repeat with: make sim SEED=%d\nthe last of the log:\n%s", seed, out.last(40))
		}
	})
	return r
}

// tail keeps what is logged.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(p)
}

func (t *tail) all() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.buf.Bytes())
}

func (t *tail) last(lines int) string {
	all := strings.Split(string(t.all()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
