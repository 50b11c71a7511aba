// Package demo is a small stage on which sse_fanout can be watched: an origin
// that can hold five connections and no more, a page that shows what reaches
// it, and as many clients as the visitor asks for. Only cmd/caddy carries it;
// the module itself neither knows nor needs it.
//
// It registers two handlers, each with a directive of the same name:
//
//	sse_demo_origin   the origin: /sentences, /clock, /status
//	sse_demo_page     the page, its numbers, and what its buttons do
//
// The origin is one for the whole process, so that a reload neither forgets it
// nor splits it: streams of the old configuration go on after a reload and keep
// their place in it.
package demo

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Origin))
	caddy.RegisterModule(new(Page))

	httpcaddyfile.RegisterHandlerDirective("sse_demo_origin", parseOrigin)
	httpcaddyfile.RegisterHandlerDirective("sse_demo_page", parsePage)

	// They answer, and stand after reverse_proxy so that sse_fanout, which stands
	// before it, can share what they send.
	httpcaddyfile.RegisterDirectiveOrder("sse_demo_origin", httpcaddyfile.Before, "file_server")
	httpcaddyfile.RegisterDirectiveOrder("sse_demo_page", httpcaddyfile.Before, "file_server")
}

var theOrigin = newOrigin(time.Now())

// exit is closed when the process is about to leave, so that streams end by
// themselves: Caddy waits for open responses before it cleans anything up, and
// with the default grace period it would wait for as long as one of them runs.
type exit struct {
	closed chan struct{}
	once   sync.Once
}

// watch makes the exit known to the server that ctx belongs to, if any. A
// reload stops the old servers too, but leaves their open responses alone; so
// do we. The functions are run as the exit begins.
func (e *exit) watch(ctx caddy.Context, funcs ...func()) {
	e.closed = make(chan struct{})
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return
	}
	srv.RegisterOnShutdown(func() {
		if !caddy.Exiting() {
			return
		}
		e.once.Do(func() { close(e.closed) })
		for _, f := range funcs {
			f()
		}
	})
}

// startStream sends the headers of an event stream and the first bytes of its
// body at once, so that the client knows that it is connected.
func startStream(w http.ResponseWriter, first string) (*http.ResponseController, error) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	if _, err := w.Write([]byte(first)); err != nil {
		return rc, err
	}
	return rc, rc.Flush()
}
