package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

// A herd is readers that have nothing to take, and wait.
type herd struct {
	log    *Log
	cursor Cursor
	wake   <-chan struct{}
}

// wait makes n readers wait.
func (h *herd) wait(n int) {
	for range n {
		h.wake = h.log.Read(h.cursor, nil).Wake
	}
}

// publish adds an entry, and reports whether those who wait are woken at once.
func (h *herd) publish() (woken bool) {
	before := h.wake
	h.log.Publish(numbered(int(h.cursor)))
	h.cursor++
	return isClosed(before)
}

// wokenIn returns how long it takes until those who wait are woken.
func (h *herd) wokenIn() time.Duration {
	start := time.Now()
	<-h.wake
	return time.Since(start)
}

func TestReadersAreWokenAtAPace(t *testing.T) {
	const many = 100
	for _, tc := range []struct {
		name string
		do   func(h *herd)
		want time.Duration // from the second wake-up being called for
	}{
		{name: "all come back, and twice as much time has not passed", want: 16 * time.Millisecond, do: func(h *herd) {
			time.Sleep(10 * time.Millisecond)
			h.wait(many)
			time.Sleep(4 * time.Millisecond)
		}},
		{name: "all come back, and twice as much time has passed", want: 0, do: func(h *herd) {
			time.Sleep(10 * time.Millisecond)
			h.wait(many)
			time.Sleep(20 * time.Millisecond)
		}},
		{name: "all come back soon", want: 0, do: func(h *herd) {
			time.Sleep(time.Millisecond)
			h.wait(many)
		}},
		{name: "all come back at once", want: 0, do: func(h *herd) { h.wait(many) }},
		{name: "a few never come back", want: 18 * time.Millisecond, do: func(h *herd) {
			time.Sleep(10 * time.Millisecond)
			h.wait(many - many/8)
			time.Sleep(2 * time.Millisecond)
		}},
		{name: "most do not come back", want: maxPause - 10*time.Millisecond, do: func(h *herd) {
			time.Sleep(10 * time.Millisecond)
			h.wait(many / 2)
		}},
		{name: "most need longer than anybody waits for them", want: 0, do: func(h *herd) {
			h.wait(1)
			time.Sleep(maxPause)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &herd{log: New(roomy)}
				h.wait(many)
				if !h.publish() {
					t.Fatal("what comes after a quiet time is held back")
				}
				tc.do(h)
				h.publish()
				if got := h.wokenIn(); got != tc.want {
					t.Errorf("woken after %s, want %s", got, tc.want)
				}
			})
		})
	}
}

// Those who come back while others are waited for shorten the pause, which
// nobody could know before.
func TestPauseEndsWithTheReadersThatWereWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &herd{log: New(roomy)}
		h.wait(100)
		h.publish()
		h.wait(1)
		time.Sleep(5 * time.Millisecond)
		h.publish()
		h.log.Wake()
		h.log.Beat()
		h.wait(99)
		if got := h.wokenIn(); got != 10*time.Millisecond {
			t.Errorf("woken %s after all had come back, want twice as long as they took", got)
		}
	})
}

func TestFewReadersAreWokenAtOnce(t *testing.T) {
	h := &herd{log: New(roomy)}
	h.wait(crowd - 1)
	h.publish()
	h.wait(1)
	if !h.publish() {
		t.Error("a few readers are not woken at once")
	}
}

// A reader may look again, for reasons of its own, without having been woken.
func TestReaderThatLooksAgainIsCountedOnce(t *testing.T) {
	h := &herd{log: New(roomy)}
	h.wait(crowd - 1)
	for range crowd {
		if again := h.log.Read(h.cursor, h.wake).Wake; again != h.wake {
			t.Fatal("nothing has come, and the channel to wait on is another")
		}
		h.log.Watch(h.wake)
	}
	h.publish()
	h.wait(1)
	if !h.publish() {
		t.Error("readers that look again are taken for a crowd")
	}
}

// Who listens has a pace of their own.
func TestListenersAreCalledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &herd{log: New(roomy)}
		called := 0
		defer h.log.Listen(func() { called++ })()
		h.wait(100)
		h.publish()
		h.wait(1)
		if h.publish() {
			t.Error("readers are woken though most are busy")
		}
		if called != 2 {
			t.Errorf("called %d times, want 2", called)
		}
	})
}
