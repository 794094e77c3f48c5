package main

import (
	"slices"
	"testing"
	"time"
)

func allKinds() (all []kind) {
	for _, w := range weights {
		all = append(all, w.kind)
	}
	return all
}

// TestPlanKeepsTheRule looks at many plans: never more faults at once than the rule allows, never two of one thing, no fault beside a
// wiped disk, every kind somewhere, and the same plan for the same seed.
func TestPlanKeepsTheRule(t *testing.T) {
	seen := map[kind]int{}
	for seed := range uint64(300) {
		for _, brokers := range []int32{3, 5} {
			plan := newPlan(seed, brokers, 5*time.Minute, allKinds())
			if again := newPlan(seed, brokers, 5*time.Minute, allKinds()); !slices.Equal(plan, again) {
				t.Fatalf("seed %d: two plans", seed)
			}
			for i, f := range plan {
				seen[f.Kind]++
				if f.Broker < 1 || f.Broker > brokers || f.Other < 0 || f.Other > brokers || f.Other == f.Broker {
					t.Fatalf("seed %d: %+v of %d brokers", seed, f, brokers)
				}
				if i > 0 && f.At < plan[i-1].At {
					t.Fatalf("seed %d: %v comes after %v", seed, plan[i-1], f)
				}
				checkCompany(t, seed, plan, i)
			}
		}
	}
	for _, k := range allKinds() {
		if seen[k] == 0 {
			t.Errorf("no plan has %s", k)
		}
	}
}

// checkCompany looks at what goes on when fault i begins.
func checkCompany(t *testing.T, seed uint64, plan []fault, i int) {
	t.Helper()
	f, company := plan[i], 0
	for _, g := range plan[:i] {
		if g.end() <= f.At {
			continue
		}
		company++
		if clash(g, f) {
			t.Fatalf("seed %d: %v at %s while %v at %s goes on", seed, f, f.At, g, g.At)
		}
	}
	if company >= overlap {
		t.Fatalf("seed %d: %d faults go on when %v begins", seed, company, f)
	}
}

func TestPlanOfSomeKinds(t *testing.T) {
	for _, f := range newPlan(1, 3, time.Minute, []kind{kill}) {
		if f.Kind != kill {
			t.Errorf("%v was not asked for", f)
		}
	}
	if plan := newPlan(1, 3, time.Minute, nil); len(plan) > 0 {
		t.Errorf("a plan without kinds: %v", plan)
	}
}

// What takes the whole cluster ends before anything else begins, however late it came: a broker that kill-all has ended was restarted,
// and then started twice.
func TestWhatIsAloneClashes(t *testing.T) {
	for _, k := range []kind{killAll, wipe} {
		for _, other := range []kind{restart, pause, cutOne, full, bucketDead, slow} {
			a, b := fault{Kind: k, Broker: 1}, fault{Kind: other, Broker: 2, Other: 3}
			if !clash(a, b) || !clash(b, a) {
				t.Errorf("%s and %s at once", k, other)
			}
		}
	}
}
