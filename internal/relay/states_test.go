package relay

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// taken are the rows of the tables that were taken since it was emptied.
var taken struct {
	mu   sync.Mutex
	rows map[string]bool
}

func init() {
	onMisfit = func(m Misfit) { panic(m.String()) }
	observe(&links)
	observe(&trusts)
	observe(&standings)
	observe(&stages)
	observe(&progresses)
	observe(&phases)
}

func observe[S, E named](t *table[S, E]) {
	t.taken = func(row int) {
		taken.mu.Lock()
		defer taken.mu.Unlock()
		if taken.rows != nil {
			taken.rows[t.name(row)] = true
		}
	}
}

// name is how tests call a row.
func (t *table[S, E]) name(row int) string {
	return fmt.Sprintf("%s: %s, %s", t.of, t.rows[row].from, t.rows[row].on)
}

// Each row of each table, by what brings it about.
func TestStates(t *testing.T) {
	seen := make(map[string]bool)
	for _, tc := range []struct {
		name  string
		takes []string
		cfg   func(*Config)
		run   func(b *bench)
	}{
		{
			name:  "the connection breaks, and comes back",
			takes: []string{"link: opening, accepts", "link: connected, ends", "link: away, accepts", "standing: used, joined"},
			run: func(b *bench) {
				defer b.join("a", "").Close()
				b.next().accept().fail()
				time.Sleep(time.Second)
				b.next().accept()
			},
		},
		{
			name:  "the connection is replaced",
			takes: []string{"link: connected, accepts"},
			run: func(b *bench) {
				r := b.join("a", "")
				defer r.Close()
				b.next().accept()
				b.source.moved.Store(true)
				r.Topic().Reroute()
				b.next().accept()
				synctest.Wait()
			},
		},
		{
			name: "the origin says no",
			takes: []string{
				"link: opening, refuses",
				"standing: used, answers", "standing: answering, joined", "standing: answering, detaches", "standing: detached, closes",
			},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next().refuse()
				r.Close()
				b.join("b", "").Close()
				time.Sleep(2 * RefusalMemory)
			},
		},
		{
			name:  "those who come to a no are led elsewhere",
			takes: []string{"standing: answering, moves", "standing: moved, closes"},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next().refuse()
				r.Close()
				r.Topic().Conclude(Ending{Reason: EndDrained})
			},
		},
		{
			name: "nobody is there for a while",
			takes: []string{
				"standing: used, lingers", "standing: lingering, joined", "standing: lingering, detaches", "standing: detached, closes",
			},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next().accept().events(1, 1)
				r.Close()
				b.join("b", "").Close()
				time.Sleep(2 * b.cfg.Linger)
			},
		},
		{
			name:  "nobody is there, and those who come are led elsewhere",
			takes: []string{"standing: lingering, moves", "standing: moved, closes"},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next().accept().events(1, 1)
				r.Close()
				r.Topic().Conclude(Ending{Reason: EndDrained})
			},
		},
		{
			name:  "an administrator ends a topic",
			takes: []string{"standing: used, detaches", "standing: detached, closes"},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next().accept()
				r.Topic().Conclude(Ending{Reason: EndDeleted})
				r.Close()
			},
		},
		{
			name:  "those who are there are led elsewhere",
			takes: []string{"standing: used, moves", "standing: moved, closes"},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next().accept()
				r.Topic().Conclude(Ending{Reason: EndDrained})
				r.Close()
			},
		},
		{
			name:  "a stream begins a session",
			takes: []string{"trust: pending, session", "link: away, refuses"},
			cfg:   guarded,
			run: func(b *bench) {
				defer b.join("a", "").Close()
				b.next().accept().session()
			},
		},
		{
			name:  "a silent stream begins a session",
			takes: []string{"trust: pending, silence", "trust: assumed, session"},
			cfg:   guarded,
			run: func(b *bench) {
				defer b.join("a", "").Close()
				up := b.next().accept()
				time.Sleep(HandshakeTime)
				synctest.Wait()
				up.session()
			},
		},
		{
			name:  "a silent stream is for all",
			takes: []string{"trust: pending, silence", "trust: assumed, event"},
			cfg:   guarded,
			run: func(b *bench) {
				defer b.join("a", "").Close()
				up := b.next().accept()
				time.Sleep(HandshakeTime)
				synctest.Wait()
				up.sink.Decided(false)
			},
		},
		{
			name:  "a stream is for all, and its third connection is not",
			takes: []string{"trust: pending, event", "trust: shown, event", "trust: shown, session"},
			cfg:   guarded,
			run: func(b *bench) {
				defer b.join("a", "").Close()
				for range 2 {
					up := b.next().accept()
					up.sink.Decided(false)
					up.fail()
					time.Sleep(time.Minute)
				}
				b.next().accept().session()
			},
		},
		{
			name: "a catch-up joins the log",
			takes: []string{
				"stage: waiting, starts", "stage: running, ends", "progress: fetching, splices",
				"phase: joined, enters", "phase: entered, queues", "phase: queued, fetches", "phase: fetching, settles", "phase: live, closes",
			},
			run: func(b *bench) {
				defer b.live().Close()
				r := b.resume("8")
				defer r.Close()
				b.next().accept().events(9, 10)
				read(r)
			},
		},
		{
			name:  "a catch-up waits for its turn, and nobody for it",
			takes: []string{"stage: waiting, ends", "phase: queued, closes", "phase: fetching, closes"},
			cfg:   func(cfg *Config) { cfg.Catchups = 1 },
			run: func(b *bench) {
				defer b.live().Close()
				defer b.resume("8").Close()
				b.next().accept()
				b.resume("7").Close()
			},
		},
		{
			name:  "the log comes to an id whose catch-up waits for its turn",
			takes: []string{"phase: queued, settles"},
			cfg:   func(cfg *Config) { cfg.Catchups = 1 },
			run: func(b *bench) {
				live, up := b.liveAnd()
				defer live.Close()
				defer b.resume("8").Close()
				b.next().accept()
				r := b.resume("20")
				defer r.Close()
				up.events(20, 20)
				read(r)
			},
		},
		{
			name:  "the connection breaks while a catch-up waits for its turn",
			takes: []string{"phase: queued, holds"},
			cfg:   func(cfg *Config) { cfg.Catchups = 1 },
			run: func(b *bench) {
				live, up := b.liveAnd()
				defer live.Close()
				defer b.resume("8").Close()
				b.next().accept()
				r := b.resume("7")
				defer r.Close()
				up.fail()
				read(r)
			},
		},
		{
			name: "the origin is quiet, and nobody waits for it",
			takes: []string{
				"stage: waiting, parks", "stage: parked, ends", "progress: fetching, fails",
				"phase: fetching, continues", "phase: unsettled, queues",
			},
			run: func(b *bench) {
				r, _ := b.quiet()
				r.Close()
			},
		},
		{
			name:  "the origin is quiet, and sends an event",
			takes: []string{"stage: parked, resumes", "stage: waiting, starts"},
			run: func(b *bench) {
				r, up := b.quiet()
				defer r.Close()
				up.events(10, 10)
				b.next()
			},
		},
		{
			name:  "the origin refuses an id",
			takes: []string{"stage: running, rests", "stage: resting, proceeds", "stage: resting, ends", "progress: fetching, fails"},
			run: func(b *bench) {
				defer b.live().Close()
				defer b.resume("8").Close()
				b.next().refuse()
				(<-b.source.calls).refuse()
				time.Sleep(4 * SecondThought)
			},
		},
		{
			name:  "the origin is away, which looks like a refusal at first",
			takes: []string{"stage: running, rests", "stage: resting, proceeds", "stage: running, ends"},
			run: func(b *bench) {
				live, up := b.liveAnd()
				defer live.Close()
				r := b.resume("8")
				defer r.Close()
				b.next().refuse()
				up.fail()
				time.Sleep(time.Second)
				b.next().accept()
				b.next().accept().events(9, 10)
				read(r)
			},
		},
		{
			name:  "the log catches up with a catch-up",
			takes: []string{"progress: fetching, meets", "progress: whole, splices"},
			run: func(b *bench) {
				r, up := b.ahead()
				defer r.Close()
				up.events(22, 24)
			},
		},
		{
			name:  "the log has a gap when it has met a catch-up",
			takes: []string{"progress: whole, parts"},
			run: func(b *bench) {
				r, up := b.ahead()
				defer r.Close()
				up.fail()
				b.denyID()
				b.next().accept()
				synctest.Wait()
			},
		},
		{
			name:  "the log has met a catch-up, and goes no further",
			takes: []string{"progress: whole, fails"},
			run: func(b *bench) {
				r, _ := b.ahead()
				defer r.Close()
				time.Sleep(2 * SpliceTimeouts * b.cfg.CatchupTimeout)
			},
		},
		{
			name:  "a client does not wait",
			takes: []string{"phase: joined, closes"},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next()
				r.Close()
			},
		},
		{
			name:  "a client goes when it is admitted",
			takes: []string{"phase: entered, closes"},
			run: func(b *bench) {
				r := b.join("a", "")
				b.next().accept()
				r.Enter(idle{})
				r.Close()
			},
		},
		{
			name:  "a client is held, and goes",
			takes: []string{"phase: entered, holds", "phase: unsettled, holds", "phase: unsettled, closes"},
			run: func(b *bench) {
				r := b.join("a", "8")
				b.next()
				time.Sleep(b.cfg.Wait)
				b.begin(r)
				read(r)
				r.Close()
			},
		},
		{
			name:  "a client is held, and its id comes",
			takes: []string{"phase: entered, holds", "phase: unsettled, settles"},
			run: func(b *bench) {
				r := b.join("a", "8")
				defer r.Close()
				up := b.next()
				time.Sleep(b.cfg.Wait)
				b.begin(r)
				up.accept().events(8, 9)
				read(r)
			},
		},
		{
			name:  "a client is handed over",
			takes: []string{"phase: entered, settles", "phase: live, hands over", "phase: carried, closes"},
			run: func(b *bench) {
				r := b.live()
				read(r)
				if err := r.HandOver(func(*Handover) (Carriage, error) { return &carriage{}, nil }); err != nil {
					b.t.Fatal(err)
				}
				r.Close()
				r.Leave(EndDeleted, 0, 0)
			},
		},
		{
			name:  "a client is taken back",
			takes: []string{"phase: joined, takes back", "phase: live, closes"},
			run: func(b *bench) {
				r := b.live()
				read(r)
				var at Handover
				if err := r.HandOver(func(h *Handover) (Carriage, error) { at = *h; return &carriage{}, nil }); err != nil {
					b.t.Fatal(err)
				}
				r.Close()
				r.TakeBack(&at, idle{}).Close()
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			took := record(func() {
				synctest.Test(t, func(t *testing.T) {
					cfg := testConfig()
					if tc.cfg != nil {
						tc.cfg(&cfg)
					}
					tc.run(newBench(t, cfg))
				})
			})
			for _, row := range tc.takes {
				if !took[row] {
					t.Errorf("did not take %q", row)
				}
				seen[row] = true
			}
		})
	}
	expectAll(t, &links, seen)
	expectAll(t, &trusts, seen)
	expectAll(t, &standings, seen)
	expectAll(t, &stages, seen)
	expectAll(t, &progresses, seen)
	expectAll(t, &phases, seen)
}

