package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

// exitTime is how long Caddy may take to go, whatever it serves.
const exitTime = 2 * time.Second

// exiting is a site with a stream that is never quiet. No grace_period is set:
// stock Caddy waits for its streams for ever.
func exiting(addr, option, greeting string) string {
	return fmt.Sprintf(`HTTP, HTTPS {
	handle /endpoint {
		sse_fanout %s {
			%s
		}
	}
	handle /wrapping {
		sse_fanout {
			%s
		}
		reverse_proxy %s
	}
	respond %s
}`, addr, option, option, addr, greeting)
}

// publishing is an origin that goes on until the test ends.
func publishing(t *testing.T) *origin {
	t.Helper()
	var broadcast origins.Broadcast
	origin := inGo(t, &broadcast)
	tick := time.NewTicker(100 * time.Millisecond)
	done := make(chan struct{})
	t.Cleanup(func() {
		tick.Stop()
		close(done)
	})
	go func() {
		for {
			select {
			case <-tick.C:
				broadcast.Publish()
			case <-done:
				return
			}
		}
	}()
	return origin
}

func h3Client(t *testing.T) *http.Client {
	t.Helper()
	h3 := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() { h3.Close() })
	return &http.Client{Transport: h3}
}

// holdAll opens streams of both forms and all protocols.
func holdAll(t *testing.T, c *caddy, n int) (all []*holding) {
	t.Helper()
	h1, h2, h3 := httpClient(t, "h1"), httpClient(t, "h2"), h3Client(t)
	for _, path := range []string{"/endpoint", "/wrapping"} {
		all = append(all,
			hold(t, h1, c.http+path, n/4), hold(t, h2, c.https+path, n/4-n/20), hold(t, h3, c.https+path, n/20))
	}
	return all
}

// leaves checks that Caddy goes in time, and says how long it took.
func (c *caddy) leaves(t *testing.T, streams ...*holding) {
	t.Helper()
	began := time.Now()
	if !c.terminate(exitTime) {
		t.Fatalf("Caddy was still running %s after SIGTERM", exitTime)
	}
	t.Logf("gone after %s", time.Since(began).Round(time.Millisecond))
	awaitEnds(t, 5*time.Second, streams...)
}

func TestExitEndsStreams(t *testing.T) {
	const option = "stream_close_delay 1h"
	t.Run("of one configuration", func(t *testing.T) {
		origin := publishing(t)
		caddy := runCaddy(t, "", exiting(origin.addr, "", "hello"))
		caddy.leaves(t, holdAll(t, caddy, 1000)...)
	})
	t.Run("of four configurations", func(t *testing.T) {
		origin := publishing(t)
		caddy := runCaddy(t, "", exiting(origin.addr, option, "hello"))
		streams := holdAll(t, caddy, 240)
		for _, reload := range []struct{ option, greeting string }{
			{option, "changed"},
			{option + "\nhistory 500", "changed"},
			{option + "\nhistory 600", "changed"},
		} {
			caddy.reload(t, "", exiting(origin.addr, reload.option, reload.greeting))
			streams = append(streams, holdAll(t, caddy, 240)...)
		}
		caddy.leaves(t, streams...)
	})
	t.Run("of a handler that was removed", func(t *testing.T) {
		origin := publishing(t)
		caddy := runCaddy(t, "", exiting(origin.addr, option, "hello"))
		streams := holdAll(t, caddy, 1000)
		caddy.reload(t, "", "HTTP, HTTPS {\n\trespond hello\n}")
		time.Sleep(time.Second) // as long as it is to have been removed
		caddy.leaves(t, streams...)
	})
}

