package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
)

func metadataRequest(version int16) *kmsg.MetadataRequest {
	r := kmsg.NewPtrMetadataRequest()
	r.Version = version
	return r
}

// TestGarbage: whatever the bytes are, the connection is closed and others go on.
func TestGarbage(t *testing.T) {
	e := newEdge(t, nil)
	good := e.dial()
	good.must(metadataRequest(12))
	frames := map[string][]byte{
		"http":                     []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"tls hello":                {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 1, 2, 3, 4},
		"2 GB":                     {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 12, 0, 0, 0, 1},
		"negative length":          {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 12, 0, 0, 0, 1},
		"length 0":                 {0, 0, 0, 0, 0, 3, 0, 12},
		"length 7":                 {0, 0, 0, 7, 0, 3, 0, 12, 0, 0, 0, 1},
		"client id past the end":   sealed([]byte{0, 0, 0, 0, 0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0, 0}),
		"no body":                  sealed((&probe{clientID: "x"}).header(3, 12, true)),
		"array of 2^31-1":          sealed(append((&probe{clientID: "x"}).header(3, 1, false), 0x7f, 0xff, 0xff, 0xff)),
		"four billion tags":        sealed(append((&probe{clientID: "x"}).header(3, 12, true), 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f)),
		"four billion header tags": sealed(append((&probe{clientID: "x"}).header(3, 12, false), 0xff, 0xff, 0xff, 0xff, 0x0f)),
	}
	for name, b := range frames {
		t.Run(name, func(t *testing.T) {
			p := e.dial()
			p.t = t
			p.write(b)
			p.closed()
		})
	}
	good.must(metadataRequest(12))
}

// TestLengthPrefixAllocatesNothing: a frame that says 100 MB and sends nothing costs a chunk, not 100 MB.
func TestLengthPrefixAllocatesNothing(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.RequestMemoryBytes = 1 << 30 })
	before := heap()
	for range 5 {
		p := e.dial()
		p.write([]byte{0x06, 0x3f, 0xff, 0xff, 0, 0, 0, 9, 0, 0, 0, 1})
	}
	waitFor(t, "the bodies are admitted", func() bool { return e.s.requests.inUse() > 100<<20 })
	if grown := heap() - before; grown > 20<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAmplification: arrays that are much larger in memory than on the wire are refused before they are decoded.
func TestAmplification(t *testing.T) {
	e := newEdge(t, nil)
	p := e.dial()
	b := p.header(3, 1, false) // Metadata v1 with 4 million empty names: 8 MB on the wire, 200 MB decoded
	n := 4 << 20
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	p.write(sealed(append(b, make([]byte, 2*n)...)))
	p.closed()
	waitFor(t, "it is refused for its elements", func() bool { return strings.Contains(e.logs.String(), "elements") })
}

// TestHalfFrameTimesOut: whoever begins a request must end it.
func TestHalfFrameTimesOut(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.FrameTimeout = 50 * time.Millisecond })
	for name, b := range map[string][]byte{
		"two bytes":   {0, 0},
		"a length":    {0, 0, 0, 100},
		"half a body": {0, 0, 0, 100, 0, 3, 0, 12, 0, 0, 0, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := e.dial()
			p.t = t
			p.write(b)
			p.closed()
		})
	}
	waitFor(t, "all memory is given back", func() bool { return e.s.requests.inUse() == 0 })
}

// TestIdleConnectionIsClosed, but not while a request is unanswered.
func TestIdleConnectionIsClosed(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.IdleTimeout = 100 * time.Millisecond })
	topic := e.topic("t", 1, nil)
	e.fetch.mu.Lock()
	e.fetch.park = make(chan struct{})
	e.fetch.mu.Unlock()
	busy, idle := e.dial(), e.dial()
	busy.write(busy.encode(fetchRequest(13, topic.ID, "t", 0)))
	idle.closed()
	again := e.dial()
	again.closed() // a second timeout has passed since the fetch began
	if e.fetch.waiting() != 1 {
		t.Fatal("the fetch does not wait")
	}
	close(e.fetch.park)
	if _, _, err := busy.receive(); err != nil {
		t.Errorf("the busy connection was closed: %v", err)
	}
}

