package ssefanout

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// These tests have the site in memory: setup.front is what stands in front of the
// handler, for clients and for the stranger.

// isStranger reports whether a request is the one that asks for a topic.
func isStranger(r *http.Request) bool { return inquiryOf(r) != nil }

// answerStrangers makes the front answer strangers, and lead clients on.
func answerStrangers(answer func(http.ResponseWriter) error) func(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	return func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
		if isStranger(r) {
			return answer(w)
		}
		return h.ServeHTTP(w, r)
	}
}

func status(code int) func(http.ResponseWriter) error {
	return func(w http.ResponseWriter) error {
		w.WriteHeader(code)
		return nil
	}
}

func TestTheStrangerIsMadeFromTheKeyAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{Vary: []string{"Authorization", "{http.vars.tenant}"}, AskFrom: "10.0.0.7"})
		var atTheDoor *http.Request
		s.lead(func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
			if isStranger(r) {
				atTheDoor = r.Clone(r.Context())
			} else {
				caddyhttp.SetVar(r.Context(), "tenant", "a")
			}
			r.URL.Path = "/rewritten"
			return h.ServeHTTP(w, r)
		})
		r := streamRequest("Authorization", "Bearer 1", "User-Agent", "client", "Last-Event-ID", "7", "X-Forwarded-For", "203.0.113.7")
		r.Host = "EXAMPLE.com:8443"
		r.URL.RawQuery = "a=1"
		r.TLS = withCertificate(streamRequest()).TLS
		r.TLS.PeerCertificates = nil
		s.serve(r)
		behind := s.origin.next().request

		for _, got := range []struct {
			name, got, want string
		}{
			{"method", atTheDoor.Method, "GET"},
			{"URL", atTheDoor.URL.String(), "/events?a=1"},
			{"host", atTheDoor.Host, "example.com:8443"},
			{"address", atTheDoor.RemoteAddr, "10.0.0.7:1"},
			{"Authorization", atTheDoor.Header.Get("Authorization"), "Bearer 1"},
			{"User-Agent", atTheDoor.Header.Get("User-Agent"), "caddy-sse-fanout"},
			{"Last-Event-ID", atTheDoor.Header.Get("Last-Event-ID"), ""},
			{"X-Forwarded-For", atTheDoor.Header.Get("X-Forwarded-For"), ""},
			{"server name", atTheDoor.TLS.ServerName, "example.com"},
			{"local address", atTheDoor.Context().Value(http.LocalAddrContextKey).(interface{ String() string }).String(), "0.0.0.0:0"},
			{"URL behind", behind.URL.Path, "/rewritten"},
			{"Authorization behind", behind.Header.Get("Authorization"), "Bearer 1"},
			{"variable behind", caddyhttp.GetVar(behind.Context(), "tenant").(string), "a"},
		} {
			if got.got != got.want {
				t.Errorf("%s: got %q, want %q", got.name, got.got, got.want)
			}
		}
		if skip, _ := caddyhttp.GetVar(behind.Context(), caddyhttp.LogSkipVar).(bool); !skip {
			t.Error("the access log has the stranger")
		}
	})
}

// A definite no in front makes the requests for the key pass for a minute, unnoticed.
func TestAStrangerWhoIsNotLedHereSharesNothing(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter) error{
		"200 of another block": func(w http.ResponseWriter) error { _, err := io.WriteString(w, "a page"); return err },
		"nothing at all":       func(http.ResponseWriter) error { return nil },
		"204":                  status(204),
		"302":                  status(302),
		"401":                  func(http.ResponseWriter) error { return caddyhttp.Error(401, errors.New("no")) },
		"403":                  status(403),
		"404":                  status(404),
		"abort":                func(http.ResponseWriter) error { panic(http.ErrAbortHandler) },
		"another instance":     func(http.ResponseWriter) error { return site.ErrElsewhere },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				s.lead(answerStrangers(answer))
				for range 3 {
					s.get("/events").expectBody("passed ")
				}
				s.origin.idle()
				if got := s.pool.stats.Passed.Get(pass.Front); got != 3 {
					t.Errorf("%d requests passed because of the front, want 3", got)
				}
				if n := s.logs.FilterMessageSnippet("does not lead strangers here").Len(); n != 1 {
					t.Errorf("the log says so %d times, want once", n)
				}
				if !s.handler.front.IsShutOff() {
					t.Error("the handler counts as one that shares")
				}
				s.lead(nil)
				time.Sleep(site.FrontMemory + 1)
				s.get("/events")
				s.origin.next().accept()
				if s.handler.front.IsShutOff() {
					t.Error("the handler counts as one that shares nothing")
				}
			})
		})
	}
}

