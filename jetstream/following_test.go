package jetstream

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A node that was apart has events that the stream is yet to get, perhaps after long: the time
// for which it skips what comes begins with the first event. It once began before, and clients
// got all of these events twice.
func TestSkippingBeginsWithAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		skips := func(f *following, n int) bool {
			id := strconv.Itoa(n)
			return f.skips(&sse.Event{HasID: true, ID: []byte(id), HasData: true}, id)
		}
		f := &following{source: &source{state: state{caughtUp: true, skipTo: "5"}}}
		time.Sleep(10 * skipTime)
		for n := 1; n <= 6; n++ {
			if got := skips(f, n); got != (n <= 5) {
				t.Errorf("event %d is skipped: %t", n, got)
			}
			time.Sleep(skipTime / 10)
		}
		if f.gap {
			t.Error("there is a gap")
		}

		// An event that never comes.
		f = &following{source: &source{state: state{caughtUp: true, skipTo: "5"}}}
		for n := 10; n < 20; n++ {
			if !skips(f, n) {
				t.Errorf("event %d is not skipped", n)
			}
			time.Sleep(skipTime / 10)
		}
		time.Sleep(time.Second)
		if skips(f, 20) || !f.gap {
			t.Errorf("event 20 is skipped, or there is no gap before it (%t)", f.gap)
		}
	})
}

// A gap of the stream before says nothing of one that was made anew, and begins where the topic
// is.
func TestAStreamMadeAnewForgetsTheGapOfTheLast(t *testing.T) {
	f := &following{source: &source{state: state{renewed: true, gap: true, skipTo: "3"}}, from: relay.Resumption{ID: "5"}}
	if f.compare("5"); f.gap || f.unplaced || f.skipTo != "" {
		t.Errorf("the stream begins behind the topic's last event, but there is a gap (%t), or it is not known (%t), or the topic skips to %q",
			f.gap, f.unplaced, f.skipTo)
	}
}
