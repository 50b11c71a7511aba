package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Origin is a small event-stream origin, as a tutorial would write one, with a
// limit on its connections, as a pool of workers would set one.
//
//	GET /sentences   a sentence a second, numbered; honours Last-Event-ID
//	GET /clock       the time, each second, without ids
//	GET /status      its connections, as JSON
//
// A stream beyond the limit, or while the origin restarts, is refused with 503
// and Retry-After. All handlers of this kind in a process are one origin.
type Origin struct {
	// How many streams the origin can hold at once. Set it as low as the real
	// thing that you have in mind: a development server holds one, a pool of
	// workers as many as it has workers. The handler that was configured last
	// sets it for the process.
	// Default: 5
	MaxConnections int `json:"max_connections,omitempty"`

	origin *origin
	exit   exit
	mux    *http.ServeMux
}

const (
	defaultMaxConnections = 5
	maxMaxConnections     = 10000

	// downtime is how long a restart takes.
	downtime = 3 * time.Second

	// fullRetryAfter is when to come back to an origin that is full. When
	// there will be room nobody knows, so this is a guess, as it always is.
	fullRetryAfter = 5 * time.Second

	// streamStart asks clients to come back one second after they lost their
	// connection.
	streamStart = "retry: 1000\n\n"
)

// CaddyModule returns the Caddy module information.
func (*Origin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_demo_origin",
		New: func() caddy.Module { return new(Origin) },
	}
}

// Provision sets up h.
func (h *Origin) Provision(ctx caddy.Context) error {
	if h.MaxConnections == 0 {
		h.MaxConnections = defaultMaxConnections
	}
	if h.MaxConnections < 1 || h.MaxConnections > maxMaxConnections {
		return fmt.Errorf("checking max_connections: %d is not between 1 and %d", h.MaxConnections, maxMaxConnections)
	}
	if h.origin == nil {
		h.origin = theOrigin
	}
	h.origin.setLimit(h.MaxConnections)
	h.exit.watch(ctx)

	h.mux = http.NewServeMux()
	h.mux.HandleFunc("GET /sentences", h.stream(h.sentences))
	h.mux.HandleFunc("GET /clock", h.stream(h.clock))
	h.mux.HandleFunc("GET /status", h.status)
	return nil
}

func (h *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h.mux.ServeHTTP(w, r)
	return nil
}

// stream answers with what tell sends, on one of the origin's connections.
// tell sends what is due at now and says when there will be more.
func (h *Origin) stream(start func(r *http.Request) tell) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Type", "text/event-stream")
			return
		}
		restarted, wait, err := h.origin.connect()
		if err != nil {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer h.origin.disconnect()

		rc, err := startStream(w, streamStart)
		if err != nil {
			return
		}
		tell := start(r)
		var buf []byte
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-restarted:
				// A process that is killed does not finish its responses.
				panic(http.ErrAbortHandler)
			case <-h.exit.closed:
				return
			case <-r.Context().Done():
				return
			}
			var next time.Time
			buf, next = tell(buf[:0], time.Now())
			if len(buf) > 0 {
				if _, err := w.Write(buf); err != nil {
					return
				}
				if err := rc.Flush(); err != nil {
					return
				}
			}
			timer.Reset(time.Until(next))
		}
	}
}

// tell appends the events that are due at now to dst, and says when the next
// one will be.
type tell func(dst []byte, now time.Time) (events []byte, next time.Time)

func (h *Origin) sentences(r *http.Request) tell {
	b := h.origin.broadcast
	n := b.next(r.Header.Get("Last-Event-ID"), time.Now())
	return func(dst []byte, now time.Time) ([]byte, time.Time) {
		for newest := b.newest(now); n <= newest; n++ {
			dst = appendSentence(dst, n)
		}
		return dst, b.due(n)
	}
}

// clock tells the time. A time that has passed is of no use to anyone, so its
// events have no ids.
func (h *Origin) clock(*http.Request) tell {
	return func(dst []byte, now time.Time) ([]byte, time.Time) {
		dst = append(dst, "data: "...)
		dst = now.UTC().AppendFormat(dst, time.TimeOnly)
		return append(dst, " UTC\n\n"...), now.Truncate(time.Second).Add(time.Second)
	}
}

func (h *Origin) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, h.origin.status())
}

// origin is what all Origin handlers of the process share.
type origin struct {
	broadcast broadcast

	// Guarded by mu
	mu        sync.Mutex
	now       originStatus
	downUntil time.Time
	restarted chan struct{} // closed by the next restart
}

type originStatus struct {
	Connections int  `json:"connections"` // held now
	Highest     int  `json:"highest"`     // most held at any moment
	Limit       int  `json:"limit"`
	Served      int  `json:"served"` // connections accepted since the start
	Down        bool `json:"down"`
}

var (
	errFull = errors.New("all connections of this origin are in use")
	errDown = errors.New("this origin is restarting")
)

func newOrigin(now time.Time) *origin {
	return &origin{
		broadcast: newBroadcast(now),
		now:       originStatus{Limit: defaultMaxConnections},
		restarted: make(chan struct{}),
	}
}

func (o *origin) setLimit(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now.Limit = n
}

// connect takes one of the origin's connections, to be given back with
// disconnect. restarted is closed when it must end. A refusal says when to ask
// again.
func (o *origin) connect() (restarted <-chan struct{}, wait time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if wait := time.Until(o.downUntil); wait > 0 {
		return nil, wait, errDown
	}
	if o.now.Connections >= o.now.Limit {
		return nil, fullRetryAfter, errFull
	}
	o.now.Connections++
	o.now.Served++
	o.now.Highest = max(o.now.Highest, o.now.Connections)
	return o.restarted, 0, nil
}

func (o *origin) disconnect() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now.Connections--
}

// restart ends all connections and refuses new ones for as long as a restart
// takes. To restart what is restarting changes nothing.
func (o *origin) restart() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Until(o.downUntil) > 0 {
		return
	}
	o.downUntil = time.Now().Add(downtime)
	close(o.restarted)
	o.restarted = make(chan struct{})
}

func (o *origin) status() originStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.now
	s.Down = time.Until(o.downUntil) > 0
	return s
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// Nothing is left to be done for a client that is gone.
	_ = json.NewEncoder(w).Encode(v)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Origin)(nil)
	_ caddyhttp.MiddlewareHandler = (*Origin)(nil)
)