// An endless stream of another block is not read.
func TestAStrangersOtherStreamIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		other := newOrigin(t)
		s.lead(func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
			if isStranger(r) {
				return other.ServeHTTP(w, r, nil)
			}
			return h.ServeHTTP(w, r)
		})
		c := s.get("/events")
		up := other.next().accept()
		if !up.closed() {
			t.Error("the stream is read on")
		}
		c.expectBody("passed ")
	})
}

// An unclear no is retried, and does not hold the client for long.
func TestAFrontThatIsAwayIsAskedAgain(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter) error{
		"408": status(408), "425": status(425), "429": status(429), "500": status(500), "502": status(502),
		"503": func(http.ResponseWriter) error { return caddyhttp.Error(503, errors.New("no")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				s.lead(answerStrangers(answer))
				c, other := s.get("/events"), s.get("/other")
				c.expect("")
				s.lead(nil)
				s.origin.await().accept()
				s.origin.await().accept()
				time.Sleep(relay.HandshakeTime)
				c.expect(primer(""))
				other.expect(primer(""))

				s.lead(answerStrangers(answer))
				late := s.get("/late")
				time.Sleep(relay.GatePatience)
				late.expectBody("passed ")
			})
		})
	}
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newWrappingSetup(t, Options{})
			hung := make(chan struct{})
			defer close(hung)
			s.lead(answerStrangers(func(http.ResponseWriter) error { <-hung; return nil }))
			c := s.get("/events")
			time.Sleep(relay.GatePatience)
			c.expectBody("passed ")
			s.get("/events").expectBody("passed ") // it need not wait again
		})
	})
}

// A ban of the stranger costs three requests a minute, and no stream that runs.
func TestABannedStrangerCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		strangers := 0
		banned := answerStrangers(func(w http.ResponseWriter) error { strangers++; w.WriteHeader(403); return nil })
		s.get("/running")
		up := s.origin.next().accept()
		time.Sleep(site.FrontMemory)
		s.lead(banned)
		for range 100 {
			for _, path := range []string{"/a", "/b", "/c", "/d", "/e", "/f"} {
				s.get(path).expectBody("passed ")
			}
		}
		if strangers != site.FrontFailures {
			t.Errorf("the site was asked %d times, want %d", strangers, site.FrontFailures)
		}
		c := s.get("/running")
		up.events(1, 1)
		c.expect(primer("") + numbered(1, 1))
	})
}

// The clients that wait for one key are one failure.
func TestManyClientsOfOneKeyDoNotShutOffTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		hung := make(chan struct{})
		s.lead(answerStrangers(func(w http.ResponseWriter) error { <-hung; w.WriteHeader(403); return nil }))
		var waiting []*client
		for range 2 * site.FrontFailures {
			waiting = append(waiting, s.get("/private"))
		}
		close(hung)
		for _, c := range waiting {
			c.expectBody("passed ")
		}
		s.lead(nil)
		s.get("/public")
		s.origin.next().accept()
	})
}

// One client that asks for what strangers do not get must not keep all others from
// sharing.
func TestKeysThatFailDoNotShutOffAHandlerThatIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.lead(func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
			if isStranger(r) && strings.HasPrefix(r.URL.Path, "/private") {
				w.WriteHeader(403)
				return nil
			}
			return h.ServeHTTP(w, r)
		})
		s.get("/public")
		s.origin.next().accept()
		for _, path := range []string{"/private/1", "/private/2", "/private/3", "/private/4"} {
			s.get(path).expectBody("passed ")
		}
		s.get("/public/2")
		s.origin.next().accept()
	})
}