func fetchRequest(version int16, id base.TopicID, name string, offset int64) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.MaxWaitMillis, r.MinBytes, r.MaxBytes = version, 1000000, 1, 1<<20
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic, ft.TopicID = name, id
	fp := kmsg.NewFetchRequestTopicPartition()
	fp.FetchOffset, fp.PartitionMaxBytes = offset, 1<<20
	ft.Partitions = append(ft.Partitions, fp)
	r.Topics = append(r.Topics, ft)
	return r
}

func produceRequest(version int16, id base.TopicID, name string, acks int16, records []byte) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Version, r.Acks, r.TimeoutMillis = version, acks, 5000
	pt := kmsg.NewProduceRequestTopic()
	pt.Topic, pt.TopicID = name, id
	pp := kmsg.NewProduceRequestTopicPartition()
	pp.Records = records
	pt.Partitions = append(pt.Partitions, pp)
	r.Topics = append(r.Topics, pt)
	return r
}

// TestPipelining: produces are ordered while earlier ones are pending, and everything is answered in request order.
func TestPipelining(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("t", 1, nil)
	e.ingest.hold()
	p := e.dial()
	var all []byte
	const n = 20
	for i := range n {
		all = append(all, p.encode(produceRequest(9, topic.ID, "t", -1, []byte{byte(i)}))...)
	}
	all = append(all, p.encode(fetchRequest(12, topic.ID, "t", 0))...)
	all = append(all, p.encode(metadataRequest(12))...)
	p.write(all)
	waitFor(t, "all produces are appended while none is answered", func() bool { return e.ingest.appends() == n })
	e.ingest.release()
	for i := int32(1); i <= n+2; i++ {
		corr, body, err := p.receive()
		if err != nil || corr != i {
			t.Fatalf("answer %d: correlation id %d, err %v", i, corr, err)
		}
		if i == n+1 && !bytes.Contains(body, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("the fetch after the produces does not see them: %x", body)
		}
	}
}

// TestWindow: a connection has at most MaxInFlight requests under way; the rest stays in the socket.
func TestWindow(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.MaxInFlight = 3 })
	topic := e.topic("t", 1, nil)
	e.ingest.hold()
	p := e.dial()
	for i := range 10 {
		p.write(p.encode(produceRequest(9, topic.ID, "t", 1, []byte{byte(i)})))
	}
	waitFor(t, "three are appended", func() bool { return e.ingest.appends() == 3 })
	other := e.dial()
	other.must(metadataRequest(12)) // another connection is not affected
	if n := e.ingest.appends(); n != 3 {
		t.Errorf("%d requests are under way", n)
	}
	e.ingest.release()
	for range 10 {
		if _, _, err := p.receive(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSlowReader: a client that does not read its answers is closed after the write timeout and blocks nobody.
func TestSlowReader(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.WriteTimeout = 100 * time.Millisecond })
	topic := e.topic("t", 1, nil)
	big := e.dial()
	for range 8 {
		big.must(produceRequest(9, topic.ID, "t", 1, make([]byte, 1<<20)))
	}
	slow := e.dial()
	if err := slow.nc.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	for range 10 { // far more than the socket buffers hold
		slow.write(slow.encode(fetchRequest(12, topic.ID, "t", 0)))
	}
	other := e.dial()
	other.must(metadataRequest(12))
	waitFor(t, "only the two healthy connections are left", func() bool { return e.s.conns.count() == 2 })
	waitFor(t, "fetch memory is given back", func() bool { return e.s.fetched.used.Load() == 0 })
	waitFor(t, "request memory is given back", func() bool { return e.s.requests.inUse()+e.s.parked.inUse() == 0 })
	other.must(metadataRequest(12))
}

// TestHandlerPanic costs its connection and nothing else.
func TestHandlerPanic(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("t", 1, nil)
	e.fetch.mu.Lock()
	e.fetch.panics = true
	e.fetch.mu.Unlock()
	p := e.dial()
	p.write(p.encode(fetchRequest(13, topic.ID, "", 0)))
	p.closed()
	if !strings.Contains(e.logs.String(), "bug: panic") {
		t.Error("the panic is not logged as a bug")
	}
	waitFor(t, "fetch memory is given back", func() bool { return e.s.fetched.used.Load() == 0 })
	e.dial().must(metadataRequest(12))
}

