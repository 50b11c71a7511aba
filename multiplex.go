package ssefanout

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/conns"
	"github.com/sse-fanout/caddy-sse-fanout/internal/cors"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex/browser"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

func init() {
	caddy.RegisterModule(&Multiplex{})
}

// Multiplex answers a request with several event streams of its site over one connection.
// A browser has six connections to a host over HTTP/1.1, for all tabs together.
//
// Each parameter of the query names a stream, by an alias and a path of this site with its
// query, encoded: `?prices=/events/prices&chat=/events/room/7`. For each, a request with the
// client's own header, cookies and address goes through the site, as if the client had sent
// it. Where an `sse_fanout` shares it, the connection reads the topic's history, and costs no
// goroutine for that. Where one passes it one to one, or another handler answers with an event
// stream, that is this client's alone.
//
// The type of each event is that of the origin behind the alias and a slash:
// `prices/message`, `chat/joined`. Events of the connection itself are
//
// Event | Data | Meaning
// ------|------|--------
// `<alias>/open` | `{}` | The stream has begun
// `<alias>/gap` | `{}` | Events may be missing here
// `<alias>/end` | `{"retry":3000}` | The stream has ended, and is asked for again after so many milliseconds
// `<alias>/error` | `{"status":403}` | The stream was refused with this status, for good. It is 403 as well if its answer does not let the page of another site read it, 200 if it was no event stream, 400 for a path that leads to this handler
//
// An event of the origin of one of these types, or of one that begins with `~`, has a `~` in
// front of its type: `prices/~error`.
//
// The id of an event has the positions of all streams. A client that comes back with it, for
// these streams or others, misses nothing of those that it has followed. The id may also be
// given in the query, as `lastEventId`.
//
// Below its path, the handler serves `client.js`, an ES module that exports an `EventSource`
// with the interface of the browser's own, whose instances share one connection over all tabs
// of the browser.
//
// ### Placeholders
//
// Placeholder | Description
// ------------|-------------
// `{http.sse_multiplex.connection}` | The number of the connection, as in the admin API
// `{http.sse_multiplex.streams}` | How many streams were asked for
// `{http.sse_multiplex.reason}` | Why the connection has ended, once it has: as in `{http.sse_fanout.reason}`
// `{http.sse_multiplex.alias}` | In the request for a stream, once an `sse_fanout` has it: its alias
type Multiplex struct {
	MultiplexOptions

	settings *settings.Multiplex // with defaults
	logger   *zap.Logger
	server   *caddyhttp.Server
	door     site.Door // of server
	sockets  carrier.Sockets
	cors     cors.Policy
	files    browser.Files
	service  carrier.Service
	group    *multiplexGroup
	notices  observe.Notices
	before   func() survey.Before // what the site may have changed of requests that have come here
}

// CaddyModule returns the Caddy module information.
func (*Multiplex) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_multiplex",
		New: func() caddy.Module { return new(Multiplex) },
	}
}

// Provision sets up h.
func (h *Multiplex) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	h.door = site.NewDoor(h.server, h, nil)
	h.before = sync.OnceValue(func() survey.Before { return survey.ChangedBefore(h.server, h) })
	if err := observe.Register(ctx.GetMetricsRegistry(), process{}); err != nil {
		return err
	}
	if h.server != nil {
		conns.Watch(h.server, endAllIfExiting)
		h.server.RegisterOnShutdown(endConnsIfExiting)
	}
	return h.join()
}

// join fills in the defaults, and joins those handlers that this one replaces.
func (h *Multiplex) join() error {
	definition, err := definition(h)
	if err != nil {
		return err
	}
	h.settings = h.WithDefaults()
	if h.cors, err = cors.New(h.CORSOrigins); err != nil {
		return err
	}
	h.files = browser.New(h.settings.MaxStreams)
	if h.sockets == nil {
		h.sockets = carrier.Kernel{}
	}
	h.group = joinGroup(atAddresses(h.server, definition), h)
	h.service = carrier.Service{
		Timeout:   time.Duration(h.settings.DispatchTimeout),
		Direct:    h.group.direct,
		HandsOver: h.settings.Direct != "off",
		Sockets:   h.sockets,
	}
	return nil
}

// Validate reports settings that cannot be used.
func (h *Multiplex) Validate() error { return h.MultiplexOptions.Validate() }

// Cleanup lets go of the connections. They go on if a newer configuration has the same
// handler, and are ended otherwise.
func (h *Multiplex) Cleanup() error {
	if h.group != nil {
		h.group.leave(h)
	}
	return nil
}

// ServeHTTP serves a connection, or the module for browsers.
func (h *Multiplex) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h.group.serves(h)
	if h.cors.AnswersPreflight(r) {
		return h.cors.ServePreflight(w, r)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return h.refuse(w, r, http.StatusMethodNotAllowed, fmt.Errorf("the method must be GET, not %s", r.Method))
	}
	if name := path.Base(r.URL.Path); browser.Has(name) {
		h.cors.Apply(w.Header(), r)
		h.files.Serve(w, r, name)
		return nil
	}
	if multiplex.IsInner(r) {
		return h.refuse(w, r, http.StatusBadRequest, errors.New("the path of a stream leads to sse_multiplex again: name the streams themselves"))
	}
	from := originOf(r)
	if from.foreign && !h.cors.Admits(from.origin) {
		return h.refuse(w, r, http.StatusForbidden, errors.New("the page of another site may not read the streams: name its origin in cors_origins"))
	}
	opts, err := h.optionsFor(r)
	if err != nil {
		return h.refuse(w, r, http.StatusBadRequest, err)
	}
	if r.Method == http.MethodHead {
		h.writeHeader(w, r)
		return nil
	}
	return h.serve(w, r, opts, from)
}

