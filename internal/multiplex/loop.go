package multiplex

import (
	"net/http"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
)

// LoopToken is in the header CDN-Loop (RFC 8586) of requests for streams. A proxy that leads
// one to this server again, over the network, is found out by it.
const LoopToken = "caddy-sse-multiplex" //nolint:gosec // a token of HTTP, and no secret

// IsInner reports whether r is a request for a stream of a connection, or comes of one.
func IsInner(r *http.Request) bool {
	if Of(r) != nil {
		return true
	}
	for item := range fields.Items(r.Header["Cdn-Loop"]) {
		if name, _, _ := strings.Cut(item, ";"); strings.TrimSpace(name) == LoopToken {
			return true
		}
	}
	return false
}