// record returns the rows that are taken meanwhile.
func record(f func()) map[string]bool {
	taken.mu.Lock()
	taken.rows = make(map[string]bool)
	taken.mu.Unlock()
	f()
	taken.mu.Lock()
	defer taken.mu.Unlock()
	rows := taken.rows
	taken.rows = nil
	return rows
}

// expectAll checks that a table has each row once, that each was seen, and that whatever
// has no row is refused.
func expectAll[S, E named](t *testing.T, table *table[S, E], seen map[string]bool) {
	t.Helper()
	has := make(map[[2]uint32]bool)
	var states, events uint32
	for i, row := range table.rows {
		pair := [2]uint32{uint32(row.from), uint32(row.on)}
		if has[pair] {
			t.Errorf("%q is there twice", table.name(i))
		}
		has[pair] = true
		if !seen[table.name(i)] {
			t.Errorf("no case takes %q", table.name(i))
		}
		states = max(states, uint32(row.from), uint32(row.to))
		events = max(events, uint32(row.on))
	}
	for from := range states + 1 {
		for on := range events + 1 {
			if !has[[2]uint32{from, on}] {
				expectMisfit(t, table, S(from), E(on))
			}
		}
	}
}

// expectMisfit checks that an event is impossible in a state, which tests see and which
// changes nothing.
func expectMisfit[S, E named](t *testing.T, table *table[S, E], from S, on E) {
	t.Helper()
	var l life[S, E]
	l.begin(from)
	r := New(testConfig(), new(observer), new(Stats))
	defer func() {
		seen := recover()
		want := fmt.Sprintf("%s: %q is impossible in the state %q", table.of, on, from)
		if seen != want || strings.Join(r.misfits.all(), "") != want || !l.is(from) {
			t.Errorf("got %v, %v and the state %s; want %q", seen, r.misfits.all(), l.now(), want)
		}
	}()
	l.on(on, table, (&Topic{relay: r}).misfit)
}

