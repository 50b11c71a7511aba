package ssefanout

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// The events of a session, however they come, and those that only look like it.
func TestHandshakeIsRecognised(t *testing.T) {
	const session = "data: /messages?session_id=secret\n\n"
	for _, tt := range []struct {
		name, body string
		session    bool
	}{
		{"plain", "event: endpoint\n" + session, true},
		{"no blank", "event:endpoint\n" + session, true},
		{"CRLF", "event: endpoint\r\ndata: secret\r\n\r\n", true},
		{"CR", "event: endpoint\rdata: secret\r\r", true},
		{"byte order mark", "\xef\xbb\xbfevent: endpoint\n" + session, true},
		{"data first", "data: secret\nevent: endpoint\n\n", true},
		{"type set twice", "event: message\nevent: endpoint\n" + session, true},
		{"with an id and a time", "id: 1\nretry: 5\nevent: endpoint\n" + session, true},
		{"after a comment", ": hello\n\nevent: endpoint\n" + session, true},
		{"after a time", "retry: 5000\n\nevent: endpoint\n" + session, true},
		{"after a type without data", "event: message\n\nevent: endpoint\n" + session, true},
		{"two lines of data", "event: endpoint\ndata: a\n" + session, true},
		{"empty data", "event: endpoint\ndata\n\nevent: secret\ndata: secret\n\n", true},
		{"messages at once", "event: endpoint\n" + session + "event: message\ndata: secret\n\n", true},

		{"PocketBase", "id: 1\nevent: PB_CONNECT\ndata: {\"clientId\":\"secret\"}\n\n", true},

		{"another case", "event: Endpoint\ndata: 1\n\n", false},
		{"a longer type", "event: endpoints\ndata: 1\n\n", false},
		{"two blanks", "event:  endpoint\ndata: 1\n\n", false},
		{"type without data", "event: endpoint\n\ndata: 1\n\n", false},
		{"data", "data: endpoint\n\n", false},
		{"in its turn", "data: 1\n\nevent: endpoint\ndata: 2\n\n", false},
	} {
		for _, cut := range []string{"whole", "bytes", "gzip", "br", "zstd"} {
			for _, f := range forms {
				t.Run(fmt.Sprint(tt.name, "/", cut, "/", f), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := f.setup(t, Options{})
						c := s.get("/events", visitor...)
						up := s.origin.next()
						sendCut(t, up, tt.body, cut)
						if up.closed() != tt.session {
							t.Fatalf("the connection is closed: %t, want %t", up.closed(), tt.session)
						}
						switch {
						case tt.session && f.wrapping:
							c.expectAnswer(200, "passed ")
						case tt.session:
							expectNoSecret(t, c)
							if !c.ended() {
								t.Error("the stream has not ended")
							}
						case !strings.Contains(c.read(), "\ndata: "):
							t.Error("the client has not got the events")
						}
					})
				})
			}
		}
	}
}

// The wrapping form takes an object with the name of a session for one, too.
func TestSessionsByName(t *testing.T) {
	for data, session := range map[string]bool{
		`{"clientId":"secret"}`:                true,
		`{"client_id":"secret","x":1}`:         true,
		`{"session-id":7}`:                     true,
		`{"type":"hello","SocketID":"secret"}`: true,
		`{"connection.id":"secret"}`:           true,
		`{"subscriptionId":{"a":"secret"}}`:    true,
		`{"sid":"secret"}`:                     true,
		`{"sid":""}`:                           false,
		`{"clientId":null}`:                    false,
		`{"client":"a"}`:                       false,
		`{"id":"a"}`:                           false,
		`{"data":{"clientId":"a"}}`:            false,
		`["clientId"]`:                         false,
		`{"clientId":"a"`:                      false,
		`clientId`:                             false,
		``:                                     false,
		`{"clientId":"` + strings.Repeat("a", 1<<20) + `"}`: false,
	} {
		for _, f := range forms {
			t.Run(fmt.Sprintf("%.40s, %s", data, f), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := f.setup(t, Options{})
					c := s.get("/events", visitor...)
					up := s.origin.next().accept().send("event: hello\ndata: " + data + "\n\n")
					if session && f.wrapping {
						c.expectAnswer(200, "passed ")
					} else if !strings.Contains(c.read(), "\ndata: ") || up.closed() {
						t.Error("the client has not got the events")
					}
				})
			})
		}
	}
}

