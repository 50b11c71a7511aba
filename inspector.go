package ssefanout

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/arguments"
	"github.com/sse-fanout/caddy-sse-fanout/internal/inspector"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
)

func init() {
	caddy.RegisterModule(&Inspector{})
	httpcaddyfile.RegisterHandlerDirective("sse_inspector", parseInspector)

	// It answers by itself, so it comes before what answers the rest of the
	// site, and after what decides who may see it.
	httpcaddyfile.RegisterDirectiveOrder("sse_inspector", httpcaddyfile.After, "metrics")
}

// Inspector serves a page with which a person can look at event streams: at any
// one that a browser can reach, event by event, and at the topics that this
// Caddy shares.
//
// **It tells whoever can open it what is shared here, and how many listen.**
// Access control belongs in front of it, such as `basic_auth`. Queries and the
// values of `vary` are never shown; the paths of topics and their last event ids
// are.
//
// The page may be anywhere in a site: what stands before the last slash of a
// path is not looked at. It sends its requests from the browser of the one who
// looks at it, so it can read what that browser can, and nothing else.
type Inspector struct {
	// The origins (`https://app.example.com`) whose streams the page may read,
	// beside those of its own, by its Content-Security-Policy. A leading `*.`
	// stands for all subdomains, `*` for everything. That they allow it is for
	// them to say (`cors_origins`). Default: none.
	Connect []string `json:"connect,omitempty"`

	page inspector.Page

	// topics shares the stream of snapshots among all who look at it: what this
	// module does for others, it does for itself.
	topics *Handler
}

// CaddyModule returns the Caddy module information.
func (*Inspector) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_inspector",
		New: func() caddy.Module { return new(Inspector) },
	}
}

const (
	// snapshotEvery is how often the topics are looked at while somebody
	// listens.
	snapshotEvery = time.Second

	// snapshotLinger is how much longer.
	snapshotLinger = 5 * time.Second

	// snapshotHistory is how many snapshots a newcomer gets at once, so that it
	// sees what has been, if somebody has listened.
	snapshotHistory = 60

	// snapshotName is the name of the file, and snapshotHost stands for whatever
	// host the page was asked for at: it makes no difference.
	snapshotName = "topics"
	snapshotHost = "sse_inspector"
)

// snapshotLineage tells the handlers of inspectors from all that a
// configuration could have.
var snapshotLineage = "sse_inspector " + rand.Text()

// Provision sets up h.
func (h *Inspector) Provision(ctx caddy.Context) error {
	return h.provision(ctx, snapshotTopics(snapshotEvery, snapshotLinger))
}

func (h *Inspector) provision(ctx caddy.Context, topics *Handler) error {
	h.page.Connect = h.Connect
	h.topics = topics
	return h.topics.Provision(ctx)
}

// snapshotTopics returns what shares the stream of snapshots, to be provisioned.
func snapshotTopics(every, linger time.Duration) *Handler {
	return &Handler{
		Options: Options{
			Name:       snapshotLineage,
			FirstEvent: fmt.Sprint(snapshotHistory),
			History:    History{Events: snapshotHistory, Age: caddy.Duration(2 * snapshotHistory * every)},
			// No snapshot is worth asking for again.
			Catchup: Catchup{Connections: -1},
			// The time that it takes to load the page again.
			Linger: Linger{Duration: caddy.Duration(linger)},
			Retry:  caddy.Duration(time.Second),
		},
		instance: instance{source: snapshots{every}},
	}
}

// Validate reports settings that cannot be used.
func (h *Inspector) Validate() error {
	for _, source := range h.Connect {
		if err := inspector.CheckSource(source); err != nil {
			return fmt.Errorf("checking connect: %w", err)
		}
	}
	return h.topics.Validate()
}

// Cleanup lets go of the stream of snapshots, which goes on if a newer
// configuration has inherited it.
func (h *Inspector) Cleanup() error {
	if h.topics == nil {
		return nil
	}
	return h.topics.Cleanup()
}

