package relay

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// The contract between a carrier and its reader.
func TestReaderTellsWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Heartbeat = 15 * time.Second
		b := newBench(t, cfg)
		r := b.join("a", "")
		defer r.Close()
		up := b.next().accept().events(1, 1)
		if got, want := b.begin(r), ": sse_fanout\nretry: 3000\n\n"; got != want {
			t.Errorf("begins with %q, want %q", got, want)
		}
		got, step := read(r)
		if got != numbered(1, 1) || step.Kind != Wait {
			t.Fatalf("got %q and a step of kind %d, want event 1 and then a wait", got, step.Kind)
		}
		up.events(2, 3)
		<-step.Wake
		if got, step = read(r); got != numbered(2, 3) {
			t.Errorf("got %q, want events 2 and 3", got)
		}
		time.Sleep(cfg.Heartbeat)
		<-step.Wake
		if got, step = read(r); got != ":\n\n" {
			t.Errorf("got %q, want a heartbeat", got)
		}
		r.End()
		<-step.Timer
		if _, step = read(r); step.Kind != End || step.Reason != EndDeleted {
			t.Errorf("got %+v, want the end", step)
		}
	})
}

// A client that has all that there is goes on with its log and its cursor alone.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r := b.join("a", "")
		up := b.next().accept().events(1, 1)
		b.begin(r)
		read(r)
		if !r.CanHandOver() {
			t.Fatal("it cannot be handed over")
		}
		carried := &carriage{}
		if err := r.HandOver(func(h *Handover) (Carriage, error) {
			carried.Handover = *h
			return carried, nil
		}); err != nil {
			t.Fatal(err)
		}
		r.Close()
		up.events(2, 2)
		if got := string(carried.Log.Look(carried.Cursor).Bytes); got != numbered(2, 2) {
			t.Errorf("it reads %q, want event 2", got)
		}
		if got := r.Topic().SubscriberSnapshots(); len(got) != 1 || !got[0].Carried || got[0].Events != 1 {
			t.Errorf("the topic has %+v, want one that is carried and has an event", got)
		}
		r.End()
		if carried.ended != EndDeleted {
			t.Errorf("it is ended for %q", carried.ended)
		}
		r.Leave(EndDeleted, 2, 40)
		if got := b.stats.Ended.Get(EndDeleted); got != 1 {
			t.Errorf("%d have ended, want 1", got)
		}
	})
}

// A client that was handed over has a reader again: it goes on where it was, for as long as
// it has left, and hears what was said to it meanwhile.
func TestTakeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.StreamTimeout = time.Hour
		b := newBench(t, cfg)
		r := b.join("a", "")
		up := b.next().accept().events(1, 1)
		b.begin(r)
		read(r)
		carried := new(carriage)
		if err := r.HandOver(func(h *Handover) (Carriage, error) {
			carried.Handover = *h
			return carried, nil
		}); err != nil {
			t.Fatal(err)
		}
		r.Close()
		up.events(2, 3)
		carried.Events, carried.Bytes, carried.Cursor = 2, 40, 2
		r.Took(1, 20, 2, time.Now())

		back := r.TakeBack(&carried.Handover, idle{})
		defer back.Close()
		if got, step := read(back); got != numbered(3, 3) || step.Kind != Wait {
			t.Errorf("it reads %q and is to do %v, want event 3 and to wait", got, step.Kind)
		}
		got := r.Topic().SubscriberSnapshots()
		if len(got) != 1 || got[0].Carried || got[0].Events != 3 || got[0].Number != r.Number() {
			t.Errorf("the topic has %+v, want the same subscriber with three events", got)
		}
		if n := b.stats.Delivered.Load(); n != 3 {
			t.Errorf("%d events were counted, want 3", n)
		}
		time.Sleep(time.Until(carried.EndAt) - time.Second)
		step := back.Next()
		if step.Kind != Wait {
			t.Errorf("it is to do %v before its time is over", step.Kind)
		}
		<-step.Timer
		if step = back.Next(); step.Kind != End || step.Reason != EndTimeout {
			t.Errorf("got %+v, want the end", step)
		}
		if carried.ended != "" {
			t.Error("its carriage was told to end it")
		}
		back.Subscriber.End()
		if step := back.Next(); step.Kind != End {
			t.Errorf("got %+v, want the end", step)
		}
	})
}

