package ssefanout

import (
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A server calls its hooks for each request: one with many handlers has them once.
func TestServerIsWatchedOnce(t *testing.T) {
	server := new(caddyhttp.Server)
	allocated := testing.AllocsPerRun(100, func() { watchServer(server) })
	if allocated > 0 {
		t.Errorf("watching a server again allocates %v times, as hooks would", allocated)
	}
}
