package pass

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// Places are those of event streams that pass one to one, which count for the limits like
// subscribers.
type Places struct {
	// Relay gives places to subscribers, too.
	Relay *relay.Relay

	// Limits bound the places. If none is set, answers are not looked at.
	Limits settings.SubscriberLimits

	// Streams counts those that have a place now.
	Streams *atomic.Int64

	// TurnAway answers a client for whom there is no place. If the origin was asked,
	// origins is what its answer shares.
	TurnAway func(w http.ResponseWriter, r *http.Request, why relay.Rejection, origins http.Header) error
}

// A Writer is the response writer of a request that passes one to one. It looks
// at the header of the answer, and if that begins an event stream, takes a place for
// it, or turns the client away and cuts the answer if a limit leaves none. It
// passes on all else as it comes.
type Writer struct {
	*caddyhttp.ResponseWriterWrapper
	control *http.ResponseController // of the writer beneath
	places  *Places
	request *http.Request
	address string // of the client, as it is counted

	before http.Header        // as the handlers in front left it; nil if there are no limits
	cancel context.CancelFunc // of the request that the handlers behind see; nil if there are no limits
	placed bool               // it holds a place
	judged bool
	cut    bool
}

var errTurnedAway = errors.New("sse_fanout has turned the client away, as a limit is reached")

// NewWriter returns a writer of the answer to r, in front of w.
func NewWriter(p *Places, w http.ResponseWriter, r *http.Request) *Writer {
	return &Writer{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		control:               http.NewResponseController(w),
		places:                p,
		request:               r,
		address:               request.CountedAddress(request.ClientIP(r)),
	}
}

// Serve has r answered. When it returns, the place is given back.
func (w *Writer) Serve(r *http.Request, answer func() error) error {
	defer w.release()
	if l := &w.places.Limits; l.Total <= 0 && l.PerClientIP <= 0 {
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
func (w *Writer) untilCut(answer func() error) (err error) {
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

// Claim takes a place, or tells the limit that leaves none.
func (w *Writer) Claim() relay.Rejection {
	if why := w.places.Relay.Reserve(w.address); why != "" {
		return why
	}
	w.placed = true
	w.places.Streams.Add(1)
	return ""
}

// release gives the place back, if there is one.
func (w *Writer) release() {
	if !w.placed {
		return
	}
	w.placed = false
	w.places.Relay.Release(w.address)
	w.places.Streams.Add(-1)
}

// judge looks at the header of the answer when it is complete.
func (w *Writer) judge(status int) {
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
		if why := w.Claim(); why != "" {
			w.turnAway(why)
		}
	}
}

// turnAway answers the client as any that is over a limit, in place of the origin.
func (w *Writer) turnAway(why relay.Rejection) {
	w.cut = true
	header := w.Header()
	origins := readableBy(header)
	clear(header)
	fields.Copy(header, w.before)
	_ = w.places.TurnAway(w.ResponseWriter, w.request, why, origins) // it has no error to tell
	w.cancel()
}

// WriteHeader implements http.ResponseWriter. Informational answers precede the one
// that counts; 101 is final.
func (w *Writer) WriteHeader(status int) {
	if status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		w.judge(status)
	}
	if !w.cut {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(p []byte) (int, error) {
	w.judge(http.StatusOK)
	if w.cut {
		return 0, errTurnedAway
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that files are still sent by the kernel.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	w.judge(http.StatusOK)
	if w.cut {
		return 0, errTurnedAway
	}
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what http.ResponseController flushes with. The first flush sends the
// header.
func (w *Writer) FlushError() error {
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
	_ http.ResponseWriter = (*Writer)(nil)
	_ http.Pusher         = (*Writer)(nil)
	_ io.ReaderFrom       = (*Writer)(nil)
)

// readableBy returns those headers of an origin's answer that say which pages may
// read it.
func readableBy(header http.Header) http.Header {
	some := make(http.Header)
	for name, values := range header {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			some[name] = values
		}
	}
	return some
}
