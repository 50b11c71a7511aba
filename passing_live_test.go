package ssefanout

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// dial sends raw bytes to a site, and returns the connection and what reads it.
func (s *liveSite) dial(raw string) (net.Conn, *bufio.Reader) {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		s.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// readUntil reads from a connection until the end of what it is to send.
func readUntil(t *testing.T, r *bufio.Reader, end string) string {
	t.Helper()
	var got strings.Builder
	for !strings.HasSuffix(got.String(), end) {
		b, err := r.ReadByte()
		if err != nil {
			t.Fatalf("%v after %q, want %q", err, got.String(), end)
		}
		got.WriteByte(b)
	}
	return got.String()
}

// HTTP/1.1 has a request's body on the connection, whose bytes must be neither waited
// for nor taken for anything else.
func TestBodyOfAGETThatIsShared(t *testing.T) {
	for name, body := range map[string]string{
		"one byte":            "Content-Length: 1\r\n\r\nx",
		"announced, not sent": "Content-Length: 1\r\n\r\n",
		"much, not sent":      "Content-Length: 1000000\r\n\r\n",
		"sent in part":        "Content-Length: 10\r\n\r\nx",
		"chunked":             "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"chunked without end": "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
		"like a request":      "Content-Length: 27\r\n\r\nGET /other HTTP/1.1\r\nHost: a",
		"on demand":           "Content-Length: 1\r\nExpect: 100-continue\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			waitFor(t, "the last test to be over", func() bool { all, _ := subscribersNow(); return all == 0 })
			origin := newLiveOrigin(t)
			s := run(t, "sse_fanout "+origin.addr+" {\nmax_subscribers 10 per_client_ip 2\nheartbeat 20ms\nlinger off\n}")
			ask := func() (net.Conn, *bufio.Reader) {
				return s.dial("GET /events HTTP/1.1\r\nHost: a\r\nCookie: secret=1\r\n" + body)
			}
			first, r := ask()
			if header := readUntil(t, r, "\r\n\r\n"); !strings.HasPrefix(header, "HTTP/1.1 200 OK\r\n") || !strings.Contains(header, "Connection: close\r\n") {
				t.Errorf("got %q, want 200 and no other request of the connection", header)
			}
			_, other := ask()
			readUntil(t, other, "\r\n\r\n")
			waitFor(t, "the origin", func() bool { return origin.open() == 1 })
			origin.send(numbered(1, 1))
			readUntil(t, r, numbered(1, 1)+"\r\n")
			readUntil(t, other, numbered(1, 1)+"\r\n")
			if all, direct := subscribersNow(); all != 2 || direct != 0 {
				t.Errorf("there are %d subscribers, %d of them handed over, want 2 and none", all, direct)
			}

			_, third := ask()
			readUntil(t, third, "\r\n0\r\n\r\n")
			if asked := origin.asked(); len(asked) != 1 || asked[0].Header.Get("Cookie") != "" {
				t.Errorf("the origin was asked %d times, and got the cookie %q", len(asked), asked[0].Header.Get("Cookie"))
			}

			// It has a place until it is noticed to be gone, and no longer.
			first.Close()
			waitFor(t, "its leaving", func() bool { all, _ := subscribersNow(); return all == 1 })
			_, r = ask()
			readUntil(t, r, "\r\n\r\n")
			waitFor(t, "the next", func() bool { all, _ := subscribersNow(); return all == 2 })
		})
	}
}

