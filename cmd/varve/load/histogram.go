package load

import (
	"math/bits"
	"time"
)

// subBits is the resolution of a histogram: each power of two is cut in 2^subBits steps, so a quantile is at most 0.8 % high.
const subBits = 7

// Histogram counts durations from 1 ns to hours in constant memory (about 60 KB). The zero value is empty. Not safe for
// concurrent use.
type Histogram struct {
	counts [(64 - subBits + 1) << subBits]int64
	total  int64
	max    time.Duration
}

// Record counts one duration; a negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// upper is the largest value of a bucket.
func upper(bucket int) uint64 {
	shift := max(bucket>>subBits-1, 0)
	base := uint64(bucket - shift<<subBits)
	return (base+1)<<shift - 1
}

// Quantile answers a duration that the share q (0 to 1) of all does not exceed; 0 where nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	want := max(int64(q*float64(h.total)+0.999999), 1)
	var seen int64
	for i, n := range h.counts {
		if seen += n; seen >= want && n > 0 {
			return min(time.Duration(upper(i)), h.max)
		}
	}
	return 0
}

// Add merges another histogram into this one.
func (h *Histogram) Add(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// Quantiles are the figures that a table shows, in milliseconds.
type Quantiles struct {
	P50Ms  float64 `json:"p50Ms"`
	P99Ms  float64 `json:"p99Ms"`
	P999Ms float64 `json:"p999Ms"`
	MaxMs  float64 `json:"maxMs"`
}

// Summary answers the usual quantiles.
func (h *Histogram) Summary() Quantiles {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Quantiles{ms(h.Quantile(.5)), ms(h.Quantile(.99)), ms(h.Quantile(.999)), ms(h.max)}
}
