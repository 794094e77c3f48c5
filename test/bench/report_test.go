package main

import (
	"strings"
	"testing"
)

// TestScaleTable holds that what was not measured in one round neither speeds up the median nor makes a ratio.
func TestScaleTable(t *testing.T) {
	r := report{Scales: []scaleResult{
		{System: "kafka", StartSeconds: 20}, {System: "kafka"}, {System: "kafka", StartSeconds: 40},
		{System: "varve", StartSeconds: 3, StopSeconds: 2, Notes: []string{"x"}},
	}}
	var out strings.Builder
	r.printScale(&out)
	want := map[string]string{"start at once": "30.00 3.00 0.10", "stop one by one": "- 2.00 -"}
	for line := range strings.Lines(out.String()) {
		for name, figures := range want {
			if text := strings.TrimSpace(line); strings.HasPrefix(text, name) {
				if got := strings.Join(strings.Fields(text[len(name):])[1:], " "); got != figures {
					t.Errorf("%s: %s, want %s", name, got, figures)
				}
				delete(want, name)
			}
		}
	}
	if len(want) > 0 || !strings.Contains(out.String(), "varve, round 0: x") {
		t.Errorf("missing %v in:\n%s", want, out.String())
	}
}

func TestPartsOfARun(t *testing.T) {
	for _, c := range []struct {
		o    options
		want int
	}{{options{}, 2}, {options{cluster: true}, 1}, {options{scale: true}, 1}} {
		if got := len(c.o.parts()); got != c.want {
			t.Errorf("%+v: %d parts, want %d", c.o, got, c.want)
		}
	}
}
