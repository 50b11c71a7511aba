package gzip

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

const (
	testHeartbeat = ":\n\n"
	testGap       = ": gap\n\n"
)

// A play is a log, and readers that follow its rendition.
type play struct {
	t         *testing.T
	log       *hub.Log
	rendition *Rendition
	readers   []*reader
	published []string // what each entry of the log is to readers
}

// A reader is one client: what it was sent, and what it should read in that.
type reader struct {
	play      *play
	stream    *Stream
	cursor    hub.Cursor
	sent      bytes.Buffer
	want      strings.Builder
	pieces    int // that it got
	lagged    bool
	isAllowed bool // it may have lagged
}

func newPlay(t *testing.T, level int) *play {
	p := &play{t: t, log: hub.New(hub.Limits{Events: 5000, Bytes: 1 << 20, Age: time.Hour})}
	p.rendition = NewRendition(p.log, Settings{Level: level, Budget: NewBudget(1)}, []byte(testHeartbeat), []byte(testGap))
	return p
}

func (p *play) publish(wire string) {
	p.published = append(p.published, wire)
	p.log.Publish(hub.Entry{Wire: []byte(wire)})
}

func (p *play) gap() {
	p.published = append(p.published, testGap)
	p.log.Append(hub.Entry{Gap: true})
}

// join makes a reader begin some entries behind the newest.
func (p *play) join(back int) *reader {
	s, ok := p.rendition.Join()
	if !ok {
		p.t.Fatal("no compressor is to be had")
	}
	at := p.log.Newest().Cursor
	r := &reader{play: p, stream: s, cursor: at - min(at, hub.Cursor(back))}
	r.sent.WriteString(Header)
	p.readers = append(p.readers, r)
	return r
}

// read takes one batch, and reports whether there was one.
func (r *reader) read() bool {
	b := r.stream.Next(r.cursor)
	if b.Lagged {
		r.lagged = true
		return false
	}
	if b.IsEmpty() {
		return false
	}
	if len(b.Stored) > 0 {
		r.sent.Write(AppendStored(nil, b.Stored))
		r.sent.WriteString(Flush)
	} else {
		r.sent.Write(b.Bytes)
		r.pieces++
	}
	r.stream.Took(&b)
	if int(b.Next-r.cursor) != b.Events {
		r.play.t.Fatalf("a batch from %d to %d is of %d events", r.cursor, b.Next, b.Events)
	}
	before := r.want.Len()
	for ; r.cursor < b.Next; r.cursor++ {
		r.want.WriteString(r.play.published[r.cursor])
	}
	if b.Events == 0 {
		r.want.WriteString(testHeartbeat)
	}
	if got := r.want.Len() - before; got != b.Plain {
		r.play.t.Fatalf("a batch of %d bytes says that it is of %d", got, b.Plain)
	}
	return true
}

func (r *reader) readAll() {
	for r.read() {
		continue
	}
}

func (r *reader) tell(words string) {
	r.stream.Private([]byte(words))
	r.sent.Write(AppendStored(nil, []byte(words)))
	r.want.WriteString(words)
}

// end ends the stream and checks all that its reader reads.
func (r *reader) end(words string) {
	r.play.t.Helper()
	r.sent.Write(r.stream.End([]byte(words)))
	r.want.WriteString(words)
	r.stream.Close()
	r.check(nil)
}

// cut ends the stream without an end.
func (r *reader) cut() {
	r.play.t.Helper()
	r.stream.Close()
	r.check(io.ErrUnexpectedEOF)
}

func (r *reader) check(how error) {
	t := r.play.t
	t.Helper()
	if r.lagged && !r.isAllowed {
		t.Error("a reader lags")
	}
	z, err := stdgzip.NewReader(&r.sent)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if !errors.Is(err, how) {
		t.Fatalf("reading ends with %v, want %v", err, how)
	}
	if want := r.want.String(); string(got) != want {
		t.Fatalf("read %d bytes, want %d; they differ from %d on", len(got), len(want), differ(string(got), want))
	}
}

