package tiering

import (
	"cmp"
	"slices"
)

// job is one unit of upload: a long range that becomes one or more objects, or short ranges that share one.
type job struct {
	ranges []SealedRange
	names  []string // objects it may write, in order
}

// pack reports whether the job's ranges share one object.
func (j job) pack() bool { return len(j.ranges) > 1 }

// plan divides ranges into jobs: those shorter than packBelow bytes share objects of at most pack bytes, the others are cut into
// objects of at most maxObject. It is pure: names come from the given function. The ranges of one log stay in order within and across jobs.
func plan(ranges []SealedRange, packBelow, pack, maxObject int64, name func(Name) string) []job {
	var jobs []job
	var small []SealedRange
	for _, r := range ranges {
		if r.Bytes < packBelow {
			small = append(small, r)
			continue
		}
		jobs = append(jobs, singleJob(r, maxObject, name))
	}
	slices.SortStableFunc(small, func(a, b SealedRange) int { return cmp.Compare(a.Log, b.Log) })
	for len(small) > 0 {
		n, bytes := 1, small[0].Bytes
		for n < len(small) && bytes+small[n].Bytes <= pack {
			bytes += small[n].Bytes
			n++
		}
		if n == 1 {
			jobs = append(jobs, singleJob(small[0], maxObject, name))
		} else {
			jobs = append(jobs, job{ranges: small[:n:n], names: []string{name(Name{Kind: KindPack})}})
		}
		small = small[n:]
	}
	return jobs
}

// singleJob names enough objects for a range: two neighbouring pieces hold more than maxObject together, or the second
// would have fitted into the first.
func singleJob(r SealedRange, maxObject int64, name func(Name) string) job {
	j := job{ranges: []SealedRange{r}}
	for i := range 2*(r.Bytes/maxObject) + 1 {
		j.names = append(j.names, name(Name{Kind: KindSegment, Log: r.Log, Epoch: r.LeaderEpoch, Base: r.Base, Piece: int(i)}))
	}
	return j
}