// A client whose request the site has made something else of is served by itself.
func TestAClientThatTheSiteTreatsOtherwisePasses(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"path":     func(r *http.Request) { r.URL.Path = "/other" },
		"query":    func(r *http.Request) { r.URL.RawQuery = "a=1" },
		"host":     func(r *http.Request) { r.Host = "other.example" },
		"method":   func(r *http.Request) { r.Method = http.MethodPost },
		"root":     func(r *http.Request) { caddyhttp.SetVar(r.Context(), "root", "/srv") },
		"fs":       func(r *http.Request) { caddyhttp.SetVar(r.Context(), "fs", "a") },
		"variable": func(r *http.Request) { caddyhttp.SetVar(r.Context(), "a", "b") },
		"empty":    func(r *http.Request) { caddyhttp.SetVar(r.Context(), "a", "") },
		"number":   func(r *http.Request) { caddyhttp.SetVar(r.Context(), "n", "1") },
		"map":      func(r *http.Request) { request.ReplacerOf(r).Set("destination", "b") },
		"header":   func(r *http.Request) { r.Header.Set("Accept-Language", "de") },
	} {
		for _, whose := range []string{"the client's", "the stranger's"} {
			if whose+name == "the client'shost" || whose+name == "the client'smethod" {
				continue // the stranger asks for the host that the site has made of it, and a POST passes
			}
			t.Run(whose+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newWrappingSetup(t, Options{})
					s.around = survey.Surroundings{Maps: []string{"destination"}, Headers: []string{"Accept-Language"}}
					s.lead(func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
						caddyhttp.SetVar(r.Context(), "n", 1)
						if isStranger(r) == (whose == "the stranger's") && r.URL.Query().Get("same") == "" {
							change(r)
						}
						return h.ServeHTTP(w, r)
					})
					c := s.get("/events")
					up := s.origin.next()
					c.expectBody("passed ")
					if !up.closed() {
						t.Error("the connection for nobody goes on")
					}
					s.get("/events").expectBody("passed ")
					s.origin.idle() // the like of it pass at once
					if got := s.pool.stats.Passed.Get(pass.Differs); got != 2 {
						t.Errorf("%d requests passed because they differ, want 2", got)
					}
					if n := s.logs.FilterMessageSnippet("otherwise than that of a stranger").Len(); n != 1 {
						t.Errorf("the log says so %d times, want once", n)
					}
				})
			})
		}
	}
}

// Nothing that stands in front gets the answer to the shared request, nor its error.
func TestTheFrontSeesNothingOfTheStrangersAnswer(t *testing.T) {
	for name, answer := range map[string]func(*conn){
		"stream":  func(c *conn) { c.accept().events(1, 1).abort() },
		"refusal": func(c *conn) { c.answer(404).end() },
		"error":   func(c *conn) { c.fail(502) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				w := httptest.NewRecorder()
				var got error
				s.lead(func(cw http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
					if !isStranger(r) {
						return h.ServeHTTP(cw, r)
					}
					got = h.ServeHTTP(w, r)
					return got
				})
				s.get("/events")
				up := s.origin.next()
				answer(up)
				if !up.closed() {
					t.Fatal("the origin has not answered to the end")
				}
				if got != nil || w.Body.Len() > 0 || len(w.Header()) > 0 {
					t.Errorf("the front got error %v, header %v and body %q", got, w.Header(), w.Body)
				}
			})
		})
	}
}

// Two handlers of one definition, in two blocks: who is led where decides.
func TestAHandlerThatTheStrangerDoesNotReachPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outside := newWrappingSetup(t, Options{})
		inside := outside.beside()
		inside.around.Print = "another block"
		inside.lead(func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
			if isStranger(r) {
				return outside.pass(w, r)
			}
			return h.ServeHTTP(w, r)
		})
		insider := inside.get("/events")
		outside.origin.next() // the stranger is led to the other block
		insider.expectBody("passed ")

		outsider := outside.get("/events")
		up := outside.origin.next().accept().events(1, 1)
		outsider.expect(primer("") + numbered(1, 1))
		for range 3 {
			inside.get("/events").expectBody("passed ")
		}
		up.events(2, 2)
		outsider.expect(numbered(2, 2))
		inside.origin.idle()
		outside.origin.idle()
	})
}

// reloadWrapping replaces a handler of the wrapping form by one with another front.
func (s *setup) reloadWrapping(around survey.Surroundings) *setup {
	after := s.reload(s.handler.Options, newOrigin(s.t))
	after.around = around
	s.cleanup()
	return after
}

