package relay

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// busy holds the relay's lock until linger has passed, so that its timer waits for it.
func (b *bench) busy() {
	b.mu.Lock()
	time.Sleep(b.cfg.Linger)
	for range 10 {
		runtime.Gosched() // the timer's goroutine comes to wait for the lock
	}
	b.mu.Unlock()
}

// Whichever of the two comes first, the client has its stream, over the one
// connection that there is.
func TestClientArrivesWhenLingerExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r := b.join("a", "")
		up := b.next().accept().events(1, 1)
		b.begin(r)
		for round := range 100 {
			r.Close()
			if round%2 == 0 {
				time.Sleep(b.cfg.Linger)
			} else {
				b.busy()
			}
			r = b.join("a", "")
			synctest.Wait()
			if len(b.source.calls) > 0 {
				up = b.next().accept()
			}
			b.begin(r)
			read(r)
			up.events(round, round)
			if got, _ := read(r); got != numbered(round, round) {
				t.Fatalf("got %q, want event %d", got, round)
			}
			if n := b.source.open.Load(); n != 1 {
				t.Fatalf("%d connections are open, want 1", n)
			}
		}
		r.Close()
	})
}

// A timer that has fired before a visitor came, but is heard only after he has
// left, is not the timer that his leaving has set.
func TestLingerBeginsAnewWithEachSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		raced := 0
		for range 100 {
			r := b.join("a", "")
			up := b.next().accept().events(1, 1)
			b.begin(r)
			r.Close()

			b.busy()
			visitor := b.join("a", "")
			visitor.Close() // nobody else has run since
			if synctest.Wait(); len(b.source.calls) > 0 || up.isOver() {
				// The timer was first, and the visitor opened another topic.
				for len(b.source.calls) > 0 {
					b.next()
				}
				time.Sleep(time.Hour)
				continue
			}
			raced++
			time.Sleep(b.cfg.Linger - time.Second)
			if up.isOver() {
				t.Fatal("the connection was closed before linger has passed")
			}
			time.Sleep(2 * time.Second)
			if !up.isOver() {
				t.Fatal("the connection is open though linger has passed")
			}
		}
		if raced == 0 {
			t.Log("the visitor never came before the timer was heard")
		}
	})
}

func (c *call) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}
