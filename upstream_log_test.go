package ssefanout

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// upstreamLogs returns the lines that tell of the upstream, at any level.
func (s *setup) upstreamLogs() []observer.LoggedEntry {
	synctest.Wait()
	return s.logs.Filter(func(e observer.LoggedEntry) bool { return strings.HasPrefix(e.Message, "upstream ") }).All()
}

// lastUpstreamLog returns the newest of them.
func (s *setup) lastUpstreamLog() observer.LoggedEntry {
	s.t.Helper()
	lines := s.upstreamLogs()
	if len(lines) == 0 {
		s.t.Fatal("nothing was logged of the upstream")
	}
	return lines[len(lines)-1]
}

// A logLine is what a line of the log is expected to say.
type logLine struct {
	level   zapcore.Level
	message string
	fields  map[string]any // of those it has
}

func (s *setup) expectUpstreamLogs(want ...logLine) {
	s.t.Helper()
	var got []string
	for i, line := range s.upstreamLogs() {
		got = append(got, fmt.Sprint(line.Level, " ", line.Message, " ", line.ContextMap()))
		if i >= len(want) {
			continue
		}
		if line.Level != want[i].level || line.Message != want[i].message {
			s.t.Errorf("line %d of the log is %s, want %s %s", i, got[i], want[i].level, want[i].message)
		}
		fields := line.ContextMap()
		for name, value := range want[i].fields {
			if fmt.Sprint(fields[name]) != fmt.Sprint(value) {
				s.t.Errorf("line %d of the log has %s %v, want %v: %s", i, name, fields[name], value, got[i])
			}
		}
	}
	if len(got) != len(want) {
		s.t.Errorf("the log has %d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
}

func TestUpstreamStateIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		s.get("/events", "Last-Event-ID", "7")
		time.Sleep(time.Second)
		s.origin.next().accept().events(1, 2)
		s.expectUpstreamLogs(logLine{zapcore.InfoLevel, "upstream connected", map[string]any{
			"subscribers": 2, "last_event_id": "", "attempt": 1, "duration": time.Second,
		}})
	})
}

func TestOutageIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		up := s.origin.next().accept().events(1, 2)
		time.Sleep(time.Minute)
		up.abort()
		s.origin.await().fail(502)
		s.origin.await().answer(503).end()
		up = s.origin.await()
		away := time.Since(s.upstreamLogs()[1].Time)
		up.accept().send(numbered(3, 3) + "data: x\n\n")
		time.Sleep(time.Second)
		up.end()

		s.expectUpstreamLogs(
			logLine{zapcore.InfoLevel, "upstream connected", map[string]any{"attempt": 1}},
			logLine{zapcore.WarnLevel, "upstream lost, reconnecting", map[string]any{
				"subscribers": 1, "attempt": 1, "duration": time.Minute, "events": 2, "status": nil,
				"error": "reading the event stream: the connection to the origin broke",
			}},
			logLine{zapcore.WarnLevel, "upstream unavailable, retrying", map[string]any{
				"attempt": 2, "status": 502, "verdict": relay.Unavailable, "error": "connecting to the origin: refused",
			}},
			logLine{zapcore.DebugLevel, "upstream unavailable, retrying", map[string]any{"attempt": 3, "status": 503}},
			logLine{zapcore.InfoLevel, "upstream connected", map[string]any{"attempt": 4, "last_event_id": "2", "duration": away}},
			logLine{zapcore.InfoLevel, "upstream ended, reconnecting", map[string]any{"attempt": 1, "events": 2, "duration": time.Second, "error": nil}},
		)
	})
}

// A topic that goes over to its new route was not without a connection for as long
// as the old one has lasted.
func TestSwitchToANewRouteIsLogged(t *testing.T) {
	connected := func(without time.Duration, reason any) logLine {
		return logLine{zapcore.InfoLevel, "upstream connected", map[string]any{"duration": without, "reason": reason}}
	}
	live := func(s *setup) { s.joinLive(1, 2) }
	for _, tt := range []struct {
		name string
		open func(*setup)        // the connection that is replaced
		next func(*setup) *setup // has the new configuration's connected
		want []logLine
	}{
		{"connected", live, func(s *setup) *setup {
			s.origin.next().accept()
			return s
		}, []logLine{connected(0, "reloaded")}},
		{"with one worker", live, func(s *setup) *setup {
			time.Sleep(settings.DefaultWait + 3*time.Second)
			s.origin.next().accept()
			return s
		}, []logLine{connected(3*time.Second, "reloaded")}},
		{"twice, with one worker", live, func(s *setup) *setup {
			time.Sleep(settings.DefaultWait + 3*time.Second)
			s = s.reload(Options{}, newOrigin(s.t))
			s.get("/events")
			s.origin.next().accept()
			return s
		}, []logLine{connected(3*time.Second, "reloaded")}},
		{"with one worker, who is away then", live, func(s *setup) *setup {
			time.Sleep(settings.DefaultWait)
			cut := time.Now()
			s.origin.next().fail(502)
			up := s.origin.await()
			time.Sleep(time.Minute - time.Since(cut))
			up.accept()
			return s
		}, []logLine{{zapcore.WarnLevel, "upstream unavailable, retrying", nil}, connected(time.Minute, nil)}},
		{"never connected", func(s *setup) {
			s.get("/events")
			s.origin.next()
		}, func(s *setup) *setup {
			s.origin.next().accept()
			return s
		}, []logLine{connected(time.Minute, "reloaded")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				tt.open(s)
				time.Sleep(time.Minute)
				after := s.reload(Options{}, newOrigin(t))
				s.cleanup()
				after.get("/events")
				tt.next(after).expectUpstreamLogs(tt.want...)
			})
		})
	}
}

