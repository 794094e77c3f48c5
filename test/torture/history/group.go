package history

import "sync"

// Group is what the members of a consumer group read and committed. Its methods may be called from any goroutine; Assigned before the
// member asks for the offset that it begins at, Attempt before a commit is sent.
type Group struct {
	h  *History
	mu struct {
		sync.Mutex
		parts   []groupPart
		commits int
		stale   int
	}
}

// groupPart is a partition as the group knows it.
type groupPart struct {
	read      int64             // every offset below it was read by some member
	confirmed int64             // the last commit that was confirmed; -1: none
	attempted map[int64]int     // every offset that a commit named: how many of these commits are not confirmed
	owners    map[string]*owner // those that have read since they got the partition
}

// owner is one member's hold on a partition.
type owner struct {
	floor    int64 // what was confirmed before it asked where to begin
	position int64 // the next offset it will read; -1: it has read nothing yet
}

// Group begins the history of a group that has committed nothing.
func (h *History) Group() *Group {
	g := &Group{h: h}
	g.mu.parts = make([]groupPart, len(h.mu.parts))
	for i := range g.mu.parts {
		g.mu.parts[i] = groupPart{confirmed: -1, attempted: map[int64]int{}, owners: map[string]*owner{}}
	}
	return g
}

// Assigned gives a partition to a member.
func (g *Group) Assigned(member string, partition int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &g.mu.parts[partition]
	p.owners[member] = &owner{floor: p.confirmed, position: -1}
}

// Revoked takes it back.
func (g *Group) Revoked(member string, partition int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.mu.parts[partition].owners, member)
}

// Polled is a record that a member got. The first after an assignment stands where the group has committed; each other one follows its
// predecessor.
func (g *Group) Polled(member string, partition int32, offset int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &g.mu.parts[partition]
	o := p.owners[member]
	switch {
	case o == nil:
		return // it was revoked while the record was on its way
	case o.position < 0:
		p.plausible(g.h, partition, offset, o.floor, "member "+member+" began here")
	case offset < o.position:
		g.h.Note(NonMonotonicPoll, partition, offset, "member %s had read up to %d", member, o.position-1)
	case offset > o.position:
		g.h.Note(SkippedPoll, partition, offset, "member %s had read up to %d", member, o.position-1)
	}
	o.position = offset + 1
	if offset > p.read {
		g.h.Note(GroupSkipped, partition, offset, "nobody in the group has read from %d to here", p.read)
	}
	p.read = max(p.read, o.position)
}

// Attempt is a commit that is about to be sent; next is the first offset that it does not cover.
func (g *Group) Attempt(partition int32, next int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.parts[partition].attempted[next]++
}

// Confirmed is a commit that the coordinator has answered. One that it has not answered, or not in time, may be applied at any later moment.
func (g *Group) Confirmed(partition int32, next int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &g.mu.parts[partition]
	p.attempted[next]--
	p.confirmed = max(p.confirmed, next)
	g.mu.commits++
}

// Floors are the commits confirmed so far, to be taken before one asks the coordinator for the offsets.
func (g *Group) Floors() []int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	floors := make([]int64, len(g.mu.parts))
	for i, p := range g.mu.parts {
		floors[i] = p.confirmed
	}
	return floors
}

// Observed is the coordinator's answer to who asked after Floors; -1: nothing is committed. An answer from before is an anomaly only where
// the cluster was settled when it was asked: a coordinator that was paused or cut off, and does not know yet that it is none any more,
// answers what it knows (Apache Kafka's too; nothing fences a read). Such answers are counted as stale. A member that gets one and
// begins there is an anomaly all the same.
func (g *Group) Observed(partition int32, committed, floor int64, settled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &g.mu.parts[partition]
	if committed < floor && p.attempted[committed] == 0 && !settled {
		g.mu.stale++
		return
	}
	if committed < 0 && floor >= 0 {
		g.h.Note(CommitBack, partition, floor, "the coordinator knows no commit, this one was confirmed")
		return
	}
	if committed < 0 {
		return
	}
	p.plausible(g.h, partition, committed, floor, "the coordinator answers it")
	if committed > p.read {
		g.h.Note(CommitBeyond, partition, committed, "the group has read up to %d", p.read-1)
	}
}

// Stale is how many answers were from before.
func (g *Group) Stale() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.stale
}

// plausible: an offset that the coordinator gave out is not below what was confirmed, unless a commit whose answer nobody got named it, and
// it was named by some commit; without one a group begins at 0.
func (p *groupPart) plausible(h *History, partition int32, offset, floor int64, who string) {
	open, named := p.attempted[offset]
	switch {
	case !named && offset != 0:
		h.Note(Invented, partition, offset, "%s, and no member has committed it", who)
	case offset < floor && open == 0:
		h.Note(CommitBack, partition, offset, "%s, and %d was confirmed before", who, floor)
	}
}

// Reaches tells whether the group has read up to the ends.
func (g *Group) Reaches(ends []int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, end := range ends {
		if g.mu.parts[p].read < end {
			return false
		}
	}
	return true
}

// Reach notes where the group has not come to the ends.
func (g *Group) Reach(ends []int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, end := range ends {
		if read := g.mu.parts[p].read; read < end {
			g.h.Note(Unread, int32(p), read, "the group did not get the records up to %d", end-1)
		}
	}
}

// Commits is how many were confirmed.
func (g *Group) Commits() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.commits
}

// Read is the sum of the records that the group has read at least once.
func (g *Group) Read() (n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.mu.parts {
		n += p.read
	}
	return n
}
