package ssefanout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

const handshake = "event: endpoint\ndata: /messages?session_id=secret\n\n"

// A form is one of the forms of the directive, with one of the settings of
// credentials.
type form struct{ wrapping, strip bool }

func (f form) String() string {
	return map[bool]string{false: "endpoint", true: "wrapping"}[f.wrapping] + " " + f.credentials()
}

func (f form) credentials() string {
	return map[bool]string{false: "pass", true: "strip"}[f.strip]
}

func (f form) setup(t *testing.T, opts Options) *setup {
	t.Helper()
	opts.Credentials = f.credentials()
	if f.wrapping {
		return newWrappingSetup(t, opts)
	}
	return newSetup(t, opts)
}

var forms = []form{{false, false}, {false, true}, {true, false}, {true, true}}

// What becomes of clients whose origin gives a certain answer.
const (
	isShared = "shared"
	isPassed = "passed"
	isKeyed  = "keyed"
)

// An ownWord is what an origin's answer may say against sharing it.
type ownWord struct {
	name   string
	header []string // pairs, besides the type
	body   string   // that comes with the header
	want   string
	strip  string      // with "credentials strip", if that makes a difference
	why    pass.Reason // of isPassed
	wraps  string      // what becomes of it in the wrapping form, if that is something else
	joins  string      // of isKeyed: what the origin is asked with
}

func (w ownWord) outcome(f form) string {
	if f.strip && w.strip != "" {
		return w.strip
	}
	if f.wrapping && w.wraps != "" {
		return w.wraps
	}
	return w.want
}

// answer gives the answer, as far as it is taken.
func (w ownWord) answer(c *conn) {
	c.t.Helper()
	c.answer(200, slices.Concat([]string{"Content-Type", "text/event-stream"}, w.header)...)
	if w.body != "" && !c.closed() {
		c.send(w.body)
	}
}

// visitor is what every client of these tests brings, none of which identifies it.
var visitor = []string{
	"Accept-Language", "fr", "User-Agent", "Mozilla/somebody", "Sec-Fetch-Site", "same-origin", "DNT", "1",
	"Sec-CH-UA-Mobile", "?0", "CF-IPCountry", "FR", "Referer", "http://example.com/", "X-Forwarded-For", "198.51.100.1",
	"X-Request-ID", "1", "Traceparent", "1", "If-None-Match", "1",
}

var ownWords = []ownWord{
	{name: "nothing", want: isShared},
	{name: "private", header: []string{"Cache-Control", "private, must-revalidate"}, want: isShared},
	{name: "no-store", header: []string{"Cache-Control", "no-store"}, want: isShared},

	{name: "a cookie", header: []string{"Set-Cookie", "a=b"}, want: isPassed, strip: isShared, why: pass.SetCookie},
	{name: "two cookies", header: []string{"Set-Cookie", "a=b", "Set-Cookie", "c=d"}, want: isPassed, strip: isShared, why: pass.SetCookie},
	{
		name: "a cookie, and a Vary that needs nothing", header: []string{"Vary", "Cookie", "Set-Cookie", "a=b"},
		want: isPassed, strip: isShared, why: pass.SetCookie,
	},

	{name: "Vary: *", header: []string{"Vary", "*"}, want: isPassed, why: pass.Vary},
	{name: "Vary: * in a list", header: []string{"Vary", "Accept-Encoding, * "}, want: isPassed, why: pass.Vary},
	{name: "Vary: * in a second line", header: []string{"Vary", "Accept-Encoding", "Vary", "*"}, want: isPassed, why: pass.Vary},
	{name: "Vary: * and a language", header: []string{"Vary", "Accept-Language,*"}, want: isPassed, why: pass.Vary},

	{name: "Vary of what we send", header: []string{"Vary", "Accept, accept-encoding,Cache-Control, Last-Event-ID"}, want: isShared},
	{name: "Vary of what the key has", header: []string{"Vary", "Origin, Host, X-Tenant, X-Forwarded-Proto, X-Forwarded-Host"}, want: isShared},
	{name: "Vary of what no client shares with", header: []string{"Vary", "Cookie, Authorization, X-Requested-With, RSC"}, want: isShared},
	{name: "Vary of nothing", header: []string{"Vary", " , ,"}, want: isShared},
	{name: "Vary of what is no name", header: []string{"Vary", "the origin's"}, want: isShared},

	{name: "Vary: Accept-Language", header: []string{"Vary", "Accept-Language"}, want: isKeyed, joins: "Accept-Language"},
	{name: "Vary: accept-language in a list", header: []string{"Vary", "Cookie,accept-language ,Accept"}, want: isKeyed, joins: "Accept-Language"},
	{name: "Vary: User-Agent", header: []string{"Vary", "Accept-Encoding, User-Agent"}, want: isKeyed, joins: "User-Agent"},
	{name: "Vary: a client hint", header: []string{"Vary", "Sec-CH-UA-Mobile"}, want: isKeyed, joins: "Sec-Ch-Ua-Mobile"},
	{name: "Vary: fetch metadata", header: []string{"Vary", "Sec-Fetch-Site"}, want: isKeyed, joins: "Sec-Fetch-Site"},
	{name: "Vary: DNT", header: []string{"Vary", "DNT"}, want: isKeyed, joins: "Dnt"},
	{name: "Vary: country", header: []string{"Vary", "CF-IPCountry"}, want: isKeyed, wraps: isShared, joins: "Cf-Ipcountry"},
	{name: "Vary: what the client has not", header: []string{"Vary", "Accept-Charset"}, want: isKeyed},

	{name: "Vary: address", header: []string{"Vary", "X-Forwarded-For"}, want: isPassed, why: pass.Vary},
	{name: "Vary: page", header: []string{"Vary", "Referer"}, want: isPassed, why: pass.Vary},
	{name: "Vary: request", header: []string{"Vary", "X-Request-ID"}, want: isPassed, why: pass.Vary},
	{name: "Vary: trace, and a language", header: []string{"Vary", "Accept-Language, Traceparent"}, want: isPassed, why: pass.Vary},
	{name: "Vary: condition", header: []string{"Vary", "If-None-Match"}, want: isPassed, why: pass.Vary},
	{name: "Vary: too much", header: []string{"Vary", "Accept-A, Accept-B, Accept-C, Accept-D, Accept-E, Accept-F, Accept-G, Accept-H, Accept-I"}, want: isPassed, why: pass.Vary},

	{name: "a session", body: handshake, want: isPassed, why: pass.Session},
	{name: "a session, and its first message", body: handshake + "data: secret\n\n", want: isPassed, why: pass.Session},
	{name: "a session of a private answer", header: []string{"Cache-Control", "private"}, body: handshake, want: isPassed, why: pass.Session},
}

