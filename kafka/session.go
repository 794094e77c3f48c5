package kafka

import (
	"container/list"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
)

// sessionEviction is how long a session must be idle before a new one may take its slot (Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const sessionEviction = 2 * time.Minute

const (
	initialSessionEpoch int32 = 0
	finalSessionEpoch   int32 = -1
)

// sessionPartition is one partition of a Fetch, with what a session remembers of its last answer.
type sessionPartition struct {
	topic            string // empty from v13
	id               base.TopicID
	partition        int32
	offset           base.Offset
	maxBytes         int32
	currentEpoch     base.LeaderEpoch
	lastFetchedEpoch base.LeaderEpoch

	highWatermark base.Offset // as last sent; -1 makes the next answer include the partition
	logStart      base.Offset
}

type sessionKey struct {
	topic     string
	id        base.TopicID
	partition int32
}

func (p *sessionPartition) key() sessionKey { return sessionKey{p.topic, p.id, p.partition} }

func (p *sessionPartition) sameTopic(name string, id [16]byte, version int16) bool {
	if version >= 13 {
		return p.id == base.TopicID(id)
	}
	return p.topic == name
}

// session is an incremental fetch session (KIP-227). mu is held while a Fetch begins or ends, never while it waits.
type session struct {
	id       int32
	byID     bool // topics are named by id
	created  time.Time
	lastUsed time.Time // guarded by the cache's lock, as is size
	size     int

	mu struct {
		sync.Mutex
		epoch int32      // that the next request must have
		order *list.List // of *sessionPartition; those with data go to the end
		parts map[sessionKey]*list.Element
	}
}

// sessionCache holds the sessions of this broker. A full Fetch creates one where there is room: a free slot, a session that
// was idle for sessionEviction, or a smaller one that is that old.
type sessionCache struct {
	clock    clock.Clock
	rand     func() uint32
	slots    int
	maxParts int
	mu       struct {
		sync.Mutex
		byID  map[int32]*session
		parts int // of all sessions
	}
}

func newSessionCache(c clock.Clock, rand func() uint32, slots, maxParts int) *sessionCache {
	s := &sessionCache{clock: c, rand: rand, slots: slots, maxParts: maxParts}
	s.mu.byID = map[int32]*session{}
	return s
}

func (s *sessionCache) size() (sessions, partitions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.byID), s.mu.parts
}

// fetchContext is one Fetch: its partitions in order, and which of them the answer includes.
type fetchContext struct {
	cache       *sessionCache
	session     *session // nil: sessionless, or a full fetch that may create one
	create      bool
	incremental bool
	byID        bool
	parts       []*sessionPartition // copies; the session's own may change meanwhile
	included    []bool
}

// begin resolves a request's session. Errors: 70 unknown session, 71 wrong epoch, 106 names and ids mixed.
func (s *sessionCache) begin(req *kmsg.FetchRequest) (*fetchContext, error) {
	byID := req.Version >= 13
	if req.Version < 7 {
		return &fetchContext{cache: s, byID: byID, parts: requestedPartitions(req)}, nil
	}
	if req.SessionEpoch == initialSessionEpoch || req.SessionEpoch == finalSessionEpoch {
		if req.SessionID != 0 {
			s.remove(req.SessionID)
		}
		return &fetchContext{cache: s, byID: byID, create: req.SessionEpoch == initialSessionEpoch, parts: requestedPartitions(req)}, nil
	}
	ses := s.touch(req.SessionID)
	if ses == nil {
		return nil, kerr.FetchSessionIDNotFound
	}
	return s.beginIncremental(ses, req, byID)
}

func (s *sessionCache) beginIncremental(ses *session, req *kmsg.FetchRequest, byID bool) (*fetchContext, error) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.mu.epoch != req.SessionEpoch {
		return nil, kerr.InvalidFetchSessionEpoch
	}
	if ses.byID != byID {
		return nil, kerr.FetchSessionTopicIDError
	}
	ses.update(req)
	if !s.resize(ses, ses.mu.order.Len()) {
		return nil, kerr.FetchSessionIDNotFound
	}
	fc := &fetchContext{cache: s, byID: byID, parts: make([]*sessionPartition, 0, ses.mu.order.Len())}
	for e := ses.mu.order.Front(); e != nil; e = e.Next() {
		p := *e.Value.(*sessionPartition)
		fc.parts = append(fc.parts, &p)
	}
	if len(fc.parts) == 0 {
		s.remove(ses.id) // an empty session is closed
		return fc, nil
	}
	ses.mu.epoch = nextSessionEpoch(ses.mu.epoch)
	fc.session, fc.incremental = ses, true
	return fc, nil
}

// nextSessionEpoch wraps from the largest int32 to 1.
func nextSessionEpoch(epoch int32) int32 {
	if epoch == math.MaxInt32 {
		return 1
	}
	return epoch + 1
}

// update applies the changed and the forgotten partitions of a request.
func (ses *session) update(req *kmsg.FetchRequest) {
	for _, p := range requestedPartitions(req) {
		if e, ok := ses.mu.parts[p.key()]; ok {
			old := e.Value.(*sessionPartition)
			p.highWatermark, p.logStart = old.highWatermark, old.logStart
			*old = *p
			continue
		}
		ses.mu.parts[p.key()] = ses.mu.order.PushBack(p)
	}
	for i := range req.ForgottenTopics {
		t := &req.ForgottenTopics[i]
		for _, n := range t.Partitions {
			key := sessionKey{t.Topic, base.TopicID(t.TopicID), n}
			if e, ok := ses.mu.parts[key]; ok {
				ses.mu.order.Remove(e)
				delete(ses.mu.parts, key)
			}
		}
	}
}

