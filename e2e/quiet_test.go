package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// Caddy resets a stream whose write makes no progress within write_idle. On
// HTTP/2 the deadline of an earlier write is a timer that fires in the quiet
// time as well, if it is left armed.
func TestQuietStreamOutlivesWriteIdle(t *testing.T) {
	const quiet = 5 * time.Second
	origin := inGo(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		for n := 1; ; n++ {
			fmt.Fprintf(w, "id: %d\ndata: {\"n\":%d}\n\n", n, n)
			if rc.Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(quiet):
			}
		}
	}))
	caddy := runCaddy(t, "servers {\n\t\ttimeouts {\n\t\t\twrite_idle 2s\n\t\t}\n\t}", fmt.Sprintf(`HTTP, HTTPS {
	sse_fanout %s {
		heartbeat off
	}
}`, origin.addr))

	h3 := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() { h3.Close() })
	// All are quiet at the same time, each on a topic of its own.
	var clients sync.WaitGroup
	for name, client := range map[string]struct {
		url   string
		major int
		*http.Client
	}{
		"HTTP/1.1":          {caddy.http + "/1", 1, httpClient(t, "h1")},
		"HTTP/1.1 over TLS": {caddy.https + "/1", 1, httpClient(t, "h1")},
		"HTTP/2":            {caddy.https + "/2", 2, httpClient(t, "h2")},
		"HTTP/3":            {caddy.https + "/3", 3, &http.Client{Transport: h3}},
	} {
		clients.Go(func() {
			s, err := subscribe(t.Context(), client.Client, client.url)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer s.Body.Close()
			if s.ProtoMajor != client.major {
				t.Errorf("%s: got HTTP/%d", name, s.ProtoMajor)
			}
			if s.Header.Get("Incremental") != "?1" {
				t.Errorf("%s: the stream is not shared", name)
			}
			began := time.Now()
			if err := s.follow(new(sequence), 3); err != nil {
				t.Errorf("%s: the stream ended after %s: %v", name, time.Since(began).Round(time.Millisecond), err)
			} else if waited := time.Since(began); waited < quiet {
				t.Errorf("%s: three events within %s: the stream was never quiet", name, waited)
			}
		})
	}
	clients.Wait()
}