// sendCut accepts and sends a body, whole, a byte at a time, or compressed.
func sendCut(t *testing.T, up *conn, body, cut string) {
	t.Helper()
	switch cut {
	case "whole":
		up.accept().send(body)
	case "bytes":
		up.accept()
		for i := 0; i < len(body) && !up.closed(); i++ {
			up.send(body[i : i+1])
		}
	default:
		up.answer(200, "Content-Type", "text/event-stream", "Content-Encoding", cut)
		var buf bytes.Buffer
		up.send(compressed(t, newCompressor(t, cut, &buf), &buf, body))
	}
}

// In the wrapping form, the first clients of a topic wait for the first event, but
// not for long.
func TestClientsOfANewTopicWaitForTheFirstEvent(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts Options
		// script returns after how long the clients have their header.
		script func(up *conn) time.Duration
	}{
		{"an event", Options{}, func(up *conn) time.Duration {
			up.accept()
			time.Sleep(50 * time.Millisecond)
			up.events(1, 1)
			return 50 * time.Millisecond
		}},
		{"an event at once", Options{}, func(up *conn) time.Duration {
			up.accept().events(1, 1)
			return 0
		}},
		{"silence", Options{}, func(up *conn) time.Duration {
			up.accept()
			return relay.HandshakeTime
		}},
		{"a comment and a time", Options{}, func(up *conn) time.Duration {
			up.accept().send(": hello\n\nretry: 1000\n\n")
			return relay.HandshakeTime
		}},
		{"a short wait", Options{Wait: 10e6}, func(up *conn) time.Duration {
			up.accept()
			return relay.HandshakeTime
		}},
		{"a short wait, or nothing", Options{Wait: 10e6, Unavailable: "reject"}, func(up *conn) time.Duration {
			up.accept()
			return relay.HandshakeTime
		}},
		{"an end", Options{}, func(up *conn) time.Duration {
			up.accept().end()
			return relay.HandshakeTime
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, tt.opts)
				began := time.Now()
				alice, bob := s.get("/events"), s.get("/events")
				want := tt.script(s.origin.next())
				if early := want - time.Since(began); early > 0 {
					time.Sleep(early - 1)
					alice.expectStatus(0)
					time.Sleep(time.Nanosecond)
				}
				alice.expectStatus(200)
				bob.expectStatus(200)
				s.get("/events").expectStatus(200)
				if got := alice.read(); !strings.HasPrefix(got, ": sse_fanout\n") {
					t.Errorf("the client got %q, want the primer", got)
				}
			})
		})
	}
}

// The endpoint form names its streams: the first client has its header as soon as
// the origin answers.
func TestClientsOfTheEndpointFormDoNotWaitForAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		s.origin.next().accept()
		c.expect(primer(""))
	})
}

// A handshake that comes late ends those who have their header, and is remembered.
func TestLateHandshakeEndsWhatHasBegun(t *testing.T) {
	for name, begin := range map[string]func(*setup) *conn{
		"silent": func(s *setup) *conn {
			up := s.origin.next().accept()
			time.Sleep(relay.HandshakeTime)
			return up
		},
		"away": func(s *setup) *conn {
			s.origin.keepAnswering(2*settings.DefaultWait, unavailable["503"])
			return s.origin.await().accept()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{})
				c := s.get("/events")
				up := begin(s)
				c.expectStatus(200)
				late := s.get("/events")
				up.send(handshake + "data: secret\n\n")
				expectNoSecret(t, c, late)
				if !c.ended() {
					t.Error("the stream has not ended")
				}
				if name == "away" {
					late.expectAnswer(200, "passed ") // it had no header yet
				}
				s.get("/events").expectAnswer(200, "passed ")
				s.origin.idle()
			})
		})
	}
}

// A source that notices late that nobody wants its stream keeps nobody waiting
// with a header.
func TestHandshakeOfASourceThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		release := make(chan struct{})
		c := s.get("/events")
		up := s.origin.next()
		go func() {
			up.do <- func(w http.ResponseWriter) error {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write([]byte(handshake))
				<-release
				return errEnd
			}
		}()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		c.expectAnswer(200, "passed ")
		close(release)
	})
}