// Each outage has a cause of its own.
func TestFirstFailureOfEachOutageIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		var want []zapcore.Level
		for outage := range 2 {
			s.origin.await().accept().events(outage, outage).abort()
			s.origin.await().answer(503).end()
			s.origin.await().fail(502)
			want = append(want, zapcore.InfoLevel, zapcore.WarnLevel, zapcore.WarnLevel, zapcore.DebugLevel)
		}
		var got []zapcore.Level
		for _, line := range s.upstreamLogs() {
			got = append(got, line.Level)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the levels are %v, want %v", got, want)
		}
	})
}

func TestFirstFailureToOpenIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		began := time.Now()
		s.get("/events")
		for range 3 {
			s.origin.await().fail(502)
		}
		s.origin.await().accept()
		s.expectUpstreamLogs(
			logLine{zapcore.WarnLevel, "upstream unavailable, retrying", map[string]any{"attempt": 1, "status": 502}},
			logLine{zapcore.DebugLevel, "upstream unavailable, retrying", map[string]any{"attempt": 2}},
			logLine{zapcore.DebugLevel, "upstream unavailable, retrying", map[string]any{"attempt": 3}},
			logLine{zapcore.InfoLevel, "upstream connected", map[string]any{"attempt": 4, "duration": time.Since(began)}},
		)
	})
}

// An outage is told when it begins, and again when it has lasted a minute, two,
// four, and so on, at least once an hour; what fails in between is not.
func TestLongOutageIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		began := time.Now()
		s.origin.keepAnswering(5*time.Hour, func(c *conn) { c.fail(502) })
		var at []time.Duration
		for _, line := range s.upstreamLogs() {
			if line.Level != zapcore.WarnLevel {
				continue
			}
			at = append(at, line.Time.Sub(began))
			fields := line.ContextMap()
			if len(at) == 1 {
				continue
			}
			if line.Message != "upstream still unavailable, retrying" || fields["duration"] != at[len(at)-1] ||
				fields["subscribers"] != int64(1) || fields["error"] != "connecting to the origin: refused" {
				t.Errorf("the log says %q %v after %v", line.Message, fields, at[len(at)-1])
			}
		}
		if len(at) < 9 || at[0] != 0 {
			t.Fatalf("warned after %v", at)
		}
		due := time.Minute
		for _, got := range at[1:] {
			// The origin is asked twice a minute at least.
			if got < due || got > due+31*time.Second {
				t.Errorf("warned after %v, want about %v of %v", got, due, at)
			}
			due = got + min(got, time.Hour)
		}
		if n := len(s.upstreamLogs()); n < 400 {
			t.Errorf("%d failures are in the log at any level", n)
		}
	})
}

// What ends an upstream for good is a change of its state too.
func TestEndOfAnUpstreamIsLogged(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts Options
		end  func(*setup, *client, *conn)
	}{
		{"on_end close", Options{OnEnd: "close"}, func(_ *setup, _ *client, up *conn) { up.end() }},
		{"the last subscriber leaves", Options{}, func(_ *setup, c *client, _ *conn) {
			c.leave()
			time.Sleep(settings.DefaultLinger)
		}},
		{"204", Options{}, func(s *setup, _ *client, up *conn) {
			up.abort()
			s.origin.denyID(chokes["204"])
			s.origin.next().answer(204).end()
		}},
		{"a minute of nos", Options{}, func(s *setup, _ *client, up *conn) {
			up.abort()
			s.origin.keepAnswering(2*time.Minute, chokes["410"])
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, tt.opts)
				c := s.get("/events")
				tt.end(s, c, s.origin.next().accept().events(1, 1))
				last := s.lastUpstreamLog()
				if last.Message == "upstream connected" || last.ContextMap()["delay"] != nil {
					t.Errorf("the last line is %q %v, want one that says that the upstream is over", last.Message, last.ContextMap())
				}
			})
		})
	}
}

