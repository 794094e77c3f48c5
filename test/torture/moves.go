package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/varvelog/varve/test/torture/steer"
)

// mover reassigns partitions and elects leaders all the while. What it asks for may fail: somebody is cut off, paused or dead.
type mover struct {
	wheel      *steer.Wheel
	brokers    int32
	partitions int
	factor     int
	rng        *rand.Rand
	mu         struct {
		sync.Mutex
		counts map[string]int
	}
}

func newMover(w *steer.Wheel, o options, factor int) *mover {
	m := &mover{wheel: w, brokers: int32(o.site.Brokers), partitions: o.partitions, factor: factor, rng: rand.New(rand.NewPCG(o.seed, 99))}
	m.mu.counts = map[string]int{}
	return m
}

// run moves something every one to four seconds until ctx ends.
func (m *mover) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second + rand64(m.rng, 3*time.Second)):
		}
		name, err := m.move(ctx)
		if err != nil {
			name += " refused"
		}
		m.mu.Lock()
		m.mu.counts[name]++
		m.mu.Unlock()
	}
}

// move chooses: an election of preferred leaders, or other replicas for one to three partitions, now and then one replica less than the
// factor; never less than min.insync.replicas.
func (m *mover) move(ctx context.Context) (string, error) {
	if m.rng.IntN(3) == 0 {
		return "election", m.wheel.Elect(ctx, topic)
	}
	to := map[int32][]int32{}
	for range 1 + m.rng.IntN(3) {
		factor := m.factor
		if m.rng.IntN(4) == 0 {
			factor--
		}
		to[m.rng.Int32N(int32(m.partitions))] = m.replicas(factor)
	}
	return "reassignment", m.wheel.Reassign(ctx, topic, to)
}

func (m *mover) replicas(n int) []int32 {
	var all []int32
	for _, k := range m.rng.Perm(int(m.brokers)) {
		all = append(all, int32(k)+1)
	}
	return slices.Clip(all[:n])
}

func (m *mover) counts() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.counts
}