type carriage struct {
	Handover
	ended EndReason
}

func (c *carriage) Progress() (events, bytes uint64, at hub.Cursor) {
	return c.Events, c.Bytes, c.Cursor
}
func (c *carriage) End(reason EndReason) { c.ended = reason }

// A client asks for an id for which another address waits: it does not wait for the
// turn of that address, and takes no place of its own.
func TestFullQueueLetsOthersJoinWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		first := b.join("203.0.113.0", "")
		defer first.Close()
		b.next().accept().events(10, 12)
		b.begin(first)
		wait := func(address, id string) *Reader {
			r := b.join(address, id)
			b.begin(r)
			synctest.Wait()
			return r
		}
		for i := range MaxQueued + 2 {
			defer wait("203.0.113.1", fmt.Sprint("x", i)).Close()
		}
		id := fmt.Sprint("x", MaxQueued+1)
		r := wait("203.0.113.2", id)
		defer r.Close()
		g := r.topic.catchups
		g.mu.Lock()
		defer g.mu.Unlock()
		queued := make(map[*catchup]bool)
		for _, q := range g.queues {
			for _, c := range q.waiting {
				queued[c] = true
			}
		}
		if int(g.queued.Load()) != len(queued) || len(queued) != MaxQueued {
			t.Errorf("%d are queued, and %d counted; want %d", len(queued), g.queued.Load(), MaxQueued)
		}
		if q := g.queues["203.0.113.2"]; q == nil || q.waiting[0].id.ID != id {
			t.Error("the client waits for the turn of another address")
		}
	})
}

func TestRunStartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r := b.join("a", "")
		defer r.Close()
		for i := range 100 {
			time.Sleep(time.Minute)
			b.next().accept().events(i, i).finish()
		}
		starts := r.topic.runs.starts
		if len(starts) > maxRunStarts || !slices.ContainsFunc(starts, func(s RunStart) bool { return s.ID == "99" }) {
			t.Errorf("%d starts are kept", len(starts))
		}
	})
}

func TestReadingAnEventAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r := b.join("a", "")
		defer r.Close()
		b.next().accept().events(1, 1)
		b.begin(r)
		if n := testing.AllocsPerRun(1000, func() {
			r.cursor = 0
			step := r.Next()
			if step.Kind != Send {
				t.Fatal("nothing to send")
			}
			r.Sent(step)
		}); n != 0 {
			t.Errorf("reading an event takes %v allocations, want none", n)
		}
	})
}

// What a catch-up had not listened to, because the log was to bring it, is a hole
// in what the same connection brings after that.
func TestCatchupThatWasNotListenedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		live := b.join("a", "")
		defer live.Close()
		up := b.next().accept().events(10, 12)
		b.begin(live)
		r := b.join("a", "20")
		defer r.Close()
		b.begin(r)
		catchup := b.next().accept().events(21, 24)
		running := r.topic.catchups.byID[Claim{ID: "20"}]
		up.events(13, 21)
		if !running.progress.is(progressWhole) {
			t.Fatal("the log has come to what the catch-up has, which goes on all the same")
		}
		catchup.events(25, 25)
		running.mu.Lock()
		running.progressOn(progressParts) // as by a gap in the log
		running.mu.Unlock()
		catchup.events(26, 26)
		running.mu.Lock()
		if running.lastID != "24" {
			t.Errorf("the catch-up goes on behind %s, want 24", running.lastID)
		}
		running.mu.Unlock()
		up.events(22, 27)
		if got, _ := read(r); got != numbered(21, 27) {
			t.Errorf("got %q, want events 21 to 27", got)
		}
	})
}