func TestUpstreamLogKeys(t *testing.T) {
	allowed := strings.Fields("topic upstream subscribers last_event_id events bytes reason duration attempt delay" +
		" error status verdict")
	synctest.Test(t, func(t *testing.T) {
		s := everyUpstreamLog(t, "/events")
		messages := make(map[string]bool)
		for _, line := range s.upstreamLogs() {
			messages[line.Message] = true
			fields := line.ContextMap()
			for name := range fields {
				if !slices.Contains(allowed, name) {
					t.Errorf("%q has the key %s, want one of %v", line.Message, name, allowed)
				}
			}
			for _, name := range []string{"topic", "subscribers", "duration"} {
				if fields[name] == nil {
					t.Errorf("%q is without the key %s", line.Message, name)
				}
			}
		}
		if len(messages) < 5 {
			t.Errorf("the log has the messages %v, want all that there are", slices.Collect(maps.Keys(messages)))
		}
	})
}

func TestSecretsAreNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := everyUpstreamLog(t, "/events?token=secret")
		for _, line := range s.logs.All() {
			if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "secret") {
				t.Errorf("the log has a secret: %s", text)
			}
			if name, ok := line.ContextMap()["topic"]; ok && !strings.HasPrefix(fmt.Sprint(name), "example.com/events ") {
				t.Errorf("the topic's name is %q, want host and path and a hash", name)
			}
		}
	})
}

// everyUpstreamLog takes a topic through all that is logged of it. The client's
// secrets have "secret" in them.
func everyUpstreamLog(t *testing.T, target string) *setup {
	s := newSetup(t, Options{Vary: []string{"Authorization", "{http.auth.user.id}"}, MaxEventSize: settings.SmallestEventSize})
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Header.Set("Authorization", "secret")
	r.Header.Set("Cookie", "secret")
	c := s.serveAfter(r, func(r *http.Request) { request.ReplacerOf(r).Set("http.auth.user.id", "secret") })
	for _, name := range slices.Sorted(maps.Keys(unavailable)) {
		unavailable[name](s.origin.await())
	}
	up := s.origin.await().accept().events(1, 1)
	up.send(strings.Repeat("x", 2*settings.SmallestEventSize))
	s.origin.await().accept().end()
	s.origin.keepAnswering(2*time.Hour, chokes["404"])
	c.leave()
	return s
}

// Only the operator can do something about it, and the first failure of an
// outage may have been another.
func TestEventTooLargeIsWarnedOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxEventSize: settings.SmallestEventSize})
		s.get("/events")
		s.origin.next().fail(502)
		warned := 0
		for range 3 {
			up := s.origin.await().accept()
			up.step(func(w http.ResponseWriter) error {
				_, err := w.Write(make([]byte, 2*settings.SmallestEventSize))
				return err
			})
		}
		for _, line := range s.upstreamLogs() {
			if text, _ := line.ContextMap()["error"].(string); strings.Contains(text, "max_event_size") && line.Level == zapcore.WarnLevel {
				warned++
			}
		}
		if warned != 1 {
			t.Errorf("warned %d times, want once", warned)
		}
	})
}

// An impossible change of state is told at most once a minute for each kind, with all that an
// operator can report.
func TestMisfitsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		s.origin.next().accept()
		topics, _ := s.pool.relay.Topics()
		seen := 0
		lines := func(want ...string) {
			t.Helper()
			var got []string
			news := s.logs.FilterMessageSnippet("impossible change of state").All()[seen:]
			seen += len(news)
			for _, line := range news {
				is := line.ContextMap()
				if line.Level != zapcore.ErrorLevel || is["topic"] != topics[0].Name() || !strings.Contains(fmt.Sprint(is["hint"]), "report this line") {
					t.Errorf("the log has %s %v", line.Level, is)
				}
				got = append(got, fmt.Sprint(is["of"], " ", is["state"], " ", is["event"], " ", is["times"]))
			}
			if !slices.Equal(got, want) {
				t.Errorf("the log has %q, want %q", got, want)
			}
		}
		link, phase := relay.Misfit{Of: "link", State: "connected", Event: "refuses"}, relay.Misfit{Of: "phase", State: "live", Event: "enters"}
		s.pool.Misfit(topics[0], link, 2)
		s.pool.Misfit(topics[0], phase, 1)
		s.pool.Misfit(topics[0], link, 3)
		lines("link connected refuses 2", "phase live enters 1")
		time.Sleep(time.Minute)
		lines()
		s.pool.Misfit(topics[0], link, 1)
		lines("link connected refuses 4")
	})
}