// requestedPartitions lists the partitions of a request in its order.
func requestedPartitions(req *kmsg.FetchRequest) []*sessionPartition {
	var out []*sessionPartition
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			out = append(out, &sessionPartition{
				topic: t.Topic, id: base.TopicID(t.TopicID), partition: p.Partition,
				offset: base.Offset(p.FetchOffset), maxBytes: p.PartitionMaxBytes,
				currentEpoch: base.LeaderEpoch(p.CurrentLeaderEpoch), lastFetchedEpoch: base.LeaderEpoch(p.LastFetchedEpoch),
				highWatermark: -1, logStart: -1,
			})
		}
	}
	return out
}

// finish decides what the answer includes, remembers it, and returns the session id to answer with.
func (fc *fetchContext) finish(results []fetch.PartitionResponse) int32 {
	fc.included = make([]bool, len(fc.parts))
	for i, p := range fc.parts {
		fc.included[i] = p.answered(&results[i]) || !fc.incremental
	}
	switch {
	case fc.incremental:
		fc.session.remember(fc, results)
		return fc.session.id
	case fc.create && len(fc.parts) > 0:
		return fc.cache.create(fc)
	default:
		return 0
	}
}

// answered notes what an answer tells about the partition and reports whether an incremental one must include it. NB: a
// change of the last stable offset alone does not count, as in Kafka.
func (p *sessionPartition) answered(res *fetch.PartitionResponse) bool {
	must := len(res.Batches) > 0 || res.Diverging != nil || res.Preferred >= 0
	if res.Err != nil {
		p.highWatermark = -1 // sent again with the next answer
		return true
	}
	if p.highWatermark != res.HighWatermark || p.logStart != res.LogStart {
		p.highWatermark, p.logStart = res.HighWatermark, res.LogStart
		must = true
	}
	return must
}

// remember copies what was answered into the session and moves partitions with data to the end.
func (ses *session) remember(fc *fetchContext, results []fetch.PartitionResponse) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for i, p := range fc.parts {
		e, ok := ses.mu.parts[p.key()]
		if !ok {
			continue
		}
		own := e.Value.(*sessionPartition)
		own.highWatermark, own.logStart = p.highWatermark, p.logStart
		if len(results[i].Batches) > 0 {
			ses.mu.order.MoveToBack(e)
		}
	}
}

// create makes a session of a full fetch, or returns 0 where there is no room.
func (s *sessionCache) create(fc *fetchContext) int32 {
	ses := &session{byID: fc.byID, created: s.clock.Now()}
	ses.mu.epoch = nextSessionEpoch(initialSessionEpoch)
	ses.mu.order = list.New()
	ses.mu.parts = make(map[sessionKey]*list.Element, len(fc.parts))
	for _, p := range fc.parts {
		if _, dup := ses.mu.parts[p.key()]; !dup {
			ses.mu.parts[p.key()] = ses.mu.order.PushBack(p)
		}
	}
	ses.size = len(ses.mu.parts)
	ses.lastUsed = ses.created
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.byID) >= s.slots && !s.evictLocked(ses) {
		return 0
	}
	if s.mu.parts+ses.size > s.maxParts {
		return 0
	}
	for ses.id == 0 || s.mu.byID[ses.id] != nil {
		ses.id = int32(s.rand() & math.MaxInt32)
	}
	s.mu.byID[ses.id] = ses
	s.mu.parts += ses.size
	return ses.id
}

// evictLocked frees a slot for ses: the one that is idle longest, if for sessionEviction; else the smallest one of that age
// that is smaller than ses.
func (s *sessionCache) evictLocked(ses *session) bool {
	now := s.clock.Now()
	var idle, small *session
	for _, x := range s.mu.byID {
		if idle == nil || x.lastUsed.Before(idle.lastUsed) {
			idle = x
		}
		if now.Sub(x.created) > sessionEviction && x.size < ses.size && (small == nil || x.size < small.size) {
			small = x
		}
	}
	switch {
	case idle != nil && now.Sub(idle.lastUsed) > sessionEviction:
		s.removeLocked(idle)
	case small != nil:
		s.removeLocked(small)
	default:
		return false
	}
	return true
}

// touch finds a session and marks it as used.
func (s *sessionCache) touch(id int32) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.mu.byID[id]
	if ses != nil {
		ses.lastUsed = s.clock.Now()
	}
	return ses
}

// resize accounts for a changed number of partitions; where there is no room the session is dropped.
func (s *sessionCache) resize(ses *session, size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.byID[ses.id] != ses {
		return false
	}
	if size > ses.size && s.mu.parts+size-ses.size > s.maxParts {
		s.removeLocked(ses)
		return false
	}
	s.mu.parts += size - ses.size
	ses.size = size
	return true
}

func (s *sessionCache) remove(id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses := s.mu.byID[id]; ses != nil {
		s.removeLocked(ses)
	}
}

func (s *sessionCache) removeLocked(ses *session) {
	delete(s.mu.byID, ses.id)
	s.mu.parts -= ses.size
}
