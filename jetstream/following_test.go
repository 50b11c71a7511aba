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
			f.giveUp(id)
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

		// One that comes late.
		f = &following{source: &source{state: state{caughtUp: true, skipTo: "5"}}}
		for _, n := range []int{4, 5} {
			if !skips(f, n) || f.gap {
				t.Errorf("event %d is not skipped, or there is a gap before it (%t)", n, f.gap)
			}
			time.Sleep(2 * skipTime)
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

// A message that was sent to a stream that is no more may come to the one that was made in its
// place, in front of the first marker. What it has is sent again there: nodes that read it gave
// their clients events twice.
func TestStrayMessagesDoNotCount(t *testing.T) {
	f := &following{source: new(source)}
	r := &recall{source: f.source, id: "7"}
	stray := delivery{message: message{kind: kindEvent, epoch: epoch{5, 3}, index: 7, acked: 7, part: 1, parts: 1}, born: 6}
	if _, over := f.take(&stray); over || f.order.known {
		t.Errorf("the node follows a stray message, to %v", f.order.at)
	}
	stray.caughtUp = true
	if goesOn := r.take(&stray); goesOn || r.order.known {
		t.Errorf("a recall follows a stray message, to %v", r.order.at)
	}
	marker := delivery{message: message{kind: kindMarker, epoch: epoch{6, 4}, part: 1, parts: 1}, born: 6}
	if f.take(&marker); f.order.at != (place{epoch{6, 4}, 1}) {
		t.Errorf("the node is at %v", f.order.at)
	}
}

// A node that is ahead of a stream reads all of its history to find where it is: neither what that
// tells of gaps and openings, nor how long it takes, says that the stream has passed the node.
func TestHistorySaysNothingOfWhereANodeIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &following{source: &source{state: state{skipTo: "5", gap: true}}, from: relay.Resumption{ID: "5"}, sink: &noting{}}
		for _, id := range []string{"1", "2"} {
			f.dispatch(&read{message: &message{kind: kindOpened, body: encodeOpening(&relay.Opening{}, "", true)}})
			e := &sse.Event{HasID: true, ID: []byte(id), HasData: true}
			f.dispatch(&read{message: &message{kind: kindEvent}, event: e})
			time.Sleep(2 * skipTime)
		}
		if f.skipTo != "5" || f.unplaced || f.bridge != nil {
			t.Errorf("the node waits for %q, its place is in doubt (%t), and something is fetched (%t)", f.skipTo, f.unplaced, f.bridge != nil)
		}
	})
}
