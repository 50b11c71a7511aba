package ssefanout

import (
	"net/http"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// carry serves a client that was admitted, with the header of the origin's answer, and
// returns when its stream has ended or its connection was handed over.
func (p *pool) carry(w http.ResponseWriter, r *http.Request, reader *relay.Reader, header http.Header) error {
	z := p.compressed(r, reader)
	s := p.service.Begin(w, r, reader, z)
	defer s.Release()
	if z != nil {
		w.Header().Set("Content-Encoding", carrier.Gzip)
	}
	p.writeHeader(w, r, header)
	reason, abort := s.Serve()
	if reason == "" {
		reason = observe.ReasonHandedOver
	}
	observe.DescribeEnd(r, reader, string(reason))
	if abort {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// writeHeader sends the header of an event stream.
func (p *pool) writeHeader(w http.ResponseWriter, r *http.Request, origins http.Header) {
	header := w.Header()
	fields.Copy(header, origins)
	p.opts.CORS.Apply(header, r)
	if !fields.IsEventStream(header) {
		header.Set("Content-Type", "text/event-stream")
	}
	// no-transform keeps compressing handlers away, ours and those on the way;
	// the two others are what nginx and RFC 10036 have for the same purpose.
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("Incremental", "?1")
	if p.opts.Compresses() {
		fields.AddVary(header, "Accept-Encoding")
	}
	w.WriteHeader(http.StatusOK)
}
