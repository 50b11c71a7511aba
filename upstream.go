package ssefanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// An upstream is how the origin of one topic is reached: through the source of the newest
// configuration that has started. It is asked anew for each connection, so that a topic
// outlives the handlers that it came through.
type upstream struct {
	// Static after construction.
	pool    *pool
	topic   *relay.Topic
	request *topicRequest

	abandoned atomic.Int32 // sources that nobody listens to any more

	// ended has how direct delivery ends the clients of the topic (see delivery).
	ended atomic.Pointer[directEnding]

	outage outage // owned by the goroutine that feeds the topic

	mu sync.Mutex

	// Guarded by mu.
	homes homes // wrapping form
	via   home  // that the shared connection has come through
}

// upstreamOf returns the upstream of a topic.
func upstreamOf(t *relay.Topic) *upstream { return t.Source().(*upstream) }

// Follow implements relay.Source.
func (u *upstream) Follow(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
	src, ok := u.pool.source()
	if !ok {
		return relay.Outcome{Err: relay.ErrClosing}
	}
	return ask(ctx, src, u, from, u.newAnswer(sink))
}

// newAnswer returns what takes an answer into a sink.
func (u *upstream) newAnswer(sink relay.Sink) *answer {
	var a *answer
	a = newAnswer(func(header http.Header) (io.Writer, func()) {
		if sink.Shared() {
			u.mu.Lock()
			u.via = a.via
			u.mu.Unlock()
		}
		tell := sink.Accept(relay.Opening{Header: fields.Shared(header), Address: a.address()})
		return &decoding{upstream: u, sink: sink, decoder: a.newDecoder(u.pool.opts, sink)}, tell
	}, sink.Heard, u.restrictionOf)
	a.settles = sink.Shared()
	return a
}

// A decoding is the body of an answer that is an event stream.
type decoding struct {
	upstream *upstream
	sink     relay.Sink
	decoder  *sse.Decoder
}

// Write implements io.Writer.
func (d *decoding) Write(p []byte) (int, error) {
	n, err := d.decoder.Write(p)
	d.sink.Flush()
	if errors.Is(err, sse.ErrEventTooLarge) {
		err = fmt.Errorf("reading the event stream: %w: raise max_event_size above %d bytes if such events are meant",
			err, d.upstream.pool.opts.MaxEventSize)
	}
	return n, err
}

// Abandoned implements relay.Source.
func (u *upstream) Abandoned() int { return int(u.abandoned.Load()) }

// Moved implements relay.Source.
func (u *upstream) Moved() bool {
	newest := u.pool.lineage.newestHandler()
	return newest != nil && u.isConnectedThroughAnother(newest)
}

// LeftBehind implements relay.Source: whether the newest configuration is one that the
// stranger has not got through.
func (u *upstream) LeftBehind() bool {
	newest := u.pool.lineage.newestHandler()
	u.mu.Lock()
	defer u.mu.Unlock()
	return newest != nil && len(u.homes) > 0 && u.homes.in(newest) == nil
}

// seek makes the topic go on through the configuration of h, if that is the newest and
// the topic is connected through others alone.
func (u *upstream) seek(h *Handler) {
	if u.pool.opts.wrapping && u.pool.lineage.isNewest(h) && u.isConnectedThroughAnother(h) {
		u.topic.Reroute()
	}
}

// isConnectedThroughAnother reports whether the stranger has been through other
// configurations than that of h alone, or the connection goes through one.
func (u *upstream) isConnectedThroughAnother(h *Handler) bool {
	connected := u.topic.IsConnected()
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.homes) > 0 && (u.homes.in(h) == nil || connected && !u.via.isIn(h))
}

// Interface guards
var _ relay.Source = (*upstream)(nil)