func differ(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// perform takes its steps from a script.
func perform(t *testing.T, script []byte) {
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		n := script[0]
		script = script[1:]
		return int(n)
	}
	p := newPlay(t, MinLevel+next()%MaxLevel)
	random := rand.New(rand.NewPCG(uint64(next()), 0)) //nolint:gosec // what compresses badly
	one := func() *reader { return p.readers[next()%len(p.readers)] }
	for len(script) > 0 {
		switch step := next() % 12; {
		case step < 2:
			for range 1 + next()%20 {
				p.publish(wire(random, len(p.published), next()%300))
			}
		case step == 2:
			p.publish(wire(random, len(p.published), next()*300))
		case step == 3:
			p.gap()
		case step == 4:
			p.log.Beat()
		case step == 5:
			time.Sleep(time.Duration(next()) * 100 * time.Millisecond)
		case step == 6:
			p.join(next())
		case len(p.readers) == 0:
		case step < 10:
			r := one()
			for range 1 + next()%4 {
				r.read()
			}
		case step == 10:
			one().tell("retry: " + fmt.Sprint(next()) + "\n\n")
		default:
			i := next() % len(p.readers)
			r := p.readers[i]
			p.readers = append(p.readers[:i], p.readers[i+1:]...)
			switch next() % 3 {
			case 0:
				r.cut()
			case 1:
				r.end("")
			default:
				r.readAll()
				r.end("retry: 1\n\n")
			}
		}
	}
	for _, r := range p.readers {
		r.isAllowed = true
		r.readAll()
		r.end("")
	}
	if n := p.rendition.settings.Budget.InUse(); n != 0 {
		t.Errorf("%d compressors are in use without readers", n)
	}
}

// wire returns an event with about n bytes of data, part of which repeats.
func wire(random *rand.Rand, id, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "id: %d\ndata: ", id)
	for b.Len() < n {
		fmt.Fprintf(&b, `{"symbol":"ACME","bid":%d,"note":"%x"},`, random.IntN(1000), random.Uint64())
	}
	b.WriteString("\n\n")
	return b.String()
}

func FuzzReaders(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // repeatable
	for n := range 40 {
		script := make([]byte, 20*(n+1))
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4096 {
			t.Skip("long")
		}
		synctest.Test(t, func(t *testing.T) { perform(t, script) })
	})
}

func TestAllGetOnePiece(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	first, second := p.join(0), p.join(0)
	for i := range 100 {
		p.publish(wire(rand.New(rand.NewPCG(uint64(i), 0)), i, 200)) //nolint:gosec // repeatable
		a, b := first.stream.Next(first.cursor), second.stream.Next(second.cursor)
		if &a.Bytes[0] != &b.Bytes[0] {
			t.Fatal("two readers in step got two pieces")
		}
		first.read()
		second.read()
	}
	if first.sent.Len() > first.want.Len()/2 {
		t.Errorf("%d bytes for %d", first.sent.Len(), first.want.Len())
	}
	first.end("")
	second.end("")
}

// Whoever joins gets stored blocks until these have cost as much as a restart costs all others,
// and for no longer than maxDistance.
func TestJoinersGetInStep(t *testing.T) {
	const size = 1000
	for _, tc := range []struct{ inStep, wait, least, most int }{
		{inStep: 1, wait: 1, least: minKnown, most: minDistance + 2*size},
		{inStep: 1, wait: 20, least: minKnown, most: minDistance + 2*size},
		{inStep: 60, wait: 1, least: 4_000, most: 10_000},
		{inStep: 60, wait: 6, least: minKnown, most: minDistance + 2*size},
		{inStep: 1000, wait: 1, least: maxDistance, most: maxDistance + 2*size},
	} {
		t.Run(fmt.Sprintf("%d beside %d", tc.wait, tc.inStep), func(t *testing.T) {
			p := newPlay(t, DefaultLevel)
			random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // repeatable
			publish := func() {
				p.publish(wire(random, len(p.published), size))
				for _, r := range p.readers {
					r.readAll()
				}
			}
			for range tc.inStep {
				p.join(0)
			}
			publish()
			joined := p.join(0)
			for range tc.wait - 1 {
				p.join(0)
			}
			for joined.pieces == 0 {
				before := joined.want.Len()
				publish()
				if joined.pieces == 0 && before > tc.most {
					t.Fatalf("not in step after %d bytes", before)
				}
				if joined.pieces > 0 && before < tc.least-size {
					t.Errorf("in step after %d bytes", before)
				}
			}
			for _, r := range p.readers {
				r.end("")
			}
		})
	}
}

// A reader gets in step where pieces begin at a restart point that others have caused.
func TestJoinAtARestartPoint(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	old := p.join(0)
	p.publish("data: 1\n\n")
	p.publish("data: 2\n\n")
	old.readAll()
	late := p.join(2)
	late.readAll()
	if late.pieces != 1 {
		t.Errorf("it got %d pieces", late.pieces)
	}
	old.end("")
	late.end("")
}

