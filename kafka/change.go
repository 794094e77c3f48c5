package kafka

import (
	"sync"

	"github.com/varvelog/varve/internal/base"
)

// changeLanes is how many partitions of one request are changed at a time. Each change is a transaction of its own, and the KV
// syncs those together that come together: one after the other, 5,000 partitions would take as many syncs.
const changeLanes = 16

// changePartitions calls change for each index of tps, several at a time, and returns their errors. A partition that stands in
// the list more than once is changed in the order of the list.
func changePartitions(tps []base.TopicPartition, change func(i int) error) []error {
	lanes := make([][]int, min(len(tps), changeLanes))
	laneOf := make(map[base.TopicPartition]int, len(tps))
	for i, tp := range tps {
		lane, ok := laneOf[tp]
		if !ok {
			lane = len(laneOf) % len(lanes)
			laneOf[tp] = lane
		}
		lanes[lane] = append(lanes[lane], i)
	}
	errs := make([]error, len(tps))
	var wg sync.WaitGroup
	for _, lane := range lanes {
		wg.Go(func() {
			for _, i := range lane {
				errs[i] = change(i)
			}
		})
	}
	wg.Wait()
	return errs
}