// TestSlowSenderIsEvicted: who reserves the budget and does not send loses it to those who wait.
func TestSlowSenderIsEvicted(t *testing.T) {
	manual := clock.NewManual(time.Now())
	a := newAdmission(manual, 1000)
	evicted := make(chan struct{})
	h, err := a.acquire(t.Context(), 900, once(func() { close(evicted) }))
	if err != nil {
		t.Fatal(err)
	}
	granted := make(chan *hold)
	go func() {
		h2, err := a.acquire(t.Context(), 500, func() {})
		if err != nil {
			t.Error(err)
		}
		granted <- h2
	}()
	waitFor(t, "the second one waits", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.mu.waiters) == 1 })
	waitFor(t, "the first one is evicted", func() bool {
		manual.Advance(admissionGrace)
		select {
		case <-evicted:
			return true
		default:
			return false
		}
	})
	h.release() // what the evicted connection does when its read fails
	h2 := <-granted
	if a.inUse() != 500 {
		t.Errorf("%d in use, want 500", a.inUse())
	}
	h2.release()
	h2.release()
	if a.inUse() != 0 {
		t.Errorf("%d in use after release", a.inUse())
	}
}

func once(f func()) func() {
	done := false
	return func() {
		if !done {
			done = true
			f()
		}
	}
}

// TestBudgetIsSharedFairly: with slow senders on all of the budget, an honest large produce gets through.
func TestBudgetIsSharedFairly(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.RequestMemoryBytes = 8 << 20 })
	topic := e.topic("t", 1, nil)
	for range 10 {
		p := e.dial()
		p.write([]byte{0, 0x20, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1}) // 2 MiB, of which nothing comes
	}
	waitFor(t, "the budget is taken", func() bool { return e.s.requests.patient.medium.inUse() > 2<<20 })
	small := e.dial()
	small.must(metadataRequest(12)) // small requests have their own budget
	big := e.dial()
	big.must(produceRequest(9, topic.ID, "t", 1, make([]byte, 2<<20)))
}

// TestConnectionLimits: total and per address.
func TestConnectionLimits(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Limits.MaxConnections, o.Limits.MaxConnectionsPerIP = 10, 3 })
	var open []*probe
	for range 3 {
		p := e.dial()
		p.must(metadataRequest(1))
		open = append(open, p)
	}
	e.dial().closed()
	_ = open[0].nc.Close()
	waitFor(t, "the place is free", func() bool { return e.s.conns.count() == 2 })
	e.dial().must(metadataRequest(1))
}

// TestIdleConnectionsAreCheap: 5,000 connections that did something once and then nothing.
func TestIdleConnectionsAreCheap(t *testing.T) {
	e := newEdge(t, nil)
	n := 5000
	if testing.Short() {
		n = 500
	}
	before := heap()
	for i := range n {
		p := e.dial()
		if i%10 == 0 {
			p.must(metadataRequest(12))
		}
	}
	waitFor(t, "all are accepted", func() bool { return e.s.conns.count() == n })
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	perConn := (heap() - before) / int64(n)
	t.Logf("%d connections: %d bytes of heap each (client and server side), stacks %d bytes each", n, perConn, m.StackInuse/uint64(n))
	if perConn > 8<<10 {
		t.Errorf("%d bytes of heap for each idle connection", perConn)
	}
}

