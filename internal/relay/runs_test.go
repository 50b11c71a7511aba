package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// following returns a reader that has got the events of two runs, of which the second was
// seen to be one: 1 to first, and 1 to second.
func (b *bench) following(first, second int, pause func(n int) time.Duration) (*Reader, *call) {
	b.t.Helper()
	r := b.join("a", "")
	up := b.next().accept()
	for n := 1; n <= first; n++ {
		time.Sleep(pause(n))
		up.events(n, n)
	}
	b.begin(r)
	up.finish()
	time.Sleep(5 * time.Second)
	up = b.next().accept()
	for n := 1; n <= second; n++ {
		time.Sleep(pause(n))
		up.events(n, n)
	}
	if got, _ := read(r); got != numbered(1, first)+numbered(1, second) {
		b.t.Fatalf("got %q, want events 1 to %d and 1 to %d", got, first, second)
	}
	return r, up
}

func eighth(int) time.Duration { return 125 * time.Millisecond }

// What an origin repeats at once, and goes on behind, is what came in the newest run: an
// older one went further.
func TestReplayOfTheNewestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r, up := b.following(10, 8, eighth)
		defer r.Close()
		up.fail()
		time.Sleep(5 * time.Second)
		b.next().accept().events(1, 10).events(11, 11)
		if got, _ := read(r); got != numbered(9, 11) {
			t.Errorf("got %q, want events 9 to 11", got)
		}
	})
}

// A run may go on where the last one has ended, as that one did where the one before had. It is a
// new one: what it repeats after a break is what came in it, and not what came in an older one.
// Clients once missed what that had had.
func TestRunBehindTheLastOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r, up := b.following(5, 5, eighth)
		defer r.Close()
		up.fail()
		time.Sleep(5 * time.Second)
		b.next().accept().events(1, 1).fail()
		time.Sleep(5 * time.Second)
		b.next().accept().events(1, 6)
		if got, _ := read(r); got != numbered(1, 6) {
			t.Errorf("got %q, want events 1 to 6", got)
		}
	})
}

// A run is seen at its pace, though the same events came with pauses before.
func TestRunBehindPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		pauses := map[int]time.Duration{4: 3 * time.Second, 7: time.Minute, 9: 2 * time.Second}
		r, up := b.following(13, 13, func(n int) time.Duration { return max(eighth(n), pauses[n]) })
		defer r.Close()
		up.fail()
		time.Sleep(5 * time.Second)
		up = b.next().accept()
		for n := 1; n <= 14; n++ {
			time.Sleep(eighth(n))
			up.events(n, n)
		}
		if got, _ := read(r); got != numbered(1, 14) {
			t.Errorf("got %q, want events 1 to 14", got)
		}
	})
}