func TestReloadMovesClientsWhereAllAreLedAlike(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after survey.Surroundings
		moves         bool
	}{
		"plain":               {survey.Surroundings{Plain: true, Print: "a"}, survey.Surroundings{Plain: true, Print: "b"}, true},
		"access control":      {survey.Surroundings{Print: "a"}, survey.Surroundings{Print: "a"}, true},
		"new access control":  {survey.Surroundings{Plain: true, Print: "a"}, survey.Surroundings{Print: "b"}, false},
		"access control gone": {survey.Surroundings{Print: "a"}, survey.Surroundings{Plain: true, Print: "b"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				s.around = tc.before
				up, c := s.joinLive(1, 2)
				after := s.reloadWrapping(tc.after)
				late := after.get("/events")
				if tc.moves {
					after.origin.next().expectResumedWith("id 2").accept().events(3, 3)
					c.expect(numbered(3, 3))
					late.expect(primer("2") + numbered(3, 3))
					if !up.closed() {
						t.Error("the old connection goes on")
					}
					return
				}
				// One asks where the topic has moved, the next one is for the new topic.
				if n := len(after.origin.conns); n != 1 {
					t.Fatalf("%d requests have come through the new configuration, want 1", n)
				}
				up.events(3, 3)
				c.expect(numbered(3, 3)) // as long as it is here
				time.Sleep(settings.DefaultStreamCloseDelay)
				if !c.ended() {
					t.Error("the client of the old configuration is still here")
				}
				if !up.closed() {
					t.Error("the old connection is still open")
				}
				after.origin.next().accept().send("data: new\n\n")
				late.expectStatus(200)
				if got := late.read(); !strings.HasSuffix(got, "data: new\n\n") {
					t.Errorf("the client of the new configuration got %q", got)
				}
			})
		})
	}
}

// Fault 3: access control that a reload has put in front.
func TestReloadThatNoLongerLeadsStrangersHereDrains(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		after := s.reloadWrapping(survey.Surroundings{Print: "access control"})
		after.lead(answerStrangers(status(401)))
		insider := after.get("/events")
		insider.expectBody("passed ")
		up.events(3, 3)
		c.expect(numbered(3, 3))
		time.Sleep(settings.DefaultStreamCloseDelay)
		if !c.ended() || !up.closed() {
			t.Error("the old stream goes on")
		}
		after.origin.idle()
	})
}

// What a directive makes of the stranger may change without a reload.
func TestTheSiteChangesItsMind(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		tenant := "a"
		s.lead(func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
			caddyhttp.SetVar(r.Context(), "tenant", tenant)
			return h.ServeHTTP(w, r)
		})
		up, c := s.joinLive(1, 2)
		tenant = "b"
		s.get("/events").expectBody("passed ")
		up.abort()
		time.Sleep(time.Second)
		s.origin.idle()
		time.Sleep(settings.DefaultStreamCloseDelay)
		if !c.ended() {
			t.Error("the client of what was goes on")
		}
		time.Sleep(site.FrontMemory)
		s.get("/events")
		s.origin.next().accept()
	})
}

// A minute of definite noes ends the clients of a topic that has run, and not less.
func TestAFrontThatComesToRefuseIsBelievedAfterAMinute(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		s.lead(answerStrangers(status(403)))
		up.abort()
		time.Sleep(relay.BeliefTime / 2)
		if c.ended() {
			t.Fatal("the client was ended at once")
		}
		time.Sleep(relay.BeliefTime + settings.DefaultReconnectMax + settings.DefaultStreamCloseDelay)
		if !c.ended() {
			t.Error("the client is still here")
		}
	})
}

// A configuration that is rolled back has never been asked.
func TestAConfigurationThatHasNotStartedIsNotAsked(t *testing.T) {
	for name, make := range map[string]func(*testing.T, Options) *setup{"endpoint": newSetup, "wrapping": newWrappingSetup} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := make(t, Options{})
				up, c := s.joinLive(1, 2)
				failed := s.reload(Options{}, newOrigin(t))
				up.abort()
				time.Sleep(time.Second)
				s.origin.next().accept().events(3, 3)
				failed.origin.idle()
				failed.cleanup()
				c.expect(numbered(3, 3))
			})
		})
	}
}

