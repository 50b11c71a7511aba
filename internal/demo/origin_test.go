package demo

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyserver/caddy/v2"
)

func TestBroadcastCountsFromMidnight(t *testing.T) {
	b := newBroadcast(time.Date(2026, 5, 17, 9, 30, 12, 345_000_000, time.FixedZone("", 7200)))
	for _, tc := range []struct {
		name string
		now  time.Time
		want int
	}{
		{"at the start", time.Date(2026, 5, 17, 7, 30, 12, 345_000_000, time.UTC), 27012},
		{"before the next second", time.Date(2026, 5, 17, 7, 30, 12, 999_999_999, time.UTC), 27012},
		{"at the next second", time.Date(2026, 5, 17, 7, 30, 13, 0, time.UTC), 27013},
		{"past the next midnight", time.Date(2026, 5, 18, 0, 0, 1, 0, time.UTC), 86401},
	} {
		if got := b.newest(tc.now); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
	if got := b.newest(b.due(27013)); got != 27013 {
		t.Errorf("sentence 27013 is due when the newest is %d", got)
	}
}

func TestBroadcastNext(t *testing.T) {
	now := time.Date(2026, 5, 17, 1, 0, 0, 0, time.UTC) // sentence 3600
	for _, tc := range []struct {
		name, id string
		want     int
	}{
		{"no id", "", 3601},
		{"the newest", "3600", 3601},
		{"one behind", "3599", 3600},
		{"as far as it is kept", "3300", 3301},
		{"no longer kept", "3299", 3301},
		{"the beginning", "0", 3301},
		{"of the future", "3601", 3601},
		{"negative", "-5", 3601},
		{"not a number", "abc", 3601},
		{"too large a number", strings.Repeat("9", 40), 3601},
	} {
		if got := newBroadcast(now).next(tc.id, now); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
	early := now.Truncate(24 * time.Hour).Add(2 * time.Second)
	if got := newBroadcast(early).next("0", early); got != 1 {
		t.Errorf("just after midnight: got %d, want 1", got)
	}
}

func TestSentencesAreOneSequenceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOriginHandler(t, 5)
		pass(10*time.Second + 300*time.Millisecond)
		first := connect(t, h, "/sentences")
		if got := first.field("retry"); !slices.Equal(got, []string{"1000"}) {
			t.Errorf("got retry %q at once, want 1000", got)
		}
		pass(2 * time.Second)
		second := connect(t, h, "/sentences")
		pass(time.Second)

		if got, want := first.ids(), "11 12 13"; got != want {
			t.Errorf("first: got ids %s, want %s", got, want)
		}
		if got, want := second.ids(), "13"; got != want {
			t.Errorf("second: got ids %s, want %s", got, want)
		}
		if got, want := second.field("data"), first.field("data")[2:]; !slices.Equal(got, want) {
			t.Errorf("second: got %q under the id for which first got %q", got, want)
		}
		if got := first.header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("got Content-Type %q", got)
		}
	})
}

func TestSentencesResumeWithoutLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOriginHandler(t, 5)
		c := connect(t, h, "/sentences")
		pass(3 * time.Second)
		c.hangUp()
		pass(4 * time.Second)
		back := connect(t, h, "/sentences", "Last-Event-ID", "3")
		if got, want := back.ids(), "4 5 6 7"; got != want {
			t.Errorf("at once: got ids %s, want %s", got, want)
		}
		pass(time.Second)
		if got, want := back.ids(), "4 5 6 7 8"; got != want {
			t.Errorf("a second later: got ids %s, want %s", got, want)
		}
	})
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOriginHandler(t, 5)
		pass(9*time.Hour + 500*time.Millisecond)
		c := connect(t, h, "/clock")
		pass(2 * time.Second)
		want := []string{"09:00:00 UTC", "09:00:01 UTC", "09:00:02 UTC"}
		if got := c.field("data"); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := c.ids(); got != "" {
			t.Errorf("got ids %s, want none", got)
		}
	})
}

func TestOriginHoldsNoMoreThanItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOriginHandler(t, 2)
		first, second := connect(t, h, "/sentences"), connect(t, h, "/clock")
		third := connect(t, h, "/sentences")
		if status, _ := third.answer(); status != http.StatusServiceUnavailable {
			t.Errorf("third: got status %d, want 503", status)
		}
		if got := third.header.Get("Retry-After"); got != "5" {
			t.Errorf("third: got Retry-After %q, want 5", got)
		}
		if first.ended() || second.ended() {
			t.Error("a refusal ended the connection of another")
		}
		first.hangUp()
		fourth := connect(t, h, "/sentences")
		if status, _ := fourth.answer(); status != http.StatusOK {
			t.Errorf("fourth, after the first has left: got status %d, want 200", status)
		}

		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/status", nil), nil); err != nil {
			t.Fatal(err)
		}
		var got originStatus
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("reading status: %v", err)
		}
		if want := (originStatus{Connections: 2, Highest: 2, Limit: 2, Served: 3}); got != want {
			t.Errorf("got status %+v, want %+v", got, want)
		}
	})
}

func TestHeadHoldsNoConnection(t *testing.T) {
	h := newOriginHandler(t, 1)
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/sentences", nil), nil); err != nil {
		t.Fatal(err)
	}
	if got := h.origin.status().Served; got != 0 || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %d connections, headers %v", got, w.Header())
	}
}

// TestRestartLosesNothing is what the button on the page shows.
func TestRestartLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOriginHandler(t, 5)
		c := connect(t, h, "/sentences")
		pass(2 * time.Second)
		h.origin.restart()
		synctest.Wait()
		if _, panicked := c.answer(); panicked != any(http.ErrAbortHandler) {
			t.Fatalf("got %v, want an aborted response", panicked)
		}
		pass(500 * time.Millisecond)
		h.origin.restart() // while it restarts: changes nothing
		early := connect(t, h, "/sentences", "Last-Event-ID", "2")
		if status, _ := early.answer(); status != http.StatusServiceUnavailable {
			t.Errorf("while it restarts: got status %d, want 503", status)
		}
		if got := early.header.Get("Retry-After"); got != "3" {
			t.Errorf("while it restarts: got Retry-After %q, want 3", got)
		}
		if s := h.origin.status(); !s.Down || s.Connections != 0 {
			t.Errorf("while it restarts: got %+v, want it down and empty", s)
		}
		pass(2500 * time.Millisecond)
		back := connect(t, h, "/sentences", "Last-Event-ID", "2")
		if got, want := back.ids(), "3 4 5"; got != want {
			t.Errorf("after it: got ids %s, want %s", got, want)
		}
		if h.origin.status().Down {
			t.Error("after it: still down")
		}
		pass(10 * time.Second)
		if back.ended() {
			t.Error("the second press ended a later connection")
		}
	})
}

// TestExitEndsStreams: Caddy waits for open responses before it cleans up, and
// would wait for ever.
func TestExitEndsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOriginHandler(t, 5)
		c := connect(t, h, "/sentences")
		pass(time.Second)
		close(h.exit.closed)
		synctest.Wait()
		if _, panicked := c.answer(); !c.ended() || panicked != nil {
			t.Errorf("ended %t, panicked %v; want a clean end", c.ended(), panicked)
		}
	})
}

func TestProvisionChecksBounds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		module caddy.Provisioner
		want   string
	}{
		{"max_connections", &Origin{MaxConnections: -1}, "checking max_connections: -1 is not between 1 and 10000"},
		{"max_clients", &Page{MaxClients: 10001}, "checking max_clients: 10001 is not between 1 and 10000"},
		{"scheme", &Page{Clients: "https://example.com/"}, `checking clients: "https://example.com/" is not an http:// URL with a host`},
		{"no URL", &Page{Clients: "http://[::1"}, "parsing clients: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.module.Provision(newContext(t))
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestCountSubscribers(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	if got := gaugeOf(registry, subscribersMetric); got != 0 {
		t.Errorf("counted %d without the module", got)
	}
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: subscribersMetric, Help: "Subscribers."})
	registry.MustRegister(gauge)
	gauge.Set(7)
	if got := gaugeOf(registry, subscribersMetric); got != 7 {
		t.Errorf("counted %d, want 7", got)
	}
}
