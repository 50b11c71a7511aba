package oracle

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// An origin answers every request with an event stream, each event of which says
// what the site has made of the request that the stream answers: its fingerprint.
// Nothing that depends on the client alone is part of it.
type origin struct {
	name string
	addr string
	fcgi string // address of the same origin over FastCGI

	mu      sync.Mutex
	streams map[chan int]bool
	opened  int
}

func newOrigin(t testing.TB, name string) *origin {
	t.Helper()
	o := &origin{name: name, streams: make(map[chan int]bool)}
	server := httptest.NewServer(o)
	o.addr = server.Listener.Addr().String()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.fcgi = listener.Addr().String()
	go fcgi.Serve(listener, o) //nolint:errcheck // it ends with the listener
	t.Cleanup(func() { listener.Close() })
	return o
}

// siteHeaders are the headers that sites of these tests set on requests.
var siteHeaders = []string{"X-Site", "X-Role", "X-Flavor", "X-Forwarded-Proto", "X-Forwarded-Host"}

func (o *origin) fingerprint(r *http.Request) string {
	parts := []string{o.name, r.Host, r.URL.RequestURI()}
	for _, name := range siteHeaders {
		if value := r.Header.Get(name); value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	if language := r.Header.Get("Accept-Language"); strings.HasPrefix(language, "site-") {
		parts = append(parts, "language="+language)
	}
	// The case of a host's name means nothing (RFC 3986, section 3.2.2).
	return strings.ReplaceAll(strings.Join(parts, " "), "A.EXAMPLE", "a.example")
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/auth") {
		o.authorize(w, r)
		return
	}
	ticks := make(chan int, 100)
	o.mu.Lock()
	o.streams[ticks] = true
	o.opened++
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.streams, ticks)
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w).Flush
	fmt.Fprintf(w, "event: hello\ndata: %s\n\n", o.fingerprint(r))
	for {
		if flush() != nil {
			return
		}
		select {
		case n := <-ticks:
			fmt.Fprintf(w, "data: tick %d %s\n\n", n, o.fingerprint(r))
		case <-r.Context().Done():
			return
		}
	}
}

// authorize is what forward_auth asks. It lets in whoever has a certain cookie, or
// comes from 127.0.0.2.
func (o *origin) authorize(w http.ResponseWriter, r *http.Request) {
	cookie, _ := r.Cookie("session")
	switch {
	case cookie != nil:
		w.Header().Set("X-Role", "member-"+cookie.Value)
	case r.Header.Get("X-Forwarded-For") == "127.0.0.2":
		w.Header().Set("X-Role", "neighbour")
	case r.URL.Query().Has("open"):
	default:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "who are you?")
	}
}

// tick makes every stream of the origin send its nth event.
func (o *origin) tick(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ticks := range o.streams {
		ticks <- n
	}
}

// connections returns how many streams have been opened.
func (o *origin) connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opened
}
