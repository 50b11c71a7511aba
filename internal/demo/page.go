package demo

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Page serves the page of the demo, its numbers, and what its buttons do.
//
//	GET    /               the page
//	GET    /demo/stats     its numbers, as an event stream
//	POST   /demo/clients   opens more clients: {"n": 10}
//	DELETE /demo/clients   closes them
//	POST   /demo/restart   restarts the origin
//
// The page expects the streams of the origin at /events/ of the same site, and sse_multiplex
// at /streams.
type Page struct {
	// Where the clients that the page opens connect to: the URL of a stream
	// on this same site. Without it, the page has no such button.
	Clients string `json:"clients,omitempty"`

	// How many such clients there may be. Each costs this process two ends of
	// a connection.
	// Default: 1000
	MaxClients int `json:"max_clients,omitempty"`

	origin *origin
	count  func() int // of subscribers
	shared func() int // connections of several streams
	crowd  *crowd
	exit   exit
	mux    *http.ServeMux
}

const (
	defaultMaxClients = 1000
	maxMaxClients     = 10000

	// maxClientsAtOnce bounds what one press of the button can ask for.
	maxClientsAtOnce = 100

	// statsEvery is how often the numbers are looked at. They are sent only
	// when they have changed.
	statsEvery = 250 * time.Millisecond

	// contentSecurityPolicy keeps the promise that the page needs nothing
	// from elsewhere.
	contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; worker-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

//go:embed page
var pageFiles embed.FS

// crowds keeps the clients over a reload. The key is a crowdKey.
var crowds = caddy.NewUsagePool()

// sameOrigin lets only our own page press its buttons.
var sameOrigin = http.NewCrossOriginProtection()

type crowdKey struct {
	url   string
	limit int
}

// CaddyModule returns the Caddy module information.
func (*Page) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_demo_page",
		New: func() caddy.Module { return new(Page) },
	}
}

// Provision sets up h.
func (h *Page) Provision(ctx caddy.Context) error {
	if h.MaxClients == 0 {
		h.MaxClients = defaultMaxClients
	}
	if h.MaxClients < 1 || h.MaxClients > maxMaxClients {
		return fmt.Errorf("checking max_clients: %d is not between 1 and %d", h.MaxClients, maxMaxClients)
	}
	if h.Clients != "" {
		if err := checkClientsURL(h.Clients); err != nil {
			return err
		}
	}
	if h.origin == nil {
		h.origin = theOrigin
	}
	if h.count == nil {
		registry := ctx.GetMetricsRegistry()
		h.count = func() int { return gaugeOf(registry, subscribersMetric) }
		h.shared = func() int { return gaugeOf(registry, connectionsMetric) }
	}

	var onExit []func()
	if h.Clients != "" {
		shared, _, err := crowds.LoadOrNew(h.crowdKey(), func() (caddy.Destructor, error) {
			return newCrowd(h.Clients, h.MaxClients)
		})
		if err != nil {
			return fmt.Errorf("preparing clients: %w", err)
		}
		h.crowd = shared.(*crowd)
		// Their requests are open responses too, for which Caddy would wait.
		onExit = append(onExit, h.crowd.close)
	}
	h.exit.watch(ctx, onExit...)

	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		return fmt.Errorf("opening page: %w", err)
	}
	h.mux = http.NewServeMux()
	h.mux.Handle("GET /", h.files(http.FileServerFS(files)))
	h.mux.HandleFunc("GET /demo/stats", h.stats)
	h.mux.HandleFunc("POST /demo/clients", h.openClients)
	h.mux.HandleFunc("DELETE /demo/clients", h.closeClients)
	h.mux.HandleFunc("POST /demo/restart", h.restart)
	return nil
}

// Cleanup releases the clients.
func (h *Page) Cleanup() error {
	if h.crowd == nil {
		return nil
	}
	if _, err := crowds.Delete(h.crowdKey()); err != nil {
		return fmt.Errorf("closing clients: %w", err)
	}
	return nil
}

func (h *Page) crowdKey() crowdKey { return crowdKey{h.Clients, h.MaxClients} }

func (h *Page) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	// Any page that the visitor has open could press our buttons otherwise.
	if err := sameOrigin.Check(r); err != nil {
		return caddyhttp.Error(http.StatusForbidden, err)
	}
	h.mux.ServeHTTP(w, r)
	return nil
}

// checkClientsURL accepts what the crowd can talk to: this same Caddy, over
// plain HTTP.
func checkClientsURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("parsing clients: %w", err)
	}
	if u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("checking clients: %q is not an http:// URL with a host", s)
	}
	return nil
}

func (h *Page) files(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", contentSecurityPolicy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		// The files change with the binary and carry no date.
		w.Header().Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

// stats is what the page shows. Each event holds all of it, so that whoever
// joins needs the newest one only.
type stats struct {
	Clients int          `json:"clients"`
	Origin  originStatus `json:"origin"`
	Crowd   crowdStatus  `json:"crowd"`

	// Connections are those of several streams.
	Connections int `json:"connections,omitempty"`
}

func (h *Page) snapshot() stats {
	s := stats{Clients: h.count(), Origin: h.origin.status()}
	if h.shared != nil {
		s.Connections = h.shared()
	}
	if h.crowd != nil {
		s.Crowd = h.crowd.status()
	}
	return s
}

func (h *Page) stats(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	sent := h.snapshot()
	rc, err := startStream(w, streamStart+statsEvent(sent))
	if err != nil {
		return
	}
	ticker := time.NewTicker(statsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-h.exit.closed:
			return
		case <-r.Context().Done():
			return
		}
		now := h.snapshot()
		if now == sent {
			continue
		}
		if _, err := w.Write([]byte(statsEvent(now))); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		sent = now
	}
}

func statsEvent(s stats) string {
	// A struct of numbers always encodes.
	data, _ := json.Marshal(s)
	return "data: " + string(data) + "\n\n"
}

func (h *Page) openClients(w http.ResponseWriter, r *http.Request) {
	if h.crowd == nil {
		http.Error(w, "no clients are configured", http.StatusNotFound)
		return
	}
	var ask struct {
		N int `json:"n"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&ask); err != nil {
		http.Error(w, fmt.Sprintf("reading n: %v", err), http.StatusBadRequest)
		return
	}
	if ask.N < 1 || ask.N > maxClientsAtOnce {
		http.Error(w, fmt.Sprintf("checking n: %d is not between 1 and %d", ask.N, maxClientsAtOnce), http.StatusBadRequest)
		return
	}
	writeJSON(w, h.crowd.open(ask.N, r.Host))
}

func (h *Page) closeClients(w http.ResponseWriter, _ *http.Request) {
	if h.crowd == nil {
		http.Error(w, "no clients are configured", http.StatusNotFound)
		return
	}
	h.crowd.close()
	w.WriteHeader(http.StatusNoContent)
}

func (h *Page) restart(w http.ResponseWriter, _ *http.Request) {
	h.origin.restart()
	w.WriteHeader(http.StatusNoContent)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Page)(nil)
	_ caddy.CleanerUpper          = (*Page)(nil)
	_ caddyhttp.MiddlewareHandler = (*Page)(nil)
)