func guarded(cfg *Config) { cfg.Guarded = true }

// session is a stream that is not for all.
func (c *call) session() {
	c.sink.Decided(true)
	c.end <- Outcome{Verdict: Personal}
	synctest.Wait()
}

// live returns a reader of a topic whose log has events 10 to 12.
func (b *bench) live() *Reader {
	b.t.Helper()
	r, _ := b.liveAnd()
	return r
}

// liveAnd is live, with the topic's connection.
func (b *bench) liveAnd() (*Reader, *call) {
	b.t.Helper()
	r := b.join("a", "")
	up := b.next().accept().events(10, 12)
	b.begin(r)
	return r, up
}

// resume returns a reader that has begun with an id.
func (b *bench) resume(id string) *Reader {
	b.t.Helper()
	r := b.join("b", id)
	b.begin(r)
	return r
}

// quiet returns a reader whose catch-up is parked, as the origin has nothing more to send,
// and the topic's connection.
func (b *bench) quiet() (*Reader, *call) {
	b.t.Helper()
	r := b.join("b", "8")
	up := b.next().accept()
	b.begin(r)
	b.next().accept().events(9, 9)
	read(r)
	time.Sleep(2 * QuietTime)
	read(r)
	return r, up
}

// ahead returns a reader with a catch-up that has events up to 24, where the topic's log
// has come to event 21, and the topic's connection.
func (b *bench) ahead() (*Reader, *call) {
	b.t.Helper()
	live, up := b.liveAnd()
	b.t.Cleanup(live.Close)
	r := b.resume("20")
	b.next().accept().events(21, 24)
	up.events(13, 21)
	return r, up
}