// TestShutdownAnswersWhatWasRead: pending produces are answered, parked fetches return at once.
func TestShutdownAnswersWhatWasRead(t *testing.T) {
	e := newQuietEdge(t, nil)
	served := e.serve()
	topic := e.topic("t", 1, nil)
	e.ingest.hold()
	e.fetch.park = make(chan struct{})
	producer, consumer, idle := e.dial(), e.dial(), e.dial()
	idle.must(metadataRequest(12))
	producer.write(producer.encode(produceRequest(9, topic.ID, "t", 1, []byte{1})))
	consumer.write(consumer.encode(fetchRequest(12, topic.ID, "t", 0)))
	waitFor(t, "both are under way", func() bool { return e.ingest.appends() == 1 && e.fetch.waiting() == 1 })
	down := make(chan error, 1)
	go func() { down <- e.s.Shutdown(t.Context()) }()
	if _, _, err := consumer.receive(); err != nil {
		t.Errorf("the parked fetch was not answered: %v", err)
	}
	idle.closed()
	e.ingest.release()
	if _, _, err := producer.receive(); err != nil {
		t.Errorf("the produce was not answered: %v", err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Errorf("serve: %v", err)
	}
	if _, err := net.Dial("tcp", e.addr); err == nil {
		t.Error("the listener is open")
	}
}

// What is on its way when the server shuts down is answered: the connection ends after that.
func TestShutdownAnswersWhatIsOnItsWay(t *testing.T) {
	manual := clock.NewManual(time.Now().Add(time.Hour)) // deadlines of the sockets lie ahead
	e := newQuietEdge(t, func(o *Options) { o.Clock = manual })
	served := e.serve()
	early, late := e.dial(), e.dial()
	late.must(metadataRequest(12))
	early.must(metadataRequest(12))
	down := make(chan error, 1)
	go func() { down <- e.s.Shutdown(t.Context()) }()
	<-served // nothing is accepted any more
	early.must(metadataRequest(12))
	manual.Advance(drainLinger)
	late.must(metadataRequest(12)) // it was waited for before
	late.closed()
	_ = early.nc.Close()
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// TestThrottle: the answer goes out with its throttle time, and the next request is read only after it (KIP-219).
func TestThrottle(t *testing.T) {
	start := time.Now().Add(time.Hour) // deadlines of the sockets lie ahead
	manual := clock.NewManual(start)
	e := newEdge(t, func(o *Options) {
		o.Clock = manual
		o.Quota = func(api, client string, bytes int) time.Duration {
			if api == "Metadata" && client == "probe" && bytes > 0 {
				return 5 * time.Second
			}
			return 0
		}
	})
	p := e.dial()
	p.write(append(p.encode(metadataRequest(12)), p.encode(findRequest())...))
	_, body, err := p.receive()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := decodeResponse(metadataRequest(12), body)
	if err != nil || resp.(*kmsg.MetadataResponse).ThrottleMillis != 5000 {
		t.Fatalf("throttle time %v, %v", resp, err)
	}
	answered := make(chan error, 1)
	go func() {
		_, _, err := p.receive()
		answered <- err
	}()
	waitFor(t, "the second request is answered", func() bool {
		manual.Advance(500 * time.Millisecond)
		select {
		case err := <-answered:
			if err != nil {
				t.Error(err)
			}
			return true
		default:
			return false
		}
	})
	if moved := manual.Now().Sub(start); moved < 5*time.Second {
		t.Errorf("answered after %v", moved)
	}
}

func findRequest() *kmsg.ListPartitionReassignmentsRequest {
	return kmsg.NewPtrListPartitionReassignmentsRequest()
}

// TestAcksZero: no answer; an error closes the connection.
func TestAcksZero(t *testing.T) {
	e := newEdge(t, nil)
	topic := e.topic("t", 1, nil)
	p := e.dial()
	p.write(p.encode(produceRequest(9, topic.ID, "t", 0, []byte{1})))
	p.must(metadataRequest(12)) // the next answer is this one's
	p.write(p.encode(produceRequest(9, topic.ID, "missing", 0, []byte{1})))
	p.closed()
}

// FuzzConn feeds arbitrary bytes to a connection: it must end or wait, without a panic and without much memory.
func FuzzConn(f *testing.F) {
	seed := &probe{clientID: "fuzz"}
	for _, r := range table() {
		for _, v := range []int16{r.min, r.max} {
			req := kmsg.RequestForKey(int16(r.key))
			req.SetVersion(v)
			f.Add(seed.encode(req))
		}
	}
	f.Add(seed.encode(fetchRequest(13, base.TopicID{1}, "t", 0)))
	f.Add(seed.encode(produceRequest(9, base.TopicID{1}, "t", -1, []byte{1, 2, 3})))
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 12, 0, 0, 0, 1})
	e := newQuietEdge(f, func(o *Options) { o.Limits.MaxRequestBytes = 1 << 20 })
	e.topic("t", 1, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		client, server := net.Pipe()
		e.s.accept(server)
		go func() { _, _ = io.Copy(io.Discard, client) }()
		_ = client.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := client.Write(data); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the server neither reads nor closes")
		}
		_ = client.Close()
		waitFor(t, "the connection ends", func() bool { return e.s.conns.count() == 0 })
		if n := e.s.requests.inUse() + e.s.parked.inUse(); n != 0 {
			t.Errorf("%d bytes are still reserved", n)
		}
		if logs := e.logs.String(); strings.Contains(logs, "bug:") {
			t.Error(logs)
		}
	})
}
