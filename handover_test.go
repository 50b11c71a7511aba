package ssefanout

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
)

// subscribersNow returns those that are served, and how many of them directly.
func subscribersNow() (all, handedOver int) {
	for _, p := range alive.all() {
		current, ending := p.relay.Topics()
		for _, t := range append(current, ending...) {
			for _, s := range t.SubscriberSnapshots() {
				all++
				if s.Carried {
					handedOver++
				}
			}
		}
	}
	return all, handedOver
}

func TestWhoIsHandedOver(t *testing.T) {
	needsDirect(t)
	for _, tc := range []struct {
		name       string
		directives string // in front
		option     string
		servers    string
		version    string
		header     []string
		want       bool
	}{
		{name: "plain", want: true},
		{name: "direct off", option: "direct off"},
		{name: "direct on", option: "direct on", want: true},
		{name: "TLS, HTTP/1.1", version: "TLS"},
		{name: "TLS, HTTP/2", version: "HTTP/2.0"},
		{name: "behind what does not change it", directives: "log\nheader X-A b\nheader >X-C d\nencode gzip zstd\ntemplates",
			header: []string{"Accept-Encoding", "gzip"}, want: true},
		{name: "with metrics", servers: "metrics", want: true},
		{name: "timeouts of the route", directives: "timeouts {\nwrite_timeout 30s\n}", want: true},
		{name: "less patience of the route", directives: "timeouts {\nwrite_timeout 5s\n}"},
		{name: "a write timeout", servers: "servers {\ntimeouts {\nwrite 1h\n}\n}"},
		{name: "a minimum rate", servers: "servers {\ntimeouts {\nwrite_idle 30s 10\n}\n}"},
		{name: "no write_idle", servers: "servers {\ntimeouts {\nwrite_idle 0s\n}\n}", want: true},
		{name: "a listener wrapper", servers: "servers {\nlistener_wrappers {\nproxy_protocol\n}\n}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			origin := newLiveOrigin(t)
			s := run(t, tc.directives+"\nsse_fanout "+origin.addr+" {\n"+tc.option+"\n}", tc.servers)
			url, client := s.over(tc.version)
			if tc.version == "TLS" {
				url = s.tls
			}
			c := open(t, client, url+"/events", tc.header...)
			if tc.want {
				waitFor(t, "the handover", func() bool { _, n := subscribersNow(); return n == 1 })
			}
			for i := range 3 {
				origin.send(numbered(i, i))
				c.expect(numbered(i, i))
			}
			if all, n := subscribersNow(); all != 1 || (n == 1) != tc.want {
				t.Errorf("of %d subscribers, %d were handed over, want it: %t", all, n, tc.want)
			}
			c.cancel()
			waitFor(t, "the end", func() bool { all, _ := subscribersNow(); return all == 0 })
		})
	}
}

// A client of HTTP/1.0 knows no chunks.
func TestHTTP10IsNotHandedOver(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, "sse_fanout "+origin.addr)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /events HTTP/1.0\r\nHost: a\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\nPragma: no-cache\r\nUser-Agent: Mozilla/5.0\r\n\r\n")
	waitFor(t, "the origin", func() bool { return origin.open() == 1 })
	origin.send(numbered(1, 1))
	var got strings.Builder
	r := bufio.NewReader(conn)
	for !strings.HasSuffix(got.String(), "\r\n\r\n"+primer("")+numbered(1, 1)) {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
		got.WriteString(line)
	}
}

func TestHandoverOverAUnixSocket(t *testing.T) {
	needsDirect(t)
	origin := newLiveOrigin(t)
	s := newSite(t)
	socket := filepath.Join(s.directory, "socket")
	s.loadSites(fmt.Sprintf("http:// {\nbind unix/%s\nsse_fanout %s\n}\n", socket, origin.addr))
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	c := open(t, client, "http://localhost/events")
	waitFor(t, "the handover", func() bool { _, n := subscribersNow(); return n == 1 })
	origin.send(numbered(1, 3))
	c.expect(numbered(1, 3))
}

// While no descriptor is to be had, clients are served as before.
func TestNoDescriptorIsToBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		overSockets = new(exhausted)
		defer func() { overSockets = nil }()
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next().accept()
		for i := range 3 {
			up.events(i, i)
		}
		c.expect(primer("") + numbered(0, 2))
		if got := s.logs.FilterMessage("delivering over the HTTP server").Len(); got != 1 {
			t.Errorf("said %d times, want once", got)
		}
	})
}

// exhausted has no more descriptors.
type exhausted struct{ memorySockets }

func (*exhausted) Beneath(http.ResponseWriter, *http.Request, string) bool { return true }
func (*exhausted) Duplicate(*http.Request) (int, error)                    { return 0, syscall.EMFILE }
func (*exhausted) Network() (direct.Network, error)                        { return nil, os.ErrInvalid }

// An opaque writer is no one's that is known.
type opaque struct{ http.ResponseWriter }

func (o opaque) Unwrap() http.ResponseWriter { return o.ResponseWriter }

func (o opaque) Write(p []byte) (int, error) {
	return 0, errors.Join(io.ErrShortWrite, errors.New(strings.ToUpper(string(p))))
}

func TestWritersOfOthersAreNotTrusted(t *testing.T) {
	if carrier.Transparent(opaque{&client{t: t, header: make(http.Header)}}, "") {
		t.Error("a writer that nobody knows is taken for one that changes nothing")
	}
}