// A configuration fails to start when it has served already: its topics come back.
func TestAConfigurationThatIsRolledBackIsLeft(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.around.Plain = true
		up, c := s.joinLive(1, 2)
		failed := s.reload(Options{}, newOrigin(t))
		failed.around.Plain = true
		late := failed.get("/events")
		moved := failed.origin.next().expectResumedWith("id 2").accept()
		late.expect(primer("2"))
		if !up.closed() {
			t.Fatal("the topic has not moved to the new configuration")
		}
		failed.cleanup()
		s.origin.next().expectResumedWith("id 2").accept().events(3, 3)
		if !moved.closed() {
			t.Error("the connection through the configuration that was rolled back goes on")
		}
		c.expect(numbered(3, 3))
		late.expect(numbered(3, 3))
	})
}

// A configuration that has served nobody takes no connection along when it fails, not even
// of a topic whose connection is older than the one it should have replaced.
func TestAConfigurationThatIsRolledBackUnused(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.around.Plain = true
		up, c := s.joinLive(1, 2)
		after := s.reloadWrapping(s.around)
		after.get("/other") // the configuration has started
		after.origin.next().accept()
		failed := after.reload(Options{}, newOrigin(t))
		failed.around.Plain = true
		failed.cleanup()
		up.events(3, 3)
		c.expect(numbered(3, 3))
		for _, o := range []*fakeOrigin{s.origin, after.origin, failed.origin} {
			o.idle()
		}
	})
}

// The new configuration's origin is away: its clients wait for it alone, and the old ones
// keep what they have until they are sent there.
func TestReloadToAnOriginThatIsDown(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.around.Plain = true
		up, c := s.joinLive(1, 2)
		after := s.reloadWrapping(survey.Surroundings{Plain: true, Behind: "another origin"})
		late := after.get("/events")
		after.origin.next().fail(502)
		up.events(3, 3)
		c.expect(numbered(3, 3))
		time.Sleep(settings.DefaultWait)
		late.expect(primer("")) // nothing of the old configuration
		if got := c.read(); !c.ended() || !strings.HasPrefix(got, "retry: ") {
			t.Errorf("the old client got %q", got)
		}
		again := after.get("/events", "Last-Event-ID", "3")
		up = after.origin.await()
		up.expectResumedWith("no id")
		up.accept().events(4, 4)
		late.expect(numbered(4, 4))
		after.origin.next().accept().events(4, 4) // the catch-up
		again.expect(primer("3") + numbered(4, 4))
	})
}

// What a reload brings is another stream if what stands behind has changed, or what the
// site makes of the stranger: a topic's history and its last id stay with the old one.
func TestReloadToAnotherStream(t *testing.T) {
	for name, change := range map[string]func(before, after *setup){
		"another origin":            func(_, after *setup) { after.around.Behind = "another" },
		"another URL":               func(_, after *setup) { after.around.Print = "another"; after.lead(rewriting("/other")) },
		"another trust":             func(_, after *setup) { after.around.Terms = "another" },
		"another front, not plain":  func(_, after *setup) { after.around.Plain, after.around.Print = false, "another" },
		"another variable in front": func(_, after *setup) { after.around.Print = "another"; after.lead(setting("up", "b")) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{FirstEvent: "oldest"})
				s.around.Plain = true
				up, old := s.joinLive(1, 3)
				after := s.reloadWrapping(survey.Surroundings{Plain: true})
				change(s, after)
				fresh := after.get("/events")
				conn := after.origin.next()
				conn.expectResumedWith("no id")
				conn.accept().events(1, 1)
				fresh.expect(primer("") + numbered(1, 1))
				guess := after.get("/events", "Last-Event-ID", "2")
				catchup := after.origin.next()
				catchup.expectResumedWith("id 2")
				guess.expect(primer("2"))
				up.events(4, 4)
				old.expect(numbered(4, 4))
				if got := fresh.read() + guess.read(); got != "" {
					t.Errorf("clients of the new configuration got %q of the old stream", got)
				}
			})
		})
	}
}

func rewriting(path string) func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
	return func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
		r.URL.Path, r.RequestURI = path, path
		return h.ServeHTTP(w, r)
	}
}