// optionsFor reads what a request asks for.
func (h *Multiplex) optionsFor(r *http.Request) (*multiplex.Options, error) {
	streams, err := multiplex.ParseQuery(r.URL.RawQuery, h.settings.MaxStreams, func(name string) bool { return relay.IDParams[name] })
	if err != nil {
		return nil, err
	}
	opts := &multiplex.Options{
		Streams:        streams,
		Heartbeat:      max(0, time.Duration(h.settings.Heartbeat)),
		HeartbeatWords: sse.AppendComment(nil, ""),
		Retry:          time.Duration(h.settings.Retry),
		Spread:         time.Duration(h.settings.StreamCloseDelay),
		MaxEventSize:   int(h.settings.MaxEventSize),
		Stats:          &counted.Multiplex,
	}
	opts.Positions, err = multiplex.ParseID(request.ClaimOf(r).ID)
	if errors.Is(err, multiplex.ErrIDTooLong) {
		return nil, err
	}
	// An id that tells nothing is not as if there were none: events may be missing.
	opts.Lost = err != nil
	return opts, nil
}

// serve serves a connection until it ends.
func (h *Multiplex) serve(w http.ResponseWriter, r *http.Request, opts *multiplex.Options, from pageOrigin) error {
	inner, err := h.newInnerRequests(r)
	if err != nil {
		return err
	}
	opts.Base = inner.base
	group := h.group // the connection may outlive h
	opts.Ask = func(a *multiplex.Asking, w http.ResponseWriter) {
		if door := group.door(); door != nil {
			door.Enter(w, inner.request(a))
		} else {
			a.TurnAway(opts.Retry) // the connection is about to end
		}
	}
	opts.Admits = from.admitted
	opts.Panicked = panicLogger(h.logger)
	address := request.CountedAddress(request.ClientIP(r))
	if why := h.group.reserve(address, &h.settings.MaxConnections); why != "" {
		return h.turnAway(w, r, why)
	}
	if h.service.Detachable(w, r) {
		opts.Adopt = func(source direct.Source) (*direct.Solo, error) { return h.service.Adopt(w, r, source) }
		opts.Kept = func(why error) { h.logger.Debug("delivering over the HTTP server", zap.Error(why)) }
	}
	conn := multiplex.New(opts, h.service.NewOutput(w, r))
	opts.Ended = func(relay.EndReason) {
		group.exit(conn)
		group.release(address)
	}
	h.group.enter(conn)
	observe.BeginConnection(r, conn.Number(), len(opts.Streams))
	carrier.CloseIfUnread(w, r)
	h.writeHeader(w, r)
	reason, abort := conn.Serve(r.Context().Done())
	if reason == "" {
		reason = observe.ReasonHandedOver
	}
	observe.DescribeConnection(r, conn.Number(), len(opts.Streams), string(reason))
	if abort {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// panicLogger returns what logs a panic of a handler in the request for a stream, or of direct
// delivery, as net/http does of a handler's.
func panicLogger(logger *zap.Logger) func(value any) {
	return func(value any) {
		logger.Error("a request for a stream, or the delivery of streams, has panicked",
			zap.Any("panic", value), zap.Stack("stack"))
	}
}

// writeHeader sends the header of a connection.
func (h *Multiplex) writeHeader(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	h.cors.Apply(header, r)
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("Incremental", "?1")
	w.WriteHeader(http.StatusOK)
}

// turnAway answers a client for which a limit leaves no room.
func (h *Multiplex) turnAway(w http.ResponseWriter, r *http.Request, why relay.Rejection) error {
	if n, due := h.notices.Count(why, 1); due {
		h.logger.Warn("turning connections away, as a limit is reached",
			zap.String("reason", string(why)),
			zap.Uint64("connections", n))
	}
	counted.Multiplex.Rejected.Add(1)
	output := h.service.NewOutput(w, r)
	h.writeHeader(w, r)
	_ = output.Write(false, append(relay.AppendRetryField(nil, relay.TurnAwayDelay()), '\n'))
	output.Last()
	output.Close(relay.EndClientGone)
	return nil // the header is out: an error page would end up in the stream
}

// refuse answers a request that cannot be served, in words for whoever writes the page.
func (h *Multiplex) refuse(w http.ResponseWriter, r *http.Request, status int, why error) error {
	header := w.Header()
	h.cors.Apply(header, r)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	body := "sse_multiplex: " + why.Error() + "\n"
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(body)) //nolint:gosec // it is plain text, and said to be
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Multiplex)(nil)
	_ caddy.Validator             = (*Multiplex)(nil)
	_ caddy.CleanerUpper          = (*Multiplex)(nil)
	_ caddyhttp.MiddlewareHandler = (*Multiplex)(nil)
)