func forEveryWord(t *testing.T, test func(t *testing.T, f form, word ownWord)) {
	for _, f := range forms {
		for _, word := range ownWords {
			t.Run(fmt.Sprint(f, "/", word.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, f, word) })
			})
		}
	}
}

// expectOwn answers the clients' own requests, and checks that nothing was changed.
func (s *setup) expectOwn(clients ...*client) {
	s.t.Helper()
	if !s.handler.wraps() {
		for range clients { // in any order
			up := s.origin.next()
			if got := up.request.Header.Get("Referer"); got == "" {
				s.t.Errorf("the origin was asked with %v, want the client's own request", up.request.Header)
			}
			up.answer(200, "Set-Cookie", "own").end()
		}
	}
	for _, c := range clients {
		if s.handler.wraps() {
			c.expectAnswer(200, "passed ")
		} else if got := c.header["Set-Cookie"]; !c.ended() || !slices.Equal(got, []string{"own"}) {
			s.t.Errorf("ended: %t, Set-Cookie: %q; want the answer to the client's own request", c.ended(), got)
		}
		for _, name := range []string{"Connection", "X-Accel-Buffering", "Vary", "Cache-Control"} {
			if got := c.header[name]; got != nil {
				s.t.Errorf("%s is %q in the answer to the client's own request", name, got)
			}
		}
	}
}

// expectKeyed checks that the origin is asked with what has joined the key, and
// answers.
func (s *setup) expectKeyed(word ownWord) *conn {
	s.t.Helper()
	up := s.origin.next()
	for i := 0; i < len(visitor); i += 2 {
		name := fields.Canonical(visitor[i])
		if name == "User-Agent" && word.joins != name {
			continue
		}
		want := ""
		if name == word.joins || s.handler.wraps() && slices.Contains(fields.Countries, name) {
			want = visitor[i+1]
		}
		if got := up.request.Header.Get(name); got != want {
			s.t.Errorf("the origin was asked with %s %q, want %q", name, got, want)
		}
	}
	word.answer(up)
	if up.closed() {
		s.t.Fatal("the answer is not taken, though the key has what it varies by")
	}
	return up
}

func expectNoSecret(t *testing.T, clients ...*client) {
	t.Helper()
	synctest.Wait()
	for _, c := range clients {
		c.mu.Lock()
		if got := c.body.String(); strings.Contains(got, "secret") {
			t.Errorf("a client got %q", got)
		}
		c.mu.Unlock()
	}
}