func setting(name, value string) func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
	return func(w http.ResponseWriter, r *http.Request, h caddyhttp.Handler) error {
		caddyhttp.SetVar(r.Context(), name, value)
		return h.ServeHTTP(w, r)
	}
}

// The new configuration's origin says no: its clients get their own.
func TestReloadToAnOriginThatRefuses(t *testing.T) {
	for name, answer := range map[string]func(*conn){
		"401":  func(c *conn) { c.answer(401).end() },
		"page": func(c *conn) { c.answer(200, "Content-Type", "text/html").end() },
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				s.around.Plain = true
				up, c := s.joinLive(1, 2)
				after := s.reloadWrapping(survey.Surroundings{Plain: true, Behind: "access control"})
				late := after.get("/events")
				answer(after.origin.next())
				late.expectBody("passed ")
				after.get("/events").expectBody("passed ")
				after.origin.idle()
				up.events(3, 3)
				c.expect(numbered(3, 3))
			})
		})
	}
}

// A client that has come just before a reload, and is admitted after it, is like those
// that were there.
func TestReloadWhileAClientWaits(t *testing.T) {
	for _, behind := range []string{"", "changed"} {
		t.Run(behind, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				s.around.Plain = true
				c := s.get("/events")
				s.origin.next().fail(502)
				after := s.reloadWrapping(survey.Surroundings{Plain: true, Behind: behind})
				late := after.get("/events")
				after.origin.await().accept().events(1, 1)
				time.Sleep(relay.HandshakeTime)
				late.expect(primer("") + numbered(1, 1))
				if behind == "" {
					c.expect(primer("") + numbered(1, 1))
				} else if got := c.read(); !c.ended() || !strings.HasPrefix(got, "retry: ") {
					t.Errorf("the client that waited got %q", got)
				}
			})
		})
	}
}

// A client of a configuration that has been replaced is not served one to one by what
// is left of it, for that may fail for good.
func TestClientOfAReplacedConfigurationIsSentToTheNewOne(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		l := s.handler.lineage
		after := s.reloadWrapping(survey.Surroundings{Behind: "changed"})
		after.get("/events")
		after.origin.next().accept().events(1, 1)
		s.handler.lineage = l
		c := s.get("/events")
		if got := c.read(); !c.ended() || !strings.HasPrefix(got, "retry: ") {
			t.Errorf("got %q", got)
		}
	})
}

// A catch-up that is under way when a reload comes makes the topic go over.
func TestReloadOfAWrappingHandlerWhileCatchingUp(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.around.Plain = true
		up, _ := s.joinLive(10, 12)
		c := s.get("/events", "Last-Event-ID", "7")
		s.origin.next().accept().events(8, 8).abort()
		after := s.reloadWrapping(survey.Surroundings{Plain: true})
		after.handler.served.Store(true) // it has started
		time.Sleep(relay.SecondThought)
		after.origin.next().expectResumedWith("id 12").accept() // the shared one
		if !up.closed() {
			t.Error("the old connection goes on")
		}
		after.origin.await().expectResumedWith("id 8").accept().events(9, 12)
		c.expect(primer("7") + numbered(8, 12))
	})
}

// A connection that is lost after a reload is made anew by the new configuration,
// also when no client has come through it.
func TestReloadOfAWrappingHandlerThatLosesItsConnection(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.around.Plain = true
		up, c := s.joinLive(1, 2)
		after := s.reloadWrapping(survey.Surroundings{Plain: true})
		after.handler.pool.Store(nil) // as before its first client
		after.handler.served.Store(true)
		up.abort()
		time.Sleep(time.Second)
		after.origin.next().expectResumedWith("id 2").accept().events(3, 3)
		c.expect(numbered(3, 3))
	})
}

// The new connection resumes while the old one goes on: an event without an id at its
// start is no sign that what follows has not come there.
func TestReloadBesideAnOriginThatGreetsEachConnection(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		after := s.reloadWrapping(survey.Surroundings{})
		after.get("/events")
		again := after.origin.next().expectResumedWith("id 2")
		up.events(3, 3)
		again.accept().send("data: hello\n\n").events(3, 4)
		c.expect(numbered(3, 3) + "data: hello\n\n" + numbered(4, 4))
	})
}
