package ssefanout

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// errNoCoding is what a client gets whose Accept-Encoding excludes both gzip and what is not
// encoded.
var errNoCoding = errors.New("negotiating a content coding: the client excludes gzip and identity")

// refuseCodings answers a client that accepts no form in which there is a stream, if that is
// so. Where nothing is compressed, nobody looks at what it accepts, as RFC 9110, section
// 12.5.3, allows.
func (p *pool) refuseCodings(w http.ResponseWriter, r *http.Request) error {
	if !p.opts.Compresses() {
		return nil
	}
	if gzip, identity := fields.AcceptedCodings(r.Header); gzip || identity {
		return nil
	}
	p.stats.Rejected.Count(relay.RejectEncoding)
	observe.Describe(r, observe.OutcomeRejected, string(relay.RejectEncoding))
	fields.AddVary(w.Header(), "Accept-Encoding")
	return caddyhttp.Error(http.StatusNotAcceptable, errNoCoding)
}

// compressed returns the stream of gzip that a client gets, or nil if its answer has no
// content coding.
func (p *pool) compressed(r *http.Request, reader *relay.Reader) *gzip.Stream {
	if !p.opts.Compresses() {
		return nil
	}
	gzip, identity := fields.AcceptedCodings(r.Header)
	if !gzip {
		return nil
	}
	return reader.Compressed(!identity)
}