func TestOwnWordOfTheFirstAnswer(t *testing.T) {
	forEveryWord(t, func(t *testing.T, f form, word ownWord) {
		s := f.setup(t, Options{Vary: []string{"X-Tenant"}})
		alice, bob := s.get("/events", visitor...), s.get("/events", visitor...)
		up := s.origin.next()
		word.answer(up)
		clients := []*client{alice, bob}
		switch want := word.outcome(f); want {
		case isShared:
			up.events(1, 1)
		case isKeyed, isPassed:
			if !up.closed() {
				t.Fatal("the shared connection is open")
			}
			expectNoSecret(t, clients...)
			if alice.status != 0 && word.why == pass.Session && !f.wrapping {
				// The header was out: they come back.
				for _, c := range clients {
					if !c.ended() {
						t.Error("the stream has not ended, though nothing comes any more")
					}
				}
				clients = []*client{s.get("/events", visitor...)}
			}
			if want == isKeyed {
				s.expectKeyed(word).events(1, 1)
				break
			}
			s.expectOwn(clients...)
			s.expectOwn(s.get("/events", visitor...))
			if n := s.pool.stats.Passed.Get(word.why); n != uint64(len(clients))+1 {
				t.Errorf("%d requests counted as passed for %s, want %d", n, word.why, len(clients)+1)
			}
			return
		}
		for _, c := range append(clients, s.get("/events", visitor...)) {
			c.expectStatus(200)
			if got := c.header["Set-Cookie"]; got != nil {
				t.Errorf("Set-Cookie is %q", got)
			}
		}
		for _, c := range clients {
			c.expect(primer("") + numbered(1, 1))
		}
		s.origin.idle()
	})
}

// What a later answer says holds as well: those who share are ended, and find out
// when they come back.
func TestOwnWordOfALaterAnswer(t *testing.T) {
	forEveryWord(t, func(t *testing.T, f form, word ownWord) {
		s := f.setup(t, Options{Vary: []string{"X-Tenant"}})
		clients := []*client{s.get("/events", visitor...), s.get("/events", visitor...)}
		s.origin.next().accept().events(1, 1).abort()
		up := s.origin.await().expectResumedWith("id 1")
		word.answer(up)
		if word.outcome(f) == isShared {
			up.events(2, 2)
			for _, c := range clients {
				c.expect(primer("") + numbered(1, 2))
			}
			s.origin.idle()
			return
		}
		if !up.closed() {
			t.Fatal("the connection is open")
		}
		s.origin.idle() // the id is not to blame: the answer is a stream

		// Newcomers do not wait for those to end.
		carol := s.get("/events", visitor...)
		if word.outcome(f) == isKeyed {
			s.expectKeyed(word).events(2, 2)
			carol.expect(primer("") + numbered(2, 2))
		} else {
			s.expectOwn(carol)
		}
		for _, c := range clients {
			if got := c.read(); !strings.HasPrefix(got, primer("")+numbered(1, 1)) || strings.Contains(got, "secret") {
				t.Errorf("the client got %q, want the first event", got)
			}
		}
		time.Sleep(settings.DefaultStreamCloseDelay)
		if n := countEnded(clients); n != len(clients) {
			t.Errorf("%d of %d streams have ended", n, len(clients))
		}
		if n := s.pool.stats.Ended.Get(relay.EndPersonal); n != uint64(len(clients)) {
			t.Errorf("%d streams counted as ended by what the origin said, want %d", n, len(clients))
		}
	})
}

func TestOwnWordOfACatchup(t *testing.T) {
	forEveryWord(t, func(t *testing.T, f form, word ownWord) {
		s := f.setup(t, Options{Vary: []string{"X-Tenant"}})
		live := s.get("/events", visitor...)
		up := s.origin.next().accept().events(10, 12)

		late := s.get("/events", append(visitor, "Last-Event-ID", "7")...)
		catchup := s.origin.next().expectResumedWith("id 7")
		word.answer(catchup)
		if word.outcome(f) == isShared {
			catchup.events(8, 10)
			late.expect(primer("7") + numbered(8, 12))
		} else {
			if !catchup.closed() {
				t.Fatal("the catch-up is open")
			}
			time.Sleep(time.Second)
			if got := late.read(); !strings.Contains(got, gapComment) || strings.Contains(got, "secret") {
				t.Errorf("the client got %q, want a gap", got)
			}
		}
		s.origin.idle()
		up.events(13, 13)
		live.expect(primer("") + numbered(10, 13))
		late.expect(numbered(13, 13))
	})
}

// A no is shared for a second in the endpoint form, and for none in the other.
func TestOwnWordOfANo(t *testing.T) {
	for _, f := range forms {
		for _, word := range ownWords {
			if word.body != "" {
				continue
			}
			for _, status := range []int{204, 302, 404} {
				t.Run(fmt.Sprint(f, "/", status, "/", word.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := f.setup(t, Options{Vary: []string{"X-Tenant"}})
						c := s.get("/events", visitor...)
						s.origin.next().answer(status, word.header...).end()
						want := word.outcome(f)
						if f.wrapping {
							want = isPassed
						}
						switch want {
						case isPassed:
							s.expectOwn(c)
						case isKeyed:
							up := s.origin.next()
							up.answer(status, word.header...).end()
							c.expectAnswer(status, "")
						case isShared:
							c.expectAnswer(status, "")
						}
						s.origin.idle()
					})
				})
			}
		}
	}
}

