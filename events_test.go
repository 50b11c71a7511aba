package ssefanout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
)

func init() { caddy.RegisterModule(new(eventRecorder)) }

// An eventRecorder handles events by taking note of them.
type eventRecorder struct {
	Label string `json:"label,omitempty"` // of the configuration
}

var recorded struct {
	mu     sync.Mutex
	events []recordedEvent
	block  chan struct{} // if set, handling an event takes until it is closed
	over   chan struct{} // if set, closed when the configuration of a blocked handler is over
}

type recordedEvent struct {
	name string // label and name
	data map[string]any
}

func (*eventRecorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.sse_fanout_recorder", New: func() caddy.Module { return new(eventRecorder) }}
}

func (e *eventRecorder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.Args(&e.Label)
	return nil
}

func (e *eventRecorder) Handle(ctx context.Context, event caddy.Event) error {
	recorded.mu.Lock()
	recorded.events = append(recorded.events, recordedEvent{e.Label + " " + event.Name(), event.Data})
	block, over := recorded.block, recorded.over
	recorded.mu.Unlock()
	if block != nil {
		if over != nil {
			context.AfterFunc(ctx, func() { close(over) })
		}
		<-block
	}
	return nil
}

func forgetEvents() {
	recorded.mu.Lock()
	defer recorded.mu.Unlock()
	recorded.events = nil
}

func recordedEvents() []recordedEvent {
	recorded.mu.Lock()
	defer recorded.mu.Unlock()
	return slices.Clone(recorded.events)
}

// expectEvents waits for as many events as are wanted and compares their names.
func expectEvents(t *testing.T, want ...string) []recordedEvent {
	t.Helper()
	waitFor(t, fmt.Sprint("the events ", want), func() bool { return len(recordedEvents()) >= len(want) })
	var got []string
	for _, e := range recordedEvents() {
		got = append(got, e.name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got the events %v, want %v", got, want)
	}
	return recordedEvents()
}

// recordEvents returns the global option that records the events of upstreams.
func recordEvents(label string) string {
	var b strings.Builder
	b.WriteString("events {\n")
	for _, name := range []string{"upstream_connected", "upstream_lost", "upstream_unavailable", "upstream_closed"} {
		fmt.Fprintf(&b, "on %s sse_fanout_recorder %s\n", name, label)
	}
	b.WriteString("}")
	return b.String()
}

func TestEventsOfAnUpstream(t *testing.T) {
	forgetEvents()
	origin := newLiveOrigin(t)
	s := run(t, "sse_fanout "+origin.addr+" {\nlinger 1ms\nreconnect 10ms 20ms\nretry 1s\n}", recordEvents("a"))
	c := open(t, s.client, s.url+"/events?token=secret")
	origin.send(numbered(1, 1))
	c.expect(numbered(1, 1))
	expectEvents(t, "a upstream_connected")
	origin.CloseClientConnections()
	waitFor(t, "the origin to be asked again", func() bool { return origin.open() == 1 && len(origin.asked()) == 2 })
	expectEvents(t, "a upstream_connected", "a upstream_lost", "a upstream_connected")
	c.cancel()
	events := expectEvents(t, "a upstream_connected", "a upstream_lost", "a upstream_connected", "a upstream_closed")
	for i, keys := range []string{
		"attempt duration last_event_id subscribers topic upstream",
		"attempt delay duration error events subscribers topic upstream",
		"attempt duration last_event_id subscribers topic upstream",
		"duration reason subscribers topic upstream",
	} {
		data := events[i].data
		if got := strings.Join(slices.Sorted(maps.Keys(data)), " "); got != keys {
			t.Errorf("%s has %s, want %s", events[i].name, got, keys)
		}
		if text := fmt.Sprint(data); strings.Contains(text, "secret") || data["upstream"] != origin.addr {
			t.Errorf("%s says %v", events[i].name, data)
		}
	}
}

// An outage is told once, however often the origin is asked.
func TestEventOfAnOutage(t *testing.T) {
	forgetEvents()
	s := run(t, fmt.Sprintf("sse_fanout 127.0.0.1:%d {\nwait 10ms\nreconnect 10ms 20ms\n}", freePort(t)), recordEvents("a"))
	open(t, s.client, s.url+"/events")
	before := gather(t)["caddy_sse_fanout_upstream_reconnects_total"]
	waitFor(t, "some failures", func() bool {
		return gather(t)["caddy_sse_fanout_upstream_reconnects_total"] > before+5
	})
	events := expectEvents(t, "a upstream_unavailable")
	if why := fmt.Sprint(events[0].data["error"]); !strings.Contains(why, "connection refused") {
		t.Errorf("the error is %q", why)
	}
}

// Events go to the active configuration and to no other.
func TestEventsOverReloads(t *testing.T) {
	forgetEvents()
	origin := newLiveOrigin(t)
	directive := "sse_fanout " + origin.addr + " {\nreconnect 10ms 20ms\nretry 1s\nstream_close_delay 50ms\n}"
	s := run(t, directive, recordEvents("0"))
	open(t, s.client, s.url+"/events")
	want := []string{"0 upstream_connected"}
	expectEvents(t, want...)
	for i := range 5 {
		label := fmt.Sprint(i + 1)
		s.options = recordEvents(label)
		s.load(directive)
		asked := len(origin.asked())
		origin.CloseClientConnections()
		waitFor(t, "the origin to be asked again", func() bool { return len(origin.asked()) == asked+1 })
		want = append(want, label+" upstream_lost", label+" upstream_connected")
		expectEvents(t, want...)
	}

	// What is removed is silent.
	s.options = recordEvents("6")
	s.load("respond /version new")
	waitFor(t, "the topic to be over", func() bool { return origin.open() == 0 })
	time.Sleep(3 * observe.ActivePoll)
	expectEvents(t, want...)
}

// Whoever takes his time with an event holds nothing up: neither the stream, nor
// for long the end of a configuration.
func TestSlowHandlerOfEventsHoldsNothingUp(t *testing.T) {
	forgetEvents()
	block, over := make(chan struct{}), make(chan struct{})
	recorded.mu.Lock()
	recorded.block, recorded.over = block, over
	recorded.mu.Unlock()
	defer func() {
		recorded.mu.Lock()
		defer recorded.mu.Unlock()
		recorded.block, recorded.over = nil, nil
	}()
	origin := newLiveOrigin(t)
	s := run(t, "sse_fanout "+origin.addr+" {\nreconnect 10ms 20ms\nretry 1s\n}", recordEvents("a"))
	c := open(t, s.client, s.url+"/events")
	expectEvents(t, "a upstream_connected")
	origin.send(numbered(1, 1))
	c.expect(numbered(1, 1))
	origin.CloseClientConnections()
	waitFor(t, "the origin to be asked again", func() bool { return origin.open() == 1 && len(origin.asked()) == 2 })
	origin.send(numbered(2, 2))
	c.expect(numbered(2, 2))
	go func() {
		<-over
		close(block)
	}()
	s.load("respond /version new")
	expectEvents(t, "a upstream_connected")
}
