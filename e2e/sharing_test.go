package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// Behind gunicorn's sync worker or PHP's built-in server a second connection
// would wait for ever: there the test hangs rather than miscounts.
func TestTwoHundredClientsShareOneConnection(t *testing.T) {
	const clients, late, events = 200, 50, 40
	for _, tc := range []struct {
		name   string
		origin func(*testing.T) *origin
		scheme string
	}{
		{"Flask, gunicorn sync", flask, ""},
		{"Node", node, ""},
		{"PHP, built-in server", php, ""},
		{"Go, gzip", encoded(origins.Gzip), ""},
		{"Go, brotli", encoded(origins.Brotli), ""},
		{"Go, zstd", encoded(origins.Zstd), ""},
		{"Go, h2c", encoded(origins.Identity), "h2c://"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			origin := tc.origin(t)
			conns := countConnections(t, origin.addr)
			caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	sse_fanout %s%s {
		linger 1s
	}
}`, tc.scheme, conns.addr))
			client := httpClient(t, "h1")

			first := join(t, client, caddy.http+"/events", clients-late, events)
			first.await(t, 1, 30*time.Second)
			// The others find a stream that is under way.
			others := join(t, client, caddy.http+"/events", late, events)
			first.await(t, clients-late-1, 30*time.Second)
			others.await(t, late, 30*time.Second)
			if now, most, total := conns.count(); now != 1 || most != 1 || total != 1 {
				t.Errorf("the origin has %d connections, had %d at most, %d in all; want one", now, most, total)
			}

			first.leave()
			others.leave()
			eventually(t, 6*time.Second, func() error {
				held, _, _ := conns.count()
				if origin.streams != nil {
					held = origin.streams()
				}
				if held != 0 {
					return fmt.Errorf("the origin holds %d streams, nobody listens", held)
				}
				return nil
			})
			if _, _, total := conns.count(); total != 1 {
				t.Errorf("the origin had %d connections, want one", total)
			}
		})
	}
}