// ServeHTTP serves a file of the page, or the snapshots.
func (h *Inspector) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h.page.Guard(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, fmt.Sprintf("The inspector answers GET and HEAD, not %s.", r.Method), http.StatusMethodNotAllowed)
		return nil
	}
	if to := directoryOf(r); to != "" {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusPermanentRedirect)
		return nil
	}
	if path.Base(r.URL.Path) == snapshotName {
		return h.serveSnapshots(w, r)
	}
	h.page.ServeHTTP(w, r)
	return nil
}

// directoryOf returns where the page is, relative to what was asked for, if the
// slash at the end is missing and an earlier directive has taken the rest away:
// the page's own URLs would be wrong.
func directoryOf(r *http.Request) string {
	if r.URL.Path != "" && r.URL.Path != "/" {
		return ""
	}
	orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok || strings.HasSuffix(orig.URL.Path, "/") {
		return ""
	}
	return "./" + url.PathEscape(path.Base(orig.URL.Path)) + "/"
}

// serveSnapshots shares the stream of snapshots. Where the page is and what its
// request carries make no difference to them, so there is one topic for all.
func (h *Inspector) serveSnapshots(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return nil
	}
	shared := r.Clone(r.Context())
	shared.Host = snapshotHost
	shared.URL = &url.URL{Path: "/" + snapshotName}
	shared.Body, shared.ContentLength, shared.TransferEncoding = http.NoBody, 0, nil
	shared.Header.Del("Upgrade")
	shared.Header.Del("Range")
	shared.Header.Del("Origin") // no page of another site may read them, whichever it is
	if why := pass.Why(shared, h.topics.settings, h.topics.surroundings); why != "" {
		return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("sharing the topics: %w", why))
	}
	return h.topics.ServeHTTP(w, shared, nil)
}

// snapshots is the source of the stream of snapshots.
type snapshots struct{ every time.Duration }

// ServeHTTP sends snapshots until the topic has no subscribers left.
func (s snapshots) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	var seen view.Watcher
	for {
		now := time.Now()
		data, err := json.Marshal(seen.Look(now, topicsOf("")))
		if err != nil {
			return fmt.Errorf("encoding a snapshot: %w", err)
		}
		if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", now.UnixMilli(), data); err != nil {
			return err
		}
		if err := control.Flush(); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return nil
		}
	}
}

func parseInspector(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Inspector)
	return h, h.UnmarshalCaddyfile(helper.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_inspector [<matcher>] {
//	    connect <origin...>|*
//	}
//
// "connect" names the origins whose streams the page may read beside those of
// its own, such as https://app.example.com, or "*" for all.
//
// Access control belongs in front of it:
//
//	basic_auth /inspector/* {
//	    alice <hash>
//	}
//	sse_inspector /inspector/*
func (h *Inspector) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive name
	if d.NextArg() {
		return d.Errf("unexpected argument %q; expected: sse_inspector [<matcher>] { connect <origin...>|* }", d.Val())
	}
	for d.NextBlock(0) {
		if d.Val() != "connect" {
			return d.Errf("unrecognized subdirective %s: sse_inspector has only connect", d.Val())
		}
		if h.Connect != nil {
			return d.Err("connect is already set: it can be given only once")
		}
		args := arguments.New(d, "connect")
		h.Connect = args.Texts()
		args.End()
		for _, source := range h.Connect {
			if err := inspector.CheckSource(source); err != nil {
				args.Fail("%w", err)
			}
		}
		if args.Err != nil {
			return d.Errf("%w; expected: connect <origin...>|*", args.Err)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Inspector)(nil)
	_ caddy.Validator             = (*Inspector)(nil)
	_ caddy.CleanerUpper          = (*Inspector)(nil)
	_ caddyhttp.MiddlewareHandler = (*Inspector)(nil)
	_ caddyfile.Unmarshaler       = (*Inspector)(nil)
)