// Caddy waits for no body when it exits.
func TestExitDoesNotWaitForABody(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, "sse_fanout "+origin.addr)
	_, r := s.dial("GET /events HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
	readUntil(t, r, "\r\n\r\n")
	waitFor(t, "the subscriber", func() bool { all, _ := subscribersNow(); return all == 1 })
	began := time.Now()
	for _, p := range alive.all() {
		p.relay.End(relay.Ending{Reason: relay.EndExiting}) // as when Caddy exits
	}
	_, _ = io.Copy(io.Discard, r)
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestPassedStreamsAreLimitedOverReverseProxy(t *testing.T) {
	for _, version := range httpVersions {
		for form, directives := range map[string]string{
			"endpoint":    "sse_fanout %s {\nmax_subscribers 10 per_client_ip 2\ncredentials pass\n}",
			"wrapping":    "sse_fanout {\nmax_subscribers 10 per_client_ip 2\n}\nreverse_proxy %s",
			"error route": "error 404\nhandle_errors {\nsse_fanout {\nmax_subscribers 10 per_client_ip 2\n}\nreverse_proxy %s\n}",
		} {
			for _, accept := range []string{"text/event-stream", "text/event-stream, */*"} {
				t.Run(fmt.Sprint(version, ", ", form, ", ", accept), func(t *testing.T) {
					origin := newLiveOrigin(t)
					s := run(t, "encode\nlog\n"+fmt.Sprintf(directives, origin.addr))
					url, client := s.over(version)
					var served []*stream
					for range 2 {
						served = append(served, ask200(t, client, url+"/events", "Cookie", "a=1", "Accept", accept))
					}
					for range 10 {
						c := ask200(t, client, url+"/events", "Cookie", "a=1", "Accept", accept)
						if accept == "text/event-stream" { // as a browser says
							if got := c.next(); !strings.HasPrefix(got, "retry: ") || strings.Count(got, "\n") != 1 {
								t.Errorf("got %q, want a time to come back after", got)
							}
						}
						if rest := c.next(); rest != "" {
							t.Errorf("then came %q", rest)
						}
					}
					waitFor(t, "the others' connections to the origin to close", func() bool { return origin.open() == 2 })
					origin.send(numbered(1, 1))
					for _, c := range served {
						c.expect(numbered(1, 1))
						c.cancel()
					}
					waitFor(t, "the places to be free", func() bool { return origin.open() == 0 })
					waitFor(t, "a new stream", func() bool {
						c := ask200(t, client, url+"/events", "Cookie", "a=1", "Accept", accept)
						turnedAway := make(chan struct{})
						go func() {
							defer close(turnedAway)
							_, _ = io.Copy(io.Discard, c.body)
						}()
						for origin.open() == 0 {
							select {
							case <-turnedAway:
								c.cancel()
								return false
							case <-time.After(time.Millisecond):
							}
						}
						return origin.open() == 1
					})
				})
			}
		}
	}
}

// A WebSocket passes, whatever the limits of streams.
func TestWebSocketPasses(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString("echo " + line)
		_ = rw.Flush()
	}))
	defer echo.Close()
	addr := echo.Listener.Addr().String()
	for form, directives := range map[string]string{
		"endpoint": "sse_fanout %s {\nmax_subscribers 1 per_client_ip 1\n}",
		"wrapping": "sse_fanout {\nmax_subscribers 1 per_client_ip 1\n}\nreverse_proxy %s",
	} {
		t.Run(form, func(t *testing.T) {
			// Without log and metrics: Caddy's recorder of responses has a race of its own
			// when a hijacked connection is closed by Cleanup.
			s := run(t, "encode\n"+fmt.Sprintf(directives, addr))
			for range 3 { // at once
				conn, r := s.dial("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				if header := readUntil(t, r, "\r\n\r\n"); !strings.HasPrefix(header, "HTTP/1.1 101 ") {
					t.Fatalf("got %q, want 101", header)
				}
				defer func() {
					_, _ = io.WriteString(conn, "hello\n")
					readUntil(t, r, "echo hello\n")
					_, _ = io.Copy(io.Discard, r)
				}()
			}
		})
	}
}

// A client that leaves while its request passes gives its place back.
func TestPassedClientThatLeavesBeforeTheAnswer(t *testing.T) {
	hung := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-hung:
		}
	}))
	defer silent.Close()
	defer close(hung)
	s := run(t, "sse_fanout {\nmax_subscribers 10 per_client_ip 2\n}\nreverse_proxy "+silent.Listener.Addr().String())
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/events", nil)
		asBrowser(r)
		if resp, err := s.client.Do(r); err == nil {
			resp.Body.Close()
			t.Errorf("got %s, want no answer", resp.Status)
		}
		cancel()
		waitFor(t, "its place to be free", func() bool {
			for _, p := range alive.all() {
				if p.relay.Holdings().Subscribers > 0 {
					return false
				}
			}
			return true
		})
	}
}
