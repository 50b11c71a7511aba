package ssefanout

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/origin"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// The wrapping form asks the site. Its upstream request is that of a stranger: it
// is made from the topic's key alone, enters the site at its front door, in
// process, and passes everything that a client's request passes: matchers, handle
// blocks, rewrites, variables, access control. A shared stream is therefore what
// the whole site gives to a stranger who sends this key (R1).
//
// The request arrives when it reaches a handler with the pool of the topic. That
// handler calls its next handler with the topic's own response writer. What the
// handlers in front do to the stranger's response is not used.

// A frontDoor is where requests enter the site that a handler of the wrapping form
// stands in.
type frontDoor interface {
	// enter serves a request.
	enter(w http.ResponseWriter, r *http.Request)

	// surroundings tells what stands in front of h and behind it.
	surroundings(h *Handler) *survey.Surroundings

	// isActive reports whether the site is that of the active configuration.
	isActive() bool
}

// serverDoor is the front door of a handler that Caddy has provisioned.
type serverDoor struct{ server *caddyhttp.Server }

func (d serverDoor) enter(w http.ResponseWriter, r *http.Request) { d.server.ServeHTTP(w, r) }

func (d serverDoor) surroundings(h *Handler) *survey.Surroundings {
	return survey.Around(d.server, h, survey.Vary{Headers: h.settings.VaryHeaders, Placeholders: h.settings.VaryPlaceholders, Strip: h.settings.Strip})
}

func (d serverDoor) isActive() bool {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return false
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		if server == d.server {
			return true
		}
	}
	return false
}

// An inquiry is one request of a stranger to a site.
type inquiry struct {
	upstream *upstream
	from     relay.Resumption // that the source is asked with
	answer   *origin.Answer

	// settles says that the shared connection is answered: where its stranger arrives is
	// the topic's home, which via names then.
	settles bool
	via     home

	// Owned by the goroutine that serves the request.
	arrived   bool
	err       error // of the source, once arrived
	elsewhere bool  // the request reached a handler with another pool
}

// inquiryKey is where the context of a stranger's request has its inquiry.
type inquiryKey struct{}

func inquiryOf(r *http.Request) *inquiry {
	q, _ := r.Context().Value(inquiryKey{}).(*inquiry)
	return q
}

// errElsewhere is what a handler answers to a stranger that is not its own.
var errElsewhere = caddyhttp.Error(http.StatusMisdirectedRequest,
	errors.New("serving a shared request of another sse_fanout"))

// A frontError is the error of an inquiry that has not arrived: the site has
// answered the stranger in front of the handler.
type frontError struct {
	status     int  // 0: it was aborted, or the site did not answer
	definite   bool // strangers are not led here
	retryAfter time.Duration
}

func (f *frontError) Error() string {
	if f.status == 0 {
		return "entering the site as a stranger: aborted in front of sse_fanout"
	}
	return fmt.Sprintf("entering the site as a stranger: answered with status %d in front of sse_fanout", f.status)
}

// enterSite sends the stranger's request for a topic into a site. It returns the
// error of the source, or a frontError.
func enterSite(ctx context.Context, door frontDoor, local net.Addr, q *inquiry) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	front := &frontWriter{header: make(http.Header), answered: cancel}
	r := q.upstream.request.Stranger(context.WithValue(ctx, inquiryKey{}, q), q.upstream.pool.opts.Stranger, local)
	defer func() {
		p := recover()
		switch aborted := p == http.ErrAbortHandler; { //nolint:errorlint // net/http compares so, too
		case q.arrived:
			err = q.err
		case p != nil && !aborted:
			err = fmt.Errorf("entering the site as a stranger: a handler in front of sse_fanout panicked: %v", p)
		default:
			err = front.answer(q.elsewhere || aborted)
		}
	}()
	door.enter(front, r)
	return nil
}

// serve is called when the stranger has reached h: it asks the source, which is
// next. Handlers in front get neither its response nor its error.
func (q *inquiry) serve(h *Handler, r *http.Request, next caddyhttp.Handler) error {
	if q.arrived {
		// A second line of this module, behind the one that shares.
		return next.ServeHTTP(q.answer, r)
	}
	if !h.wraps() || h.lineage.poolOf(h) != q.upstream.pool || h.surroundings().Never != "" {
		q.elsewhere = true
		return errElsewhere
	}
	q.arrived = true
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	if q.err = q.upstream.arrive(h, r, q); q.err != nil {
		return nil
	}
	q.upstream.request.Apply(r)
	request.Resume(r, q.from)
	q.answer.Asked(r)
	q.err = origin.Serve(next, q.answer, r)
	return nil
}

// localAddr is the local address of a request that came over no connection: that
// of the server's first listener.
func localAddr(server *caddyhttp.Server) net.Addr {
	local := &net.TCPAddr{IP: net.IPv4zero}
	if server == nil || len(server.Listen) == 0 {
		return local
	}
	address, err := caddy.ParseNetworkAddress(server.Listen[0])
	if err != nil {
		return local
	}
	local.Port = int(address.StartPort)
	if ip := net.ParseIP(address.Host); ip != nil {
		local.IP = ip
	}
	return local
}

// A frontWriter takes what the site answers a stranger who has not arrived. The
// status is all that matters, so the request is cancelled when that is known: the
// answer may be an endless stream of another block.
type frontWriter struct {
	header   http.Header
	status   int
	answered context.CancelFunc
}

func (f *frontWriter) Header() http.Header { return f.header }

func (f *frontWriter) WriteHeader(status int) {
	if f.status == 0 && status >= 200 {
		f.status = status
		f.answered()
	}
}

func (f *frontWriter) Write(p []byte) (int, error) {
	f.WriteHeader(http.StatusOK)
	return len(p), nil
}

// FlushError sends the header, as it does in net/http.
func (f *frontWriter) FlushError() error {
	f.WriteHeader(http.StatusOK)
	return nil
}

// A server sets deadlines for the requests of its clients. A stranger has none.

// SetReadDeadline does nothing.
func (f *frontWriter) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (f *frontWriter) SetWriteDeadline(time.Time) error { return nil }

// answer returns what the site has answered. An empty response is Caddy's 200.
func (f *frontWriter) answer(definite bool) *frontError {
	status := f.status
	if status == 0 && !definite {
		status = http.StatusOK
	}
	v := origin.Judge(status, f.header)
	return &frontError{
		status:     status,
		definite:   definite || v != relay.Unavailable,
		retryAfter: origin.RetryAfter(f.header, time.Now()),
	}
}
