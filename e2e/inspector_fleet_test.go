package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/natsserver"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// TestInspectorShowsTheFleet looks at a node that follows, and takes NATS away.
func TestInspectorShowsTheFleet(t *testing.T) {
	t.Parallel()
	binary, err := natsserver.Build("..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	nats := start(t, "nats", exec.Command(binary, "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-js", "-sd", filepath.Join(t.TempDir(), "store")))
	nats.awaitListening(t, "tcp", address)
	origin := inGo(t, timeline.Handler(origins.Identity))
	var nodes []*caddy
	for i := range 2 {
		c := runCaddy(t, fmt.Sprintf(`sse_fanout_fleet nats://%s {
	node node%d
	secret "a secret of the fleet"
	lease 1s
}`, address, i+1), fmt.Sprintf(`HTTP {
	handle /events {
		sse_fanout %s {
			name events
			fleet
		}
	}
	sse_inspector /inspector/*
}`, origin.addr))
		nodes = append(nodes, c)
		// Topics are of a host, and have its port.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.http+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "fleet.test"
		resp, err := httpClient(t, "h1").Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		go io.Copy(io.Discard, resp.Body)
	}
	s := openScreen(t, nodes[1].http+"/inspector/")
	s.press("2")
	cell := func() string {
		return evaluate[string](s, `[...document.querySelectorAll('[data-topics=rows] tr')].find((row) => row.innerText.includes('fleet.test'))?.querySelector('td.fleet').innerText ?? ''`)
	}
	shows := func(texts ...string) {
		t.Helper()
		s.await(func() error {
			got := cell()
			for _, text := range texts {
				if !strings.Contains(got, text) {
					return fmt.Errorf("the fleet's column has %q, want %q in it", got, text)
				}
			}
			return nil
		})
	}
	shows("follower", "node1 asks the origin")
	s.fill("#topics-filter", "follower")
	s.see("[data-topics=rows]", "fleet.test/events")
	s.fill("#topics-filter", "")
	nats.kill()
	shows("apart", "there is no connection to a NATS server")
}