// What the compressor is shown at a restart point has no words that are not in the log, and a
// reader that was told some since does not get in step there.
func TestRestartBehindWords(t *testing.T) {
	for name, words := range map[string]func(p *play, waiting *reader){
		"none":        func(*play, *reader) {},
		"a heartbeat": func(p *play, _ *reader) { p.log.Beat() },
		"a gap":       func(p *play, _ *reader) { p.gap() },
		"its own":     func(_ *play, waiting *reader) { waiting.tell("retry: 1\n\n") },
	} {
		t.Run(name, func(t *testing.T) {
			for behind := range 40 { // events
				p := newPlay(t, DefaultLevel)
				random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // repeatable
				first := p.join(0)
				publish := func(n int) {
					for range n {
						p.publish(wire(random, len(p.published), 100))
						for _, r := range p.readers {
							r.readAll()
						}
					}
				}
				publish(10)
				waiting := p.join(0)
				publish(40 - behind)
				words(p, waiting)
				first.readAll()
				publish(behind + 60)
				if waiting.pieces == 0 {
					t.Errorf("with %d events behind it, the reader does not get in step", behind)
				}
				first.end("")
				waiting.end("")
			}
		})
	}
}

// The first reader after all others have left gets pieces at once.
func TestNextReaderGetsPieces(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	first, second := p.join(0), p.join(0)
	for n := range 100 {
		p.publish(wire(rand.New(rand.NewPCG(1, 0)), n, 100)) //nolint:gosec // repeatable
		first.readAll()
	}
	first.end("")
	p.publish("data: x\n\n")
	second.readAll()
	if second.pieces == 0 {
		t.Error("it gets none")
	}
	second.end("")
}

// However long nobody waits, the distance of restart points is bounded.
func TestRestartsAreBoundedApart(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	r := p.join(0)
	random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // repeatable
	restarts, total := 0, 0
	for total < 10*maxDistance {
		p.publish(wire(random, len(p.published), 1000))
		r.readAll()
		newest := p.rendition.pieces[len(p.rendition.pieces)-1]
		total += newest.plain
		if newest.restart {
			restarts++
		}
	}
	if restarts < 9 || restarts > 11 {
		t.Errorf("%d restart points in %d bytes", restarts, total)
	}
	r.end("")
}

func TestCompressorsAreBounded(t *testing.T) {
	budget := NewBudget(1)
	var all []*Rendition
	for range 2 {
		log := hub.New(hub.Limits{Events: 10, Bytes: 1 << 10, Age: time.Hour})
		all = append(all, NewRendition(log, Settings{DefaultLevel, budget}, []byte(testHeartbeat), []byte(testGap)))
	}
	first, _ := all[0].Join()
	second, ok := all[0].Join()
	if !ok {
		t.Error("the second reader of a rendition needs no compressor")
	}
	if _, ok := all[1].Join(); ok {
		t.Error("there is a second compressor")
	}
	first.Close()
	if _, ok := all[1].Join(); ok {
		t.Error("the compressor was given back while somebody reads")
	}
	second.Close()
	other, ok := all[1].Join()
	if !ok {
		t.Error("the compressor was not given back")
	}
	other.Close()
}

// Pieces are held for as long as the log has what they are of.
func TestPiecesGoWithTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, DefaultLevel)
		r, slow := p.join(0), p.join(0)
		slow.isAllowed = true
		p.publish(wire(rand.New(rand.NewPCG(1, 0)), 0, 10)) //nolint:gosec // repeatable
		slow.read()
		for range 4 << 10 {
			p.publish(wire(rand.New(rand.NewPCG(1, 0)), len(p.published), 1000)) //nolint:gosec // repeatable
			r.readAll()
		}
		if n, held := len(p.rendition.pieces), p.log.Stats().Entries; n > held {
			t.Errorf("%d pieces of %d entries", n, held)
		}
		if slow.readAll(); !slow.lagged {
			t.Error("a reader that the log has passed does not lag")
		}
		slow.end("retry: 1\n\n")
		time.Sleep(2 * time.Hour)
		p.log.Expire()
		p.rendition.Trim()
		if n := len(p.rendition.pieces); n > 0 {
			t.Errorf("%d pieces of an empty log", n)
		}
		p.publish("data: x\n\n")
		r.readAll()
		r.end("")
	})
}

func TestStoredAlone(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	r := &reader{play: p, stream: new(Stream)}
	r.sent.WriteString(Header)
	if _, ok := r.stream.Enter(0, 0); ok {
		t.Error("in step with nothing")
	}
	r.tell(strings.Repeat("x", 3*MaxStored))
	r.end("retry: 1\n\n")
}

