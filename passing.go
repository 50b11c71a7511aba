package ssefanout

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
)

// pass sends r on one to one. If it is answered with an event stream, its client
// counts for the limits like a subscriber.
func (h *Handler) pass(p *pool, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, why passReason) error {
	pw := newPassedWriter(p, w, r)
	if why.presumesStream() && fields.WantsOnlyEventStream(r.Header) {
		// The origin need not be asked for what its client could not have.
		if rejected := pw.claim(); rejected != "" {
			return p.turnAway(w, r, rejected, nil)
		}
	}
	p.stats.passed.Count(why)
	describe(r, outcomePassed, string(why))
	return pw.serve(r, func() error {
		if h.wraps() {
			return next.ServeHTTP(pw, r)
		}
		return h.source.ServeHTTP(pw, r, next)
	})
}

// presumesStream reports whether the answer to a request that passes for this reason
// is an event stream if that is all that the client wants. If not, the answer has to
// tell: it may be another protocol, the page of an error, or what it was before.
func (why passReason) presumesStream() bool {
	switch why {
	case passUpgrade, passError, passNotStream, passRefused, passFront, passDiffers, passBehind:
		return false
	default:
		return true
	}
}

// A passedWriter is the response writer of a request that passes one to one. It looks
// at the header of the answer, and if that begins an event stream, takes a place for
// it, or turns the client away and cuts the answer if a limit leaves none. It
// passes on all else as it comes.
type passedWriter struct {
	*caddyhttp.ResponseWriterWrapper
	control *http.ResponseController // of the writer beneath
	pool    *pool
	request *http.Request
	address string // of the client, as it is counted

	before http.Header        // as the handlers in front left it; nil if there are no limits
	cancel context.CancelFunc // of the request that the handlers behind see; nil if there are no limits
	placed bool               // it holds a place
	judged bool
	cut    bool
}

var errTurnedAway = errors.New("sse_fanout has turned the client away, as a limit is reached")

func newPassedWriter(p *pool, w http.ResponseWriter, r *http.Request) *passedWriter {
	return &passedWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		control:               http.NewResponseController(w),
		pool:                  p,
		request:               r,
		address:               request.CountedAddress(request.ClientIP(r)),
	}
}

// serve has r answered. When it returns, the place is given back.
func (w *passedWriter) serve(r *http.Request, answer func() error) error {
	defer w.release()
	if l := &w.pool.opts.MaxSubscribers; l.Total <= 0 && l.PerClientIP <= 0 {
		return answer()
	}
	w.before = w.Header().Clone()
	// The handler that answers may be waiting for the origin's next byte. It would
	// not notice that writes fail, but it notices that its request is cancelled.
	outer := r.Context()
	ctx, cancel := context.WithCancel(outer)
	w.cancel = cancel
	// In place, as the placeholders of the request read this http.Request.
	*r = *r.WithContext(ctx)
	defer func() {
		cancel()
		*r = *r.WithContext(outer)
	}()
	return w.untilCut(answer)
}

// untilCut calls answer. If the answer was cut, the client has got another one already,
// so the error, or reverse_proxy's panic for a broken answer, is dropped.
func (w *passedWriter) untilCut(answer func() error) (err error) {
	defer func() {
		if !w.cut {
			return
		}
		if why := recover(); why != nil && why != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
			panic(why)
		}
		err = nil
	}()
	return answer()
}

// claim takes a place, or tells the limit that leaves none.
func (w *passedWriter) claim() relay.Rejection {
	if why := w.pool.relay.Reserve(w.address); why != "" {
		return why
	}
	w.placed = true
	w.pool.stats.passedStreams.Add(1)
	return ""
}

// release gives the place back, if there is one.
func (w *passedWriter) release() {
	if !w.placed {
		return
	}
	w.placed = false
	w.pool.relay.Release(w.address)
	w.pool.stats.passedStreams.Add(-1)
}

// judge looks at the header of the answer when it is complete.
func (w *passedWriter) judge(status int) {
	if w.judged {
		return
	}
	w.judged = true
	// An EventSource wants a 200; other clients take any success.
	stream := status >= 200 && status < 300 && fields.IsEventStream(w.Header())
	switch {
	case !stream:
		w.release()
	case !w.placed:
		if why := w.claim(); why != "" {
			w.turnAway(why)
		}
	}
}

// turnAway answers the client as any that is over a limit, in place of the origin.
func (w *passedWriter) turnAway(why relay.Rejection) {
	w.cut = true
	header := w.Header()
	origins := readableBy(header)
	clear(header)
	fields.Copy(header, w.before)
	_ = w.pool.turnAway(w.ResponseWriter, w.request, why, origins) // it has no error to tell
	w.cancel()
}

// WriteHeader implements http.ResponseWriter. Informational answers precede the one
// that counts; 101 is final.
func (w *passedWriter) WriteHeader(status int) {
	if status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		w.judge(status)
	}
	if !w.cut {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *passedWriter) Write(p []byte) (int, error) {
	w.judge(http.StatusOK)
	if w.cut {
		return 0, errTurnedAway
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that files are still sent by the kernel.
func (w *passedWriter) ReadFrom(r io.Reader) (int64, error) {
	w.judge(http.StatusOK)
	if w.cut {
		return 0, errTurnedAway
	}
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what http.ResponseController flushes with. The first flush sends the
// header.
func (w *passedWriter) FlushError() error {
	w.judge(http.StatusOK)
	if w.cut {
		return errTurnedAway
	}
	return w.control.Flush()
}

// Hijack and all else that http.ResponseController does reach the writer beneath
// through Unwrap.

// Interface guards
var (
	_ http.ResponseWriter = (*passedWriter)(nil)
	_ http.Pusher         = (*passedWriter)(nil)
	_ io.ReaderFrom       = (*passedWriter)(nil)
)