// A deploy may answer 404 with a session cookie: that is a no like any other to
// those who have a stream.
func TestNoWithACookieEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := form{wrapping: true}.setup(t, Options{})
		c := s.get("/events")
		s.origin.next().accept().events(1, 1).abort()
		s.origin.keepAnswering(30*time.Second, func(up *conn) {
			up.answer(404, "Set-Cookie", "a=b", "Vary", "*").end()
		})
		if c.ended() {
			t.Fatal("the stream has ended")
		}
		s.origin.await().accept().events(2, 2)
		if got := c.read(); !strings.HasSuffix(got, numbered(2, 2)) {
			t.Errorf("the client got %q, want the second event", got)
		}
	})
}

func TestOwnWordIsRemembered(t *testing.T) {
	for _, tt := range []struct {
		word ownWord
		d    time.Duration
	}{
		{ownWord{header: []string{"Set-Cookie", "a=b"}}, time.Minute},
		{ownWord{header: []string{"Vary", "*"}}, time.Minute},
		{ownWord{body: handshake}, time.Hour},
	} {
		t.Run(fmt.Sprint(tt.word.header, tt.word.body), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				c := s.get("/events")
				tt.word.answer(s.origin.next())
				c.expectAnswer(200, "passed ")
				time.Sleep(tt.d - time.Millisecond)
				s.get("/events").expectAnswer(200, "passed ")
				s.get("/others")
				if got := s.origin.next().accept().request.URL.Path; got != "/others" {
					t.Errorf("the origin was asked for %s", got)
				}
				time.Sleep(2 * time.Millisecond)
				s.get("/events")
				s.origin.next().accept()
			})
		})
	}
}

// What the client brings goes through, and nothing of the attempt is left.
func TestPassingForTheOriginsWordChangesNothing(t *testing.T) {
	for name, word := range map[string]ownWord{
		"cookie":  {header: []string{"Set-Cookie", "shared=1", "X-Shared", "1"}},
		"vary":    {header: []string{"Vary", "*", "X-Shared", "1"}},
		"session": {header: []string{"X-Shared", "1"}, body: handshake},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{Vary: []string{"Cookie", "Authorization"}})
				r := streamRequest("Cookie", "alice", "Authorization", "Bearer alice", "Last-Event-ID", "7")
				want := r.Header.Clone()
				c := s.serve(r)
				word.answer(s.origin.next())
				c.expectAnswer(200, "passed alice")
				if len(c.header) != 0 {
					t.Errorf("the header has %v", c.header)
				}
				if fmt.Sprint(r.Header) != fmt.Sprint(want) {
					t.Errorf("the request has %v, want %v", r.Header, want)
				}
			})
		})
	}
}

func TestRestrictionsAreExplainedOnce(t *testing.T) {
	for _, word := range ownWords {
		t.Run(word.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{Vary: []string{"X-Tenant"}})
				outcome := word.outcome(form{wrapping: true})
				for i := range 3 {
					s.get("/events/"+strconv.Itoa(i), visitor...)
					word.answer(s.origin.next())
					if outcome == isKeyed {
						s.expectKeyed(word)
					}
				}
				time.Sleep(relay.HandshakeTime)
				synctest.Wait()
				want := 1
				if word.name == "nothing" || outcome == isShared && !strings.Contains(word.name, "private") {
					want = 0
				}
				var hints []string
				for _, line := range s.logs.All() {
					if line.Level > zapcore.InfoLevel {
						t.Errorf("the log has %q at %s", line.Message, line.Level)
					}
					if _, ok := line.ContextMap()["hint"]; ok {
						hints = append(hints, line.Message)
					}
				}
				if len(hints) != want {
					t.Errorf("the log has the hints %q, want %d", hints, want)
				}
			})
		})
	}
}

// A new route whose origin sets a cookie ends the topic.
func TestReloadToAnOriginThatSetsACookie(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		after := s.reload(Options{}, newOrigin(t))
		s.cleanup()
		after.get("/events")
		after.origin.next().answer(200, "Content-Type", "text/event-stream", "Set-Cookie", "a=b")
		if !up.closed() {
			t.Error("the connection through the old route is open")
		}
		after.get("/events").expectAnswer(200, "passed ")
		time.Sleep(settings.DefaultStreamCloseDelay)
		if !c.ended() {
			t.Error("the stream goes on")
		}
	})
}