// A request whose first bytes came before Caddy was told to go is answered in
// the way after which an EventSource comes back.
func TestExitTurnsNewRequestsAway(t *testing.T) {
	origin := publishing(t)
	caddy := runCaddy(t, "", exiting(origin.addr, "", "hello"))
	for _, path := range []string{"/endpoint", "/wrapping"} {
		live := hold(t, httpClient(t, "h1"), caddy.http+path, 1)
		defer func() { awaitEnds(t, time.Second, live) }()
	}
	var late []net.Conn
	for _, path := range []string{"/endpoint", "/wrapping"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(caddy.http, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n", path)
		for name, value := range eventsource.Header {
			fmt.Fprintf(conn, "%s: %s\r\n", name, value)
		}
		late = append(late, conn)
	}
	// Connections are accepted in turn: once there is this one, there are those.
	last := hold(t, httpClient(t, "h1"), caddy.http+"/endpoint", 1)
	_ = caddy.cmd.Process.Signal(syscall.SIGTERM)
	awaitEnds(t, exitTime, last)

	for _, conn := range late {
		fmt.Fprint(conn, "\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			continue // it is gone: an EventSource comes back from that too
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("got %s, %q, %v", resp.Status, resp.Header, err)
		}
		if !strings.HasPrefix(string(body), "retry: ") || !resp.Close {
			t.Errorf("got %q, connection to be closed: %v", body, resp.Close)
		}
	}
	select {
	case <-caddy.exited:
	case <-time.After(exitTime):
		t.Errorf("Caddy was still running %s after its last answer", exitTime)
	}
}

// A client whose handshake was under way when Caddy was told to go, and who asks
// for a stream that nobody has asked for yet, must not keep Caddy.
func TestExitDoesNotServeWhoIsStillShakingHands(t *testing.T) {
	origin := publishing(t)
	caddy := runCaddy(t, "", exiting(origin.addr, "", "hello"))
	live := hold(t, httpClient(t, "h2"), caddy.https+"/endpoint", 1)

	line := new(wire.Line)
	client := httpClient(t, "h2")
	client.Transport.(*http.Transport).DialContext = line.Dial
	resume := line.Stall()
	answered := make(chan error, 1)
	go func() {
		s, err := subscribe(t.Context(), client, caddy.https+"/wrapping")
		if err != nil {
			answered <- nil // an EventSource comes back from that too
			return
		}
		defer s.Body.Close()
		end := s.hold()
		answered <- end.proper()
	}()
	eventually(t, 10*time.Second, func() error {
		if line.Open() == 0 {
			return errors.New("the client has not dialled")
		}
		return nil
	})
	// Connections are accepted in turn: once there is this one, there is that.
	late := hold(t, httpClient(t, "h2"), caddy.https+"/endpoint", 1)

	_ = caddy.cmd.Process.Signal(syscall.SIGTERM)
	awaitEnds(t, exitTime, live, late)
	resume()
	select {
	case <-caddy.exited:
	case <-time.After(exitTime):
		t.Errorf("Caddy was still running %s after it has ended its streams", exitTime)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// A client that has stopped reading must not keep Caddy, neither with its stream
// nor with its connection, and no matter which configuration has accepted that.
func TestExitDoesNotWaitForWhoDoesNotRead(t *testing.T) {
	busy := &origins.Numbered{Epoch: time.Now(), Interval: time.Millisecond, Lookback: time.Minute}
	origin := inGo(t, busy)
	for _, reloads := range []int{0, 2} {
		for _, protocol := range []string{"h1", "h1 over TLS", "h2"} {
			t.Run(fmt.Sprintf("%s, %d reloads", protocol, reloads), func(t *testing.T) {
				caddy := runCaddy(t, "", exiting(origin.addr, "", "hello"))
				base := caddy.https
				if protocol == "h1" {
					base = caddy.http
				}
				line := &wire.Line{ReadBuffer: 16 << 10}
				client := httpClient(t, protocol[:2])
				transport := client.Transport.(*http.Transport)
				transport.DialContext = line.Dial
				transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 256 << 10}
				for _, path := range []string{"/endpoint", "/wrapping", "/endpoint", "/wrapping", "/endpoint"} {
					hold(t, client, base+path, 1)
				}
				for i := range reloads {
					caddy.reload(t, "", exiting(origin.addr, "", fmt.Sprint("hello ", i)))
				}
				resume := line.Stall()
				defer resume()
				time.Sleep(2 * time.Second) // as long as they have not read
				caddy.leaves(t)
			})
		}
	}
}

// A connection of HTTP/2 that a server has got just when a reload shuts it down is
// not told to end, and its client need not close it by itself.
func TestExitDoesNotWaitForWhoCameDuringReloads(t *testing.T) {
	origin := publishing(t)
	caddy := runCaddy(t, "", exiting(origin.addr, "", "hello"))
	var (
		lines   []*wire.Line
		resumes []func()
		opening sync.WaitGroup
	)
	for range 400 {
		line := new(wire.Line)
		client := httpClient(t, "h2")
		client.Transport.(*http.Transport).DialContext = line.Dial
		lines = append(lines, line)
		opening.Go(func() {
			s, err := subscribe(t.Context(), client, caddy.https+"/endpoint")
			if err != nil {
				return // Caddy resets what it has not accepted yet
			}
			t.Cleanup(func() { s.Body.Close() })
			go s.hold()
		})
	}
	for i := range 5 {
		if err := caddy.load(t, "", exiting(origin.addr, "", fmt.Sprint("hello ", i))); err != nil {
			t.Fatal(err)
		}
	}
	opening.Wait()
	for _, line := range lines {
		resumes = append(resumes, line.Stall())
	}
	defer func() {
		for _, resume := range resumes {
			resume()
		}
	}()
	caddy.leaves(t)
}

// Nor must a client that has connected and is silent, or stops in the middle of a
// handshake or of its first request.
func TestExitDoesNotWaitForWhoHasNotAsked(t *testing.T) {
	origin := publishing(t)
	caddy := runCaddy(t, "", exiting(origin.addr, "", "hello"))
	live := hold(t, httpClient(t, "h2"), caddy.https+"/endpoint", 1)
	for _, base := range []string{caddy.http, caddy.https} {
		for _, first := range []string{"", "GET /endpoint HTTP/1.1\r\n"} {
			_, address, _ := strings.Cut(base, "://")
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			if base == caddy.https && first != "" {
				first = "\x16\x03\x01\x02\x00\x01" // a ClientHello begins
			}
			fmt.Fprint(conn, first)
		}
	}
	// Connections are accepted in turn: once there is one more, there are those.
	hold(t, httpClient(t, "h1"), caddy.http+"/endpoint", 1)
	hold(t, httpClient(t, "h1"), caddy.https+"/endpoint", 1)
	caddy.leaves(t, live)
}

// Whatever else the site was doing is done to its end, as without us.
func TestExitLetsOtherAnswersFinish(t *testing.T) {
	var broadcast origins.Broadcast
	mux := http.NewServeMux()
	mux.Handle("/events", &broadcast)
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		for i := range 6 {
			fmt.Fprint(w, i)
			_ = rc.Flush()
			time.Sleep(500 * time.Millisecond) // how slow it is
		}
	})
	origin := inGo(t, mux)
	caddy := runCaddy(t, "", fmt.Sprintf("HTTP, HTTPS {\n\tsse_fanout\n\treverse_proxy %s\n}", origin.addr))
	type result struct {
		name, body string
		err        error
	}
	results := make(chan result)
	begun := make(chan struct{})
	get := func(name, base string, client *http.Client) {
		// On HTTP/2, the stream shares the connection.
		hold(t, client, base+"/events", 1)
		go func() {
			resp, err := client.Get(base + "/slow")
			begun <- struct{}{}
			if err != nil {
				results <- result{name: name, err: err}
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			results <- result{name, string(body), err}
		}()
		<-begun
	}
	get("HTTP/1.1", caddy.http, httpClient(t, "h1"))
	get("HTTP/1.1 over TLS", caddy.https, httpClient(t, "h1"))
	get("HTTP/2", caddy.https, httpClient(t, "h2"))
	_ = caddy.cmd.Process.Signal(syscall.SIGTERM)
	for range 3 {
		if r := <-results; r.err != nil || r.body != "012345" {
			t.Errorf("over %s, the answer was %q, %v", r.name, r.body, r.err)
		}
	}
}
