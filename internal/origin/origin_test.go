package origin

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		status      int
		contentType string
		want        relay.Verdict
	}{
		{200, "text/event-stream", relay.Stream},
		{200, "text/event-stream; charset=utf-8", relay.Stream},
		{200, "text/event-stream;charset=UTF-8", relay.Stream},
		{200, "TEXT/Event-Stream", relay.Stream},
		{200, " text/event-stream ; charset", relay.Stream},
		{200, "text/event-stream-2", relay.NotStream},
		{200, "text/html; x=text/event-stream", relay.NotStream},
		{200, "", relay.NotStream},
		{201, "text/event-stream", relay.NotStream},
		{206, "text/event-stream", relay.NotStream},
		{204, "", relay.Gone},
		{204, "text/event-stream", relay.Gone},
		{301, "text/event-stream", relay.No},
		{304, "", relay.No},
		{400, "", relay.No},
		{404, "text/event-stream", relay.No},
		{408, "", relay.Unavailable},
		{410, "", relay.No},
		{425, "", relay.Unavailable},
		{429, "", relay.Unavailable},
		{451, "", relay.No},
		{500, "text/event-stream", relay.Unavailable},
		{503, "", relay.Unavailable},
		{0, "", relay.Unavailable},
	} {
		t.Run(fmt.Sprint(tt.status, " ", tt.contentType), func(t *testing.T) {
			if got := Judge(tt.status, http.Header{"Content-Type": {tt.contentType}}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                 0,
		"0":                                0,
		"7":                                7 * time.Second,
		"3600":                             time.Hour,
		"3601":                             time.Hour,
		"2147483648":                       time.Hour,
		"99999999999999999999":             time.Hour,
		"-1":                               0,
		"1.5":                              0,
		"soon":                             0,
		"Thu, 01 Jan 2026 12:01:00 GMT":    time.Minute,
		"Thu, 01 Jan 2026 11:59:00 GMT":    0,
		"Fri, 02 Jan 2026 12:00:00 GMT":    time.Hour,
		"Thursday, 01-Jan-26 12:00:30 GMT": 30 * time.Second,
	} {
		t.Run(value, func(t *testing.T) {
			if got := RetryAfter(http.Header{"Retry-After": {value}}, now); got != want {
				t.Errorf("RetryAfter(%q) = %s, want %s", value, got, want)
			}
		})
	}
}

// What a handler says beside that it has aborted is not lost.
func TestWhyAConnectionHasEnded(t *testing.T) {
	aborted := fmt.Errorf("reading the event stream: %w", http.ErrAbortHandler)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{aborted, "reading the event stream: the connection to the origin broke"},
		{fmt.Errorf("%w: after 3 bytes", aborted), "reading the event stream: the connection to the origin broke: after 3 bytes"},
		{caddyhttp.Error(http.StatusBadGateway, aborted), "reading the event stream: the connection to the origin broke"},
		{caddyhttp.Error(http.StatusBadGateway, relay.ErrIdle), relay.ErrIdle.Error()},
		{relay.ErrIdle, relay.ErrIdle.Error()},
	} {
		out := relay.Outcome{Err: PlainError(tt.err)}
		if got := out.Explain(); got != tt.want {
			t.Errorf("%q is explained as %q, want %q", tt.err, got, tt.want)
		}
	}
}

// What tells of an answer that was accepted may take its time: nobody who wants to know
// of the answer waits for it (R3).
func TestNoLockIsHeldWhileAnAnswerIsToldOf(t *testing.T) {
	sink := &sink{}
	a := NewAnswer(Options{MaxEventSize: 1 << 10, Restricts: func(http.Header) (none relay.Restriction) { return none }}, sink)
	told := 0
	sink.tell = func() {
		told++
		if !a.mu.TryLock() {
			t.Error("the answer is locked")
			return
		}
		a.mu.Unlock()
	}
	a.Header().Set("Content-Type", "text/event-stream")
	if _, err := a.Write([]byte("data: 1\n\n")); err != nil {
		t.Fatal(err)
	}
	_ = a.FlushError()
	if told != 1 || sink.events != 1 {
		t.Errorf("it was told of %d times, with %d events, want once, with one", told, sink.events)
	}
}

// A sink counts.
type sink struct {
	tell   func()
	events int
}

func (s *sink) Shared() bool                       { return true }
func (s *sink) Heard()                             {}
func (s *sink) Accept(relay.Opening) (tell func()) { return s.tell }
func (s *sink) Event(*sse.Event)                   { s.events++ }
func (s *sink) Note(relay.Note)                    {}
func (s *sink) Decided(bool)                       {}
func (s *sink) Flush()                             {}