func TestSums(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // repeatable
	text := make([]byte, 70_000)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	sum := func(from, to int) Sum { return Sum{}.Add(text[from:to]) }
	for range 300 {
		a, b := random.IntN(len(text)), random.IntN(len(text))
		a, b = min(a, b), max(a, b)
		if got := sum(0, a).Then(sum(a, b)); got != sum(0, b) {
			t.Fatalf("%d and %d bytes have the sum %v, want %v", a, b-a, got, sum(0, b))
		}
		if got := sum(0, b).since(sum(0, a)); got != sum(a, b) {
			t.Fatalf("from %d to %d, the sum is %v, want %v", a, b, got, sum(a, b))
		}
	}
	// More bytes than 32 bits count.
	const many = 1<<33 + 5
	zeros := Sum{}
	for k, n := 0, uint64(many); n > 0; k, n = k+1, n>>1 {
		if n&1 != 0 {
			zeros = zeros.Then(zeroBytes(k))
		}
	}
	if got := zeros.Then(sum(0, 10)).since(zeros); got != sum(0, 10) {
		t.Errorf("behind %d bytes, the sum is %v, want %v", uint64(many), got, sum(0, 10))
	}
}

// zeroBytes is the sum of 2^k bytes of zero.
func zeroBytes(k int) Sum {
	s := Sum{crc32.ChecksumIEEE([]byte{0}), 1}
	for range k {
		s = s.Then(s)
	}
	return s
}

func TestReadingAllocatesNothing(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	r := p.join(0)
	p.publish("data: 1\n\n")
	r.readAll()
	p.publish("data: 2\n\n")
	p.rendition.Read(r.stream.Mark())
	if n := testing.AllocsPerRun(100, func() { r.stream.Next(r.cursor) }); n != 0 {
		t.Errorf("reading a piece that is there takes %v allocations", n)
	}
}

// BenchmarkPiece is the cost of an event of about 200 bytes for all who read it.
func BenchmarkPiece(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // repeatable
	for level := MinLevel; level <= MaxLevel; level++ {
		b.Run(fmt.Sprintf("level=%d", level), func(b *testing.B) {
			c := newCompressor(level)
			events := make([][]byte, 1000)
			for i := range events {
				events[i] = []byte(wire(random, i, 200))
			}
			var plain, sent int
			i := 0
			for b.Loop() {
				e := events[i%len(events)]
				plain += len(e)
				sent += len(c.compress(e))
				i++
			}
			b.ReportMetric(float64(plain)/float64(sent), "ratio")
		})
	}
}

// Readers, each in a goroutine of its own, come and go while a publisher goes on.
func TestReadersAtOnce(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	const events, readers = 500, 16
	random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // repeatable
	for i := range events {
		p.published = append(p.published, wire(random, i, 100))
	}
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for from := hub.Cursor(0); from < events; {
				s, ok := p.rendition.Join()
				if !ok {
					t.Error("no compressor is to be had")
					return
				}
				r := &reader{play: p, stream: s, cursor: from}
				r.sent.WriteString(Header)
				for r.cursor < min(from+100, events) {
					if !r.read() {
						runtime.Gosched()
					}
				}
				r.end("")
				from = r.cursor
			}
		})
	}
	for _, wire := range p.published {
		p.log.Publish(hub.Entry{Wire: []byte(wire)})
		runtime.Gosched()
	}
	all.Wait()
}

// A reader for whom nobody else is in step needs no stored blocks, wherever it begins.
func TestFirstReaderGetsPieces(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	for i := range 10 {
		p.publish(wire(rand.New(rand.NewPCG(uint64(i), 0)), i, 200)) //nolint:gosec // repeatable
	}
	waiting := p.join(0)
	behind := p.join(5)
	behind.read()
	if behind.pieces != 1 {
		t.Error("it got a stored block")
	}
	behind.readAll()
	p.log.Beat()
	behind.readAll()
	behind.readAll() // one heartbeat
	behind.end("")
	waiting.end("")
}

// A reader that has had a heartbeat by itself does not get it again.
func TestHeartbeatComesOnce(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	r := p.join(0)
	p.log.Beat()
	r.tell(testHeartbeat)
	if _, ok := r.stream.Enter(r.cursor, 1); !ok {
		t.Fatal("not in step")
	}
	if r.read() {
		t.Error("it got another")
	}
	p.log.Beat()
	if !r.read() {
		t.Error("it did not get the next")
	}
	r.end("")
}

// While a piece is made, those wait for it that need it, and no others.
func TestNobodyElseWaitsForTheCompressor(t *testing.T) {
	p := newPlay(t, DefaultLevel)
	first, behind := p.join(0), p.join(0)
	p.publish("data: 1\n\n")
	first.read()
	waiting := p.join(0)
	p.publish("data: 2\n\n")
	p.rendition.making.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !behind.read() || behind.pieces != 1 {
			t.Error("a reader that is behind did not get the piece that is there")
		}
		if !waiting.read() || waiting.pieces != 0 {
			t.Error("a reader that waits for a restart point did not get a stored block")
		}
		late := p.join(0)
		late.end("")
		p.rendition.Trim()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("they wait for the compressor")
	}
	p.rendition.making.Unlock()
	<-done
	for _, r := range []*reader{first, behind, waiting} {
		r.readAll()
		r.end("")
	}
}
