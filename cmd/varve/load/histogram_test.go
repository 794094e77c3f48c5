package load

import (
	"os"
	"testing"
	"time"
)

func TestBucketsCoverEverythingWithoutGaps(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 129, 255, 256, 257, 1 << 20, 1<<20 + 1, 1<<62 - 1, 1 << 62} {
		b := bucketOf(v)
		if up := upper(b); up < v || float64(up-v) > float64(v)/100 {
			t.Errorf("%d falls in bucket %d, which ends at %d", v, b, up)
		}
		if b > 0 && upper(b-1) >= v {
			t.Errorf("%d falls in bucket %d, but the one before ends at %d", v, b, upper(b-1))
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h Histogram
	for i := 1; i <= 1000; i++ {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	f := func(q float64, want time.Duration) {
		t.Helper()
		if got := h.Quantile(q); got < want || got > want+want/100 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	f(0, time.Millisecond)
	f(.5, 500*time.Millisecond)
	f(.99, 990*time.Millisecond)
	f(1, 1000*time.Millisecond)
	var sum Histogram
	sum.Add(&h)
	sum.Add(&h)
	if sum.total != 2000 || sum.Quantile(1) != h.Quantile(1) {
		t.Error("Add loses counts")
	}
	if (&Histogram{}).Quantile(.5) != 0 {
		t.Error("an empty histogram has a median")
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	u, err := ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.RSSBytes < 1<<20 || u.PeakBytes < u.RSSBytes {
		t.Errorf("%+v", u)
	}
	if _, err := ReadUsage(-1); err == nil {
		t.Error("a process that does not exist has a usage")
	}
}
